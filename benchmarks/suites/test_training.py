"""What a training does over and over: scenes, pictures, batches, and one step of each network.

``extra_info`` has the pictures of one round, so that pictures a second can be had from the times.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from handmesh.graph import Topology
from handmesh.nn import build, from_dict
from handmesh_training import lanes
from handmesh_training.augment import Augmentation
from handmesh_training.losses import LossWeights
from handmesh_training.objective import objective
from handmesh_training.recipe import Recipe
from handmesh_training.rendered import HandRenderer, RenderSettings
from handmesh_training.sources import Batch, to_input
from handmesh_training.stream import CropStream
from handmesh_training.stream_settings import StreamSettings
from handmesh_training.surface import Surface
from handmesh_training.wholeness import HandEdges

SIZE, PICTURES = 128, 16


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def hands() -> HandRenderer:
    return HandRenderer(RenderSettings(crop_px=SIZE), seed=0)


@pytest.fixture(scope="module")
def batches() -> Iterator[Batch]:
    """Training batches as a run gets them, each picture used once."""
    settings = StreamSettings(
        batch=PICTURES,
        reuse=1.0,
        pool=2 * PICTURES,
        chunk=PICTURES,
        render=RenderSettings(crop_px=SIZE * 5 // 4),
        augment=Augmentation(input_size=SIZE),
    )
    return lanes.batches(CropStream(settings, seed=1), range(1), 1, workers=0)


def test_scenes(benchmark: BenchmarkFixture, hands: HandRenderer) -> None:
    numbers = iter(range(1_000_000))
    benchmark.extra_info["pictures"] = PICTURES
    assert len(benchmark(lambda: hands.scene(next(numbers), PICTURES))) == PICTURES


def test_renderer(benchmark: BenchmarkFixture, hands: HandRenderer) -> None:
    scene = hands.scene(0, PICTURES)
    benchmark.extra_info["pictures"] = PICTURES

    drawn = benchmark(hands.renderer.render, scene.vertices_m, scene.views.intrinsics, scene.look)

    assert drawn.image.shape == (PICTURES, SIZE, SIZE, 3)


def test_data_loading(benchmark: BenchmarkFixture, batches: Iterator[Batch]) -> None:
    next(batches)  # fills the pool
    benchmark.extra_info["pictures"] = PICTURES
    assert benchmark(next, batches)["images"].shape == (PICTURES, SIZE, SIZE, 3)


@pytest.mark.parametrize("name", ["light", "paper"])
def test_training_step(benchmark: BenchmarkFixture, batches: Iterator[Batch], name: str) -> None:
    batch = next(batches)
    network = build(from_dict({"network": name, "input_size": SIZE}), Topology.default()).train()
    network.pose_regressor.freeze()
    surface, edges = Surface.from_topology(Topology.default()), HandEdges.drawn()
    optimizer = Recipe().optimizer_of(p for p in network.parameters() if p.requires_grad)
    benchmark.extra_info["pictures"] = PICTURES

    def step() -> float:
        output = network(to_input(batch["images"]))
        loss, _ = objective(output, batch, surface, LossWeights(), edges)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    assert benchmark(step) > 0
