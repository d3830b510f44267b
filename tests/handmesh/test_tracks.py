"""Tracks in a scripted world: hands are points that move, and a crop shows the nearest one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from handmesh.search import Sighting, View
from handmesh.tracks import Track, Tracks
from handmesh.types import Box

WIDTH, HEIGHT, FPS = 640, 480, 30
# A hand of 100 x 100 pixels that points up, about its middle; thumb to the right.
SHAPE = np.array(
    [(12.5, 50.0), *((50.0 - 25 * finger, 25.0 - 25 * k) for finger in range(5) for k in range(4))]
)
Path = Callable[[float], tuple[float, float]]


@dataclass
class Actor:
    """A hand that moves; later ones in a scene hide the earlier ones."""

    path: Path
    left: bool = False
    confidence: float = 0.9
    presence: float = 0.999

    def joints(self, t: float) -> np.ndarray:
        return (SHAPE * (-1, 1) if self.left else SHAPE) + self.path(t)


class Scene:
    """What the network sees of the actors at a time."""

    def __init__(self, *actors: Actor) -> None:
        self.actors = actors
        self.t = 0.0
        self.looks = 0
        # By frame number, evidence of one look that says the opposite of the truth.
        self.lies: set[int] = set()

    def look(self, views: Sequence[View]) -> list[Sighting]:
        self.looks += len(views)
        return [self._sighting(view) for view in views]

    def _sighting(self, view: View) -> Sighting:
        best, actor = 0.6, None
        for each in self.actors:
            x, y = each.path(self.t)
            off = abs(view.box.to_crop([x, y]) - 0.5).max()
            seen = -60 < x < WIDTH + 60 and -60 < y < HEIGHT + 60
            if seen and off <= best + 0.15:  # the one in front is seen even if a bit farther off
                best, actor = off, each
        if actor is None:
            joints, presence, right, sure = np.full((21, 2), 0.5), 0.05, 0.5, 0.1
        else:
            joints, sure = view.box.to_crop(actor.joints(self.t)), actor.confidence
            presence = actor.presence if best < 0.4 else 0.2
            right = 0.02 if actor.left else 0.98
            if round(self.t * FPS) in self.lies:
                right = 1 - right
        uvd = np.column_stack([joints, np.zeros(21)]).astype(np.float32)
        return Sighting(view, uvd, uvd, np.full(21, sure, np.float32), presence, right)

    def find(self) -> list[Sighting]:
        """What a search would give now."""
        views = [
            View(Box.from_points(actor.joints(self.t)), actor.left)
            for actor in self.actors
            if 0 < actor.path(self.t)[0] < WIDTH
        ]
        return self.look(views)


def _run(
    scene: Scene, tracks: Tracks, frames: int, searches: Sequence[int] = (0,)
) -> list[dict[int, tuple[float, bool]]]:
    """For each frame, by id: horizontal place and side of what is visible."""
    seen = []
    for n in range(frames):
        scene.t = n / FPS
        tracks.step(scene.look, scene.t, WIDTH, HEIGHT)
        if n in searches:
            tracks.admit(scene.find(), scene.t)
        seen.append(
            {t.id: (float(t.last.joints_px()[:, 0].mean()), t.side) for t in tracks.visible}
        )
    return seen


def _middle(actor: Actor, t: float) -> float:
    return float(actor.joints(t)[:, 0].mean())


def test_a_moving_hand_is_followed_by_one_look_a_frame() -> None:
    actor = Actor(lambda t: (100 + 300 * t, 240 + 60 * np.sin(6 * t)))
    scene = Scene(actor)
    seen = _run(scene, Tracks(2, 3.0), 45)
    for n, frame in enumerate(seen):
        assert list(frame) == [1]
        assert frame[1][0] == pytest.approx(_middle(actor, n / FPS), abs=1e-3)
    assert 45 <= scene.looks <= 45 + 2, "and a second one each second, the other way round"


def test_a_hand_at_rest_is_shown_in_the_same_crop() -> None:
    jitter = np.random.default_rng(0).normal(0, 0.5, (60, 2))
    scene = Scene(Actor(lambda t: tuple(np.array([300, 240]) + jitter[round(t * FPS)])))
    boxes: list[Box] = []

    def look(views: Sequence[View]) -> list[Sighting]:
        boxes.extend(view.box for view in views)
        return scene.look(views)

    tracks = Tracks(1, 3.0)
    tracks.admit(scene.find(), 0.0)
    for n in range(1, 60):
        scene.t = n / FPS
        tracks.step(look, scene.t, WIDTH, HEIGHT)
    assert len(set(boxes)) == 1


@pytest.mark.parametrize("left_in_front", [False, True])
def test_a_left_and_a_right_hand_that_cross_keep_their_ids(left_in_front: bool) -> None:
    right = Actor(lambda t: (520 - 260 * t, 240))
    left = Actor(lambda t: (120 + 260 * t, 250), left=True)
    scene = Scene(*((right, left) if left_in_front else (left, right)))
    seen = _run(scene, Tracks(2, 3.0), 48)
    numbers = {side: number for number, (_, side) in seen[0].items()}
    assert sorted(numbers.values()) == [1, 2]
    for n in (*range(12), *range(40, 48)):
        assert seen[n] == {
            numbers[actor.left]: (pytest.approx(_middle(actor, n / FPS), abs=1), actor.left)
            for actor in (left, right)
        }
    both = sum(len(frame) == 2 for frame in seen)
    assert both < 48, "where one hides the other, one hand is seen"


def test_two_right_hands_that_cross_go_on_their_way() -> None:
    one, other = (
        Actor(lambda t: (560 - 300 * t, 230.0)),
        Actor(lambda t: (80 + 300 * t, 250.0)),
    )
    seen = _run(Scene(one, other), Tracks(2, 3.0), 48)
    first, last = seen[0], seen[-1]
    assert sorted(first) == sorted(last) == [1, 2]
    assert {number for number in first if first[number][0] > 320} == {
        number for number in last if last[number][0] < 320
    }


def test_a_hand_that_leaves_and_returns_is_the_same_for_a_while() -> None:
    def path(away_s: float) -> Path:
        return lambda t: (300 + 800 * t, 240) if t < 0.7 else (900 if t < away_s else 300, 240)

    seen = _run(Scene(Actor(path(1.5))), Tracks(1, 3.0), 60, searches=(0, 50))
    assert [sorted(frame) for frame in (seen[0], seen[30], seen[-1])] == [[1], [], [1]]
    seen = _run(Scene(Actor(path(1.5))), Tracks(1, 0.5), 60, searches=(0, 50))
    assert [sorted(frame) for frame in (seen[0], seen[30], seen[-1])] == [[1], [], [2]]


def test_a_hand_that_comes_back_where_it_was_needs_no_search() -> None:
    scene = Scene(Actor(lambda t: (300, 240) if not 0.5 < t < 1.0 else (2000, 240)))
    seen = _run(scene, Tracks(1, 3.0), 45)
    assert [list(seen[n]) for n in (10, 20, 44)] == [[1], [], [1]]


def test_of_two_lost_hands_the_nearer_one_has_returned() -> None:
    one = Actor(lambda t: (100, 240) if t < 0.5 else (2000, 240))
    other = Actor(lambda t: (500, 240) if t < 0.5 else (2000, 240) if t < 1 else (400, 240))
    seen = _run(Scene(one, other), Tracks(2, 3.0), 45, searches=(0, 40))
    assert [sorted(seen[n]) for n in (0, 14, 39)] == [[1, 2], [1, 2], []]
    assert seen[-1] == {2: (pytest.approx(_middle(other, 1.4)), False)}


@pytest.mark.parametrize(("presence", "back"), [(0.7, []), (0.95, [1])])
def test_what_is_looked_for_must_be_surer_than_what_is_followed(
    presence: float, back: list[int]
) -> None:
    hand = Actor(lambda t: (300, 240) if t < 0.5 else (2000, 240))
    later = Actor(lambda t: (300, 240) if t > 0.7 else (-500, 240), presence=presence)
    seen = _run(Scene(hand, later), Tracks(1, 3.0), 30)
    assert [sorted(seen[n]) for n in (0, 18, 29)] == [[1], [], back]


def test_another_hand_in_the_place_of_a_lost_one_is_not_taken_for_it() -> None:
    right = Actor(lambda t: (500, 240) if t < 0.5 else (2000, 240))
    left = Actor(lambda t: (100, 240) if t > 1 else (-500, 240), left=True)
    seen = _run(Scene(right, left), Tracks(2, 3.0), 45, searches=(0, 40))
    assert seen[-1] == {2: (pytest.approx(_middle(left, 1.4)), True)}


def test_the_side_is_always_that_of_the_surface_that_was_seen() -> None:
    """A hand that returns where it was may be seen the other way round, as a fist often is."""
    left = Actor(lambda t: (300, 240) if t < 0.5 else (2000, 240), left=True)
    right = Actor(lambda t: (310, 240) if t > 1 else (-500, 240))
    scene, tracks = Scene(left, right), Tracks(1, 3.0)
    sides = []
    for n in range(60):
        scene.t = n / FPS
        tracks.step(scene.look, scene.t, WIDTH, HEIGHT)
        if n in (0, 40):
            tracks.admit(scene.find(), scene.t)
        for track in tracks.visible:
            assert track.side == track.last.view.mirrored
            sides.append((track.id, track.side))
    assert sides[0] == (1, True)
    assert sides[-1] == (1, False), "evidence of the other one is outweighed within a second"


def test_single_wrong_looks_do_not_change_the_side_but_many_do() -> None:
    scene = Scene(Actor(lambda _: (300, 240)))
    scene.lies = {5, 15, 16, 30}
    assert all(not frame[1][1] for frame in _run(scene, Tracks(1, 3.0), 60))
    scene = Scene(Actor(lambda _: (300, 240)))
    scene.lies = {0}  # the search was wrong
    seen = _run(scene, Tracks(1, 3.0), 30)
    assert not seen[-1][1][1]


def test_a_side_that_was_long_believed_can_be_given_up_as_soon() -> None:
    """The evidence of all looks is bounded: a minute of one side is mended as fast as a second."""
    for frames in (30, 300):
        scene = Scene(Actor(lambda _: (300, 240)))
        scene.lies = set(range(frames, frames + 15))
        sides = [frame[1][1] for frame in _run(scene, Tracks(1, 3.0), frames + 15)]
        turned = sides.index(True)
        assert frames + 3 <= turned <= frames + 8
        assert all(sides[turned:])


def test_a_known_side_is_not_questioned() -> None:
    scene = Scene(Actor(lambda _: (300, 240), left=True))
    tracks = Tracks(1, 3.0, known=False)
    assert all(not frame[1][1] for frame in _run(scene, tracks, 60))
    assert scene.looks == 60, "nor looked at the other way round"


def test_a_hand_of_a_known_side_returns_whatever_it_looks_like() -> None:
    path: Path = lambda t: (300, 240) if not 0.5 < t < 1.0 else (2000, 240)  # noqa: E731
    seen = _run(Scene(Actor(path, left=True)), Tracks(1, 3.0, known=False), 45)
    assert [list(seen[n]) for n in (10, 20, 44)] == [[1], [], [1]]


def test_no_more_hands_than_wanted_and_none_twice() -> None:
    actors = [Actor(lambda _, x=x: (x, 240)) for x in (100, 320, 540)]
    seen = _run(Scene(*actors), Tracks(2, 3.0), 20, searches=range(20))
    assert all(sorted(frame) == [1, 2] for frame in seen)


def test_a_hand_in_view_is_followed_however_far_apart_the_frames_and_short_the_memory() -> None:
    scene = Scene(Actor(lambda t: (300 + t, 240)))
    tracks = Tracks(1, remember_s=0.0)
    for t in (0.0, 1.0, 5.0):
        scene.t = t
        tracks.step(scene.look, t, WIDTH, HEIGHT)
        if t == 0:
            tracks.admit(scene.find(), t)
        assert [track.id for track in tracks.visible] == [1]
    assert tracks.hidden == []


@pytest.mark.parametrize(("apart", "seen"), [(60, [2]), (250, [1, 2])])
def test_a_doubtful_hand_is_believed_in_unless_a_surer_one_is_just_beside_it(
    apart: float, seen: list[int]
) -> None:
    doubtful = Actor(lambda t: (480 - (480 - 200 - apart) * min(2 * t, 1), 240), confidence=0.6)
    sure = Actor(lambda _: (200, 240), left=True)
    frames = _run(Scene(doubtful, sure), Tracks(2, 3.0), 30, searches=(0, 25))
    assert sorted(frames[0]) == [1, 2]
    assert sorted(frames[-1]) == seen


def _moving(speed: float, frames: int) -> tuple[Track, float]:
    """A hand after so many frames of its way to the right, pixels a second."""
    actor = Actor(lambda t: (150 + speed * t, 240))
    scene, tracks = Scene(actor), Tracks(1, 9.0)
    _run(scene, tracks, frames)
    return tracks.visible[0], (frames - 1) / FPS


def test_a_hand_is_expected_farther_on_for_a_while_only() -> None:
    track, now = _moving(150, 40)
    track.hide()
    assert track.moved(now + 0.2)[0] == pytest.approx(0.2 * 150, rel=0.02)
    assert track.moved(now + 5)[0] == pytest.approx(0.4 * 150, rel=0.02)


def test_a_hand_that_is_back_is_expected_where_it_is() -> None:
    """Its way from before it was away says nothing of now."""
    track, now = _moving(150, 40)
    track.hide()
    track.see(track.last, now + 1)
    np.testing.assert_array_equal(track.moved(now + 1.2), [0, 0])


def test_a_hand_is_looked_for_within_the_picture() -> None:
    for speed in (1500, -1500):
        track, now = _moving(speed / 10, 30)
        track._velocity = np.array([speed, 5 * speed], dtype=float)
        for view in track.views(now + 0.4, WIDTH, HEIGHT):
            assert view.box.cx == (WIDTH - 1 if speed > 0 else 0)
            assert view.box.cy == (HEIGHT - 1 if speed > 0 else 0)


def test_once_a_second_a_sure_hand_is_looked_at_both_ways_round() -> None:
    scene, tracks = Scene(Actor(lambda _: (300, 240))), Tracks(1, 3.0)
    twice = []
    for n in range(91):
        scene.t, before = n / FPS, scene.looks
        tracks.step(scene.look, scene.t, WIDTH, HEIGHT)
        if n == 0:
            tracks.admit(scene.find(), scene.t)
        elif scene.looks - before == 2:
            twice.append(n)
    assert twice == [30, 60, 90]
