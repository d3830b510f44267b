from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import pytest

from handmesh import Camera, Hand, Predictor, TrackedFrame, Tracker
from handmesh.bundle import Bundle
from handmesh.errors import BackendError, CameraError, ImageError, InputError
from handmesh.imaging import decode
from handmesh.pipeline import Photo
from handmesh.search import Sighting, View, follow
from handmesh.smoothing import HandSmoother
from handmesh.types import Box

pytestmark = pytest.mark.usefixtures("found_by_windows")

Make = Callable[..., Any]
CAMERA = Camera.default(640, 480)
PHOTO = Path(__file__).resolve().parents[2] / "examples" / "photos" / "open.jpg"


@pytest.fixture
def predictor(bundle: Bundle, make_hand: Make, reading_backend: Make) -> Predictor:
    return Predictor(bundle, reading_backend(make_hand()))


class KnownFinder:
    """A search that is told where to look; it notes when it was asked, and for what."""

    def __init__(self, *boxes: Box) -> None:
        self.boxes = boxes
        self.asked: list[tuple[bool | None, int, float]] = []

    def __call__(
        self, photo: Photo, side: bool | None, max_hands: int, min_presence: float
    ) -> list[Sighting]:
        self.asked.append((side, max_hands, min_presence))
        views = [View(box, bool(side)) for box in self.boxes]
        return [s for s in follow(photo.look, photo.look(views), side) if s.presence > min_presence]


def _box(hand: Any) -> Box:
    return Box.from_points(CAMERA.project(hand.joints_m))


def test_a_hand_is_found_by_a_search_and_then_followed(
    predictor: Predictor, make_hand: Make, paint: Make
) -> None:
    hands = [make_hand(wrist_m=(0.004 * n, 0.05, 0.5)) for n in range(12)]
    frames = []
    with Tracker(
        predictor,
        camera=CAMERA,
        bone_length_m=hands[0].bone_length_m,
        max_hands=1,
        smoother=None,
    ) as tracker:
        for n, hand in enumerate(hands):
            frames.append(tracker.update(paint(CAMERA, hand), n / 30))
    assert [frame.searched for frame in frames] == [True] + [False] * 11
    assert frames[0].crops_seen > 10
    assert all(frame.crops_seen == 1 for frame in frames[1:])
    for n, (frame, hand) in enumerate(zip(frames, hands, strict=True)):
        (tracked,) = frame.hands
        assert (tracked.id, tracked.first_s, frame.time_s) == (1, 0.0, n / 30)
        assert tracked.hand.handedness == "right"
        assert tracked.hand.depth == "metric"
        error = np.linalg.norm(tracked.hand.joints_px - CAMERA.project(hand.joints_m), axis=1)
        assert error.mean() < 1
        assert np.linalg.norm(tracked.hand.joints_m - hand.joints_m, axis=1).max() < 0.02
    assert predictor.predict(paint(CAMERA, hands[0])), "a predictor handed over is not closed"


def test_the_filter_steadies_and_leaves_projection_and_mean_alone(
    predictor: Predictor, make_hand: Make, paint: Make
) -> None:
    rng = np.random.default_rng(0)
    shaken = [make_hand(wrist_m=(0, 0.05, 0.5) + rng.normal(0, 0.001, 3)) for _ in range(40)]
    seen: dict[bool, list[Hand]] = {}
    for smooth in (False, True):
        options: dict[str, Any] = {} if smooth else {"smoother": None}
        tracker = Tracker(
            predictor, camera=CAMERA, max_hands=1, find=KnownFinder(_box(shaken[0])), **options
        )
        seen[smooth] = [
            tracker.update(paint(CAMERA, hand), n / 30).hands[0].hand
            for n, hand in enumerate(shaken)
        ]
    steps = {
        smooth: np.linalg.norm(np.diff([h.joints_m for h in hands], axis=0), axis=-1)[10:].mean()
        for smooth, hands in seen.items()
    }
    assert steps[True] < 0.4 * steps[False]
    for raw, smooth in zip(seen[False], seen[True], strict=True):
        np.testing.assert_allclose(CAMERA.project(smooth.joints_m), smooth.joints_px, atol=2e-3)
        assert np.linalg.norm(smooth.joints_px - raw.joints_px, axis=1).max() < 6


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("left", [False, True])
def test_handedness_is_the_person_s(
    predictor: Predictor, make_hand: Make, paint: Make, left: bool, mirrored: bool
) -> None:
    hand = make_hand(left=left)
    tracker = Tracker(predictor, mirrored=mirrored, max_hands=1, find=KnownFinder(_box(hand)))
    for n in range(3):
        (tracked,) = tracker.update(paint(CAMERA, hand), n / 30).hands
    assert (tracked.hand.handedness == "left") == (left != mirrored)
    corners = tracked.hand.vertices_m[tracked.hand.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    outward = (normals * (corners.mean(axis=1) - tracked.hand.vertices_m.mean(axis=0))).sum(axis=1)
    assert np.median(outward) > 0, "the surface is the right way out for both"


def test_the_search_is_repeated_only_where_a_hand_is_missing(
    predictor: Predictor, make_hand: Make, paint: Make
) -> None:
    hand = make_hand()
    finder = KnownFinder(_box(hand))
    tracker = Tracker(predictor, max_hands=2, find=finder, search_every_s=0.5, min_presence=0.4)
    times = [n / 10 for n in range(100)]
    searched = [t for t in times if tracker.update(paint(CAMERA, hand), t).searched]
    assert searched == [0, 0.5, 1.5, 3.5, 7.5], "each search in vain doubles the wait"
    assert set(finder.asked) == {(None, 2, 0.4)}

    tracker = Tracker(predictor, max_hands=2, find=finder, search_every_s=0.5)
    empty = np.zeros((480, 640, 3), np.uint8)
    searched = [t for t in times[:20] if tracker.update(empty, t).searched]
    assert searched == [0, 0.5, 1, 1.5], "with nothing in view the wait stays"


def test_a_lost_hand_is_searched_for_again_and_keeps_its_id(
    predictor: Predictor, make_hand: Make, paint: Make
) -> None:
    here, there = make_hand(), make_hand(wrist_m=(-0.12, 0.08, 0.5))
    tracker = Tracker(predictor, max_hands=1, find=KnownFinder(_box(here), _box(there)))
    blank = np.zeros((480, 640, 3), np.uint8)
    script = [paint(CAMERA, here)] * 20 + [blank] * 10 + [paint(CAMERA, there)] * 20
    frames = [tracker.update(pixels, n / 30) for n, pixels in enumerate(script)]
    ids = [[tracked.id for tracked in frame.hands] for frame in frames]
    assert ids[:20] == [[1]] * 20
    assert ids[20:30] == [[]] * 10
    assert ids[-1] == [1]
    again = next(n for n in range(30, 50) if ids[n])
    assert again <= 30 + 15, "within the time between two searches"
    error = frames[again].hands[0].hand.joints_px - CAMERA.project(there.joints_m)
    assert abs(error).max() < 1.5, "shown where it is, not on the way from where it was"


def test_times_and_sizes_of_another_video_are_refused_until_reset(
    predictor: Predictor, make_hand: Make, paint: Make
) -> None:
    pixels = paint(CAMERA, make_hand())
    tracker = Tracker(predictor, max_hands=1, find=KnownFinder(_box(make_hand())))
    tracker.update(pixels, 1.0)
    for earlier in (1.0, 0.9):
        with pytest.raises(InputError, match=r"not later than 1 s; .* reset\(\)"):
            tracker.update(pixels, earlier)
    with pytest.raises(InputError, match="time_s must be finite"):
        tracker.update(pixels, float("nan"))
    with pytest.raises(InputError, match="one size"):
        tracker.update(pixels[:, :600], 2.0)
    assert tracker.update(pixels, 1.1).hands[0].id == 1, "what was refused left no trace"
    tracker.reset()
    assert tracker.update(pixels[::2, ::2], 0.0).searched


def test_a_frame_that_failed_can_be_handed_over_again(
    predictor: Predictor, make_hand: Make, paint: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands = [make_hand(wrist_m=(0.01 * n, 0.05, 0.5)) for n in range(9)]
    pixels = [paint(CAMERA, hand) for hand in hands]
    run, calls = predictor.backend.run, 0
    failing: set[int] = set()

    def fails_now_and_then(images: np.ndarray) -> Any:
        nonlocal calls
        calls += 1
        if calls in failing:
            raise BackendError("out of memory")
        return run(images)

    def followed(fail: bool) -> list[dict[str, Any]]:
        # One that is in view is followed, and every frame is searched for another, in vain.
        finder = KnownFinder(_box(hands[0]))
        tracker = Tracker(predictor, max_hands=2, find=finder, search_every_s=0.0)
        frames = []
        for n, picture in enumerate(pixels):
            # The first run follows what is in view, if anything; the next one is the search's.
            for late in ((0, 1) if n else (0,)) if fail else ():
                failing.add(calls + 1 + late)
                with pytest.raises(BackendError, match="out of memory"):
                    tracker.update(picture, n / 30)
                assert calls in failing
            frames.append(tracker.update(picture, n / 30).to_dict())
        for frame in frames:
            frame.pop("timings_ms")
            for hand in frame["hands"]:
                hand.pop("timings_ms")
        return frames

    monkeypatch.setattr(predictor.backend, "run", fails_now_and_then)
    undisturbed = followed(False)
    assert all(len(frame["hands"]) == 1 and frame["searched"] for frame in undisturbed)
    assert followed(True) == undisturbed


def test_a_frame_that_failed_late_does_not_count_for_the_filter(
    predictor: Predictor, make_hand: Make, paint: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails after the filters have gone on, for a new hand and for one that is followed."""
    hands = [make_hand(wrist_m=(0.01 * n, 0.05, 0.5)) for n in range(5)]
    pixels = [paint(CAMERA, hand) for hand in hands]
    far = [paint(CAMERA, make_hand(wrist_m=(0.01 * n, 0.04, 0.5))) for n in range(5)]
    shown = Photo.hands

    class Counting(HandSmoother):
        """One of a caller's, with more of a state."""

        def __init__(self) -> None:
            super().__init__()
            self.times: list[float] = []

        def __call__(self, points: Any, time_s: float, crop_px: float) -> Any:
            self.times.append(time_s)
            return super().__call__(points, time_s, crop_px)

    def fails(*_: Any) -> Any:
        raise MemoryError

    def followed(fail: bool) -> tuple[list[np.ndarray], list[float]]:
        made: list[Counting] = []

        def make() -> Counting:
            made.append(Counting())
            return made[-1]

        finder = KnownFinder(_box(hands[0]))
        tracker = Tracker(predictor, max_hands=1, find=finder, smoother=make)
        joints = []
        for n, (picture, other) in enumerate(zip(pixels, far, strict=True)):
            if fail:
                monkeypatch.setattr(Photo, "hands", fails)
                with pytest.raises(MemoryError):
                    tracker.update(other, n / 30)
                monkeypatch.setattr(Photo, "hands", shown)
            (tracked,) = tracker.update(picture, n / 30).hands
            joints.append(tracked.joints_m)
        ((smoother, _),) = tracker._smoothers.values()
        return joints, smoother.times

    undisturbed, failed = followed(False), followed(True)
    assert failed[1] == undisturbed[1] == [n / 30 for n in range(5)]
    np.testing.assert_array_equal(failed[0], undisturbed[0])


def test_filters_that_cannot_be_copied_begin_anew_after_a_frame_that_failed(
    predictor: Predictor, make_hand: Make, paint: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Locked(HandSmoother):
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()

    picture = paint(CAMERA, make_hand())
    find = KnownFinder(_box(make_hand()))
    tracker = Tracker(predictor, max_hands=1, find=find, smoother=Locked)
    for n in range(2):
        (first,) = tracker.update(picture, n / 30).hands
    with monkeypatch.context() as failing:
        failing.setattr(Photo, "hands", Mock(side_effect=MemoryError))
        with pytest.raises(MemoryError):
            tracker.update(picture, 2 / 30)
    (again,) = tracker.update(picture, 2 / 30).hands
    assert again.id == first.id


def test_without_times_a_coarse_clock_does_no_harm(
    predictor: Predictor, make_hand: Make, paint: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows' monotonic clock goes on every 16 ms."""
    monkeypatch.setattr("time.monotonic", lambda: 5.0)
    tracker = Tracker(predictor, max_hands=1, find=KnownFinder(_box(make_hand())))
    first, second = (tracker.update(paint(CAMERA, make_hand())) for _ in range(2))
    assert second.time_s > first.time_s


def test_without_times_frames_are_taken_as_they_come(
    predictor: Predictor, make_hand: Make, paint: Make
) -> None:
    tracker = Tracker(predictor, max_hands=1, find=KnownFinder(_box(make_hand())))
    first, second = (tracker.update(paint(CAMERA, make_hand())) for _ in range(2))
    assert second.time_s > first.time_s


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_hands": 0}, InputError, "max_hands"),
        ({"min_presence": 2}, InputError, "min_presence"),
        ({"handedness": "both"}, InputError, "handedness"),
        ({"bone_length_m": -1}, InputError, "bone_length_m"),
        ({"search_every_s": -1}, InputError, "search_every_s"),
        ({"remember_s": float("inf")}, InputError, "remember_s"),
        ({"find": "detector"}, InputError, "find is a function"),
        ({"smoother": HandSmoother()}, InputError, "pass the class HandSmoother.*, not one"),
        ({"smoother": "one euro"}, InputError, "a function that returns one.*, not str"),
    ],
)
def test_bad_options_are_refused_before_a_frame(
    predictor: Predictor, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Tracker(predictor, **options)


def test_a_name_is_no_predictor() -> None:
    with pytest.raises(InputError, match=r"handmesh.load\(\)"):
        Tracker("light")  # type: ignore[arg-type]


def test_bad_frames_and_cameras_are_refused(predictor: Predictor) -> None:
    pixels = np.zeros((480, 640, 3), np.uint8)
    with pytest.raises(CameraError, match="320 x 240"):
        Tracker(predictor, camera=Camera.default(320, 240)).update(pixels, 0.0)
    with pytest.raises(ImageError):
        Tracker(predictor).update(pixels.astype(float), 0.0)
    predictor.close()
    with pytest.raises(BackendError, match="closed"):
        Tracker(predictor).update(pixels, 0.0)


def test_results_travel(predictor: Predictor, make_hand: Make, paint: Make) -> None:
    tracker = Tracker(predictor, max_hands=1, find=KnownFinder(_box(make_hand())))
    frame = tracker.update(paint(CAMERA, make_hand()), 0.25)
    (tracked,) = frame.hands
    assert tracked.joints_m is tracked.hand.joints_m
    assert tracked.joints_px is tracked.hand.joints_px
    assert (tracked.handedness, tracked.presence) == ("right", tracked.hand.presence)
    copy: TrackedFrame = pickle.loads(pickle.dumps(frame))
    assert copy.to_dict(mesh=True) == frame.to_dict(mesh=True)
    assert not copy.hands[0].hand.joints_m.flags.writeable
    with pytest.raises(TypeError):
        copy.hands[0].hand.timings_ms["crop"] = 0.0  # type: ignore[index]
    full = frame.to_dict(mesh=True)["hands"][0]
    for field in ("vertices_m", "vertices_px", "faces"):
        object.__delattr__(frame.hands[0].hand, field)  # the short form does not even look at them
        full.pop(field)
    short = json.loads(json.dumps(frame.to_dict()))
    assert short["hands"][0] == json.loads(json.dumps(full))
    assert (short["time_s"], short["searched"]) == (0.25, True)
    assert short["hands"][0]["id"] == 1
    assert "joints_m" in short["hands"][0]
    assert "vertices_m" not in short["hands"][0]


def test_the_shipped_network_follows_a_photo_that_drifts_and_turns() -> None:
    pixels = decode(PHOTO)
    height, width = pixels.shape[:2]
    with Tracker(max_hands=1, smoother=None) as tracker:
        start = None
        for n in range(25):
            turn = cv2.getRotationMatrix2D((width / 2, height / 2), 1.2 * n, 1 - 0.008 * n)
            turn[:, 2] += (2.0 * n, -1.5 * n)
            frame = cv2.warpAffine(pixels, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
            tracked = tracker.update(frame, n / 30)
            assert [hand.id for hand in tracked.hands] == [1]
            joints = tracked.hands[0].hand.joints_px
            start = joints if start is None else start
            moved = start @ turn[:, :2].T + turn[:, 2]
            size = np.ptp(moved, axis=0).max()
            assert np.linalg.norm(joints - moved, axis=1).mean() < 0.05 * size


def test_a_hand_just_lost_is_looked_for_where_it_was_before_all_is_searched(
    predictor: Predictor, make_hand: Make, paint: Make
) -> None:
    hand = make_hand()
    tracker = Tracker(predictor, max_hands=1, find=KnownFinder(_box(hand)), search_every_s=0.0)
    blank = np.zeros((480, 640, 3), np.uint8)
    assert tracker.update(paint(CAMERA, hand), 0.0).hands
    searched = [tracker.update(blank, 1 + n / 20).searched for n in range(8)]
    assert searched == [False] * 4 + [True] * 4, "not within 0.2 s"
