"""Beside MediaPipe Hands: milliseconds a frame on the same pictures in one run, and hands found.

::

    python -m handmesh_benchmarks.peers --out peers.json
    python -m handmesh_benchmarks.peers --photos DIR --every 10 --rate DIR

The first run installs MediaPipe into an environment of its own (`mediapipe_peer`), where its own
process runs it. Two tasks at 640 x 480 pixels, photos reduced and padded: *photos*, each by itself,
the hand to be found (`Predictor.predict` without a box, and ``static_image_mode=True``); *video*, a
photo that moves, turns and comes nearer (`Tracker`, and ``static_image_mode=False``). Decoding is
done beforehand. Both processes are kept to the same cores, as many as ``--threads``, and take
turns, so that a slow moment of the machine falls on both; the ratio is that of the medians of each
round.

MediaPipe's Python interface takes no number of threads: its graph uses those of the cores it is
given, each of its networks one. Ours is given ``--threads``.
"""

from __future__ import annotations

if __name__ == "__main__":
    from .command import run

    run(__spec__)

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from handmesh import ImageError, Predictor, Tracker
from handmesh.atomic import write_atomic
from handmesh.errors import InputError
from handmesh.imaging import decode

from .command import add_bundle, add_out, parse, parser_of
from .device import describe
from .mediapipe_peer import MediaPipe, add_environment, prepare

__all__ = ["Comparison", "Rates", "clip", "compare", "find_in_each", "fitted", "rates"]

WIDTH, HEIGHT, FPS = 640, 480, 30.0
PHOTOS = Path("examples/photos")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
# Frames of the video, and those at its beginning in which the hand is found: not on the clock.
FRAMES, SETTLING = 60, 10

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Comparison:
    """One task, measured by turns.

    Attributes:
        task: "photos" or "video".
        ours_ms, theirs_ms: (rounds, frames) milliseconds.
        ours_found, theirs_found: share of the frames in which a hand was found.
    """

    task: str
    ours_ms: NDArray[np.float64]
    theirs_ms: NDArray[np.float64]
    ours_found: float
    theirs_found: float

    @property
    def ratios(self) -> NDArray[np.float64]:
        """(rounds,) median of ours over median of theirs: below 1 where ours is faster."""
        return np.asarray(np.median(self.ours_ms, axis=1) / np.median(self.theirs_ms, axis=1))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        low, middle, high = np.percentile(self.ratios, (25, 50, 75))
        return {
            "task": self.task,
            "rounds": len(self.ours_ms),
            "frames": self.ours_ms.shape[1],
            **{
                f"{who}_ms": {f"p{q}": float(np.percentile(ms, q)) for q in (50, 90)}
                for who, ms in (("ours", self.ours_ms), ("theirs", self.theirs_ms))
            },
            "ours_found": self.ours_found,
            "theirs_found": self.theirs_found,
            "ratio": {"median": float(middle), "p25": float(low), "p75": float(high)},
        }


@dataclass(frozen=True)
class Rates:
    """Of photos of hands, how many have a hand that was found."""

    folder: str
    count: int
    ours: int
    theirs: int
    both: int


def fitted(image: Image, width: int = WIDTH, height: int = HEIGHT) -> Image:
    """A photo (H, W, 3) uint8, reduced or enlarged to fit, in the middle of black."""
    scale = min(width / image.shape[1], height / image.shape[0])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    out = np.zeros((height, width, 3), dtype=np.uint8)
    out[top : top + size[1], left : left + size[0]] = small
    return out


def clip(image: Image, frames: int = FRAMES) -> list[Image]:
    """A video of a photo that moves by some 5 pixels a frame, turns, and comes nearer."""
    centre = ((image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2)
    made = []
    for n in range(frames):
        phase = 2 * np.pi * n / frames
        zoom = 1 + 0.1 * np.sin(2 * phase)
        matrix = np.array(cv2.getRotationMatrix2D(centre, 10 * np.sin(phase), zoom), np.float64)
        matrix[:, 2] += (40 * np.sin(phase), 25 * np.sin(2 * phase))
        made.append(
            np.asarray(
                cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE),
                dtype=np.uint8,
            )
        )
    return made


def find_in_each(
    predictor: Predictor, pictures: Sequence[Image], hands: int
) -> tuple[list[float], list[int]]:
    """Milliseconds and number of hands found, by picture, each by itself."""
    times, found = [], []
    for picture in pictures:
        start = time.perf_counter()
        result = predictor.predict(picture, max_hands=hands)
        times.append((time.perf_counter() - start) * 1e3)
        found.append(len(result))
    return times, found


def _ours_video(predictor: Predictor, frames: Sequence[Image], hands: int) -> _Run:
    tracker = Tracker(predictor, max_hands=hands)
    times, found = [], []
    for n, frame in enumerate(frames):
        start = time.perf_counter()
        result = tracker.update(frame, n / FPS)
        times.append((time.perf_counter() - start) * 1e3)
        found.append(len(result.hands))
    return times, found


_Run = tuple[list[float], list[int]]


def compare(
    task: str,
    predictor: Predictor,
    peer: MediaPipe,
    pictures: Sequence[Image],
    rounds: int,
    hands: int,
) -> Comparison:
    """Measure one task by turns; who begins alternates, and one turn of each goes before.

    Args:
        task: "photos" or "video".
        predictor, peer: who is compared.
        pictures: (480, 640, 3) uint8 RGB each.
        rounds: turns of each.
        hands: how many hands are looked for.
    """
    still = task == "photos"
    ours = find_in_each if still else _ours_video
    handle = peer.hand_over(task, pictures)
    skipped = 0 if still else SETTLING
    runs: dict[str, list[_Run]] = {"ours": [], "theirs": []}
    for number in range(rounds + 1):
        for who in ("ours", "theirs") if number % 2 else ("theirs", "ours"):
            run = (
                ours(predictor, pictures, hands)
                if who == "ours"
                else peer.run(handle, still, hands)
            )
            if number > 0:
                runs[who].append(run)

    def times(who: str) -> NDArray[np.float64]:
        return np.array([ms[skipped:] for ms, _ in runs[who]])

    def share(who: str) -> float:
        return float(np.mean([np.array(found[skipped:]) > 0 for _, found in runs[who]]))

    return Comparison(task, times("ours"), times("theirs"), share("ours"), share("theirs"))


def rates(predictor: Predictor, peer: MediaPipe, folder: Path, every: int, hands: int) -> Rates:
    """Photos of hands, at their own size, in which each finds one."""
    ours = theirs = both = count = 0
    for path in photo_files(folder, every):
        image = decode(path)
        mine = bool(predictor.predict(image, max_hands=hands))
        _, (found,) = peer.run(peer.hand_over("rate", [image]), True, hands)
        count += 1
        ours, theirs, both = ours + mine, theirs + (found > 0), both + (mine and found > 0)
    return Rates(folder.name, count, ours, theirs, both)


def photo_files(folder: Path, every: int = 1) -> list[Path]:
    """Every so-manieth picture of a folder and its sub-folders.

    Raises:
        InputError: there is none.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(
            f"{folder} holds no picture ({', '.join(SUFFIXES)}): give another folder, the photos "
            f"to measure on with --photos; {PHOTOS} is in a checkout of handmesh only"
        )
    return files[::every]


@contextlib.contextmanager
def _on_cores(count: int) -> Iterator[str]:
    """Keep this process, and those that it starts, to so many cores; says which."""
    if not hasattr(os, "sched_getaffinity"):
        yield "all: this system binds no process"
        return
    before = os.sched_getaffinity(0)
    chosen = set(sorted(before)[:count])
    os.sched_setaffinity(0, chosen)
    try:
        yield ", ".join(map(str, sorted(chosen)))
    finally:
        os.sched_setaffinity(0, before)


def markdown(
    device: dict[str, Any], comparisons: Sequence[Comparison], found: Sequence[Rates]
) -> str:
    """Tables for a document, with what they were measured on."""
    lines = [f"- {name.replace('_', ' ')}: {value}" for name, value in device.items()]
    lines += [
        "",
        f"| {WIDTH} x {HEIGHT}, ms a frame | handmesh p50 | p90 | MediaPipe p50 | p90 | ratio "
        "(quartiles) | hand found, of frames |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in comparisons:
        d = one.to_dict()
        cells = [f"{d[who][q]:.1f}" for who in ("ours_ms", "theirs_ms") for q in ("p50", "p90")]
        ratio = d["ratio"]
        cells.append(f"{ratio['median']:.2f} ({ratio['p25']:.2f} to {ratio['p75']:.2f})")
        cells.append(f"{100 * one.ours_found:.0f} % / {100 * one.theirs_found:.0f} %")
        lines.append(f"| {one.task} | " + " | ".join(cells) + " |")
    if found:
        lines += ["", "| photos with a hand | count | handmesh | MediaPipe | both |"]
        lines.append("| --- | --- | --- | --- | --- |")
        for rate in found:
            shares = [f"{100 * n / rate.count:.1f} %" for n in (rate.ours, rate.theirs, rate.both)]
            lines.append(f"| {rate.folder} | {rate.count} | " + " | ".join(shares) + " |")
    return "\n".join(lines)


def _pictures(folders: Sequence[Path], every: int) -> list[Image]:
    pictures = []
    for folder in folders:
        for path in photo_files(folder, every):
            try:
                pictures.append(fitted(decode(path)))
            except ImageError as error:
                sys.stderr.write(f"left out: {error}\n")
    if not pictures:
        raise InputError(
            f"none of the photos in {', '.join(map(str, folders))} can be read: give --photos "
            "others"
        )
    return pictures


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = parser_of(__name__, __doc__)
    parser.add_argument(
        "--photos", type=Path, action="append", metavar="DIR", help=f"default {PHOTOS}; repeatable"
    )
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="of the photos one in N (default all)"
    )
    parser.add_argument(
        "--rate", type=Path, action="append", default=[], metavar="DIR",
        help="photos of hands: also say in how many of them each finds one; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--rate-every", type=int, default=10, metavar="N", help="of these one in N (default 10)"
    )
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="turns (default 20)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="and cores (default 2)")
    parser.add_argument("--hands", type=int, default=1, metavar="N", help="to look for (default 1)")
    add_bundle(parser)
    parser.add_argument("--backend", default="auto")
    add_environment(parser)
    parser.add_argument(
        "--python", default=sys.executable, metavar="EXE", help="to make that with, 3.9 to 3.12"
    )
    add_out(parser)
    options = parse(parser, arguments)
    for name in ("every", "rate_every", "rounds", "threads", "hands"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1")
    folders = options.photos or [PHOTOS]
    pictures = _pictures(folders, options.every)
    interpreter = prepare(options.environment, options.python)
    device: dict[str, Any] = dict(describe())
    with (
        _on_cores(options.threads) as cores,
        tempfile.TemporaryDirectory() as folder,
        Predictor(options.bundle, options.backend, options.threads) as predictor,
        MediaPipe(interpreter, Path(folder)) as peer,
    ):
        device |= {f"peer's {name} version": value for name, value in peer.versions.items()}
        device |= {"cores of both": cores, "photos": len(pictures), "hands": options.hands}
        device["handmesh runs"] = f"{predictor.bundle.name}, {predictor.backend.description}"
        tasks = {"photos": pictures, "video": clip(_surest(predictor, pictures))}
        comparisons = [
            compare(task, predictor, peer, shown, options.rounds, options.hands)
            for task, shown in tasks.items()
        ]
        found = [
            rates(predictor, peer, one, options.rate_every, options.hands) for one in options.rate
        ]
    sys.stdout.write(markdown(device, comparisons, found) + "\n")
    if options.out is not None:
        figures = {
            "device": device,
            "comparisons": [one.to_dict() for one in comparisons],
            "rates": [asdict(one) for one in found],
        }
        text = json.dumps(figures, indent=2) + "\n"
        sys.stdout.write(f"written to {write_atomic(options.out, text.encode())}\n")
    return 0


def _surest(predictor: Predictor, pictures: Sequence[Image]) -> Image:
    """The picture whose hand is seen best: the one that moves in the video.

    Raises:
        InputError: none shows a hand.
    """

    def presence(picture: Image) -> float:
        hands = predictor.predict(picture, min_presence=0.0, looks=1)
        return max((hand.presence for hand in hands), default=0.0)

    seen = [presence(picture) for picture in pictures]
    if not any(seen):
        raise InputError(
            "none of the photos shows a hand that could be followed: give --photos others"
        )
    return pictures[int(np.argmax(seen))]
