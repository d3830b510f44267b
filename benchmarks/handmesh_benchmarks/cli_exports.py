"""The sub-command `handmesh compare-exports`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from handmesh import Bundle
from handmesh.atomic import write_atomic
from handmesh.errors import MissingExtra

from .cli_options import check_length, words
from .device import describe
from .keeping import check_writable
from .protocol import Protocol
from .random_weights import random_bundle


def add_commands(commands: Any) -> None:
    """Add `compare-exports` to argparse's sub-parsers."""
    parser = commands.add_parser(
        "compare-exports",
        help="a table of every format, graph form and precision, proven and timed here",
        description="Export a bundle in every way, prove each artifact on the bundle's crops, time "
        "at one thread what can run here, and print the tables in Markdown.",
    )
    parser.add_argument("bundle", nargs="?", metavar="BUNDLE", help="default: the shipped one")
    parser.add_argument("--format", metavar="A,B", help="default: all that are installed")
    parser.add_argument(
        "--no-paper", action="store_true", help="without the network `paper` with random weights"
    )
    parser.add_argument(
        "--without",
        default="",
        metavar="A,B",
        help="optimizations to leave out, as dynamic,static, which try every block",
    )
    parser.add_argument("--runs", type=int, default=64, metavar="N", help="of each (default 64)")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="default 2")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the tables there, too")
    parser.set_defaults(run=_compare)


def _compare(args: argparse.Namespace) -> int:
    try:
        from . import decoders, exports
    except ImportError as cause:
        raise MissingExtra(cause.name or "torch", "converters") from cause
    check_length(args.runs, args.seconds)
    only = None if args.format is None else words(args.format)
    without = words(args.without)
    exports.check(only, without)
    check_writable(args.out)
    bundle = Bundle.load(args.bundle)
    bundle.check()
    protocol = Protocol(min_runs=args.runs, min_seconds=args.seconds)
    with tempfile.TemporaryDirectory() as folder:
        bundles = [bundle]
        if not args.no_paper:
            bundles.append(random_bundle(Path(folder) / "paper", bundle.topology, export=()))
        rows, missing = exports.compare(bundles, Path(folder), protocol, only, without)
    parts = [
        *(exports.to_markdown(own) for own in exports.by_network(rows)),
        f"The graph decoder of {bundle.name} alone, ONNX Runtime, batch 1, one thread:\n",
        decoders.to_markdown(decoders.compare_decoders(bundle, protocol)),
        ", ".join(f"{key}: {value}" for key, value in describe().items()) + "\n",
        *(f"Not compared: {reason}\n" for reason in missing),
    ]
    text = "\n".join(parts)
    print(text)
    if args.out is not None:
        print(f"written to {write_atomic(args.out, text.encode())}")
    return 0
