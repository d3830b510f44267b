"""The sub-command `handmesh bench`: measure here or elsewhere, compare, report, show scaling."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handmesh import Box, Bundle, backends
from handmesh.errors import InputError, MissingExtra
from handmesh.imaging import decode

from . import cli_exports, local, variants
from .candidates import reference_photo
from .compare import compare, read_any, to_table
from .device import describe, peak_memory_mib
from .floors import to_text as floors_text
from .protocol import Protocol
from .report import to_text
from .results import Results, load

DEFAULT_PHOTO = Path("examples/photos/pointing.jpg")
# A smoke run proves that everything works, within minutes: slow rows stop after some seconds.
SMOKE_RUNS, SMOKE_SECONDS = 32, 8.0
NEGATIVE = 1


def add_commands(commands: Any) -> None:
    """Add `bench` and `compare-exports` to argparse's sub-parsers."""
    cli_exports.add_commands(commands)
    parser = commands.add_parser(
        "bench",
        help="measure latency here or on another device, compare runs, make a report",
        description="predict() with a box given, by stage; the networks alone; and their parts, as "
        "the paper times them: each backend, precision and number of threads in one interleaved "
        "run, batch 1. Exports that this needs are kept in ~/.cache/handmesh/bench.",
    )
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
    parser.set_defaults(run=_bench)


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
        type=_floats,
        metavar="X0,Y0,X1,Y1",
        help="where the hand is, in pixels (default: it is searched for, off the clock)",
    )
    group.add_argument(
        "--backends", type=_words, metavar="A,B", help="default: all that can run here"
    )
    group.add_argument(
        "--on", type=_words, default=[], metavar="A,B",
        help="of this machine: cpu, cuda, tensorrt, mps, ...; each backend on each that it has "
        "(default: the CPU)",
    )  # fmt: skip
    group.add_argument(
        "--precisions", type=_words, metavar="A,B", default=list(variants.PRECISIONS),
        help="exported where the bundle lacks them (default all; 'none': what the bundle has)",
    )  # fmt: skip
    group.add_argument(
        "--paper-precisions", type=_words, metavar="A,B", default=["fp32"],
        help="the same of the network `paper`, whose exports take minutes (default fp32)",
    )  # fmt: skip
    group.add_argument(
        "--threads", type=_integers, metavar="N,M",
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
        help="fewer rows, each long enough to quote (some 25 minutes)",
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
        "--delegates", type=_words, default=["cpu"], metavar="A,B", help="cpu, gpu, nnapi"
    )


def _bench(args: argparse.Namespace) -> int:
    if args.report is not None:
        return _report(args)
    if args.compare is not None:
        differences = compare(*(read_any(path) for path in args.compare))
        print(to_table(differences))
        return NEGATIVE if any(row.verdict == "slower" for row in differences.rows) else 0
    if args.floors:
        print(floors_text())
        return 0
    protocol = _protocol(args)
    if args.threads is None:
        args.threads = [2] if args.headline else [1, 2]
    if args.scaling:
        return _scaling(args, protocol)
    kind, _, name = args.device.partition(":")
    devices = {"local": _here, "ssh": _ssh, "adb": _adb, "coreml": _coreml}
    if kind not in devices:
        raise InputError(f"--device must be {', '.join(devices)}, not {args.device!r}")
    write = _writer(args.out)
    results = devices[kind](args, name, protocol, write)
    print(to_text(results))
    if args.out is not None:
        print(f"written to {args.out}")
    return 0


def _here(
    args: argparse.Namespace, name: str, protocol: Protocol, write: Callable[[Results], None]
) -> Results:
    wanted = _wanted(args)
    device = describe()
    image, box, photo, words = _photo(args, wanted.bundle)
    prepared = local.prepare(wanted, image, box, photo, _say)
    results = Results(device, missing=prepared.missing)
    results.context["photo"] = words
    local.run(prepared.candidates, protocol, results, write, _say)
    results.context["process_peak_memory_mib"] = round(peak_memory_mib())
    write(results)
    return results


def _ssh(
    args: argparse.Namespace, name: str, protocol: Protocol, write: Callable[[Results], None]
) -> Results:
    from .devices import ssh

    host = ssh.Host(name, args.ssh_options)
    host.run("true")  # before exports that take minutes
    wanted = _wanted(args, ("onnx", "tflite"))
    found, parts, missing = local.artifacts(wanted, _say)
    results = ssh.measure(
        host, found, parts, args.threads, protocol, write, _say,
        python=args.python, provider=args.provider,
    )  # fmt: skip
    results.missing += missing
    write(results)
    return results


def _adb(
    args: argparse.Namespace, name: str, protocol: Protocol, write: Callable[[Results], None]
) -> Results:
    from .devices import adb

    found, _, _ = local.artifacts(_wanted(args, ("tflite",)), _say)
    return adb.measure(
        adb.Phone(name), args.benchmark_model, found, args.threads, protocol, write, _say,
        args.delegates,
    )  # fmt: skip


def _coreml(
    args: argparse.Namespace, name: str, protocol: Protocol, write: Callable[[Results], None]
) -> Results:
    from .devices import coreml

    found: list[variants.Variant] = []
    if platform.system() == "Darwin":
        found, _, _ = local.artifacts(_wanted(args, ("coreml",)), _say)
    return coreml.measure(found, protocol, write, _say)


def _report(args: argparse.Namespace) -> int:
    from .page import write_page

    if args.out is None or args.out.suffix not in (".html", ".md"):
        raise InputError("--report needs --out with a name that ends in .html or .md")
    print(f"written to {write_page([load(path) for path in args.report], args.out)}")
    return 0


def _scaling(args: argparse.Namespace, protocol: Protocol) -> int:
    try:
        from . import scaling
    except ImportError as cause:
        raise MissingExtra(cause.name or "torch", "bench") from cause
    results = scaling.run(Bundle.load(args.bundle), protocol, _writer(args.out), _say)
    print(scaling.to_text(results))
    if args.out is not None:
        print(f"written to {args.out}")
    return 0


def _wanted(args: argparse.Namespace, only: Sequence[str] = ()) -> local.Wanted:
    names = args.backends
    if names is None:
        names = list(only) or backends.names()
    folder = local.cache() if args.artifacts is None else args.artifacts
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder} to keep exports in: make it first")
    for given in (args.precisions, args.paper_precisions):
        unknown = set(given) - {*variants.PRECISIONS, "none"}
        if unknown:
            raise InputError(
                f"precisions are {', '.join(variants.PRECISIONS)} or none, not {min(unknown)!r}"
            )
    return local.Wanted(
        bundle=Bundle.load(args.bundle),
        names=names,
        precisions=args.precisions,
        paper_precisions=args.paper_precisions,
        threads=args.threads,
        paper=not args.no_paper,
        parts=not args.no_parts,
        memory=not args.no_memory,
        artifacts=folder,
        brief=args.headline,
        devices=args.on,
    )


def _photo(
    args: argparse.Namespace, bundle: Bundle
) -> tuple[NDArray[np.uint8], Box | list[float] | None, bytes | None, str]:
    """The picture, where the hand is if that is known, its file, and what to call it."""
    data = None
    if args.photo is not None or DEFAULT_PHOTO.is_file():
        path = DEFAULT_PHOTO if args.photo is None else args.photo
        image, box, name = decode(path), args.box, path.name
        data = path.read_bytes()
    elif args.box is not None:
        raise InputError(f"a --box needs its --photo: there is no {DEFAULT_PHOTO} here")
    else:
        image, box = reference_photo(bundle)
        name = f"reference crop of {bundle.name}"
    return image, box, data, f"{name}, {image.shape[1]} x {image.shape[0]} pixels"


def _protocol(args: argparse.Namespace) -> Protocol:
    smoke = Protocol(min_runs=SMOKE_RUNS, min_seconds=1.0, max_seconds=SMOKE_SECONDS)
    chosen = Protocol.headline() if args.headline else smoke
    return Protocol(
        min_runs=chosen.min_runs if args.runs is None else args.runs,
        min_seconds=chosen.min_seconds if args.seconds is None else args.seconds,
        warmup_runs=chosen.warmup_runs,
        rounds=chosen.rounds,
        max_seconds=chosen.max_seconds,
    )


def _writer(path: Path | None) -> Callable[[Results], None]:
    def write(results: Results) -> None:
        if path is not None:
            results.write(path)

    return write


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _integers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]  # argparse reports the ValueError


def _floats(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _words(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
