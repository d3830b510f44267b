"""Boxes of a detector of one's own: several in one photo, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from handmesh.bundle import Bundle
from handmesh.errors import BoxError, InputError
from handmesh.predictor import Predictor
from handmesh.types import Box, Camera

CAMERA = Camera.default(640, 480)
Make = Callable[..., Any]


@pytest.fixture
def hands(make_hand: Make) -> list[Any]:
    """Two right hands and a left one, side by side, of one pose."""
    return [make_hand((x, 0.05, 0.8), left=left) for x, left in ((-0.32, 0), (0, 1), (0.32, 0))]


@pytest.fixture
def backend(reading_backend: Make, hands: list[Any]) -> Any:
    return reading_backend(hands[0])


@pytest.fixture
def predictor(bundle: Bundle, backend: Any) -> Predictor:
    return Predictor(bundle, backend)


@pytest.fixture
def photo(paint: Make, hands: list[Any]) -> Any:
    return paint(CAMERA, *hands)


@pytest.fixture
def boxes(hands: list[Any]) -> list[Box]:
    return [Box.from_points(CAMERA.project(hand.joints_m)) for hand in hands]


def _worst(hand: Any, truth: Any) -> float:
    error = np.linalg.norm(hand.joints_px - CAMERA.project(truth.joints_m), axis=1).max()
    return float(error / hand.box.size)


def test_each_box_gives_its_hand_in_its_place(
    predictor: Predictor, photo: Any, boxes: list[Box], hands: list[Any]
) -> None:
    order = [2, 0, 1]
    found = predictor.predict(photo, [boxes[n] for n in order])
    assert [hand.handedness for hand in found] == ["right", "right", "left"]
    for hand, n in zip(found, order, strict=True):
        assert _worst(hand, hands[n]) < 0.02


def test_all_boxes_go_to_the_network_together(
    predictor: Predictor, photo: Any, boxes: list[Box], backend: Any
) -> None:
    found = predictor.predict(photo, boxes, handedness=["right", "left", "right"])
    assert backend.batches == [3, 3], "two looks at each"
    assert [hand.crops_seen for hand in found] == [6, 6, 6]


def test_of_doubtful_boxes_alone_turned_crops_are_seen_as_well(
    predictor: Predictor,
    photo: Any,
    boxes: list[Box],
    hands: list[Any],
    backend: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = backend.run

    def unsure_at_first(images: Any) -> Any:
        output = run(images)
        if len(backend.batches) == 1:
            output.confidence[1] = 0.3
        return output

    monkeypatch.setattr(backend, "run", unsure_at_first)
    found = predictor.predict(photo, boxes, handedness=["right", "left", "right"])
    # All as they lie; one turned either way; that one upright again; second looks at all.
    assert backend.batches == [3, 2, 1, 3]
    for hand, truth in zip(found, hands, strict=True):
        assert _worst(hand, truth) < 0.02


def test_together_is_as_one_by_one(predictor: Predictor, photo: Any, boxes: list[Box]) -> None:
    for one, box in zip(predictor.predict(photo, boxes), boxes, strict=True):
        (alone,) = predictor.predict(photo, box)
        np.testing.assert_allclose(one.joints_m, alone.joints_m, atol=1e-6)
        assert one.handedness == alone.handedness


def test_an_array_of_rectangles_is_boxes(
    predictor: Predictor, photo: Any, hands: list[Any]
) -> None:
    points = [CAMERA.project(hand.joints_m) for hand in hands]
    rectangles = np.array([[*p.min(axis=0), *p.max(axis=0)] for p in points])  # (3, 4)
    for given in (rectangles, rectangles.tolist(), [tuple(row) for row in rectangles]):
        found = predictor.predict(photo, given)
        assert [_worst(hand, truth) < 0.02 for hand, truth in zip(found, hands, strict=True)]
    assert len(predictor.predict(photo, rectangles[:1])) == 1
    assert len(predictor.predict(photo, rectangles[0])) == 1


@pytest.mark.parametrize("none", [[], (), np.zeros((0, 4))])
def test_no_box_is_no_hand(predictor: Predictor, photo: Any, backend: Any, none: Any) -> None:
    assert predictor.predict(photo, none) == []
    assert backend.batches == []


def test_more_boxes_than_fit_a_batch_keep_their_order(
    predictor: Predictor, photo: Any, boxes: list[Box], backend: Any
) -> None:
    found = predictor.predict(photo, boxes * 7, handedness=["right", "left", "right"] * 7)
    assert backend.batches == [16, 5, 16, 5]
    alone = predictor.predict(photo, boxes, handedness=["right", "left", "right"])
    for one, other in zip(found, alone * 7, strict=True):
        assert one.handedness == other.handedness
        np.testing.assert_allclose(one.joints_m, other.joints_m, atol=1e-6)


@pytest.mark.parametrize("box", [[(10, 10, 200, 200), None], [(1, 2, 3)], [[[1, 2], [3, 4]]]])
def test_one_bad_box_is_refused(predictor: Predictor, photo: Any, box: Any) -> None:
    with pytest.raises(BoxError):
        predictor.predict(photo, box)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ((1, 2, 3), r"^box\[2\] of 4 boxes: box must be a handmesh\.Box"),
        ((10, 10, 10, 90), r"^box\[2\] of 4 boxes: a box is \(x0, y0, x1, y1\)"),
        (Box(-90, 40, 50), r"^box\[2\] of 4 boxes: the centre of the box"),
        (Box(90, 40, 1), r"^box\[2\] of 4 boxes: the box has a side"),
    ],
)
def test_the_bad_one_among_several_is_named(
    predictor: Predictor, photo: Any, boxes: list[Box], backend: Any, bad: Any, message: str
) -> None:
    with pytest.raises(BoxError, match=message):
        predictor.predict(photo, [*boxes[:2], bad, boxes[2]])
    assert backend.batches == []
    with pytest.raises(BoxError, match=r"^(?!box\[)"):
        predictor.predict(photo, bad)


@pytest.mark.parametrize("sides", [["right"], ["right", "left", "both"], 3, {"left": 1}])
def test_sides_that_do_not_fit_are_refused(
    predictor: Predictor, photo: Any, boxes: list[Box], sides: Any
) -> None:
    with pytest.raises(InputError, match="handedness must be"):
        predictor.predict(photo, boxes, handedness=sides)


def test_sides_without_boxes_are_refused(predictor: Predictor, photo: Any) -> None:
    with pytest.raises(InputError, match="with several boxes"):
        predictor.predict(photo, handedness=["left", "right"])


def test_warming_up_runs_the_network(predictor: Predictor, backend: Any) -> None:
    predictor.warm_up()
    predictor.warm_up(16)
    assert backend.batches == [1, 16]
    for crops in (0, 1.5):
        with pytest.raises(InputError, match="crops must be"):
            predictor.warm_up(crops)  # type: ignore[arg-type]


@pytest.mark.parametrize("none", [{}, set(), frozenset(), {"x0": 1}, {10, 20, 200, 300}, b""])
def test_what_has_no_order_is_no_list_of_boxes(predictor: Predictor, photo: Any, none: Any) -> None:
    with pytest.raises(BoxError, match="box must be"):
        predictor.predict(photo, none)
