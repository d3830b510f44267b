"""The sub-command `handmesh bench`: measure here or elsewhere, compare, report, show scaling."""

from __future__ import annotations

import argparse
import functools
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handmesh import Box, Bundle, backends
from handmesh.errors import BackendUnavailable, InputError, MissingExtra
from handmesh.imaging import decode

from . import cli_exports, cli_options, local, variants
from .candidates import reference_photo
from .cli_options import DEFAULT_PHOTO
from .compare import compare, read_any, to_table
from .device import describe, peak_memory_mib
from .floors import to_text as floors_text
from .keeping import kept, warn_unkept
from .protocol import Protocol
from .report import to_text
from .results import Results, load

# A smoke run proves that everything works, within minutes: slow rows stop after some seconds.
SMOKE_RUNS, SMOKE_SECONDS = 32, 8.0
NEGATIVE = 1


def add_commands(commands: Any) -> None:
    """Add `bench` and `compare-exports` to argparse's sub-parsers."""
    cli_exports.add_commands(commands)
    parser = commands.add_parser(
        "bench",
        help="measure latency here or on another device, compare runs, make a report",
        description="predict() with box and side given, by stage; the networks alone; and their "
        "parts, as the paper times them: each backend, precision and number of threads in one "
        "interleaved run, batch 1. Exports that this needs are kept in ~/.cache/handmesh/bench.",
    )
    cli_options.add(parser)
    parser.set_defaults(run=functools.partial(_bench, parser=parser))


def _bench(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    cli_options.check(args, parser)
    if args.report is not None:
        return _report(args)
    if args.compare is not None:
        differences = compare(*(read_any(path) for path in args.compare))
        print(to_table(differences))
        return NEGATIVE if differences.failed else 0
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
    with kept(args.out, _say) as write:
        results = devices[kind](args, name, protocol, write)
    _show(to_text(results), results, args.out)
    if results.state != "complete":
        print(f"the run is not complete: {results.stopped_by}", file=sys.stderr)
        return NEGATIVE
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
    wanted = _wanted(args, ("onnx", "tflite"))
    host.run("true")  # this and the next before exports that take minutes
    ssh.check_python(host, args.python)
    found, parts, missing = local.artifacts(wanted, _say)
    if not found:
        raise BackendUnavailable("; ".join(missing))
    return ssh.measure(
        host, found, parts, args.threads, protocol, write, _say,
        python=args.python, provider=args.provider, missing=missing,
    )  # fmt: skip


def _adb(
    args: argparse.Namespace, name: str, protocol: Protocol, write: Callable[[Results], None]
) -> Results:
    from .devices import adb

    phone = adb.Phone(name)
    adb.check(args.benchmark_model, args.delegates)
    phone.describe()  # before exports that take minutes
    found, _, missing = local.artifacts(_wanted(args, ("tflite",)), _say)
    return adb.measure(
        phone, args.benchmark_model, found, args.threads, protocol, write, _say,
        args.delegates, missing,
    )  # fmt: skip


def _coreml(
    args: argparse.Namespace, name: str, protocol: Protocol, write: Callable[[Results], None]
) -> Results:
    from .devices import coreml

    found: list[variants.Variant] = []
    missing: list[str] = []
    if platform.system() == "Darwin":
        found, _, missing = local.artifacts(_wanted(args, ("coreml",)), _say)
    return coreml.measure(found, protocol, write, _say, missing)


def _report(args: argparse.Namespace) -> int:
    from .page import write_page

    if args.out is None or args.out.suffix not in (".html", ".md"):
        raise InputError("--report needs --out with a name that ends in .html or .md")
    found = [load(path) for path in args.report]
    for path, results in zip(args.report, found, strict=True):
        if any(str(m.facts["task"]).startswith("scaling ") for m in results.measurements):
            raise InputError(
                f"{path} holds rows of --scaling, which a report has no place for: leave it out; "
                "`python -m handmesh_benchmarks.documentation` draws them"
            )
    print(f"written to {write_page(found, args.out)}")
    return 0


def _scaling(args: argparse.Namespace, protocol: Protocol) -> int:
    try:
        from . import scaling
    except ImportError as cause:
        raise MissingExtra(cause.name or "torch", "bench") from cause
    with kept(args.out, _say) as write:
        bundle = _bundle(args)
        warn_unkept(args.out, _say)
        results = scaling.run(bundle, protocol, write, _say)
    _show(scaling.to_text(results), results, args.out)
    return 0


def _bundle(args: argparse.Namespace) -> Bundle:
    """The trained model, all of it verified: a damaged file is an error and no row that is missing.

    Raises:
        BundleError, IntegrityError: there is none, or a file of it is missing or was changed.
    """
    bundle = Bundle.load(args.bundle)
    bundle.check()
    return bundle


def _wanted(args: argparse.Namespace, only: Sequence[str] = ()) -> local.Wanted:
    bundle = _bundle(args)
    names = args.backends
    if names is None:
        names = list(only) or backends.names()
    if only and not set(names) <= set(only):
        raise InputError(
            f"--device {args.device} runs {', '.join(only)}; not what --backends names: "
            f"{', '.join(name for name in names if name not in only)}"
        )
    for name in names:  # an unknown one is told before others are exported
        backends.unavailable(name, bundle)
    folder = local.cache() if args.artifacts is None else args.artifacts
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder} to keep exports in: make it first")
    for given in (args.precisions, args.paper_precisions):
        unknown = set(given) - {*variants.PRECISIONS, "none"}
        if unknown:
            raise InputError(
                f"precisions are {', '.join(variants.PRECISIONS)} or none, not {min(unknown)!r}"
            )
    warn_unkept(args.out, _say)
    return local.Wanted(
        bundle=bundle,
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
    # Who says how long gets that; only the default ends early for what is slow.
    told = args.runs is not None or args.seconds is not None
    return Protocol(
        min_runs=chosen.min_runs if args.runs is None else args.runs,
        min_seconds=chosen.min_seconds if args.seconds is None else args.seconds,
        warmup_runs=chosen.warmup_runs,
        rounds=chosen.rounds,
        max_seconds=None if told else chosen.max_seconds,
    )


def _show(table: str, results: Results, path: Path | None) -> None:
    """Print a table, then write the results for the last time.

    Raises:
        InputError: they cannot be written.
    """
    print(table)
    if path is not None:
        print(f"written to {results.write(path)}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
