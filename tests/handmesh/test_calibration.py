"""Bones from known depths and sizes: closed forms, and hands whose bone is known."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from handmesh.calibration import (
    CREDIT_CARD_WIDTH_M,
    bone_length_from_depth,
    bone_length_from_object,
    object_depth,
)
from handmesh.errors import InputError
from handmesh.geometry import ADULT_BONE_LENGTH_M
from handmesh.graph import Topology
from handmesh.types import Box, Camera, Hand

CAMERA = Camera(900, 880, 300, 260, 640, 480)
TRUE_BONE_M = 0.041


@pytest.fixture(scope="module")
def seen(topology: Topology) -> Hand:
    """A hand of bone `TRUE_BONE_M` half a metre away, as a photo without known lengths shows it:
    larger and farther in proportion."""
    size = TRUE_BONE_M / ADULT_BONE_LENGTH_M
    vertices = (topology.template_vertices_m * size + (0.02, 0.03, 0.5)) / size
    joints = topology.joint_regressor @ topology.template_vertices_m * size + (0.02, 0.03, 0.5)
    joints = joints / size
    return Hand(
        vertices_m=vertices,
        faces=topology.faces,
        joints_m=joints,
        joints_px=CAMERA.project(joints),
        vertices_px=CAMERA.project(vertices),
        confidence=np.ones(21),
        presence=1.0,
        handedness="right",
        depth="assumed",
        box=Box(0, 0, 1),
        camera=CAMERA,
        bone_length_m=ADULT_BONE_LENGTH_M,
    )


def _card(hand: Hand, size: float, turn: float = 0.0) -> np.ndarray:
    """(2, 2) pixels of a card's ends at the true depth of the palm."""
    middle = hand.joints_m[[0, 5, 9, 13, 17]].mean(axis=0).astype(float) * size
    half = CREDIT_CARD_WIDTH_M / 2 * np.array([math.cos(turn), math.sin(turn), 0])
    return CAMERA.project(np.stack([middle - half, middle + half]))


def test_a_known_depth_tells_the_bone(seen: Hand) -> None:
    found = bone_length_from_depth(seen, 0.5)
    assert found.length_m == pytest.approx(TRUE_BONE_M, rel=1e-5)
    assert math.isnan(found.spread_m)
    np.testing.assert_allclose(found.estimates_m, [TRUE_BONE_M], rtol=1e-5)
    # A hand that was placed by another bone tells the same.
    other = replace(seen, joints_m=seen.joints_m * 2, bone_length_m=2 * ADULT_BONE_LENGTH_M)
    assert bone_length_from_depth(other, 0.5).length_m == pytest.approx(TRUE_BONE_M, rel=1e-5)


@pytest.mark.parametrize("turn", [0.0, 0.7, math.pi / 2])
def test_a_card_beside_the_palm_tells_the_bone(seen: Hand, turn: float) -> None:
    card = _card(seen, TRUE_BONE_M / ADULT_BONE_LENGTH_M, turn)
    assert bone_length_from_object(seen, card).length_m == pytest.approx(TRUE_BONE_M, rel=1e-4)
    # Another object is another scale.
    double = bone_length_from_object(seen, card, 2 * CREDIT_CARD_WIDTH_M)
    assert double.length_m == pytest.approx(2 * TRUE_BONE_M, rel=1e-4)


def test_the_depth_of_an_object_is_that_of_similar_triangles() -> None:
    # 85.6 mm seen as 100 px through 900 px are 0.7704 m away.
    assert object_depth(CAMERA, [[200, 100], [300, 100]], 0.0856) == pytest.approx(0.7704)
    assert object_depth(CAMERA, [[200, 100], [200, 200]], 0.0856) == pytest.approx(0.75328)


def test_a_wrong_focal_length_hardly_matters_beside_an_object(seen: Hand) -> None:
    # Placed by a camera with twice the focal length, the hand and the card are twice as far away.
    double = replace(CAMERA, fx=2 * CAMERA.fx, fy=2 * CAMERA.fy)
    wrong = replace(seen, camera=double, joints_m=seen.joints_m * (1, 1, 2))
    card = _card(seen, TRUE_BONE_M / ADULT_BONE_LENGTH_M)
    found = bone_length_from_object(wrong, card)
    assert found.length_m == pytest.approx(TRUE_BONE_M, rel=1e-4)


def test_many_frames_give_their_median_and_scatter(seen: Hand) -> None:
    rng = np.random.default_rng(0)
    factors = rng.normal(1, 0.05, 301)
    factors[:60] *= 3  # a fifth of all frames is far off
    frames = [replace(seen, joints_m=seen.joints_m * factor) for factor in factors]
    found = bone_length_from_depth(frames, 0.5)
    np.testing.assert_allclose(found.estimates_m, TRUE_BONE_M / factors, rtol=1e-5)
    assert found.length_m == pytest.approx(TRUE_BONE_M, rel=0.03)
    assert found.spread_m == pytest.approx(0.05 * TRUE_BONE_M, rel=0.5)
    each = bone_length_from_depth(frames, 0.5 * factors)
    assert each.length_m == pytest.approx(TRUE_BONE_M, rel=1e-5)
    assert each.spread_m == pytest.approx(0, abs=1e-7)
    cards = np.repeat(_card(seen, TRUE_BONE_M / ADULT_BONE_LENGTH_M)[None], 301, axis=0)
    by_card = bone_length_from_object(frames, cards)
    assert by_card.length_m == pytest.approx(found.length_m, rel=1e-4)


@pytest.mark.parametrize("depth", [0, -1, math.nan, "far", [0.5, 0.5], None, 10**400])
def test_impossible_depths_are_refused(seen: Hand, depth: Any) -> None:
    with pytest.raises(InputError, match="root_depth_m"):
        bone_length_from_depth(seen, depth)


@pytest.mark.parametrize(
    ("ends", "length", "message"),
    [
        ([[0, 0]], 0.1, "shape"),
        ([[[0, 0], [1, 1]], [[0, 0], [1, 1]]], 0.1, "shape"),
        ([[5, 5], [5, 5]], 0.1, "fall together"),
        ([[5, 5], [math.nan, 5]], 0.1, "finite"),
        ([["a", 5], [5, 5]], 0.1, "numbers"),
        ([[5, 5], [9, 5]], 0, "length_m"),
        ([[5, 5], [9, 5]], math.inf, "length_m"),
    ],
)
def test_impossible_objects_are_refused(seen: Hand, ends: Any, length: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        bone_length_from_object(seen, ends, length)


def test_hands_that_cannot_calibrate_are_refused(seen: Hand) -> None:
    with pytest.raises(InputError, match="at least one hand"):
        bone_length_from_depth([], 0.5)
    for wrong in (["x"], None, 5):
        with pytest.raises(InputError, match="takes hands, as predict gives, not"):
            bone_length_from_depth(wrong, 0.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="bone_length_m"):
        bone_length_from_depth(replace(seen, bone_length_m=None), 0.5)
    with pytest.raises(InputError, match="ends_px must have shape"):
        object_depth(CAMERA, [1, 2], 0.1)


def test_lengths_in_another_unit_are_refused(seen: Hand) -> None:
    with pytest.raises(InputError, match=r"bone of 41 metres.*not millimetres"):
        bone_length_from_depth(seen, 500)
    card = _card(seen, TRUE_BONE_M / ADULT_BONE_LENGTH_M)
    with pytest.raises(InputError, match="not millimetres"):
        bone_length_from_object(seen, card, 85.6)
    # One frame that is far off among many is what the median is for.
    assert bone_length_from_depth([seen] * 3, [0.5, 0.5, 50]).length_m < 0.05
