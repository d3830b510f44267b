"""What a `Predictor` refuses and prepares; test_predictor.py has what it finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from handmesh.bundle import Bundle
from handmesh.errors import InputError
from handmesh.finding import DetectedHands
from handmesh.predictor import Predictor
from handmesh.types import Box, Camera

CAMERA = Camera.default(640, 480)
Make = Callable[..., Any]


def test_what_is_almost_a_backend_is_told_what_it_lacks(bundle: Bundle) -> None:
    class Bare:
        def run(self, images: Any) -> None: ...

    with pytest.raises(InputError, match="a name and a description beside run, and this Bare"):
        Predictor(bundle, Bare())  # type: ignore[arg-type]


def test_warming_up_makes_the_shipped_detector_ready(
    bundle: Bundle, make_hand: Make, reading_backend: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    class Found:
        def find(self, image: Any) -> list[Any]:
            made.append(image.shape)
            return []

    def load(threads: int | None) -> DetectedHands:
        made.append("loaded")
        return DetectedHands(Found())  # type: ignore[arg-type]

    monkeypatch.setattr("handmesh.predictor.default_finder", load)
    predictor = Predictor(bundle, reading_backend(make_hand()))
    predictor.warm_up()
    assert made == ["loaded", (128, 128, 3)]
    made.clear()
    Predictor(bundle, reading_backend(make_hand()), find=DetectedHands(Found())).warm_up()  # type: ignore[arg-type]
    assert made == [], "a finder of one's own is its owner's to prepare"


def test_depths_in_another_unit_are_refused(
    bundle: Bundle, make_hand: Make, paint: Make, reading_backend: Make
) -> None:
    hand = make_hand()
    box = Box.from_points(CAMERA.project(hand.joints_m))
    predictor, photo = Predictor(bundle, reading_backend(hand)), paint(CAMERA, hand)
    with pytest.raises(InputError, match=r"gives this hand a bone of .* metres"):
        predictor.predict(photo, box, CAMERA, root_depth_m=90)
    (found,) = predictor.predict(photo, box, CAMERA, root_depth_m=0.9)
    assert found.joints_m[0, 2] == pytest.approx(0.9), "farther than a bone is long, as all are"
