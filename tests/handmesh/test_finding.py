"""Hands found by a detector: what the finder makes of its boxes. Nothing is trained here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest

from handmesh import Box
from handmesh.bundle import DETECTOR, Bundle
from handmesh.detector import Detection, Detector
from handmesh.finding import PRIOR, DetectedHands, default_finder, search_windows
from handmesh.pipeline import Photo, Stopwatch
from handmesh.search import Sighting, View


def _joints_in(box: Box) -> np.ndarray:
    """(21, 3) of a flat hand that points up in the box and fits it, as fractions of the box."""
    joints = np.zeros((21, 3), np.float32)
    joints[0, :2] = 0.5, 5 / 6
    for finger in range(5):
        for k in range(4):
            joints[1 + 4 * finger + k, :2] = 0.3 + 0.4 * finger / 5 + 0.04, 0.5 - k / 9
    return joints


class _Scene:
    """A photo of hands at boxes: a look at one of them sees it, and how surely."""

    def __init__(self, *hands: tuple[Box, float, bool]) -> None:
        self.hands, self.clock, self.views = hands, Stopwatch(), list[View]()

    def look(self, views: Sequence[View]) -> list[Sighting]:
        self.views += views
        return [self._sighting(view) for view in views]

    def _sighting(self, view: View) -> Sighting:
        def apart(hand: tuple[Box, float, bool]) -> float:
            return math.hypot(hand[0].cx - view.box.cx, hand[0].cy - view.box.cy)

        box, presence, right = min(self.hands, key=apart)
        joints = _joints_in(box)
        joints[:, :2] = view.box.to_crop(box.to_image(joints[:, :2]))
        sure = 0.99 if right else 0.01
        ones = np.ones(21, np.float32)
        return Sighting(view, joints.copy(), joints, ones, presence, sure)


class _Detector:
    def __init__(self, *found: Detection) -> None:
        self.found = sorted(found, key=lambda one: -one.presence)

    def find(self, photo: object, min_presence: float) -> list[Detection]:
        return [one for one in self.found if one.presence >= min_presence]


def _find(scene: _Scene, *found: Detection, side: bool | None = None, **wanted: Any) -> list[Any]:
    finder = DetectedHands(cast(Detector, _Detector(*found)))
    most, least = wanted.get("max_hands", 2), wanted.get("min_presence", 0.5)
    return finder(cast(Photo, scene), side, most, least)


HERE, THERE = Box(100, 100, 80, 0.0), Box(300, 120, 60, 0.0)


def test_two_hands_are_found_at_their_boxes_with_their_sides() -> None:
    scene = _Scene((HERE, 0.98, True), (THERE, 0.97, False))

    found = _find(scene, Detection(HERE, 0.9, 0.95), Detection(THERE, 0.7, 0.1))

    assert len(found) == 2
    assert [one.view.box.cx for one in found] == pytest.approx([100, 300], abs=3)
    assert [one.looks_right > 0.5 for one in found] == [True, False]
    assert found[1].view.mirrored  # a left hand is shown as a right one
    assert scene.clock.milliseconds["detector"] > 0


def test_both_networks_must_believe_in_a_hand() -> None:
    sure = Detection(HERE, 0.95, 0.9)
    assert _find(_Scene((HERE, 0.01, True)), sure) == []
    assert _find(_Scene((HERE, 0.95, True)), Detection(HERE, 0.12, 0.9)) == []
    (found,) = _find(_Scene((HERE, 0.95, True)), sure)
    odds = math.exp(PRIOR) * (0.95 / 0.05) ** 2
    assert found.presence == pytest.approx(odds / (1 + odds))


def test_a_second_look_that_is_surer_is_half_of_what_the_mesh_network_says() -> None:
    class Brighter(_Scene):
        def look(self, views: Sequence[View]) -> list[Sighting]:
            first = not self.views
            seen = super().look(views)
            return [dataclasses.replace(one, presence=0.6 if first else 0.98) for one in seen]

    box = dataclasses.replace(HERE, size=90)  # not the joints' own: it is looked at again
    scene = Brighter((HERE, 0.5, True))
    (found,) = _find(scene, Detection(box, 0.95, 0.9))

    assert len(scene.views) == 2
    odds = math.exp(PRIOR) * (0.95 / 0.05) * math.sqrt(0.6 / 0.4 * 0.98 / 0.02)
    assert found.presence == pytest.approx(odds / (1 + odds))


def test_two_boxes_of_one_hand_are_one_hand() -> None:
    near = Box(103, 102, 84, 0.1)
    found = _find(_Scene((HERE, 0.9, True)), Detection(HERE, 0.9, 0.9), Detection(near, 0.8, 0.9))
    assert len(found) == 1


def test_no_detection_costs_no_look() -> None:
    scene = _Scene((HERE, 0.9, True))
    assert _find(scene) == []
    assert scene.views == []


def test_a_side_that_is_asked_for_is_shown() -> None:
    scene = _Scene((HERE, 0.9, True))
    _find(scene, Detection(HERE, 0.9, 0.9), side=True)
    assert scene.views
    assert all(view.mirrored for view in scene.views)


def test_the_detectors_word_on_the_side_is_a_look_of_its_own() -> None:
    class Unsure(_Scene):
        def look(self, views: Sequence[View]) -> list[Sighting]:
            return [dataclasses.replace(one, looks_right=0.6) for one in super().look(views)]

    scene = Unsure((HERE, 0.95, True))
    (found,) = _find(scene, Detection(HERE, 0.95, 0.02))
    assert [view.mirrored for view in scene.views] == [True], "one look, as a left hand at once"
    odds = (0.6 / 0.4) * (0.02 / 0.98)
    assert found.looks_right == pytest.approx(odds / (1 + odds))


@pytest.mark.parametrize("max_hands", [1, 2])
def test_of_many_boxes_the_surest_are_looked_at(max_hands: int) -> None:
    boxes = [Box(100.0 * n, 100, 80, 0.0) for n in range(9)]
    scene = _Scene(*((box, 0.01, True) for box in boxes))  # none is a hand
    found = [Detection(box, 0.3 + 0.05 * n, 0.9) for n, box in enumerate(boxes)]
    assert _find(scene, *found, max_hands=max_hands) == []
    looked = 2 * max_hands + 2
    assert [view.box.cx for view in scene.views] == [800.0 - 100 * n for n in range(looked)]


def test_no_more_hands_than_are_wanted() -> None:
    scene = _Scene((HERE, 0.9, True), (THERE, 0.8, False))
    found = _find(scene, Detection(HERE, 0.9, 0.95), Detection(THERE, 0.7, 0.1), max_hands=1)
    assert [one.view.box.cx for one in found] == pytest.approx([100], abs=3)


def test_what_finds_by_default_follows_from_what_is_shipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if Bundle.ships(DETECTOR):
        assert isinstance(default_finder(1), DetectedHands)
    monkeypatch.setattr(Bundle, "ships", staticmethod(lambda name: False))
    assert default_finder(1) is search_windows
