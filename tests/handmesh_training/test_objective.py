"""The objective of end-to-end training: which labels move it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from handmesh.graph import Topology
from handmesh.nn import LightConfig, build
from handmesh_training import losses
from handmesh_training.augment import Augmentation
from handmesh_training.lanes import batches
from handmesh_training.losses import LossWeights
from handmesh_training.objective import USUAL_CROP_IN_BONES, objective
from handmesh_training.rendered import RenderSettings
from handmesh_training.samples import OUTLINE_POINTS
from handmesh_training.silhouette import outline_loss
from handmesh_training.sources import to_input
from handmesh_training.stream import Batch, CropStream, StreamSettings
from handmesh_training.wholeness import HandEdges

pytestmark = pytest.mark.usefixtures("quick_surroundings")


def a_batch(seed: int) -> Batch:
    settings = StreamSettings(
        batch=4,
        pool=16,
        chunk=8,
        render=RenderSettings(crop_px=80),
        augment=Augmentation(input_size=64),
    )
    return next(batches(CropStream(settings, seed), [0], 1))


def test_the_objective_uses_each_label_where_it_is_known(tiny_config: LightConfig) -> None:
    """Changing a label that a flag says is unknown changes nothing; else it does."""
    torch.manual_seed(0)
    surface = losses.Surface.from_topology(Topology.default())
    batch = a_batch(1)
    edges = HandEdges.drawn()
    output = build(tiny_config, Topology.default())(to_input(batch["images"]))

    def loss(changed: Batch) -> float:
        with torch.no_grad():
            return float(objective(output, changed, surface, LossWeights(), edges)[0])

    for flag in (True, False):
        flags = {f"has_{x}": torch.full((4,), flag) for x in ("hand", "joints", "depth", "mesh")}
        known = batch | flags
        for name in ("joints", "vertices", "is_right"):
            value = known[name]
            other = ~value if value.dtype == torch.bool else value + 0.1
            assert (loss(known | {name: other}) != loss(known)) == flag, (name, flag)
    assert loss(batch | {"has_hand": ~batch["has_hand"]}) != loss(batch)


def test_joints_that_are_not_taught_move_nothing(tiny_config: LightConfig) -> None:
    """Their labels may be any number, in all terms."""
    torch.manual_seed(0)
    surface = losses.Surface.from_topology(Topology.default())
    edges = HandEdges.drawn()
    batch = a_batch(1)
    batch |= {f"has_{x}": torch.full((4,), True) for x in ("hand", "joints", "depth")}
    batch["has_mesh"] = torch.full((4,), False)
    output = build(tiny_config, Topology.default())(to_input(batch["images"]))
    # A new network's are all 0, by which right and wrong cost the same.
    output = output._replace(confidence_logits=torch.randn(4, 21, requires_grad=True))
    batch["taught"][1, [2, 3, 4]] = False
    batch["joints"][1, 3, :2] = output.joints[1, 3, :2].detach()  # right, and then wrong
    moved = batch["joints"].clone()
    moved[1, 3] += 0.2

    def terms(changed: Batch) -> dict[str, float]:
        with torch.no_grad():
            found = objective(output, changed, surface, LossWeights(), edges)[1]
        return {name: float(term) for name, term in found.items()}

    assert terms(batch | {"joints": moved}) == terms(batch)
    everything = {"taught": torch.ones_like(batch["taught"])}
    whole, other = terms(batch | everything), terms(batch | everything | {"joints": moved})
    differing = {name for name in whole if whole[name] != other[name]}
    assert differing == {"heatmap", "pose", "image", "heatmap_uv", "confidence"}


def test_edges_count_where_joints_alone_are_labelled(tiny_config: LightConfig) -> None:
    surface = losses.Surface.from_topology(Topology.default())
    edges = HandEdges.drawn()
    batch = a_batch(1)
    output = build(tiny_config, Topology.default())(to_input(batch["images"]))
    wanted = edges.loss(output.vertices, output.joints, surface, None)
    assert wanted > 0
    for joints, mesh in ((True, True), (True, False), (False, False)):
        flags = {"has_joints": torch.full((4,), joints), "has_mesh": torch.full((4,), mesh)}
        term = objective(output, batch | flags, surface, LossWeights(), edges)[1]["whole"]
        torch.testing.assert_close(term, wanted if joints and not mesh else torch.zeros(()))
    bare = output._replace(vertices=output.vertices[:, :0])
    assert "whole" not in objective(bare, batch, surface, LossWeights(), edges)[1]


def test_outlines_count_where_they_are_known(tiny_config: LightConfig) -> None:
    surface = losses.Surface.from_topology(Topology.default())
    edges = HandEdges.drawn()
    batch = a_batch(1)
    output = build(tiny_config, Topology.default())(to_input(batch["images"]))

    def told(changed: Batch, weights: LossWeights) -> tuple[float, float]:
        with torch.no_grad():
            total, terms = objective(output, changed, surface, weights, edges)
        return float(total), float(terms["outline"])

    without, none = told(batch, LossWeights())
    assert none == 0
    batch["outline_known"][2] = True
    batch["outline"][2] = torch.rand(OUTLINE_POINTS, 2)
    total, term = told(batch, LossWeights())
    bend = (LossWeights().huber or 0) / USUAL_CROP_IN_BONES
    known = batch["outline"], batch["outline_known"]
    assert term == pytest.approx(float(outline_loss(output.vertices, *known, bend)), rel=1e-5)
    assert term != pytest.approx(float(outline_loss(output.vertices, *known, None)), rel=1e-2)
    assert LossWeights().outline > 0
    assert total == pytest.approx(without + LossWeights().outline * term, rel=1e-4)
    assert told(batch, replace(LossWeights(), outline=0.0))[0] == pytest.approx(without, rel=1e-5)
    assert losses.PAPER.outline == 0
    bare = output._replace(vertices=output.vertices[:, :0])
    assert "outline" not in objective(bare, batch, surface, LossWeights(), edges)[1]


def test_without_a_mesh_there_is_no_mesh_loss(tiny_config: LightConfig) -> None:
    surface = losses.Surface.from_topology(Topology.default())
    batch = a_batch(0)
    whole = build(tiny_config, Topology.default())(to_input(batch["images"]))
    bare = whole._replace(vertices=whole.vertices[:, :0])

    _, terms = losses.full_loss(whole, batch, surface)
    total, left = losses.full_loss(bare, batch, surface)

    assert set(left) == {"heatmap", "pose"}
    size = whole.heatmaps[-1].shape[-1]
    weights = losses.paper_weights(surface, size)
    expected = sum(weights[name] * terms[name] for name in left)
    torch.testing.assert_close(total, expected)
