from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from handmesh.search import (
    Sighting,
    View,
    find,
    first_looks,
    follow,
    hand_confidence,
    is_near,
    judge_sides,
    next_box,
    separate,
    windows,
)
from handmesh.types import Box

# Joints of the hand that is to be found, in pixels: it points up and fills 100 x 100.
TRUTH = np.array(
    [(62.5, 100.0), *((25.0 * finger, 75.0 - 25 * k) for finger in range(5) for k in range(4))]
)


class Watcher:
    """Sees one hand wherever a view shows it; remembers what it was shown."""

    def __init__(self, offset: tuple[float, float], looks_right: float = 0.98) -> None:
        self.points = TRUTH + offset
        self.looks_right = looks_right
        self.shown: list[View] = []

    def __call__(self, views: Sequence[View]) -> list[Sighting]:
        self.shown += views
        return [self._sighting(view) for view in views]

    def _sighting(self, view: View) -> Sighting:
        uv = view.box.to_crop(self.points)
        whole = bool(((uv > 0) & (uv < 1)).all()) and 0.3 < np.ptp(uv, axis=0).max() < 0.95
        # Joints out of view are put at its edge, as a soft-argmax would.
        joints = np.column_stack([uv.clip(0, 1), np.zeros(21)]).astype(np.float32)
        confidence = np.full(21, 0.9, dtype=np.float32)
        presence = 0.9999 if whole else 0.1
        return Sighting(view, joints, joints, confidence, presence, self.looks_right)


@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 640), (100, 100), (1200, 300)])
def test_windows_cover_the_photo_at_every_size(width: int, height: int) -> None:
    rng = np.random.default_rng(0)
    rounds = list(windows(width, height))
    assert len(rounds) == 3
    shorter = min(width, height)
    smallest = [min(box.size for box in boxes) for boxes in rounds]
    assert smallest == pytest.approx([shorter / 1.4, shorter / 1.4**2, shorter / 1.4**3])
    for boxes in rounds:
        size = min(box.size for box in boxes)
        centres = np.array([(box.cx, box.cy) for box in boxes if box.size == size])
        # Any place that a hand of that size can have in the photo is near some window's centre.
        for place in rng.uniform(
            (size / 2, size / 2), (width - size / 2, height - size / 2), (99, 2)
        ):
            assert abs(centres - place).max(axis=1).min() <= 0.5 * 0.35 * size + 1


def test_windows_of_panoramas_are_bounded() -> None:
    assert all(len(boxes) <= 4 * 256 for boxes in windows(60_000, 64))


def test_search_stops_at_the_size_that_shows_the_hand() -> None:
    watcher = Watcher((200, 150))
    (found,) = find(watcher, 640, 480)
    # As sure as the network is, less sure for having looked in many places.
    assert 0.5 < found.presence < 0.99
    smallest = next(windows(640, 480))
    assert len(watcher.shown) <= len(smallest) + 12  # the first round, and following


def test_search_goes_on_for_small_hands() -> None:
    watcher = Watcher((640, 500))
    (found,) = find(watcher, 800, 640)
    np.testing.assert_allclose(found.joints_px(), watcher.points, atol=1e-3)


def test_one_hand_is_reported_once() -> None:
    assert len(find(Watcher((200, 150)), 640, 480, max_hands=5)) == 1


@pytest.mark.parametrize(("beside", "hands"), [(0.0, 1), (0.9, 2)])
def test_a_hand_is_not_read_within_another(beside: float, hands: int) -> None:
    """Small crops of the large hand make the network see a small one, joints in another order."""
    large, small = Watcher((200, 150)), Watcher((0, 0))
    large.points = (TRUTH * 2.4) + (150, 100)
    small.points = TRUTH[::-1] * 0.8 + (210 + 290 * beside, 170)

    def look(views: Sequence[View]) -> list[Sighting]:
        pairs = zip(large(views), small(views), strict=True)
        return [max(pair, key=lambda sighting: sighting.presence) for pair in pairs]

    found = find(look, 640, 480, max_hands=2)
    assert len(found) == hands
    np.testing.assert_allclose(found[0].joints_px(), large.points, atol=1e-3)


def test_nothing_is_reported_where_there_is_nothing() -> None:
    watcher = Watcher((5000, 5000))
    assert find(watcher, 640, 480) == []
    assert len(watcher.shown) >= sum(map(len, windows(640, 480)))


def test_presence_bounds_what_is_reported() -> None:
    assert len(find(Watcher((5000, 5000)), 640, 480, min_presence=1e-5)) == 1
    assert find(Watcher((5000, 5000)), 640, 480, min_presence=1e-3) == []
    assert find(Watcher((200, 150)), 640, 480, min_presence=0.99) == []


class Unsure(Watcher):
    """Sure of joints by how a view is turned, in quarters, and remembers what comes together."""

    def __init__(self, *sure: dict[int, float]) -> None:
        super().__init__((0, 0))
        self.sure = sure
        self.batches: list[int] = []

    def __call__(self, views: Sequence[View]) -> list[Sighting]:
        self.batches.append(len(views))
        self.shown += views
        return [self._of(view) for view in views]

    def _of(self, view: View) -> Sighting:
        which, quarters = int(view.box.cx), round(view.box.angle / (np.pi / 2))
        sure = np.full(21, self.sure[which][quarters], dtype=np.float32)
        return replace(self._sighting(view), confidence=sure)


@pytest.mark.parametrize(
    ("sure", "quarter"),
    [
        ({0: 0.5, 1: 0.9, -1: 0.4}, 1),
        ({0: 0.5, 1: 0.7, -1: 0.8}, -1),
        ({0: 0.5, 1: 0.54, -1: 0.53}, 0),  # hardly surer than the box as it lies
        ({0: 0.5, 1: 0.3, -1: 0.2}, 0),
        ({0: 0.59, 1: 0.7, -1: 0.2}, 1),
    ],
)
@pytest.mark.parametrize("mirrored", [False, True])
def test_doubtful_views_are_shown_turned(
    sure: dict[int, float], quarter: int, mirrored: bool
) -> None:
    watcher = Unsure(sure)
    box = Box(0, 50, 100)
    (seen,) = first_looks(watcher, [View(box, mirrored)])
    assert {view.mirrored for view in watcher.shown} == {mirrored}
    turns = [view.box.angle for view in watcher.shown]
    np.testing.assert_allclose(sorted(turns), [-np.pi / 2, 0, np.pi / 2])
    assert all(replace(view.box, angle=0.0) == box for view in watcher.shown)
    assert seen.view.box.angle == pytest.approx(quarter * np.pi / 2)
    assert hand_confidence(seen) == pytest.approx(sure[quarter])


def test_of_a_doubtful_hand_all_looks_say_which_side_it_is() -> None:
    opinions = iter([0.8, 0.1, 0.3])
    watcher = Unsure({0: 0.5, 1: 0.9, -1: 0.9})

    def look(views: Sequence[View]) -> list[Sighting]:
        return [replace(one, looks_right=next(opinions)) for one in watcher(views)]

    (seen,) = first_looks(look, [View(Box(0, 50, 100))])
    total = odds(0.8) * odds(0.1) * odds(0.3)
    assert seen.looks_right == pytest.approx(total / (1 + total))


def test_only_doubtful_views_are_shown_again_and_those_together() -> None:
    doubtful = {0: 0.4, 1: 0.5, -1: 0.9}
    watcher = Unsure({0: 0.61}, doubtful, {0: 0.95}, doubtful)
    seen = first_looks(watcher, [View(Box(n, 50, 100)) for n in range(4)])
    assert watcher.batches == [4, 4]
    assert [one.view.box.cx for one in seen] == [0, 1, 2, 3]
    assert [round(hand_confidence(one), 2) for one in seen] == [0.61, 0.9, 0.95, 0.9]


def test_one_hidden_joint_makes_no_hand_unsure_and_many_do() -> None:
    (seen,) = Watcher((200, 150))([View(Box(250, 200, 300))])
    sure = np.full(21, 0.9, dtype=np.float32)
    sure[4] = 0.1
    assert hand_confidence(replace(seen, confidence=sure)) == pytest.approx(
        (0.9**20 * 0.1) ** (1 / 21), rel=1e-5
    )
    assert hand_confidence(replace(seen, confidence=np.zeros(21, np.float32))) > 0


@pytest.mark.parametrize("mirrored", [False, True])
def test_known_side_is_the_only_one_shown(mirrored: bool) -> None:
    watcher = Watcher((200, 150), looks_right=0.5)
    find(watcher, 640, 480, mirrored)
    assert {view.mirrored for view in watcher.shown} == {mirrored}


@pytest.mark.parametrize(
    ("looks_right", "sides"), [(0.97, {False}), (0.5, {False, True}), (0.03, {True})]
)
def test_handedness_decides_which_side_is_shown_next(looks_right: float, sides: set[bool]) -> None:
    watcher = Watcher((200, 150), looks_right)
    start = watcher([View(Box(250, 200, 300))])
    watcher.shown.clear()
    follow(watcher, start)
    assert {view.mirrored for view in watcher.shown} == sides


class Opinionated(Watcher):
    """Says of its n-th look what it was told to; a hand that never stays in place."""

    def __init__(self, *opinions: float, drift: float = 25.0) -> None:
        super().__init__((200, 150))
        self.opinions = list(opinions)
        self.drift = drift

    def __call__(self, views: Sequence[View]) -> list[Sighting]:
        self.points = self.points + (self.drift, 0)
        self.shown += views
        return [replace(self._sighting(v), looks_right=self.opinions.pop(0)) for v in views]

    @property
    def sides(self) -> list[bool]:
        return [view.mirrored for view in self.shown]


def odds(probability: float) -> float:
    return probability / (1 - probability)


@pytest.mark.parametrize(
    ("opinions", "left"),
    [
        ((0.8, 0.1, 0.3, 0.6), True),
        ((0.8, 0.6, 0.3, 0.6), False),
        ((0.3, 0.2, 0.9, 0.7), False),
        ((0.8, 0.1, 0.5, 0.5), True),
    ],
)
def test_in_doubt_all_looks_at_both_sides_count(opinions: tuple[float, ...], left: bool) -> None:
    watcher = Opinionated(*opinions, drift=0)
    start = watcher([View(Box(300, 260, 280))])
    (found,) = follow(watcher, start, rounds=1)
    total = np.prod([odds(p) for p in opinions])
    assert (total < 1) == left  # what the case is about
    assert found.looks_right == pytest.approx(total / (1 + total))
    assert found.view.mirrored == left
    assert watcher.sides == [False, True, False, True]
    first, other, *following = watcher.shown
    assert other.box == first.box
    assert following[0].box == following[1].box == found.view.box != first.box


def test_both_sides_are_looked_at_once() -> None:
    watcher = Opinionated(*[0.5] * 5)
    follow(watcher, watcher([View(Box(250, 200, 300))]))
    assert watcher.sides == [False, True, False, True, False]


@pytest.mark.parametrize(("known", "looks"), [(None, 4), (False, 3)])
def test_a_side_that_the_looks_contradict_is_left(known: bool | None, looks: int) -> None:
    watcher = Opinionated(0.951, 0.951, 1e-4, 0.02)
    (found,) = follow(watcher, watcher([View(Box(250, 200, 300))]), known)
    assert len(watcher.shown) == looks
    if known is None:
        assert watcher.sides == [False, False, False, True]
        assert found.view.mirrored
    else:  # whoever states the side is obeyed
        assert not found.view.mirrored


def test_one_look_does_not_outweigh_all_others() -> None:
    watcher = Opinionated(0.0, 0.99, 0.99, 0.99, drift=0)
    (found,) = follow(watcher, watcher([View(Box(300, 260, 280))]))
    assert found.view.mirrored  # 1e-4 against 99:1 once
    watcher = Opinionated(0.3, 1e-9, 0.9999, 0.99, drift=0)
    (found,) = follow(watcher, watcher([View(Box(300, 260, 280))]))
    assert not found.view.mirrored


@pytest.mark.parametrize(
    ("opinions", "crops"), [((0.98, 0.98), 2), ((0.02, 0.02), 2), ((0.6, 0.6, 0.6, 0.6), 4)]
)
def test_one_round_is_two_runs_at_most(opinions: tuple[float, ...], crops: int) -> None:
    runs = 0

    class Counting(Opinionated):
        def __call__(self, views: Sequence[View]) -> list[Sighting]:
            nonlocal runs
            runs += 1
            return super().__call__(views)

    watcher = Counting(*opinions)
    follow(watcher, watcher([View(Box(250, 200, 300))]), rounds=1)
    assert runs == 2
    assert len(watcher.shown) == crops


def test_after_the_last_round_a_contradicted_side_is_looked_at() -> None:
    watcher = Opinionated(0.96, 1e-4, 0.02)
    (found,) = follow(watcher, watcher([View(Box(250, 200, 300))]), rounds=1)
    assert watcher.sides == [False, False, True]
    assert found.view.mirrored
    assert found.looks_right < 0.01


def test_each_hand_may_have_a_side_of_its_own() -> None:
    watcher = Watcher((200, 150), looks_right=0.5)
    start = watcher([View(Box(250, 200, 300), side) for side in (True, False, False)])
    watcher.shown.clear()
    runs = []

    def look(views: Sequence[View]) -> list[Sighting]:
        runs.append(len(views))
        return watcher(views)

    found = follow(look, start, [True, False, None], rounds=1)
    assert runs == [5], "one look each of the known ones, three of the other, in one run"
    assert [sighting.view.mirrored for sighting in found[:2]] == [True, False]


def test_following_converges_on_the_joints() -> None:
    watcher = Watcher((200, 150))
    (found,) = follow(watcher, watcher([View(Box(230, 180, 290))]))
    box = found.view.box
    assert (box.cx, box.cy, box.size) == pytest.approx((250, 200, 150), rel=0.06)


def test_a_view_that_is_right_already_is_not_shown_again() -> None:
    watcher = Watcher((200, 150))
    start = watcher([View(Box.from_points(watcher.points))])
    watcher.shown.clear()
    (found,) = follow(watcher, start)
    assert found.joints is start[0].joints
    assert watcher.shown == []


def test_wild_guesses_move_a_view_only_so_far() -> None:
    class Wild(Watcher):
        def _sighting(self, view: View) -> Sighting:
            seen = super()._sighting(view)
            joints = np.random.default_rng(0).normal(0.5, 100, (21, 3)).astype(np.float32)
            return Sighting(view, joints, joints, seen.confidence, 0.1, 0.98)

    wild = Wild((0, 0))
    follow(wild, wild([View(Box(100, 100, 50))]))
    sizes = [view.box.size for view in wild.shown]
    assert max(sizes) <= 50 * 2**2


def test_a_side_in_doubt_is_judged_by_more_looks() -> None:
    seen: list[View] = []

    def look(views: Sequence[View]) -> list[Sighting]:
        seen.extend(views)
        return [_sighting_of(view, looks_right=0.2) for view in views]

    box = Box(100, 120, 80, 0.3)
    doubtful = _sighting_of(View(box, False), looks_right=0.6)
    sure = _sighting_of(View(box, False), looks_right=0.99)

    judged, same = judge_sides(look, [doubtful, sure])

    assert same is sure
    assert judged.view == View(box, True)  # shown the other way round in the end
    assert judged.presence == doubtful.presence
    assert judged.looks_right < 0.01
    varied, last = seen[:-1], seen[-1]
    assert last == View(box, True)
    assert len({view.box for view in varied}) == len(varied) / 2
    assert {view.mirrored for view in varied} == {False, True}


def _sighting_of(view: View, looks_right: float) -> Sighting:
    joints = np.full((21, 3), 0.5, np.float32)
    return Sighting(view, joints, joints, np.ones(21, np.float32), 0.9, looks_right)


def _of_joints(joints_px: np.ndarray, box: Box, presence: float = 0.9) -> Sighting:
    joints = np.column_stack([box.to_crop(joints_px), np.zeros(21)]).astype(np.float32)
    return Sighting(View(box), joints, joints, np.ones(21, np.float32), presence, 0.98)


@pytest.mark.parametrize(("extent", "side"), [(2, 50), (40, 60), (100, 150), (400, 200)])
def test_the_next_view_is_half_to_twice_as_large(extent: float, side: float) -> None:
    seen = _of_joints((TRUTH - 50) * extent / 100 + 50, Box(50, 50, 100))
    assert next_box(seen).size == pytest.approx(side, rel=1e-4)


@pytest.mark.parametrize(("inside", "hands"), [(16, 2), (17, 1), (21, 1)])
def test_a_hand_is_another_one_s_part_if_four_fifths_of_it_are(inside: int, hands: int) -> None:
    large = _of_joints(TRUTH * 4, Box(200, 200, 600), 0.99)
    joints = TRUTH[::-1] * 0.5 + 150
    joints[inside:] += (1000, 0)
    small = _of_joints(joints, Box(180, 180, 75), 0.9)
    assert len(separate([small, large])) == hands


def test_boxes_are_near_across_the_seam_of_angles() -> None:
    one, other = Box(50, 50, 100, np.pi - 0.01), Box(50, 50, 100, -np.pi + 0.01)
    assert is_near(one, other)
    assert is_near(other, one)
    assert is_near(one, replace(one, angle=one.angle + 2 * np.pi))
    assert not is_near(one, replace(one, angle=one.angle - 0.31))


def test_a_hand_judged_to_be_of_the_other_side_is_as_sure_as_before() -> None:
    """How sure the search was is by both networks; a further look knows less."""

    def look(views: Sequence[View]) -> list[Sighting]:
        return [replace(_sighting_of(view, looks_right=0.2), presence=0.123) for view in views]

    doubtful = _sighting_of(View(Box(100, 120, 80), False), looks_right=0.6)
    (judged,) = judge_sides(look, [replace(doubtful, presence=0.77)])
    assert judged.view.mirrored
    assert judged.presence == 0.77
