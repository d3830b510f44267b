"""Evaluation in several boxes about each hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from planted import Planted, hand

from handmesh.errors import InputError
from handmesh_training.evaluate import evaluate
from handmesh_training.evaluation_report import to_table
from handmesh_training.protocols import IN_THE_WILD, PAPER, UNAIDED, Protocol

Array = NDArray[np.float64]


def test_several_boxes_about_each_hand() -> None:
    samples = [hand(i) for i in range(3)]
    single, several = Planted(samples), Planted(samples)
    evaluate(single, samples, IN_THE_WILD, "made")
    report = evaluate(several, samples, IN_THE_WILD, "made", boxes=16)

    assert (report.hands, report.boxes) == (48, 16)
    assert "made (48 hands, counting the 16 boxes of each)" in to_table([report])
    assert [query.box for query in several.asked[:3]] == [query.box for query in single.asked]
    for n, given in enumerate(query.box for query in single.asked):
        boxes = [query.box for query in several.asked[n::3]]
        assert given is not None
        assert len(set(boxes)) == 16
        for box in boxes:
            assert box is not None
            assert 0.87 < box.size / given.size < 1.13
            assert np.hypot(box.cx - given.cx, box.cy - given.cy) < 0.07 * given.size
            assert box.angle == given.angle


def test_hands_that_some_box_cannot_be_given_for_are_left_out() -> None:
    """One whose box is just large enough, and one whose box has its middle at the border."""
    small, outer = hand(0), hand(1)
    small = replace(small, joints_px=70 + 2.9 * unit(small.joints_px))
    outer = replace(outer, joints_px=[0.5, 60] + 40 * unit(outer.joints_px))
    for sample, reason in ((small, "too small"), (outer, "outside the picture")):
        samples = [sample, hand(2)]
        assert evaluate(Planted(samples), samples, IN_THE_WILD, "made").hands == 2
        report = evaluate(Planted(samples), samples, IN_THE_WILD, "made", boxes=16)
        assert report.hands == 16
        ((why, count),) = report.left_out.items()
        assert reason in why
        assert count == 16


def unit(points: Array) -> Array:
    """About their middle, the larger side of their box being 1."""
    low, high = points.min(axis=0), points.max(axis=0)
    return np.asarray((points - (low + high) / 2) / (high - low).max())


@pytest.mark.parametrize(("boxes", "protocol"), [(0, PAPER), (17, PAPER), (2, UNAIDED)])
def test_boxes_that_cannot_be_are_refused(boxes: int, protocol: Protocol) -> None:
    with pytest.raises(InputError, match="1 to 16 boxes"):
        evaluate(Planted([hand(0)]), [hand(0)], protocol, "made", boxes=boxes)
