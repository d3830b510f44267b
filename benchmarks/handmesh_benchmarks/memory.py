"""Whether memory stays flat over very many predictions.

::

    python -m handmesh_benchmarks.memory --predictions 100000
    python -m handmesh_benchmarks.memory --backends onnx,tflite --bundle DIR --frames 10000

Each backend runs in a process of its own, one after the other: predictions with a box on photos of
many sizes, each box moved and turned by lot, or with ``--frames`` a `Tracker` on a picture that
moves. Memory is read 100 times on the way: what is resident, and what no file backs, which is
judged. The first quarter is left out, in which pools fill up; from then on memory is *flat* where
the medians of the first and of the last third of the readings differ by less than `ALLOWED_MIB`,
else *growing*. The command fails where it grows.
"""

from __future__ import annotations

if __name__ == "__main__":
    from .command import run

    run(__spec__)

import itertools
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from handmesh import Box, Bundle, Predictor, Tracker, backends
from handmesh.atomic import write_atomic
from handmesh.errors import BackendUnavailable, InputError
from handmesh.imaging import decode

from .command import add_bundle, add_out, parse, parser_of, say
from .device import describe, own_memory_mib, resident_mib
from .report import columns

__all__ = ["ALLOWED_MIB", "History", "watch", "watch_predictions", "watch_tracker"]

PHOTOS = Path("examples/photos")
BOXES = "boxes.json"
# Longer sides of the photos, pixels, and how far boxes are moved and turned.
SIDES = (320, 480, 640, 800, 1280)
SHIFT, ZOOM, TURN = 0.1, 1.2, 0.5
# Between two readings of a heap that does not grow: a pool's or an arena's step.
ALLOWED_MIB = 4.0
# Readings from which a verdict may be given.
FEWEST = 12

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class History:
    """Memory of one process over its work.

    Attributes:
        what: what it did, as "predict". backend: what ran, as `Backend.description`.
        done: how many predictions or frames lay behind each reading.
        mib: memory of its own, see `own_memory_mib`. resident_mib: all that is in memory.
        seconds: when, from the start.
    """

    what: str
    backend: str
    done: tuple[int, ...]
    mib: tuple[float, ...]
    resident_mib: tuple[float, ...]
    seconds: tuple[float, ...]

    @property
    def growth_mib(self) -> float:
        """Median of the last third of the settled readings, less that of the first third."""
        settled = self.mib[len(self.mib) // 4 :]
        third = max(1, len(settled) // 3)
        return float(np.median(settled[-third:]) - np.median(settled[:third]))

    @property
    def bytes_each(self) -> float:
        """The growth by prediction: the middles of the thirds lie two thirds apart."""
        settled = self.done[len(self.done) // 4 :]
        return self.growth_mib * 2**20 / (2 / 3 * (settled[-1] - settled[0]))

    @property
    def flat(self) -> bool:
        return self.growth_mib < ALLOWED_MIB


def check(count: int, readings: int) -> None:
    """Raise `InputError` where readings are too few for a verdict, or the system does not tell what
    a process holds."""
    if readings < FEWEST or count < readings:
        raise InputError(
            f"a verdict needs at least {FEWEST} readings and as many runs, not {readings} readings "
            f"over {count}"
        )
    if own_memory_mib() < 0:
        raise InputError("this system does not tell how much memory a process holds: use Linux")


def watch(
    what: str, backend: str, work: Callable[[int], object], count: int, readings: int
) -> History:
    """Call ``work(0)`` to ``work(count - 1)`` and read the memory held, evenly spread.

    Raises:
        InputError: as `check`.
    """
    check(count, readings)
    due = {round(count * (n + 1) / readings) for n in range(readings)}
    done, mib, resident, seconds = [], [], [], []
    start = time.monotonic()
    for n in range(count):
        work(n)
        if n + 1 in due:
            done.append(n + 1)
            mib.append(own_memory_mib())
            resident.append(resident_mib())
            seconds.append(time.monotonic() - start)
    return History(what, backend, tuple(done), tuple(mib), tuple(resident), tuple(seconds))


def watch_predictions(
    bundle: str | None, backend: str, threads: int, photos: Path, count: int, readings: int
) -> History:
    """`Predictor.predict` with a box given.

    Args:
        bundle, backend, threads: as `Predictor` takes them.
        photos: folder of photos with a ``boxes.json``: file -> [x0, y0, x1, y1].
    """
    rng = np.random.default_rng(0)
    scenes = list(_scenes(photos))
    with Predictor(bundle, backend, threads) as predictor:

        def work(n: int) -> None:
            image, box = scenes[n % len(scenes)]
            shift = rng.uniform(-SHIFT, SHIFT, 2) * box.size
            size = box.size * ZOOM ** rng.uniform(-1, 1)
            moved = Box(box.cx + shift[0], box.cy + shift[1], size, rng.uniform(-TURN, TURN))
            predictor.predict(image, box=moved)

        return watch("predict", predictor.backend.description, work, count, readings)


def watch_tracker(
    bundle: str | None, backend: str, threads: int, photos: Path, count: int, readings: int
) -> History:
    """`Tracker.update` on a photo that moves in the picture, and is away now and then.

    Args: as `watch_predictions`.
    """
    image = max((image for image, _ in _scenes(photos, (640,))), key=lambda one: one.shape[1])
    away = np.zeros_like(image)
    with Predictor(bundle, backend, threads) as predictor:
        tracker = Tracker(predictor)
        # A search in doubt shows so many crops at once, whenever that is first. What a runtime
        # keeps for them is no leak: it is taken now.
        predictor.warm_up(16)

        def work(n: int) -> None:
            shift = 40 * np.array([np.sin(n / 30), np.cos(n / 47)])
            matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]])
            frame = away if n % 300 >= 280 else cv2.warpAffine(image, matrix, image.shape[1::-1])
            tracker.update(np.asarray(frame, dtype=np.uint8), n / 30)

        return watch("track", predictor.backend.description, work, count, readings)


def _scenes(folder: Path, sides: Sequence[int] = SIDES) -> Iterator[tuple[Image, Box]]:
    """Every photo in each size, as it is and mirrored, and the box around its hand."""
    wanted = (
        f"{folder} must hold photos and a {BOXES} (file -> [x0, y0, x1, y1]), as {PHOTOS} of a "
        "checkout does: give another folder with --photos"
    )
    try:
        boxes: dict[str, list[float]] = json.loads((folder / BOXES).read_text(encoding="utf-8"))
        corners_of = {name: [float(value) for value in box] for name, box in boxes.items()}
    except OSError as cause:
        raise InputError(f"{wanted} ({cause.strerror})") from cause
    except (ValueError, TypeError, AttributeError) as cause:  # no JSON, or other JSON
        raise InputError(f"{wanted} ({cause})") from cause
    if not corners_of or any(len(corners) != 4 for corners in corners_of.values()):
        raise InputError(f"{wanted} (it has no box, or one without four numbers)")
    for (name, corners), side in itertools.product(corners_of.items(), sides):
        photo = decode(folder / name)
        scale = side / max(photo.shape[:2])
        size = (round(photo.shape[1] * scale), round(photo.shape[0] * scale))
        image = np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        box = Box.from_xyxy(*(scale * value for value in corners))
        yield image, box
        yield np.ascontiguousarray(image[:, ::-1]), box.mirrored(image.shape[1])


def table(histories: Sequence[History], rows: int = 10) -> str:
    """Every history's readings, thinned out, and its verdict."""
    lines = []
    for history in histories:
        unit = "predictions" if history.what == "predict" else "frames"
        lines += ["", f"{history.what}, {history.backend}"]
        chosen = np.unique(np.linspace(0, len(history.done) - 1, rows).round().astype(int))
        cells = [
            [
                f"{history.done[n]:,}",
                f"{history.mib[n]:.1f}",
                f"{history.resident_mib[n]:.1f}",
                f"{history.seconds[n]:.0f}",
            ]
            for n in chosen
        ]
        lines += columns((unit, "own MiB", "resident", "seconds"), cells)
        lines.append(
            f"{'flat' if history.flat else 'GROWING'}: {history.growth_mib:+.2f} MiB after "
            f"settling, {history.bytes_each:+.0f} bytes each (allowed {ALLOWED_MIB:g} MiB)"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns 1 where memory grows."""
    parser = parser_of(__name__, __doc__)
    parser.add_argument("--predictions", type=int, default=2000, metavar="N", help="default 2000")
    parser.add_argument("--frames", type=int, default=0, metavar="N", help="a Tracker's, too")
    parser.add_argument("--backends", default="onnx,tflite,torch", metavar="A,B")
    add_bundle(parser)
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default 1")
    parser.add_argument(
        "--photos", type=Path, default=PHOTOS, metavar="DIR", help=f"default {PHOTOS}"
    )
    parser.add_argument("--readings", type=int, default=100, metavar="N", help="default 100")
    add_out(parser)
    options = parse(parser, arguments)
    if max(options.predictions, options.frames) < 1:
        raise InputError("there is nothing to watch: give --predictions or --frames, 1 or more")
    bundle = Bundle.load(options.bundle)
    bundle.check()
    names = [name.strip() for name in options.backends.split(",")]
    reasons = {name: backends.unavailable(name, bundle) for name in names}
    usable = [name for name in names if reasons[name] is None]
    if not usable:
        raise BackendUnavailable("; ".join(reason for reason in reasons.values() if reason))
    # What cannot be watched is told before the machine is, and alone.
    for count in (options.predictions, options.frames):
        if count >= 1:
            check(count, min(options.readings, count))
    next(_scenes(options.photos))
    device = describe()
    for name, value in device.items():
        say(f"{name.replace('_', ' ')}: {value}")
    histories = []
    jobs = [(watch_predictions, options.predictions), (watch_tracker, options.frames)]
    for name, (job, count) in itertools.product(usable, jobs):
        if count < 1:
            continue
        given = (options.bundle, name, options.threads, options.photos, count)
        history = _apart(job, *given, min(options.readings, count))
        histories.append(history)
        say(table([history]))
    for reason in reasons.values():
        if reason is not None:
            say(f"not measured: {reason}")
    if options.out is not None:
        figures = [
            asdict(h) | {"growth_mib": h.growth_mib, "bytes_each": h.bytes_each, "flat": h.flat}
            for h in histories
        ]
        text = json.dumps({"device": device, "histories": figures}, indent=2) + "\n"
        say(f"written to {write_atomic(options.out, text.encode())}")
    return 0 if all(history.flat for history in histories) else 1


def _apart(job: Callable[..., History], *arguments: Any) -> History:
    """Run in a process of its own, so that the memory held is this job's."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        history: History = pool.apply(job, arguments)
        return history
