"""Capsules against the mesh they are fitted to and brute force; and the mesh's own measure."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from penetration import MeshPenetration, surface_distance, winding_number

from handmesh_training.collisions import (
    CAPSULE_COUNT,
    FINGER_CAPSULES,
    PAIRS,
    HandCapsules,
    segment_gap,
)
from handmesh_training.gestures.library import default_library
from handmesh_training.hand import HandModel
from handmesh_training.poses import draw_poses

Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def capsules(double_model: HandModel) -> HandCapsules:
    return HandCapsules(double_model)


def pose(model: HandModel, angles: Array, shape: Array | None = None) -> tuple[torch.Tensor, ...]:
    """shape, rotation, translation, as `HandCapsules` takes them."""
    coefficients = torch.zeros(len(angles), model.shape_count, dtype=torch.float64)
    if shape is not None:
        coefficients += torch.from_numpy(shape)
    rotations = model.rotations(torch.from_numpy(angles).double())
    return coefficients, *model.pose_bones(coefficients, rotations)


@pytest.mark.parametrize("size", [-1.0, 0.0, 1.0])
def test_capsules_fill_the_fingers(
    double_model: HandModel, capsules: HandCapsules, size: float
) -> None:
    """In any pose and girth, a bone's skin lies about on its capsule."""
    rng = np.random.default_rng(3)
    angles = default_library().angles[rng.integers(len(default_library()), size=3)].astype(float)
    shape = np.zeros((3, double_model.shape_count))
    shape[:, double_model.asset.shape_names.index("finger_diameter")] = size
    posed = pose(double_model, angles, shape)
    ends, radii = capsules.posed(*posed)
    vertices = double_model(posed[0], double_model.rotations(torch.from_numpy(angles))).vertices

    for capsule in range(1, FINGER_CAPSULES):
        rows = np.flatnonzero(double_model.asset.weights[:, capsule + 1] > 0.8)
        points = vertices[:, rows]  # (B, N, 3)
        dot = torch.stack([points, points], dim=2)  # a point is a capsule of no length or girth
        gap = segment_gap(
            dot + torch.tensor([[0.0], [1e-7]], dtype=torch.float64),
            torch.zeros(3, len(rows), 2, dtype=torch.float64),
            ends[:, capsule, None],
            radii[:, capsule, None],
        )
        assert gap.abs().mean() < 0.002, capsule
        assert gap.max() < 0.006


def test_only_what_is_thicker_than_the_template_gives(
    double_model: HandModel, capsules: HandCapsules
) -> None:
    """All of it given, a thick finger is as wide as the template's, about its own axis."""
    angles = np.zeros((3, 17, 3))
    shape = np.zeros((3, double_model.shape_count))
    shape[:, double_model.asset.shape_names.index("finger_diameter")] = [-1, 0, 1]
    posed = pose(double_model, angles, shape)

    thin, same, thick = capsules.posed(*posed)[1]
    given = capsules.posed(*posed, gives=1.0)[1]
    half = capsules.posed(*posed, gives=0.5)[1]

    torch.testing.assert_close(
        given, torch.stack([torch.minimum(thin, same), same, torch.minimum(thick, same)])
    )
    torch.testing.assert_close(half[2], 0.5 * (thick + torch.minimum(thick, same)))
    assert (thick[:15] > same[:15]).all()


def test_gaps_are_those_of_brute_force() -> None:
    generator = torch.Generator().manual_seed(0)
    ends = torch.randn(200, 2, 2, 3, generator=generator, dtype=torch.float64)
    steps = torch.linspace(0, 1, 401, dtype=torch.float64)[:, None]
    nothing = torch.zeros(200, 2, dtype=torch.float64)

    found = segment_gap(ends[:, 0], nothing, ends[:, 1], nothing)

    for n in range(200):
        a, b = (ends[n, k, :1] + steps * (ends[n, k, 1:] - ends[n, k, :1]) for k in range(2))
        assert float(found[n]) == pytest.approx(float(torch.cdist(a, b).min()), abs=5e-3)
        assert float(found[n]) <= float(torch.cdist(a, b).min()) + 1e-9


def test_radii_are_taken_where_capsules_meet() -> None:
    along = torch.tensor([[0.0, 0, 0], [1.0, 0, 0]])
    across = torch.tensor([[0.25, 1.0, -1], [0.25, 1.0, 1]])

    gap = segment_gap(along, torch.tensor([0.1, 0.5]), across, torch.tensor([0.3, 0.1]))

    assert float(gap) == pytest.approx(1.0 - 0.2 - 0.2)


def test_an_open_hand_is_free(double_model: HandModel, capsules: HandCapsules) -> None:
    overlaps = capsules.overlaps(*pose(double_model, np.zeros((1, 17, 3))))

    assert overlaps.shape == (1, len(PAIRS))
    assert overlaps.max() <= 0
    assert sum(b >= FINGER_CAPSULES for _, b in PAIRS) == 39
    assert max(max(pair) for pair in PAIRS) == CAPSULE_COUNT - 1


@pytest.mark.parametrize(
    ("changes", "finger", "other"),
    [
        ({(4, 1): -0.3, (7, 1): 0.15}, {3, 4, 5}, {6, 7, 8}),  # side by side, too close
        ({(10, 2): 2.2, (11, 2): 1.8}, {10, 11}, {15, 16, 17, 18}),  # through the palm
        ({(1, 1): 0.6, (1, 2): 0.7}, {1, 2}, {3, 4, 5, 15, 16}),
    ],
)
def test_what_runs_through_something_overlaps(
    double_model: HandModel,
    capsules: HandCapsules,
    changes: dict[tuple[int, int], float],
    finger: set[int],
    other: set[int],
) -> None:
    angles = np.zeros((1, 17, 3))
    for (pivot, kind), value in changes.items():
        angles[0, pivot, kind] = value

    overlaps = capsules.overlaps(*pose(double_model, angles))[0]

    first, second = PAIRS[int(overlaps.argmax())]
    assert overlaps.max() > 0.003
    assert first in finger
    assert second in other


def test_winding_and_distance_are_those_of_a_box() -> None:
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 2) for z in (0, 3)], dtype=float)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 4, (300, 3))

    winding = winding_number(points, corners[faces])
    distance = surface_distance(points, corners[faces])

    size = np.array([1.0, 2.0, 3.0])
    inside = ((points > 0) & (points < size)).all(axis=1)
    np.testing.assert_allclose(winding, inside, atol=1e-9)
    beyond = np.linalg.norm(np.maximum(np.maximum(-points, points - size), 0), axis=1)
    within = np.minimum(points, size - points).min(axis=1)
    np.testing.assert_allclose(distance, np.where(inside, within, beyond), atol=1e-9)


def test_the_mesh_agrees_that_fingers_are_in_each_other(double_model: HandModel) -> None:
    measure = MeshPenetration(double_model.asset)
    angles = torch.zeros(2, 17, 3, dtype=torch.float64)
    angles[1, 4, 1], angles[1, 7, 1] = -0.3, 0.15
    shape = torch.zeros(2, double_model.shape_count, dtype=torch.float64)
    flat, crossed = double_model(shape, double_model.rotations(angles)).vertices.numpy()

    assert measure.depth(flat) == 0
    assert 0.003 < measure.depth(crossed) < 0.02


def test_drawn_hands_hardly_penetrate(hand_model: HandModel) -> None:
    """On the mesh, not on the capsules that chose them.

    What presses is not flattened: thick fingers of fists and pinches go deep.
    """
    poses = draw_poses(np.random.default_rng(1), hand_model, 64)
    with torch.no_grad():
        vertices = hand_model(poses.shape, hand_model.rotations(poses.angles)).vertices
    measure = MeshPenetration(hand_model.asset)

    depths = 1e3 * np.array([measure.depth(hand) for hand in vertices.double().numpy()])

    assert np.median(depths) < 0.5
    assert np.quantile(depths, 0.9) < 5
    assert (depths > 5).mean() < 0.1
    assert depths.max() < 12
