"""The options of `handmesh bench`, and which of them have an effect together."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from handmesh.backends import MOST_THREADS, Device, devices
from handmesh.errors import InputError
from handmesh.spelling import did_you_mean

from . import variants
from .protocol import HEADLINE_RUNS, HEADLINE_SECONDS

__all__ = ["DEFAULT_PHOTO", "add", "check", "check_length", "words"]

DEFAULT_PHOTO = Path("examples/photos/pointing.jpg")
MODES = ("report", "compare", "scaling", "floors")
_ELSEWHERE = ("ssh", "adb", "coreml")
_MEASURED = ("local", *_ELSEWHERE)
# What each option is for; those that are missing here are for all.
EFFECTIVE = {
    "bundle": ("scaling", *_MEASURED),
    "photo": ("local",),
    "box": ("local",),
    "backends": ("local", "ssh"),
    "on": ("local",),
    "precisions": _MEASURED,
    "paper_precisions": _MEASURED,
    "threads": ("local", "ssh", "adb"),
    "no_paper": _MEASURED,
    "no_parts": ("local", "ssh"),
    "no_memory": ("local",),
    "headline": ("scaling", *_MEASURED),
    "runs": ("scaling", *_MEASURED),
    "seconds": ("scaling", *_MEASURED),
    "artifacts": _MEASURED,
    "out": ("report", "scaling", *_MEASURED),
    "device": _MEASURED,
    "ssh_options": ("ssh",),
    "python": ("ssh",),
    "provider": ("ssh",),
    "benchmark_model": ("adb",),
    "delegates": ("adb",),
}


def add(parser: Any) -> None:
    """Add all options to the parser of `bench`."""
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument(
        "--report",
        nargs="+",
        type=Path,
        metavar="JSON",
        help="make one page of several results: --out report.html or report.md",
    )
    modes.add_argument(
        "--compare", nargs=2, type=Path, metavar=("OLD", "NEW"),
        help="two results of one device, or two of pytest-benchmark; fails where one is slower",
    )  # fmt: skip
    modes.add_argument(
        "--scaling", action="store_true",
        help="cost against batch, input size, threads, hands and vertices",
    )  # fmt: skip
    modes.add_argument(
        "--floors", action="store_true",
        help="what data sheets allow on devices that nobody ran; no measurement",
    )  # fmt: skip
    _add_what(parser)
    _add_how(parser)
    _add_where(parser)


def check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Raise `InputError` where an option would have no effect, or a number makes no sense."""
    mode = next((name for name in MODES if getattr(args, name) not in (None, False)), None)
    kind, colon, _ = args.device.partition(":")
    if mode is None and (kind not in _MEASURED or (colon and kind not in ("ssh", "adb"))):
        raise InputError(
            f"--device must be local, ssh:HOST, adb, adb:SERIAL or coreml, not {args.device!r}"
        )
    here = f"--device {kind}" if mode is None else f"--{mode}"
    for name, modes in EFFECTIVE.items():
        if getattr(args, name) == parser.get_default(name) or (mode or kind) in modes:
            continue
        raise InputError(
            f"--{name.replace('_', '-')} has no effect with {here}: leave one of the two out"
            f"{'' if name == 'device' else _instead(modes)}"
        )
    for device in args.on:
        kind = Device.parse(device).kind
        if kind not in devices():
            raise InputError(
                f"--on takes {', '.join(devices())}; not {device!r}{did_you_mean(kind, devices())}"
            )
    wrong = [n for n in args.threads or () if not 1 <= n <= MOST_THREADS]
    if wrong or args.threads == []:
        raise InputError(f"--threads must be 1 to {MOST_THREADS}, not {wrong[0] if wrong else ''}")
    check_length(args.runs, args.seconds)
    if args.headline:
        _check_headline(args.runs, args.seconds)


def _instead(modes: Sequence[str]) -> str:
    """What an option is for, in words."""
    able = [f"--{mode}" for mode in modes if mode in MODES]
    devices = ["local, the default" if kind == "local" else kind for kind in modes]
    devices = [name for name, kind in zip(devices, modes, strict=True) if kind not in MODES]
    if devices:
        able.append(f"--device ({'; '.join(devices)})")
    return f". It is for {' and '.join(able)}"


def _check_headline(runs: int | None, seconds: float | None) -> None:
    """Raise `InputError` where less is asked for than a headline rests on: few runs would go
    unheeded, as rows last their seconds all the same, and few seconds make none."""
    for name, given, least in (
        ("runs", runs, HEADLINE_RUNS), ("seconds", seconds, HEADLINE_SECONDS)
    ):  # fmt: skip
        if given is not None and given < least:
            raise InputError(
                f"--{name} {given:g} is less than --headline measures of each row, at least "
                f"{HEADLINE_RUNS} runs over {HEADLINE_SECONDS:g} s: leave one of the two out"
            )


def check_length(runs: int | None, seconds: float | None) -> None:
    """Raise `InputError` where ``--runs`` or ``--seconds``, if given, are no length to measure."""
    if runs is not None and runs < 1:
        raise InputError(f"--runs must be at least 1, not {runs}")
    if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
        raise InputError(f"--seconds must be a number of seconds, 0 or more, not {seconds}")


def _add_what(parser: Any) -> None:
    group = parser.add_argument_group("what to measure")
    group.add_argument("--bundle", metavar="PATH", help="trained model (default: the shipped one)")
    group.add_argument(
        "--photo",
        type=Path,
        help=f"default: {DEFAULT_PHOTO} in a checkout, else one of the bundle's reference crops",
    )
    group.add_argument(
        "--box",
        type=floats,
        metavar="X0,Y0,X1,Y1",
        help="where the hand is, in pixels (default: it is searched for, off the clock)",
    )
    group.add_argument(
        "--backends", type=words, metavar="A,B", help="default: all that can run here"
    )
    group.add_argument(
        "--on", type=words, default=[], metavar="A,B",
        help="of this machine: cpu, cuda, tensorrt, mps, ...; each backend on each that it has "
        "(default: the CPU)",
    )  # fmt: skip
    group.add_argument(
        "--precisions", type=words, metavar="A,B", default=list(variants.PRECISIONS),
        help="exported where the bundle lacks them (default all; 'none': what the bundle has)",
    )  # fmt: skip
    group.add_argument(
        "--paper-precisions", type=words, metavar="A,B", default=["fp32"],
        help="the same of the network `paper`, whose exports take minutes (default fp32)",
    )  # fmt: skip
    group.add_argument(
        "--threads", type=integers, metavar="N,M",
        help="default 1,2; with --headline 2, as every row takes a minute",
    )  # fmt: skip
    group.add_argument(
        "--no-paper", action="store_true", help="without the network `paper` and the ratio to it"
    )
    group.add_argument("--no-parts", action="store_true", help="without the networks' parts")
    group.add_argument("--no-memory", action="store_true", help="without each artifact's memory")


def _add_how(parser: Any) -> None:
    group = parser.add_argument_group("how long, and where to")
    group.add_argument(
        "--headline", action="store_true",
        help="fewer rows, each long enough to quote (some 19 minutes)",
    )  # fmt: skip
    group.add_argument("--runs", type=int, metavar="N", help="at least so many of each")
    group.add_argument("--seconds", type=float, metavar="S", help="at least so long of each")
    group.add_argument(
        "--artifacts", type=Path, metavar="DIR", help="where exports are kept (default: the cache)"
    )
    group.add_argument(
        "--out", type=Path, metavar="FILE",
        help="write the results as JSON, after every round; of --report, the page",
    )  # fmt: skip


def _add_where(parser: Any) -> None:
    group = parser.add_argument_group("on which device")
    group.add_argument(
        "--device",
        default="local",
        metavar="D",
        help="local; ssh:HOST, which needs Python, NumPy and a runtime there; adb or adb:SERIAL, "
        "an Android phone; coreml, a Mac's compute units (default local)",
    )
    group.add_argument("--ssh-options", default="", metavar="TEXT", help='as "-p 2222"')
    group.add_argument("--python", default="python3", help="of an ssh host (default python3)")
    group.add_argument(
        "--provider", default="auto", help="of an ssh host's ONNX Runtime (default: each it has)"
    )
    group.add_argument(
        "--benchmark-model", type=Path, metavar="FILE", help="LiteRT's program, built for the phone"
    )
    group.add_argument(
        "--delegates", type=words, default=["cpu"], metavar="A,B", help="cpu, gpu, nnapi"
    )


def words(text: str) -> list[str]:
    """Of a list with commas, in small letters, each once."""
    named = (part.strip().lower() for part in text.split(","))
    return list(dict.fromkeys(name for name in named if name))


def integers(text: str) -> list[int]:
    """Of a list with commas, each once."""
    # argparse reports the ValueError.
    return list(dict.fromkeys(int(part) for part in text.split(",")))


def floats(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]
