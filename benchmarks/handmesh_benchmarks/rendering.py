"""How fast training pictures are made, on this machine's CPU and GPU, and whether both agree.

::

    python -m handmesh_benchmarks.rendering                     # CPU, and CUDA where there is a GPU
    python -m handmesh_benchmarks.rendering --devices cuda --workers 12
    python -m handmesh_benchmarks.rendering --devices cpu --memory 20000

Columns are pictures a second: `scenes` drawn by lot on one core; `pictures` drawn of the hands with
everything around them; `batches` is all of it as training gets it, augmented, each picture used
once, with scenes drawn by the processes of `--workers` (on the CPU: one a thread).
"""

from __future__ import annotations

if __name__ == "__main__":
    from .command import run

    run(__spec__, "training")

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from handmesh.errors import InputError
from handmesh_training import lanes
from handmesh_training.augment import Augmentation
from handmesh_training.device_stream import DeviceStream
from handmesh_training.rendered import HandRenderer, RenderSettings, Scene
from handmesh_training.rendering import Appearance, Renderer
from handmesh_training.sources import Batch
from handmesh_training.stream_settings import StreamSettings

from .command import parse, parser_of, say
from .device import describe, resident_mib
from .report import columns

SIZES = (128, 224, 256)
BATCH = 256
# Both round differently: a sample at a border may change sides and a level may jump by one.
LEVELS, ALIKE, MEAN, SAME_LABELS = 2, 0.995, 0.1, 0.999


@dataclass(frozen=True)
class Rates:
    """Pictures a second of one device at one size; None where it was not measured."""

    device: str
    size: int
    scenes: float
    pictures: float
    batches: float | None


@dataclass(frozen=True)
class Agreement:
    """How pictures of a GPU compare with those of the CPU.

    Attributes:
        mean: absolute difference of the colours, levels of 255.
        alike: share of the values within `LEVELS`.
        labels: share of the pixels whose mask, depth (within 2 mm), part and normal (within 0.002)
            are the same.
    """

    mean: float
    alike: float
    labels: float

    @property
    def holds(self) -> bool:
        """Whether the difference is that of rounding."""
        return self.mean < MEAN and self.alike > ALIKE and self.labels > SAME_LABELS


def rate(work: Callable[[], int], seconds: float, finish: Callable[[], None]) -> float:
    """Pictures a second of repeated work, which returns how many it made.

    Args:
        work: called at least three times; the first is off the clock.
        seconds: to go on for. finish: waits for all that was begun.
    """
    work()
    finish()
    began, made, calls = time.perf_counter(), 0, 0
    while calls < 2 or time.perf_counter() - began < seconds:
        made += work()
        calls += 1
    finish()
    return made / (time.perf_counter() - began)


def compare(hands: HandRenderer, scene: Scene, device: str) -> Agreement:
    """The same scene on the CPU and on another device."""
    inputs = (scene.vertices_m, scene.views.intrinsics, scene.look)
    expected = hands.renderer.render(*inputs, depth=True, parts=True, normals=True)
    seen = renderer_like(hands, device).render(*inputs, depth=True, parts=True, normals=True)
    arrays = {f.name: torch.as_tensor(getattr(seen, f.name)).cpu().numpy() for f in fields(seen)}
    error = np.abs(arrays["image"].astype(int) - expected.image)
    same = np.ones(expected.mask.shape, dtype=bool)
    for name in ("mask", "depth", "parts", "normals"):
        close = np.abs(arrays[name].astype(float) - getattr(expected, name)) <= 2e-3
        same &= close.all(axis=-1) if name == "normals" else close
    return Agreement(float(error.mean()), float((error <= LEVELS).mean()), float(same.mean()))


def renderer_like(hands: HandRenderer, device: str, threads: int = 1) -> Renderer:
    """A renderer of the same things on another device."""
    return Renderer(
        hands.mesh.with_partner(),
        hands.skins,
        hands.environments,
        hands.backgrounds,
        size=hands.settings.crop_px,
        threads=threads,
        device=device,
    )


def on_device(scene: Scene, device: str) -> tuple[Any, Any, Appearance]:
    """What `Renderer.render` takes, already where it draws."""
    arrays = {f.name: getattr(scene.look, f.name) for f in fields(Appearance)}
    points, lens = scene.vertices_m, scene.views.intrinsics
    if device == "cpu":
        return points, lens, scene.look
    look: dict[str, Any] = {k: torch.from_numpy(a).to(device) for k, a in arrays.items()}
    there = (torch.from_numpy(a).to(device) for a in (points, lens))
    return (*there, Appearance(**look))  # type: ignore[return-value]


def batches_of(
    settings: RenderSettings, size: int, device: str, threads: int, workers: int
) -> Iterator[Batch]:
    """Training batches, each picture used once."""
    stream = StreamSettings(
        batch=BATCH,
        reuse=1.0,
        pool=4 * BATCH,
        chunk=BATCH,
        render=RenderSettings(
            settings.skins, settings.environments, settings.backgrounds, crop_px=size * 5 // 4
        ),
        augment=Augmentation(input_size=size),
    )
    if device == "cpu":
        from handmesh_training.stream import CropStream  # takes OpenCV

        source, loaders = CropStream(stream, seed=1), threads if threads > 1 else 0
        return lanes.batches(source, range(threads), threads, workers=loaders)
    return iter(DeviceStream(stream, 1, device, workers))


def measure(
    settings: RenderSettings,
    size: int,
    device: str,
    threads: int,
    workers: int,
    seconds: float,
    stream: bool = True,
) -> Rates:
    """One row of the table.

    Args:
        settings: what to render with. size: of the pictures, pixels.
        device: "cpu" or "cuda". threads: on the CPU. workers: processes beside a GPU.
        seconds: for each figure. stream: also measure whole batches.
    """
    plain = RenderSettings(settings.skins, settings.environments, settings.backgrounds, size)
    hands = HandRenderer(plain, seed=0)
    numbers = itertools.count()
    finish = torch.cuda.synchronize if device != "cpu" else _nothing

    def draw_scene() -> int:
        return len(hands.scene(next(numbers), 64))

    scenes = rate(draw_scene, seconds, _nothing)
    draw = renderer_like(hands, device, threads)
    inputs = on_device(hands.scene(0, BATCH), device)
    pictures = rate(lambda: len(draw.render(*inputs).image), seconds, finish)
    made: float | None = None
    if stream:
        batches = batches_of(settings, size, device, threads, workers)
        for _ in range(8):  # what the processes have prepared is not to count
            next(batches)
        made = rate(lambda: len(next(batches)["images"]), seconds, finish)
    name = f"cpu, {threads} thread{'s' if threads > 1 else ''}" if device == "cpu" else device
    return Rates(name, size, scenes, pictures, made)


def table(rows: Sequence[Rates]) -> str:
    """The rates to read."""
    cells = [
        [
            row.device,
            str(row.size),
            *(f"{value:,.0f}" for value in (row.scenes, row.pictures)),
            "-" if row.batches is None else f"{row.batches:,.0f}",
        ]
        for row in rows
    ]
    return "\n".join(columns(("device", "px", "scenes/s", "pictures/s", "batches"), cells))


def watch_memory(
    batches: Iterator[Batch], count: int, every: int, report: Callable[[int, float], None]
) -> None:
    """Draws ``count`` pictures and reports the memory held after each ``every``."""
    made = due = 0
    while made < count:
        made += len(next(batches)["images"])
        if made >= due:
            report(made, resident_mib())
            due += every


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns 1 where CPU and GPU disagree."""
    parser = parser_of(__name__, __doc__)
    parser.add_argument("--skins", type=Path, metavar="DIR")
    parser.add_argument("--environments", type=Path, metavar="DIR")
    parser.add_argument("--backgrounds", type=Path, metavar="DIR")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), metavar="PX")
    parser.add_argument("--devices", nargs="+", choices=("cpu", "cuda"), metavar="D")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--workers", type=int, default=8, metavar="N", help="beside a GPU")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each figure")
    parser.add_argument("--no-batches", action="store_true", help="leave that column out")
    parser.add_argument("--memory", type=int, metavar="N", help="watch memory over N pictures")
    parser.add_argument("--every", type=int, default=2000, metavar="N", help="pictures a line")
    options = parse(parser, arguments)
    counts = (*options.sizes, *options.threads, options.workers, options.every)
    if min(counts) < 1 or (options.memory is not None and options.memory < 1):
        raise InputError("--sizes, --threads, --workers, --memory and --every must be at least 1")
    settings = RenderSettings(options.skins, options.environments, options.backgrounds)
    devices = options.devices or (["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
    for name, value in describe().items():
        say(f"{name.replace('_', ' ')}: {value}")
    if "cuda" in devices and torch.cuda.is_available():
        say(f"GPU: {torch.cuda.get_device_name()}")
    torch.set_num_threads(1)
    if options.memory is not None:
        batches = batches_of(settings, options.sizes[0], devices[0], 1, 0)
        watch_memory(
            batches,
            options.memory,
            options.every,
            lambda made, mib: say(f"{made:6d} pictures: {mib:7.1f} MiB"),
        )
        return 0
    agreed = True
    if "cuda" in devices:
        hands = HandRenderer(settings, seed=0)
        found = compare(hands, hands.scene(0, 64), "cuda")
        agreed = found.holds
        say(f"CUDA {'agrees' if agreed else 'DISAGREES'} with the CPU: {found}")
    rows = [
        measure(settings, size, device, n, options.workers, options.seconds, not options.no_batches)
        for device in devices
        for n in (options.threads if device == "cpu" else [1])
        for size in options.sizes
    ]
    say(table(rows))
    return 0 if agreed else 1


def _nothing() -> None:
    """There is nothing to wait for on the CPU."""
