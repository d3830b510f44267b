"""What a photo shows to a network, and what is made of the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from handmesh.backends import RawOutput
from handmesh.bundle import Bundle
from handmesh.geometry import upright_angle
from handmesh.pipeline import Photo
from handmesh.search import View
from handmesh.types import Box, Camera

CAMERA = Camera.default(640, 480)
Make = Callable[..., Any]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(
    ("turn", "counts"),
    [(0.0, 1.0), (np.pi / 3, 0.5), (-np.pi / 3, 0.5), (np.pi / 2 + 0.1, 0.0), (np.pi, 0.0)],
)
def test_the_farther_from_upright_the_less_is_known_of_the_side(
    bundle: Bundle,
    make_hand: Make,
    paint: Make,
    reading_backend: Make,
    turn: float,
    counts: float,
    mirrored: bool,
) -> None:
    hand = make_hand(left=mirrored)
    points = CAMERA.project(hand.joints_m)
    upright = upright_angle(points)
    assert upright is not None
    photo = Photo(paint(CAMERA, hand), bundle, reading_backend(hand, doubt=0.1))

    (seen,) = photo.look([View(Box.from_points(points, angle=upright + turn), mirrored)])

    # Log-odds of 0.9, of a right hand as it is shown.
    expected = 1 / (1 + (0.1 / 0.9) ** counts)
    assert seen.looks_right == pytest.approx(1 - expected if mirrored else expected, abs=2e-3)


def test_a_backend_may_write_into_the_same_arrays_again(
    bundle: Bundle, make_hand: Make, paint: Make, reading_backend: Make
) -> None:
    hand = make_hand()
    reading, kept = reading_backend(hand), []

    class Reusing:
        name, description, threads = "reusing", "one set of outputs", 1

        def run(self, images: NDArray[np.uint8]) -> RawOutput:
            if not kept:
                kept.append(reading.run(images))
                return kept[0]
            for array in kept[0]:
                array[...] = 0.25
            return kept[0]

    photo = Photo(paint(CAMERA, hand), bundle, Reusing())
    view = View(Box.from_points(CAMERA.project(hand.joints_m)))
    (seen,) = photo.look([view])
    before = [part.copy() for part in (seen.vertices, seen.joints, seen.confidence)]
    photo.look([view])
    for part, was in zip((seen.vertices, seen.joints, seen.confidence), before, strict=True):
        np.testing.assert_array_equal(part, was)


def test_joints_that_are_not_believed_do_not_place_the_hand(
    bundle: Bundle, make_hand: Make, paint: Make, reading_backend: Make
) -> None:
    hand = make_hand()
    photo = Photo(paint(CAMERA, hand), bundle, reading_backend(hand))
    (seen,) = photo.look([View(Box.from_points(CAMERA.project(hand.joints_m)))])
    joints, sure = seen.joints.copy(), np.full(21, 0.9, np.float32)
    wrong = np.arange(9, 21)
    joints[wrong, :2] = 0.5 + 0.2 * (joints[wrong, :2] - 0.5)  # as if much farther away
    sure[wrong] = 0.01
    truth = photo.measure(seen, CAMERA).root_depth
    doubted = photo.measure(replace(seen, joints=joints, confidence=sure), CAMERA).root_depth
    believed = photo.measure(
        replace(seen, joints=joints, confidence=np.full(21, 0.9, np.float32)), CAMERA
    ).root_depth
    assert doubted == pytest.approx(truth, rel=0.1)
    assert abs(believed / truth - 1) > 0.2, "what the case is about"
