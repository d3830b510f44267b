"""How steady, prompt and right hands are in video, on rendered clips with known truth.

::

    python -m handmesh_benchmarks.tracking                      # made-up skins and rooms
    python -m handmesh_benchmarks.tracking --skins DIR --environments DIR --sheet clips.png

640 x 480 pixels, 30 frames a second, sensor noise of 3 levels. The tracker is given the true camera
and bone length, and runs twice: with its filter and without. The clips, see `clips.CLIPS`: a hand
at rest; one that moves, opens and closes; a right and a left one that cross twice, the left one in
front; one that leaves the picture and returns.
"""

from __future__ import annotations

if __name__ == "__main__":
    from .command import run

    run(__spec__, "training")

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from handmesh import Predictor
from handmesh.atomic import write_atomic
from handmesh.smoothing import HandSmoother
from handmesh.tracker import TrackedFrame, TrackedHand, Tracker
from handmesh_training.render_settings import RenderSettings

from .clips import CLIPS, FPS, Clip, ClipMaker, TrueHand, clip_of
from .command import add_bundle, parse, parser_of, say
from .device import describe
from .keeping import check_writable
from .report import columns

Array = NDArray[np.float64]

# The filter's first frames, and the search's, are no part of jitter, lag and error.
SETTLED = 15
# A hand that is farther from the true one, in pixels on average, is not that one.
BELONGS_PX = 40.0
# Shifts in time among which the lag is sought, frames.
SHIFTS = np.arange(-2.0, 10.01, 0.1)


@dataclass(frozen=True)
class Quality:
    """Of one clip with one hand.

    Attributes:
        jitter_px: mean distance between the same joint in two frames.
        jitter_mm: the same in camera space. jitter_relative_mm: relative to the wrist.
        lag: frames by which the picture of the truth is to be delayed to fit best.
        depth_lag: the same for the wrist's depth.
        error_px: mean distance from the truth.
        error_mm: the same in camera space. error_relative_mm: relative to the wrist.
    """

    jitter_px: float
    jitter_mm: float
    jitter_relative_mm: float
    lag: float
    depth_lag: float
    error_px: float
    error_mm: float
    error_relative_mm: float


def follow(
    predictor: Predictor, clip: Clip, smoother: Callable[[], HandSmoother] | None
) -> list[TrackedFrame]:
    """All frames of a clip, tracked."""
    tracker = Tracker(
        predictor,
        camera=clip.camera,
        bone_length_m=clip.hands[0].bone_length_m,
        max_hands=len(clip.hands),
        smoother=smoother,
    )
    pairs = zip(clip.frames, clip.times_s, strict=True)
    return [tracker.update(frame, float(time_s)) for frame, time_s in pairs]


def quality(clip: Clip, frames: Sequence[TrackedFrame]) -> Quality:
    """Measures of the frames that show one hand, the first ones left out."""
    truth = clip.hands[0]
    there = [n for n, frame in enumerate(frames) if n >= SETTLED and len(frame.hands) == 1]
    found = [frames[n].hands[0].hand for n in there]
    px = np.array([hand.joints_px for hand in found], dtype=np.float64)  # (N, 21, 2)
    m = np.array([hand.joints_m for hand in found], dtype=np.float64)  # (N, 21, 3)
    relative = m - m[:, :1]
    true_m, true_px = truth.joints_m[there], truth.joints_px[there]
    times = clip.times_s[there]
    return Quality(
        jitter_px=_step(px),
        jitter_mm=1e3 * _step(m),
        jitter_relative_mm=1e3 * _step(relative),
        lag=lag_of(px, times, truth.joints_px, clip.times_s),
        depth_lag=lag_of(
            _centred(m[:, :1, 2:]), times, _centred(truth.joints_m[:, :1, 2:]), clip.times_s
        ),
        error_px=_apart(px, true_px),
        error_mm=1e3 * _apart(m, true_m),
        error_relative_mm=1e3 * _apart(relative, true_m - true_m[:, :1]),
    )


def lag_of(seen: Array, seen_s: Array, truth: Array, truth_s: Array) -> float:
    """Frames by which the truth (M, J, D), delayed, comes nearest to what was seen (N, J, D)."""
    flat = truth.reshape(len(truth), -1)

    def error(shift: float) -> float:
        delayed = [np.interp(seen_s - shift / FPS, truth_s, column) for column in flat.T]
        return _apart(seen, np.stack(delayed, axis=1).reshape(seen.shape))

    return min(SHIFTS.tolist(), key=error)


def belongs(hand: TrackedHand, hands: Sequence[TrueHand], frame: int) -> int | None:
    """Which of the true hands it is by its place; None if none."""
    errors = [_apart(hand.hand.joints_px, true.joints_px[frame]) for true in hands]
    nearest = int(np.argmin(errors))
    return nearest if errors[nearest] < BELONGS_PX else None


@dataclass(frozen=True)
class Identities:
    """Of a clip with several hands.

    Attributes:
        ids: for each true hand, all ids that it had.
        swaps: times that an id went from one true hand to another.
        wrong_side: hands seen with the wrong handedness.
        seen: share of the frames in which each true hand was seen in its place.
        astray: hands reported where there was none, of all.
    """

    ids: tuple[tuple[int, ...], ...]
    swaps: int
    wrong_side: int
    seen: tuple[float, ...]
    astray: int


def identities(clip: Clip, frames: Sequence[TrackedFrame]) -> Identities:
    """Who was who, all along."""
    ids: list[dict[int, None]] = [{} for _ in clip.hands]
    owner: dict[int, int] = {}
    seen = [0] * len(clip.hands)
    swaps = wrong = astray = 0
    for n, frame in enumerate(frames):
        for hand in frame.hands:
            true = belongs(hand, clip.hands, n)
            if true is None:
                astray += 1
                continue
            ids[true][hand.id] = None
            seen[true] += 1
            swaps += owner.get(hand.id, true) != true
            owner[hand.id] = true
            wrong += hand.hand.handedness != clip.hands[true].handedness
    return Identities(
        tuple(tuple(own) for own in ids),
        swaps,
        wrong,
        tuple(count / len(frames) for count in seen),
        astray,
    )


def recovery(clip: Clip, frames: Sequence[TrackedFrame]) -> int | None:
    """Frames from the return of all joints into the picture until the hand is seen, in its place;
    negative if seen earlier, None if never."""
    inside = clip.hands[0].inside()
    gone = int(np.flatnonzero(inside == 0)[-1])
    back = gone + int(np.argmax(inside[gone:] == 1))
    for n in range(gone + 1, len(frames)):
        if any(belongs(hand, clip.hands, n) == 0 for hand in frames[n].hands):
            return n - back
    return None


def _step(points: Array) -> float:
    return float(np.linalg.norm(np.diff(points, axis=0), axis=-1).mean())


def _apart(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    return float(np.linalg.norm(one - other, axis=-1).mean())


def _centred(values: Array) -> Array:
    """Without their mean: an error of scale is no lag."""
    return values - values.mean(axis=0)


def sheet(clips: Sequence[Clip], path: Path) -> None:
    """Eight frames of each clip, with the true joints, as a PNG.

    Raises:
        InputError: it cannot be written.
    """
    import cv2

    rows = []
    for clip in clips:
        pictures = []
        for n in np.linspace(0, len(clip.frames) - 1, 8).astype(int):
            picture = clip.frames[n].copy()
            for hand in clip.hands:
                color = (0, 255, 0) if hand.handedness == "right" else (255, 0, 0)
                for x, y in hand.joints_px[n]:
                    cv2.circle(picture, (round(x), round(y)), 4, color, -1)
            pictures.append(cv2.resize(picture, (320, 240), interpolation=cv2.INTER_AREA))
        rows.append(np.hstack(pictures))
    write_atomic(path, cv2.imencode(".png", np.vstack(rows)[..., ::-1])[1].tobytes())


def _times(frames: Sequence[TrackedFrame]) -> list[list[str]]:
    rows: list[tuple[str, list[float]]] = []
    for hands, name in ((1, "tracking one hand"), (2, "tracking two hands")):
        timed = [f.timings_ms["total"] for f in frames if not f.searched and len(f.hands) == hands]
        rows.append((name, timed))
    rows.append(("with a search", [f.timings_ms["total"] for f in frames if f.searched]))
    return [
        [
            name,
            str(len(timed)),
            *(f"{np.percentile(timed, q):.1f}" if timed else "-" for q in (50, 90)),
        ]
        for name, timed in rows
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns 1 where an identity was not kept."""
    parser = parser_of(__name__, __doc__)
    parser.add_argument("--skins", type=Path, metavar="DIR")
    parser.add_argument("--environments", type=Path, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0, help="of the hand's shape, skin and light")
    add_bundle(parser)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="show the clips in a picture")
    options = parse(parser, arguments)
    check_writable(options.sheet, "--sheet")
    # What cannot run is told before clips are rendered.
    with Predictor(options.bundle, options.backend, options.threads) as predictor:
        maker = ClipMaker(RenderSettings(options.skins, options.environments), options.seed)
        clips = {name: clip_of(maker, name) for name in CLIPS}
        if options.sheet is not None:
            sheet(list(clips.values()), options.sheet)
        for name, value in describe().items():
            say(f"{name.replace('_', ' ')}: {value}")
        say(f"network: {predictor.bundle.name}, {predictor.backend.description}\n")
        tracked = {
            (name, filtered): follow(predictor, clip, HandSmoother if filtered else None)
            for name, clip in clips.items()
            for filtered in (False, True)
        }
    say(_quality_table(clips, tracked))
    who = identities(clips["crossing"], tracked["crossing", True])
    sides = [hand.handedness for hand in clips["crossing"].hands]
    for side, own, share in zip(sides, who.ids, who.seen, strict=True):
        say(f"crossing: the {side} hand had the ids {list(own)}, seen in {share:.0%} of frames")
    say(
        f"crossing: {who.swaps} swaps, {who.wrong_side} times the wrong side, {who.astray} times "
        f"farther than {BELONGS_PX:g} px from both"
    )
    back = recovery(clips["returning"], tracked["returning", True])
    alone = identities(clips["returning"], tracked["returning", True])
    when = "never" if back is None else f"{back} frames after it was wholly inside"
    say(f"returning: seen again {when}; ids {list(alone.ids[0])}\n")
    every = [frame for frames in tracked.values() for frame in frames]
    say("\n".join(columns(("ms a frame", "frames", "p50", "p90"), _times(every))))
    return 0 if who.swaps == 0 and all(len(own) == 1 for own in who.ids) else 1


def _quality_table(
    clips: dict[str, Clip], tracked: dict[tuple[str, bool], list[TrackedFrame]]
) -> str:
    rows = []
    for name in ("still", "moving"):
        for filtered in (False, True):
            q = quality(clips[name], tracked[name, filtered])
            still = name == "still"
            jitter = (q.jitter_px, q.jitter_mm, q.jitter_relative_mm)
            rows.append(
                [
                    name,
                    "filtered" if filtered else "raw",
                    *(f"{value:.2f}" if still else "-" for value in jitter),
                    *("-" if still else f"{value:.1f}" for value in (q.lag, q.depth_lag)),
                    f"{q.error_px:.1f}",
                    f"{q.error_relative_mm:.1f}",
                    f"{q.error_mm:.1f}",
                ]
            )
    header = (
        "clip",
        "",
        "jitter px",
        "mm",
        "mm rel.",
        "lag",
        "in depth",
        "error px",
        "mm rel.",
        "mm",
    )
    return "\n".join(columns(header, rows)) + "\n"
