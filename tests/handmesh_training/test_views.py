"""Cameras from everywhere, at the distances and fields of view that cameras have."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from handmesh_training import views
from handmesh_training.views import (
    ANYWHERE,
    ARM_FREE_DEG,
    DISTANCES_M,
    EGOCENTRIC,
    HELD,
    LENS_SHARES,
    LENSES,
    LEVEL,
    SHARES,
    WITHIN,
    sample_orientations,
    sample_views_of,
)

Array = NDArray[np.float64]


def orientations(kind: int, count: int = 6000) -> Array:
    return sample_orientations(np.random.default_rng(0), np.full(count, kind))


@pytest.mark.parametrize("kind", [ANYWHERE, HELD, EGOCENTRIC, LEVEL])
def test_orientations_are_rotations(kind: int) -> None:
    turns = orientations(kind, 500)

    identity = np.broadcast_to(np.eye(3), turns.shape)
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), identity, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(turns), 1, atol=1e-12)


def test_views_from_anywhere_are_uniform_with_roll() -> None:
    turns = orientations(ANYWHERE)

    # Uniform on the sphere: every coordinate of every axis is uniform in -1..1 (Archimedes).
    for axis in range(3):
        for coordinate in range(3):
            values = np.sort(turns[:, coordinate, axis])
            expected = np.linspace(-1, 1, len(values))
            assert abs(values - expected).max() < 0.05
    roll = np.arctan2(turns[:, 0, 1], turns[:, 1, 1])
    assert abs(np.histogram(roll, 8, (-np.pi, np.pi))[0] / len(roll) - 1 / 8).max() < 0.02


def test_held_up_hands_are_upright_and_seen_from_all_sides() -> None:
    turns = orientations(HELD)

    assert 0.5 < (turns[:, 2, 2] > 0).mean() < 0.7, "palm to the camera more often than not"
    assert (turns[:, 1, 1] > 0).mean() > 0.65, "fingers up"
    assert (abs(turns[:, 2, 2]) < 0.5).mean() > 0.2, "edge views"


def test_the_own_hand_reaches_away_from_the_eyes() -> None:
    turns = orientations(EGOCENTRIC)

    fingers = -turns[:, :, 1]
    assert (fingers[:, 2] >= -1e-9).all(), "away from the camera"
    assert (turns[:, 2, 2] < 0).mean() > 0.55, "its back, mostly"


def test_level_hands_are_palm_down_and_their_arms_come_from_their_side() -> None:
    """Of a right hand whose owner faces the camera, that is the left of the picture."""
    turns = orientations(LEVEL)

    thumb, fingers, palm = turns[:, :, 0], -turns[:, :, 1], -turns[:, :, 2]
    assert (palm[:, 1] > 0).mean() > 0.85, "down"
    assert 0.55 < palm[:, 1].mean() < 0.7, "or inwards"
    assert (fingers[:, 0] > 0).mean() > 0.8, "to the right"
    assert abs(fingers[:, 1]).mean() < 0.5, "about level"
    assert (fingers[:, 2] < 0).mean() > 0.6, "rather towards the camera than away"
    assert (thumb[:, 2] > 0).mean() > 0.7, "on the far side"
    # Turned inwards, and seen from a little above: the back of the hand shows, the thumb is higher.
    assert palm[:, 2].mean() > 0.15
    assert thumb[:, 1].mean() < -0.25


def test_each_kind_is_drawn_as_often_as_it_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[NDArray[np.int64]] = []

    def orient(rng: np.random.Generator, kind: NDArray[np.int64]) -> Array:
        drawn.append(kind)
        return np.broadcast_to(np.eye(3), (len(kind), 3, 3))

    monkeypatch.setattr(views, "sample_orientations", orient)
    away = np.broadcast_to([0.0, 0.0, 1.0], (20_000, 3))
    sample_views_of(np.random.default_rng(3), away)

    shares = np.bincount(drawn[0], minlength=4) / len(away)
    np.testing.assert_allclose(shares, list(SHARES.values()), atol=0.01)


def test_hands_stand_where_cameras_see_them() -> None:
    rng = np.random.default_rng(1)
    arm = rng.normal(0, 1, (4000, 3))
    arm /= np.linalg.norm(arm, axis=1, keepdims=True)

    seen = sample_views_of(rng, arm)

    depth = seen.middle[:, 2]
    assert depth.min() >= np.min(DISTANCES_M)
    assert depth.max() <= np.max(DISTANCES_M)
    assert np.quantile(depth, 0.9) / np.quantile(depth, 0.1) > 3
    tangent = abs(seen.middle[:, :2] / depth[:, None])
    assert tangent.max() <= WITHIN * max(max(lens) for lens in LENSES) + 1e-9
    assert 0.1 < tangent.mean() < 0.4
    assert list(SHARES) == ["anywhere", "held", "egocentric", "level"]
    assert sum(SHARES.values()) == pytest.approx(1)
    assert np.sum(LENS_SHARES, axis=1) == pytest.approx(np.ones(len(SHARES)))
    # From the hand towards the camera the arm does not point.
    towards = -seen.middle / np.linalg.norm(seen.middle, axis=1, keepdims=True)
    angle = np.arccos(((seen.turn @ arm[..., None])[..., 0] * towards).sum(axis=1))
    assert np.rad2deg(angle).min() >= ARM_FREE_DEG - 1e-6
    assert np.rad2deg(angle).max() > 170
