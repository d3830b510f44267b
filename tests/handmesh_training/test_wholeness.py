"""Meshes without labels: their edges may be as long as those of hands."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from handmesh.graph import Topology
from handmesh_training.hand import HandModel
from handmesh_training.losses import to_metric_like
from handmesh_training.poses import draw_poses
from handmesh_training.sampling import HandViews, sample_views
from handmesh_training.surface import Surface
from handmesh_training.wholeness import SCALE_BONES, HandEdges


@pytest.fixture(scope="module")
def surface() -> Surface:
    return Surface.from_topology(Topology.default())


@pytest.fixture(scope="module")
def edges(surface: Surface) -> HandEdges:
    return HandEdges.drawn()


@pytest.fixture(scope="module")
def hands() -> tuple[Tensor, Tensor, Tensor]:
    """Vertices and joints (u, v, d) of hands drawn anew, in crops of 4 to 9 bones, and these."""
    model = HandModel()
    poses = draw_poses(np.random.default_rng(5), model, 64)
    with torch.no_grad():
        posed = model(poses.shape, model.rotations(poses.angles))
    unit = (posed.joints[:, 10] - posed.joints[:, 9]).norm(dim=-1)[:, None, None]
    scale = torch.linspace(4, 9, 64)
    found = []
    for points in (
        posed.vertices[:, torch.from_numpy(model.asset.template_subset).long()],
        posed.joints,
    ):
        p = (points - posed.joints[:, :1]) / unit
        found.append(torch.cat([0.5 + p[..., :2] / scale[:, None, None], p[..., 2:]], dim=-1))
    return found[0], found[1], scale


@pytest.fixture(scope="module")
def views() -> HandViews:
    return sample_views(np.random.default_rng(3), HandModel(), 256, 128, 1.5)


@pytest.fixture(scope="module")
def ring() -> Tensor:
    """(V,) bool, vertices that go with the ring finger alone."""
    model = HandModel()
    weights = model.asset.weights[model.asset.template_subset]
    return torch.from_numpy(weights[:, 10:13].sum(axis=1) > 0.9)


def test_the_scale_is_that_of_the_crop(
    edges: HandEdges, hands: tuple[Tensor, Tensor, Tensor]
) -> None:
    _, joints, scale = hands
    ratio = edges.scale(joints) / scale
    assert float(ratio.median()) == pytest.approx(1, abs=0.04)
    assert float((ratio.log().abs() < 0.25).float().mean()) > 0.9


@pytest.mark.parametrize("degrees", [0, 30, 60])
def test_the_scale_is_exact_for_usual_bones_that_point_in_depth(
    edges: HandEdges, degrees: float
) -> None:
    """A flat hand turned about the vertical: depths make up for what is foreshortened."""
    angle = torch.deg2rad(torch.tensor(float(degrees)))
    joints = torch.zeros(1, 21, 3)
    for k, (base, end) in enumerate(SCALE_BONES):
        way = torch.tensor(0.3 * (k - 2))  # a fan; the last bone goes on from joint 9
        flat = edges.bones[k] * torch.stack([way.sin(), -way.cos()])
        x, y = flat[0], flat[1]
        joints[0, end] = joints[0, base] + torch.stack([x * angle.cos(), y, x * angle.sin()])
    crop = 6.5  # bones
    joints[..., :2] = 0.5 + joints[..., :2] / crop
    assert float(edges.scale(joints)) == pytest.approx(crop, rel=1e-4)


def test_hands_pass_and_thin_thick_or_torn_ones_do_not(
    edges: HandEdges, surface: Surface, hands: tuple[Tensor, Tensor, Tensor], ring: Tensor
) -> None:
    vertices, joints, _ = hands
    whole = edges.loss(vertices, joints, surface, None)
    assert whole < 1e-3  # an edge in fifty lies out of bounds by definition, and by little
    axis = vertices[:, ring].mean(dim=1, keepdim=True)
    for factor in (0.3, 2.5):
        worse = vertices.clone()
        worse[:, ring] = axis + factor * (vertices[:, ring] - axis)
        assert edges.loss(worse, joints, surface, None) > 5 * whole
    torn = vertices.clone()
    torn[:, ring] += torch.tensor([0.1, 0.0, 0.0])
    assert edges.loss(torn, joints, surface, None) > 2 * whole


@pytest.mark.parametrize(("near_m", "far_m"), [(0.15, 0.35), (0.35, 0.7), (0.7, 2.0)])
def test_true_hands_before_cameras_are_let_be(
    edges: HandEdges, surface: Surface, views: HandViews, near_m: float, far_m: float
) -> None:
    """Perspective makes what is nearer larger, which is not to be held against a mesh."""
    depth = views.joints_m[:, 0, 2]
    some = np.flatnonzero((depth >= near_m) & (depth < far_m))
    assert len(some) >= 30
    vertices, joints = torch.from_numpy(views.vertices[some]), torch.from_numpy(views.joints[some])
    lengths = surface.edge_vectors(to_metric_like(vertices, edges.scale(joints))).norm(dim=-1)
    outside = (lengths.log() < edges.low[:, None]) | (lengths.log() > edges.high[:, None])
    assert float(outside.float().mean()) < 0.06
    whole = float(edges.loss(vertices, joints, surface, None))
    assert whole < 1.5e-3
    wrist = vertices.mean(dim=1, keepdim=True)
    for factor in (0.8, 1.25):  # and the bounds are no wider than that asks for
        other = wrist + factor * (vertices - wrist)
        assert float(edges.loss(other, joints, surface, None)) > 2 * whole


def test_its_gradient_mends_a_thin_finger(
    edges: HandEdges, surface: Surface, hands: tuple[Tensor, Tensor, Tensor], ring: Tensor
) -> None:
    vertices, joints, _ = hands
    axis = vertices[:, ring].mean(dim=1, keepdim=True)
    factor = torch.full((len(vertices), 1, 1), 0.3, requires_grad=True)
    worse = vertices.clone()
    worse[:, ring] = axis + factor * (vertices[:, ring] - axis)
    edges.loss(worse, joints, surface, None).backward()
    assert factor.grad is not None
    assert (factor.grad < 0).all()


def test_only_weighted_samples_count_and_a_point_has_a_gradient(
    edges: HandEdges, surface: Surface, hands: tuple[Tensor, Tensor, Tensor]
) -> None:
    vertices, joints, _ = hands
    bad = vertices.clone()
    bad[0] = 0.5  # all in one point
    bad.requires_grad_()
    weight = torch.ones(len(bad))
    weight[0] = 0
    without = edges.loss(bad, joints, surface, weight)
    assert torch.allclose(without, edges.loss(vertices[1:], joints[1:], surface, None))
    edges.loss(bad, joints, surface, None).backward()
    assert bad.grad is not None
    assert bad.grad.isfinite().all()
