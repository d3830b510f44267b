"""The sub-command `handmesh sensitivity`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from handmesh.atomic import write_atomic
from handmesh.cli_shared import needing_extra


def add_sensitivity(commands: Any) -> None:
    """Add `sensitivity` to argparse's sub-parsers."""
    parser = commands.add_parser(
        "sensitivity",
        help="which convolutions bear 8-bit products in TFLite, by measurement",
        description="Put each part of a network into 8 bits alone, then as many together as stay "
        "within the limit, and print how far the outputs are off, in Markdown. It is what "
        "`handmesh export --format tflite --precision int8 --optimize static` chooses by.",
    )
    parser.add_argument("bundle", nargs="?", metavar="BUNDLE", help="default: the shipped one")
    parser.add_argument(
        "--optimize", choices=("static", "dynamic"), default="static", help="default static"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table there, too")
    parser.set_defaults(run=needing_extra(_sensitivity, "converters", "torch", "safetensors"))


def _sensitivity(args: argparse.Namespace) -> int:
    from handmesh.bundle import Bundle
    from handmesh.verification import read_reference

    from . import formats
    from .export import CALIBRATION, load_bundle
    from .fold import fold
    from .forms import form_named
    from .request import Job

    format_ = formats.load("tflite")
    from .formats import tflite

    bundle = Bundle.load(args.bundle)
    twin = fold(load_bundle(bundle), form_named(format_.ABLE.graphs[0]))
    crops = read_reference(bundle)[0][CALIBRATION]
    job = Job({}, "int8", frozenset({args.optimize}), crops, bundle.topology.bone_ratios)
    table = tflite.sensitivity(twin, job).render() + "\n"
    print(table, end="")
    if args.out is not None:
        print(f"written to {write_atomic(args.out, table.encode())}")
    return 0
