"""What each stage trains, and by which loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from handmesh.errors import InputError
from handmesh.graph import Topology
from handmesh.nn import LightConfig, NetworkConfig, PaperConfig
from handmesh.nn.config import DecoderConfig
from handmesh_training.depth_renderer import DepthRenderer
from handmesh_training.heads import HeadName, build_network
from handmesh_training.losses import PAPER, LossWeights, full_loss, gaussian_heatmaps, pose_loss
from handmesh_training.meshes import unseen_meshes
from handmesh_training.objective import objective
from handmesh_training.samples import Crops
from handmesh_training.sources import Batch, to_input, to_tensors
from handmesh_training.surface import Surface
from handmesh_training.tasks import HeatmapPart, full_task, heatmap_task, pose_task, weak_task
from handmesh_training.train import Task
from handmesh_training.validate import BONE_MM
from handmesh_training.weak_losses import WITH_POSE, weak_loss
from handmesh_training.wholeness import HandEdges

torch.set_num_threads(1)
CPU = torch.device("cpu")
B = 3


def config_of(name: str, light: LightConfig) -> NetworkConfig:
    if name == "light":
        return light
    return PaperConfig(
        input_size=64,
        features=16,
        residuals_per_position=1,
        latent=32,
        decoder=DecoderConfig(8, (8, 8), 8, 3, (4, 4), (4, 4), 16, True),
    )


@pytest.fixture(params=["light", "paper"])
def network(request: pytest.FixtureRequest, tiny_config: LightConfig) -> nn.Module:
    torch.manual_seed(0)
    return build_network(config_of(request.param, tiny_config), Topology.default(), "mesh")


@pytest.fixture
def batch() -> Batch:
    """Of random pictures, with true hands' labels; the last without any."""
    crops = unseen_meshes(3, B)
    shown = Crops.empty(B, 64, crops.vertices.shape[1])
    rng = np.random.default_rng(0)
    shown.images[:] = rng.integers(0, 256, shown.images.shape)
    for name in ("joints", "vertices", "crop_in_bones", "has_hand", "has_joints", "has_depth"):
        getattr(shown, name)[:] = getattr(crops, name)
    shown.has_mesh[:] = shown.is_right[:] = True
    for name in ("has_hand", "has_joints", "has_depth", "has_mesh"):
        getattr(shown, name)[-1] = False
    made = to_tensors(shown)
    made["depth_map"] = torch.from_numpy(rng.normal(size=(B, 32, 32)).astype(np.float32))
    made["depth_known"] = torch.from_numpy(rng.random((B, 32, 32)) < 0.8)
    made["has_depth_map"] = torch.tensor([True, True, False])
    made["pseudo"], made["has_pseudo"] = made["vertices"] + 0.1, torch.tensor([True, False, True])
    return made


@pytest.fixture(scope="module")
def surface() -> Surface:
    return Surface.from_topology(Topology.default())


def reached(network: nn.Module, task: Task, batch: Batch) -> set[str]:
    """Names of the network's parameters that a step of the task changes."""
    network.zero_grad()
    loss, _ = task.loss(CPU)(task.part(network)(task.inputs(batch)), batch)
    loss.backward()
    trained = {id(p) for p in task.part(network).parameters()}
    return {
        name
        for name, p in network.named_parameters()
        if p.grad is not None and p.grad.abs().max() > 0 and id(p) in trained
    }


class TestHeatmapPart:
    def test_maps_are_those_of_the_whole_network(self, network: nn.Module, batch: Batch) -> None:
        images = to_input(batch["images"])
        for mode in (True, False):
            network.train(mode)
            part = HeatmapPart(network)
            torch.manual_seed(0)
            alone, whole = part(images), network(images).heatmaps
            assert len(alone) == len(whole)
            for a, b in zip(alone, whole, strict=True):
                assert a.dtype == torch.float32
                torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
        assert whole[-1].std() > 0

    @pytest.mark.parametrize("head", ["joints", "parametric"])
    def test_of_another_head_it_is_the_trunk_s(
        self, tiny_config: LightConfig, batch: Batch, head: HeadName
    ) -> None:
        network = build_network(tiny_config, Topology.default(), head).eval()
        images = to_input(batch["images"])
        (alone,) = HeatmapPart(network)(images)
        torch.testing.assert_close(alone, network(images).heatmaps[0])

    def test_weights_are_shared(self, network: nn.Module) -> None:
        own = {id(p) for p in network.parameters()}
        assert all(id(p) in own for p in HeatmapPart(network).parameters())

    def test_other_networks_are_refused(self) -> None:
        with pytest.raises(InputError, match="Linear has no heat-maps"):
            HeatmapPart(nn.Linear(2, 2))


class TestHeatmapTask:
    def test_only_what_makes_maps_is_trained(self, network: nn.Module, batch: Batch) -> None:
        changed = reached(network, heatmap_task(), batch)
        tops = {name.split(".")[0] for name in changed}
        light = "backbone." in " ".join(name for name, _ in network.named_parameters())
        assert tops == ({"backbone", "pyramid", "heatmaps"} if light else {"stem", "stacks"})
        # All of it, but for a network's start at nothing and the last stack's way on.
        part = {
            name
            for name, _ in network.named_parameters()
            if name.split(".")[0] in tops and not name.startswith("stacks.1.merge")
        }
        assert len(changed) > 0.6 * len(part)

    def test_the_loss_is_that_of_l_fully(
        self, network: nn.Module, batch: Batch, surface: Surface
    ) -> None:
        output = network(to_input(batch["images"]))
        loss, terms = heatmap_task().loss(CPU)(output.heatmaps, batch)
        _, wanted = full_loss(output, batch, surface, PAPER)
        torch.testing.assert_close(terms["heatmap"], wanted["heatmap"])
        # By hand: lambda_H = 0.5, over all stacks; divided by V as all of L_fully.
        maps = gaussian_heatmaps(batch["joints"][:2, :, :2], 16)
        squares = [(m[:2] - maps).square().sum(dim=(1, 2, 3)).mean() for m in output.heatmaps]
        by_hand = 0.5 * torch.stack(squares).sum() / surface.vertex_count
        torch.testing.assert_close(loss, by_hand)

    def test_joints_that_are_not_taught_do_not_count(
        self, network: nn.Module, batch: Batch
    ) -> None:
        maps = network(to_input(batch["images"])).heatmaps
        batch = {name: values.clone() for name, values in batch.items()}
        moved = {**batch, "joints": batch["joints"].clone()}
        moved["joints"][0, 7, :2] = 1 - moved["joints"][0, 7, :2]
        loss = heatmap_task().loss(CPU)
        assert loss(maps, moved)[0] != loss(maps, batch)[0]
        batch["taught"][0, 7] = moved["taught"][0, 7] = False
        assert loss(maps, moved)[0] == loss(maps, batch)[0]

    def test_names_and_rates(self) -> None:
        assert (heatmap_task().name, heatmap_task().fine_tuning) == ("heatmaps", False)
        assert (heatmap_task(True).name, heatmap_task(True).fine_tuning) == (
            "fine-tune-heatmaps", True,
        )  # fmt: skip

    def test_a_fixed_trunk_is_refused(self, tiny_config: LightConfig) -> None:
        network = build_network(tiny_config, Topology.default(), "transfer")
        with pytest.raises(InputError, match="trunk under this head is fixed"):
            heatmap_task().part(network)

    def test_errors_are_zero_where_the_maps_peak_at_the_joints(self) -> None:
        crops = unseen_meshes(1, 5)
        cells = torch.from_numpy(crops.joints[..., :2])

        class Perfect(nn.Module):
            def forward(self, images: Tensor) -> list[Tensor]:
                return [torch.zeros(5, 21, 8, 8), gaussian_heatmaps(cells, 64)]

        (error,) = heatmap_task().errors(Perfect(), crops, CPU).values()
        # In cells: never more than to the corner of one, half the diagonal on each axis.
        boxes = crops.joints[..., :2].max(axis=1) - crops.joints[..., :2].min(axis=1)
        assert 0 < error < 0.5 * 2**0.5 / 64 / boxes.max(axis=1).min()


class TestPoseTask:
    def test_only_the_regressor_is_trained_on_true_meshes(
        self, network: nn.Module, batch: Batch
    ) -> None:
        task = pose_task()
        changed = reached(network, task, batch)
        assert changed
        assert all(name.startswith("head.pose_regressor.") for name in changed)
        assert torch.equal(task.inputs(batch), batch["vertices"])
        assert not task.autocast

    def test_the_loss_is_l_j(self, network: nn.Module, batch: Batch) -> None:
        joints = batch["joints"] + 0.1
        loss, terms = pose_task().loss(CPU)(joints, batch)
        scale = batch["crop_in_bones"]
        torch.testing.assert_close(loss, pose_loss(joints, batch["joints"], scale))
        assert terms.keys() == {"pose"}

    def test_errors_in_closed_form(self) -> None:
        crops = unseen_meshes(1, 4)

        class Off(nn.Module):
            def forward(self, vertices: Tensor) -> Tensor:
                return torch.from_numpy(crops.joints) + torch.tensor([0.0, 0.0, 0.5])

        figures = pose_task().errors(Off(), crops, CPU)
        assert figures == {"joints": pytest.approx(0.5 * BONE_MM, rel=1e-5)}

    def test_heads_without_a_regressor_are_refused(self, tiny_config: LightConfig) -> None:
        network = build_network(tiny_config, Topology.default(), "joints")
        with pytest.raises(InputError, match="no pose regressor"):
            pose_task().part(network)


def frozen(network: nn.Module) -> nn.Module:
    regressor: Any = network.pose_regressor
    regressor.freeze()
    return network


class TestEndToEnd:
    def test_full_is_the_objective_on_the_whole_network(
        self, network: nn.Module, batch: Batch, surface: Surface
    ) -> None:
        task, weights = full_task(LossWeights()), LossWeights()
        assert task.part(network) is network
        output = frozen(network)(to_input(batch["images"]))
        loss, terms = task.loss(CPU)(output, batch)
        edges = HandEdges.drawn()
        wanted, parts = objective(output, batch, surface, weights, edges)
        torch.testing.assert_close(loss, wanted)
        assert terms.keys() == parts.keys()
        changed = reached(network, task, batch)
        assert not any("pose_regressor" in name for name in changed)
        assert {"head"} < {name.split(".")[0] for name in changed}

    def test_weak_is_equation_8_with_the_stream_s_background(
        self, network: nn.Module, batch: Batch, surface: Surface
    ) -> None:
        output = frozen(network)(to_input(batch["images"]))
        found = weak_task(WITH_POSE, far=2.0).loss(CPU)(output, batch)
        renderer = DepthRenderer(surface, 32, background=2.0)
        wanted = weak_loss(output, batch, surface, renderer, WITH_POSE)
        torch.testing.assert_close(found, wanted)
        other = weak_task(WITH_POSE, far=3.0).loss(CPU)(output, batch)
        assert not torch.isclose(other[1]["depth"], wanted[1]["depth"])
        assert weak_task(WITH_POSE, 2.0).fine_tuning

    def test_the_depth_loss_reaches_the_trunk(self, network: nn.Module, batch: Batch) -> None:
        """Through mesh and renderer: what the paper's stage (f) is about."""
        task = weak_task(WITH_POSE, far=3.0)
        output = frozen(network)(to_input(batch["images"]))
        _, terms = task.loss(CPU)(output, batch)
        network.zero_grad()
        terms["depth"].backward()
        tops = {
            name.split(".")[0]
            for name, p in network.named_parameters()
            if p.grad is not None and p.grad.abs().max() > 0
        }
        assert {"head", "encode"} < tops
        assert tops & {"backbone", "stem"}
