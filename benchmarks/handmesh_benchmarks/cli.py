"""The sub-command `handmesh bench`."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handmesh import Box, Bundle, backends
from handmesh.atomic import write_atomic
from handmesh.errors import BackendUnavailable, ExportError, InputError, MissingExtra
from handmesh.imaging import decode

from . import cli_exports
from .candidates import locate, network_candidate, predict_candidate, reference_photo
from .device import describe, peak_memory_mib
from .protocol import Candidate, Protocol, measure
from .random_weights import random_bundle
from .report import to_dict, to_text

DEFAULT_PHOTO = Path("examples/photos/pointing.jpg")


def add_commands(commands: Any) -> None:
    """Add `bench` and `compare-exports` to argparse's sub-parsers."""
    cli_exports.add_commands(commands)
    parser = commands.add_parser(
        "bench",
        help="measure latency on this machine",
        description="predict() with a box given, by stage, and the networks alone, in one "
        "interleaved run: each backend at each number of threads, batch 1, on the CPU.",
    )
    parser.add_argument(
        "--photo",
        type=Path,
        help=f"default: {DEFAULT_PHOTO} in a checkout, else one of the bundle's reference crops",
    )
    parser.add_argument(
        "--box",
        type=_floats,
        metavar="X0,Y0,X1,Y1",
        help="where the hand is, in pixels (default: it is searched for, off the clock)",
    )
    parser.add_argument("--bundle", metavar="PATH", help="trained model (default: the shipped one)")
    parser.add_argument(
        "--backends", default="onnx,torch", metavar="A,B", help="runtimes (default onnx,torch)"
    )
    parser.add_argument(
        "--threads", type=_integers, default=[1, 2], metavar="N,M", help="default 1,2"
    )
    parser.add_argument(
        "--headline", action="store_true", help="long enough to quote (many minutes)"
    )
    parser.add_argument("--runs", type=int, metavar="N", help="at least so many of each")
    parser.add_argument("--seconds", type=float, metavar="S", help="at least so long of each")
    parser.add_argument(
        "--no-paper", action="store_true", help="without the network `paper` and the ratio to it"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the results as JSON, too")
    parser.set_defaults(run=_bench)


def _bench(args: argparse.Namespace) -> int:
    bundle = Bundle.load(args.bundle)
    names = [name.strip() for name in args.backends.split(",")]
    device = describe()
    with tempfile.TemporaryDirectory() as folder:
        bundles: list[Bundle] = [bundle]
        missing: list[str] = []
        if not args.no_paper:
            paper, missing = _paper(Path(folder), bundle, names)
            bundles += paper
        image, box, photo = _photo(args, bundle)
        candidates, unavailable = _candidates(args, bundles, names, image, box)
        measured = measure(candidates, _protocol(args))
    device |= {"photo": photo, "process_peak_memory_mib": round(peak_memory_mib())}
    print(to_text(measured, device))
    for reason in dict.fromkeys([*unavailable, *missing]):
        print(f"not measured: {reason}")
    if args.out is not None:
        text = json.dumps(to_dict(measured, device), indent=2) + "\n"
        print(f"written to {write_atomic(args.out, text.encode())}")
    return 0


def _photo(
    args: argparse.Namespace, bundle: Bundle
) -> tuple[NDArray[np.uint8], Box | list[float] | None, str]:
    """The picture, where the hand is if that is known, and what to call the picture."""
    if args.photo is not None or DEFAULT_PHOTO.is_file():
        path = DEFAULT_PHOTO if args.photo is None else args.photo
        image, box, name = decode(path), args.box, path.name
    elif args.box is not None:
        raise InputError(f"a --box needs its --photo: there is no {DEFAULT_PHOTO} here")
    else:
        image, box = reference_photo(bundle)
        name = f"reference crop of {bundle.name}"
    return image, box, f"{name}, {image.shape[1]} x {image.shape[0]} pixels"


def _candidates(
    args: argparse.Namespace,
    bundles: list[Bundle],
    names: list[str],
    image: NDArray[np.uint8],
    box: Box | list[float] | None,
) -> tuple[list[Candidate], list[str]]:
    """What can be measured here, and why the rest cannot."""
    pairs = [(bundle, name) for bundle in bundles for name in names]
    reasons = {(b.name, n): backends.unavailable(n, b) for b, n in pairs}
    usable = [(b, n) for b, n in pairs if reasons[b.name, n] is None]
    shipped = [name for bundle, name in usable if bundle is bundles[0]]
    if not shipped:
        raise BackendUnavailable("; ".join(reason for reason in reasons.values() if reason))
    hand = locate(image, bundles[0], shipped[0], box)
    found = [
        *(
            predict_candidate(image, hand, bundles[0], name, threads)
            for name in shipped
            for threads in args.threads
        ),
        *(
            network_candidate(image, hand, bundle, name, threads)
            for bundle, name in usable
            for threads in args.threads
        ),
    ]
    return found, [reason for reason in reasons.values() if reason]


def _paper(folder: Path, bundle: Bundle, names: list[str]) -> tuple[list[Bundle], list[str]]:
    """The paper's network with random weights, and why not if it cannot be had."""
    formats = [name for name in names if name != "torch"]
    reasons: list[str] = []
    # Without the packages of an export there is still torch to measure.
    for export in (formats, []):
        try:
            return [random_bundle(folder / "paper", bundle.topology, export=export)], reasons
        except (MissingExtra, ExportError) as error:
            reasons.append(f"network 'paper' in {', '.join([*export, 'torch'])}: {error}")
    return [], reasons


def _protocol(args: argparse.Namespace) -> Protocol:
    chosen = Protocol.headline() if args.headline else Protocol()
    return Protocol(
        min_runs=chosen.min_runs if args.runs is None else args.runs,
        min_seconds=chosen.min_seconds if args.seconds is None else args.seconds,
        warmup_runs=chosen.warmup_runs,
        rounds=chosen.rounds,
    )


def _integers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]  # argparse reports the ValueError


def _floats(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]
