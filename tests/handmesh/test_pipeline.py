"""What a photo shows to a network, and what is made of the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

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
