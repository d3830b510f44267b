"""The tracking benchmark: its measures on made-up results, and one frame of each clip."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from handmesh import Camera, Hand
from handmesh.errors import HandMeshError
from handmesh.tracker import TrackedFrame, TrackedHand
from handmesh.types import Box
from handmesh_benchmarks import clips, tracking
from handmesh_benchmarks.clips import CLIPS, FPS, Clip, ClipMaker, TrueHand
from handmesh_benchmarks.tracking import identities, lag_of, quality, recovery
from handmesh_training.rendering import EnvironmentSet, SkinSet

CAMERA = Camera.default(640, 480)
SHAPE = 0.1 * np.random.default_rng(0).uniform(-1, 1, (21, 3))
TIMES = np.arange(90) / FPS


def _truth(places: np.ndarray, handedness: str = "right") -> TrueHand:
    joints = SHAPE + places[:, None]
    return TrueHand(handedness, joints, CAMERA.project(joints), 0.047)


def _frame(time_s: float, *hands: tuple[int, str, np.ndarray]) -> TrackedFrame:
    made = []
    for number, handedness, joints in hands:
        hand = Hand(
            joints, np.zeros((0, 3)), joints, CAMERA.project(joints), CAMERA.project(joints),
            np.ones(21), 1.0, handedness, "metric", Box(0, 0, 1), CAMERA,
        )  # type: ignore[arg-type]  # fmt: skip
        made.append(TrackedHand(number, hand, 0.0))
    return TrackedFrame(time_s, tuple(made), False, 1, {"total": 1.0})


def _clip(*hands: TrueHand) -> Clip:
    return Clip("made up", np.zeros((90, 1, 1, 3), np.uint8), TIMES, hands, CAMERA)


def _path(t: np.ndarray) -> np.ndarray:
    return np.column_stack([0.1 * np.sin(4 * t), 0.05 * np.cos(3 * t), 0.6 + 0.1 * np.sin(2 * t)])


@pytest.mark.parametrize("late", [0.0, 1.5, 4.0])
def test_the_lag_of_a_delayed_copy_is_the_delay(late: float) -> None:
    truth = _truth(_path(TIMES))
    delayed = _truth(_path(TIMES - late / FPS)).joints_px
    assert lag_of(delayed, TIMES, truth.joints_px, TIMES) == pytest.approx(late, abs=0.11)


def test_quality_of_a_known_error() -> None:
    rng = np.random.default_rng(1)
    truth = _truth(np.tile([0.0, 0.0, 0.5], (90, 1)))
    noise = rng.normal(0, 0.001, truth.joints_m.shape)
    shift = np.array([0.003, 0.0, 0.004])
    frames = [
        _frame(t, (1, "right", joints + shift + n))
        for t, joints, n in zip(TIMES, truth.joints_m, noise, strict=True)
    ]
    found = quality(_clip(truth), frames)
    # The mean length of a vector of three normal numbers is sqrt(8 / pi) of their deviation.
    length = np.sqrt(8 / np.pi)
    assert found.jitter_mm == pytest.approx(length * np.sqrt(2), rel=0.03)
    assert found.jitter_relative_mm == pytest.approx(20 / 21 * length * 2, rel=0.05)
    assert found.error_mm == pytest.approx(np.sqrt(25 + 3), rel=0.06)
    assert found.error_relative_mm == pytest.approx(20 / 21 * length * np.sqrt(2), rel=0.05)


def test_identities_are_counted() -> None:
    right = _truth(np.tile([0.2, 0.0, 0.6], (90, 1)))
    left = _truth(np.tile([-0.2, 0.0, 0.6], (90, 1)), "left")
    kept = [
        _frame(t, (1, "right", right.joints_m[0]), (2, "left", left.joints_m[0])) for t in TIMES
    ]
    found = identities(_clip(right, left), kept)
    assert (found.ids, found.swaps, found.wrong_side) == (((1,), (2,)), 0, 0)
    assert found.seen == (1.0, 1.0)
    swapped = [
        _frame(t, (2, "right", right.joints_m[0]), (1, "right", left.joints_m[0]))
        for t in TIMES[45:]
    ]
    found = identities(_clip(right, left), kept[:45] + swapped)
    assert (found.ids, found.swaps, found.wrong_side) == (((1, 2), (2, 1)), 2, 45)
    astray = [_frame(t, (1, "right", right.joints_m[0] + (0, 0.1, 0))) for t in TIMES]
    assert identities(_clip(right, left), astray).astray == 90


@pytest.mark.parametrize("seen_at", [55, 60, 63, None])
def test_recovery_is_counted_from_where_all_of_the_hand_is_back(seen_at: int | None) -> None:
    x = np.where((np.arange(90) >= 30) & (np.arange(90) < 60), 5.0, 0.0)
    truth = _truth(np.column_stack([x, 0 * x, 0 * x + 0.6]))
    frames = [
        _frame(t, (1, "right", SHAPE + (0.0, 0.0, 0.6)))
        if n < 30 or (seen_at is not None and n >= seen_at)
        else _frame(t)
        for n, t in enumerate(TIMES)
    ]
    expected = None if seen_at is None else max(seen_at, 60) - 60
    assert recovery(_clip(truth), frames) == expected


@pytest.fixture(scope="module")
def maker() -> ClipMaker:
    places, skins = EnvironmentSet.procedural(0, count=2, height=32), SkinSet.procedural
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EnvironmentSet, "procedural", lambda *_: places)
        patch.setattr(
            SkinSet, "procedural", lambda seed, count, mesh, *_: skins(seed, 2, mesh, size=32)
        )
        return ClipMaker()


@pytest.mark.parametrize("name", list(CLIPS))
def test_clips_show_the_hands_where_the_truth_says(name: str, maker: ClipMaker) -> None:
    clip = maker.make(name, CLIPS[name][0], 2 / FPS)
    assert clip.frames.shape == (2, 480, 640, 3)
    empty = maker.make(name, (), 2 / FPS)
    assert not empty.frames.any() or empty.frames.mean() < 5
    for hand in clip.hands:
        assert (hand.inside() == 1).all()
        middle = hand.joints_px[0, [0, 5, 9, 13, 17]].mean(axis=0)
        x, y = np.round(middle).astype(int)
        inside = clip.frames[0, y - 3 : y + 4, x - 3 : x + 4].mean(axis=(0, 1))
        # Skin is redder than the made-up rooms beside it.
        beside = clip.frames[0, 5:40, 300:340].mean(axis=(0, 1))
        assert np.linalg.norm(inside - beside) > 10
        thumb = hand.joints_px[0, 4, 0] - hand.joints_px[0, 20, 0]
        assert (thumb < 0) == (hand.handedness == "left"), "palms to the camera"


def test_a_still_hand_differs_by_its_noise_alone(maker: ClipMaker) -> None:
    clip = maker.make("still", CLIPS["still"][0], 2 / FPS)
    first, second = clip.frames.astype(float)
    middle = (first > 20) & (first < 235)
    assert (first - second)[middle].std() == pytest.approx(np.sqrt(2) * clips.NOISE, rel=0.05)


def test_the_command_prints_every_measure(
    maker: ClipMaker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    joints = {name: _truth(np.tile([0.0, 0.0, 0.6], (90, 1))) for name in CLIPS}
    x = np.where((np.arange(90) >= 30) & (np.arange(90) < 60), 5.0, 0.0)
    joints["returning"] = _truth(np.column_stack([x, 0 * x, 0 * x + 0.6]))

    def follow(_: Any, clip: Clip, __: Any) -> list[TrackedFrame]:
        return [
            _frame(t, (1, "right", clip.hands[0].joints_m[n])) for n, t in enumerate(clip.times_s)
        ]

    monkeypatch.setattr(tracking, "ClipMaker", lambda *_: maker)
    monkeypatch.setattr(tracking, "clip_of", lambda _, name: _clip(joints[name]))
    monkeypatch.setattr(tracking, "follow", follow)
    assert tracking.main([]) == 0
    out = capsys.readouterr().out
    for part in ("still", "moving", "crossing: 0 swaps", "0 frames after", "tracking one hand"):
        assert part in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--threads", "0"], "threads must be at least 1"),
        (["--sheet", "/nowhere/at/all.png"], "--sheet /nowhere/at/all.png cannot be written"),
        (["--bundle", "nowhere"], "no bundle at 'nowhere'"),
    ],
)
def test_what_cannot_run_is_told_before_clips_are_rendered(
    monkeypatch: pytest.MonkeyPatch, options: list[str], said: str
) -> None:
    monkeypatch.setattr(tracking, "clip_of", lambda *_: pytest.fail("it began"))
    with pytest.raises(HandMeshError, match=said):
        tracking.main(options)
