"""The hand that `handmesh bench` measures, and its box."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handmesh import Box, Bundle, Hand, InputError, Predictor
from handmesh.imaging import decode
from handmesh_benchmarks import candidates

FOUND = Box(100, 100, 200)


@pytest.fixture(scope="module")
def seen(example_photos: dict[str, Path]) -> Hand:
    """A hand, whose box the tests choose."""
    with Predictor(backend="onnx") as predictor:
        (hand,) = predictor.predict(example_photos["pointing"], looks=1)
    return hand


class Planted:
    """A predictor that gives these hands, one after the other, and keeps what it was asked."""

    def __init__(self, hands: Sequence[Hand]) -> None:
        self.hands = list(hands)
        self.asked: list[dict[str, Any]] = []

    def __call__(self, bundle: Bundle, backend: str) -> Planted:
        return self

    def __enter__(self) -> Planted:
        return self

    def __exit__(self, *error: object) -> None: ...

    def predict(self, image: Any, **given: Any) -> list[Hand]:
        self.asked.append(given)
        return [self.hands[min(len(self.asked), len(self.hands)) - 1]] if self.hands else []


def _locate(monkeypatch: pytest.MonkeyPatch, hands: Sequence[Hand]) -> tuple[Hand, Planted]:
    planted = Planted(hands)
    monkeypatch.setattr(candidates, "Predictor", planted)
    image = np.zeros((8, 8, 3), np.uint8)
    return candidates.locate(image, Bundle.load(), "onnx", [1.0, 2.0, 3.0, 4.0]), planted


def test_a_box_that_moves_is_followed_until_one_crop_is_enough(
    seen: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves = [
        dataclasses.replace(seen, box=dataclasses.replace(FOUND, cx=cx), crops_seen=crops)
        for cx, crops in ((100, 4), (120, 2), (126, 2), (126, 1))
    ]

    hand, planted = _locate(monkeypatch, moves)

    assert (hand.box.cx, hand.crops_seen) == (126, 1)
    assert planted.asked[0] == {"box": [1.0, 2.0, 3.0, 4.0], "looks": 1}
    assert [asked["box"].cx for asked in planted.asked[1:]] == [100, 120, 126]
    assert {(a["handedness"], a["looks"]) for a in planted.asked[1:]} == {(seen.handedness, 1)}


def test_a_box_that_comes_to_no_rest_is_that_of_the_search(
    seen: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubtful = dataclasses.replace(seen, box=FOUND, crops_seen=3)
    moved = dataclasses.replace(doubtful, box=dataclasses.replace(FOUND, cx=120))

    hand, planted = _locate(monkeypatch, [doubtful, moved])

    assert hand.box == FOUND
    assert len(planted.asked) == 1 + candidates._BOXES


def test_a_box_that_leaves_the_hand_is_not_taken(
    seen: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = dataclasses.replace(seen, box=FOUND, crops_seen=4)
    joints = seen.joints_px + np.float32(0.2 * FOUND.size)
    elsewhere = dataclasses.replace(found, joints_px=joints, crops_seen=1)

    hand, planted = _locate(monkeypatch, [found, elsewhere])

    assert hand is found
    assert len(planted.asked) == 2


def test_no_hand_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="--photo"):
        _locate(monkeypatch, [])


def test_one_crop_is_enough_in_the_photo_of_the_figures(example_photos: dict[str, Path]) -> None:
    """As the README says of its figures; with other weights it may be another photo."""
    image, bundle = decode(example_photos["pointing"]), Bundle.load()

    hand = candidates.locate(image, bundle, "onnx")

    with Predictor(bundle, "onnx") as predictor:
        (again,) = predictor.predict(image, box=hand.box, handedness=hand.handedness, looks=1)
    assert (again.crops_seen, again.box) == (1, hand.box)
    assert again.presence > 0.9
    x0, y0, x1, y1 = 158, 95, 398, 500  # of examples/photos/boxes.json, around the visible hand
    inside = (again.joints_px >= [x0 - 40, y0 - 40]) & (again.joints_px <= [x1 + 40, y1 + 60])
    assert inside.all(axis=1).mean() > 0.8
