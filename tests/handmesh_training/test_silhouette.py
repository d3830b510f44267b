"""The outline term: closed forms on discs, gradients, and what true meshes pay."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from handmesh.graph import Topology
from handmesh_training.augment_torch import enclosed
from handmesh_training.hand import HandModel
from handmesh_training.samples import OUTLINE_POINTS
from handmesh_training.sampling import sample_views
from handmesh_training.silhouette import (
    REACH_SLACK,
    SPILL_SLACK,
    outline_loss,
    outward_normals,
)

RADIUS = 0.3


def ring(radius: float = RADIUS, count: int = OUTLINE_POINTS) -> Tensor:
    """(1, P, 2) a circle about the middle."""
    turn = torch.arange(count, dtype=torch.float64) / count * 2 * torch.pi
    return (0.5 + radius * torch.stack([turn.cos(), turn.sin()], dim=-1))[None].float()


def disc(radius: float) -> Tensor:
    """(1, V, 3) vertices filling a disc, its rim a circle of many."""
    rims = [ring(radius * share, 512) for share in (1.0, 0.8, 0.6, 0.4, 0.2)]
    points = torch.cat(rims, dim=1)
    return torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)


ALL = torch.ones(1, OUTLINE_POINTS, dtype=torch.bool)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("radius", "slack"), [(0.25, REACH_SLACK), (0.36, SPILL_SLACK)])
def test_a_disc_pays_the_square_of_what_it_is_short_or_beyond(
    radius: float, slack: float, backwards: bool
) -> None:
    outline = ring().flip(1) if backwards else ring()
    expected = (abs(radius - RADIUS) - slack) ** 2
    loss = outline_loss(disc(radius), outline, ALL, None)
    assert float(loss) == pytest.approx(expected, rel=0.02)
    bend = 0.02  # from there on the tangent of the square
    away = abs(radius - RADIUS) - slack
    loss = outline_loss(disc(radius), outline, ALL, bend)
    assert float(loss) == pytest.approx(2 * bend * away - bend**2, rel=0.02)


@pytest.mark.parametrize(
    "radius", [RADIUS - REACH_SLACK + 1e-3, RADIUS, RADIUS + SPILL_SLACK - 1e-3]
)
def test_what_ends_about_there_pays_nothing(radius: float) -> None:
    assert float(outline_loss(disc(radius), ring(), ALL, None)) < 1e-7


def test_only_known_points_count_and_only_samples_with_any() -> None:
    known = ALL.clone()
    known[:, : OUTLINE_POINTS // 2] = False  # the lower half of the picture
    short = disc(0.25)
    half = short.clone()
    lower = half[..., 1] > 0.5
    half[lower] = disc(RADIUS)[lower]
    full = float(outline_loss(short, ring(), ALL, None))
    assert float(outline_loss(short, ring(), known, None)) == pytest.approx(full, rel=0.02)
    # Mended where nothing is known: no better.
    assert float(outline_loss(half, ring(), known, None)) == pytest.approx(full, rel=0.1)

    both = torch.cat([short, 5 * short]).requires_grad_()
    flags = torch.cat([known, torch.zeros_like(known)])
    loss = outline_loss(both, ring().expand(2, -1, -1), flags, None)
    assert float(loss.detach()) == pytest.approx(full, rel=0.02)
    loss.backward()
    assert both.grad is not None
    assert both.grad[0].any()
    assert not both.grad[1].any()
    assert not both.grad[..., 2].any()

    nothing = outline_loss(both, ring().expand(2, -1, -1), torch.zeros_like(flags), None)
    assert float(nothing.detach()) == 0.0
    nothing.backward()


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(1)
    vertices = (disc(0.27) + 0.01 * torch.randn(1, 2560, 3)).requires_grad_()
    outline_loss(vertices, ring(), ALL, 0.03).backward()
    assert vertices.grad is not None
    direction = torch.randn_like(vertices)
    step = 1e-3

    def at(t: float) -> float:
        with torch.no_grad():
            return float(outline_loss(vertices + t * direction * vertices.grad, ring(), ALL, 0.03))

    slope = (at(step) - at(-step)) / (2 * step)
    expected = float((direction * vertices.grad * vertices.grad).sum())
    assert slope == pytest.approx(expected, rel=0.02)


def test_normals_point_outwards_either_way_round() -> None:
    circle = ring()
    expected = (circle - 0.5) / RADIUS
    torch.testing.assert_close(outward_normals(circle), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(outward_normals(circle.flip(1)), expected.flip(1), atol=1e-5, rtol=0)


def outlines_of(vertices: Tensor) -> Tensor:
    """(B, P, 2) of the silhouettes of meshes (B, V, 3), by drawing their faces."""
    import cv2

    side, faces = 1024, Topology.default().faces
    made = []
    for uv in vertices[..., :2].numpy():
        mask = np.zeros((side, side), dtype=np.uint8)
        for corners in np.round((uv[faces] * side - 0.5) * 16).astype(np.int32):
            cv2.fillConvexPoly(mask, corners, 255, shift=4)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        chain = max(contours, key=len)[:, 0].astype(np.float64)
        ends = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(chain, axis=0), axis=1))])
        places = np.arange(OUTLINE_POINTS) / OUTLINE_POINTS * ends[-1]
        made.append(np.stack([np.interp(places, ends, chain[:, k]) for k in (0, 1)], axis=1))
    return torch.from_numpy((np.array(made) + 0.5) / side).float()


def test_true_meshes_pay_little_and_thinner_or_moved_ones_much(hand_model: HandModel) -> None:
    views = sample_views(np.random.default_rng(3), hand_model, 12, 128, 1.5)
    vertices = torch.from_numpy(views.vertices)
    outlines = outlines_of(vertices)
    known = torch.ones(12, OUTLINE_POINTS, dtype=torch.bool)
    middle = vertices.mean(dim=1, keepdim=True)

    def paid(meshes: Tensor) -> float:
        return float(outline_loss(meshes, outlines, known, None).sqrt())

    assert paid(vertices) < 0.007
    assert paid(middle + 0.85 * (vertices - middle)) > 0.015
    assert paid(middle + 1.15 * (vertices - middle)) > 0.015
    assert paid(vertices + 0.04) > 0.015


def test_pixels_inside_are_those_of_the_closed_form() -> None:
    side = 90
    inside = enclosed(ring(count=2048), side)[0]
    places = (torch.arange(side) + 0.5) / side - 0.5
    expected = places.square()[None] + places.square()[:, None] < RADIUS**2
    assert (inside != expected).float().mean() < 2e-3
    torch.testing.assert_close(enclosed(ring(count=2048).flip(1), side)[0], inside)
