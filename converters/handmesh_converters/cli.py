"""The sub-commands `handmesh export`, `handmesh sensitivity` and `handmesh import`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handmesh.cli_shared import needing_extra
from handmesh.errors import InputError, ParityError

from .cli_import import add_import
from .cli_sensitivity import add_sensitivity

if TYPE_CHECKING:
    from handmesh.bundle import Bundle

    from .export import Written
    from .fold import Network
    from .request import Request

CHECK_FAILED = 1


def add_commands(commands: Any) -> None:
    """Add `export`, `sensitivity` and `import` to argparse's sub-parsers."""
    add_import(commands)
    add_sensitivity(commands)
    parser = commands.add_parser(
        "export",
        help="make artifacts for other runtimes, each proven against the network",
        description="From a bundle: add formats to it, or write a new bundle to --out. From a "
        "training checkpoint: write a bundle. An artifact that is off by more than the tolerance "
        "is refused, and an older bundle stays as it was.",
    )
    parser.add_argument("bundle", nargs="?", metavar="BUNDLE", help="folder or name of a bundle")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="of a training run")
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="FILE",
        help="with --checkpoint: .npz with `images`, crops (N, S, S, 3) uint8 RGB, to prove it on, "
        "and `labels`, (N, 21, 3) true (u, v, d) of the joints, if they are known",
    )
    parser.add_argument(
        "--card",
        type=Path,
        metavar="FILE",
        help="with --checkpoint: JSON with `provenance` and `licences` (code, weights, data)",
    )
    parser.add_argument("--format", default="onnx", metavar="A,B", help="default onnx")
    parser.add_argument("--graph", metavar="FORM", help="of the graph convolutions' constants: "
                        "sparse, polynomials, dense (default: the format's)")  # fmt: skip
    parser.add_argument(
        "--precision",
        metavar="P",
        help="fp32, fp16 or int8; what the format makes of it: --list (default: the format's)",
    )
    parser.add_argument("--optimize", default="", metavar="A,B", help="of the format, see --list")
    parser.add_argument(
        "--list", action="store_true", help="print what each format can be asked for, and end"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: the bundle itself")
    parser.add_argument(
        "--weights",
        choices=("fp16", "fp32"),
        help="with --checkpoint: how the bundle stores large weights (default fp16)",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="print the form of the export and what it costs, part by part, and end",
    )
    parser.set_defaults(run=needing_extra(_export, "converters", "torch", "safetensors"))


def _export(args: argparse.Namespace) -> int:
    if args.list:
        return _list()
    if (args.bundle is None) == (args.checkpoint is None):
        raise InputError("give either a BUNDLE or --checkpoint FILE")
    named = (name.strip().lower() for name in args.format.split(","))
    chosen = list(dict.fromkeys(name for name in named if name))
    if not chosen:
        raise InputError("--format names no format; see --list")
    if args.explain:
        for option in ("out", "reference", "card", "weights"):
            if getattr(args, option) is not None:
                raise InputError(
                    f"--{option} has no effect with --explain, which exports nothing: leave one "
                    "of the two out"
                )
        return _explain(args, _request(args, chosen), chosen)
    from handmesh.bundle import Bundle

    try:
        if args.checkpoint is not None:
            from .detector import is_detector

            if is_detector(args.checkpoint):
                return _detector(args, chosen)
        elif (bundle := Bundle.load(args.bundle)).is_detector:
            return _detector(args, chosen, bundle)
        written = _from_bundle(args, chosen) if args.bundle else _from_checkpoint(args, chosen)
    except ParityError as error:
        print(f"handmesh: {error}", file=sys.stderr)
        return CHECK_FAILED
    for name in chosen:
        entry = written.bundle.artifacts[name]
        size = written.bundle.size_of(name) / 1e6
        nodes = f", {entry['nodes']} nodes" if "nodes" in entry else ""
        print(f"{written.bundle.folder / entry['path']}: {size:.2f} MB{nodes}")
        print(f"  {written.parity[name].render()}")
        if "int8_products" in entry:
            share = entry["int8_products"]["share_of_convolutions"]
            print(f"  8-bit products: {share:.1%} of the convolutions' multiply-accumulates")
    return 0


def _from_bundle(args: argparse.Namespace, chosen: list[str]) -> Written:
    from handmesh.bundle import Bundle

    from .export import add_formats

    _refuse_options_of_checkpoints(args)
    request = _request(args, chosen)
    bundle = Bundle.load(args.bundle)
    if args.out is None and bundle.is_shipped:
        raise InputError(
            f"{args.bundle!r} is the bundle inside the package, which an export would change: "
            "say with --out DIR where the new one goes"
        )
    return add_formats(bundle, chosen, args.out, request)


def _refuse_options_of_checkpoints(args: argparse.Namespace) -> None:
    for option in ("reference", "card", "weights"):
        if getattr(args, option) is not None:
            raise InputError(f"--{option} goes with --checkpoint; a bundle holds its own")


def _from_checkpoint(args: argparse.Namespace, chosen: list[str]) -> Written:
    from handmesh.graph import Topology

    from .export import LICENCES, load_checkpoint, write_bundle
    from .reading import read_card, read_crops

    for option in ("reference", "out"):
        if getattr(args, option) is None:
            raise InputError(f"--checkpoint needs --{option}")
    request = _request(args, chosen)
    card = read_card(args.card) if args.card else {}
    crops, labels = read_crops(args.reference)
    topology = Topology.default()
    network, run = load_checkpoint(args.checkpoint, topology)
    return write_bundle(
        network,
        topology,
        args.out,
        crops,
        labels=labels,
        provenance={**run, **card.get("provenance", {})},
        licences={**LICENCES, **card.get("licences", {})},
        export=chosen,
        request=request,
        weights=args.weights or "fp16",
    )


def _detector(args: argparse.Namespace, chosen: list[str], detector: Bundle | None = None) -> int:
    from .detector import export_detector, load_detector, write_detector
    from .export import LICENCES
    from .reading import read_card, read_crops

    request = _request(args, chosen, detector=True)
    if detector is not None:
        _refuse_options_of_checkpoints(args)
        if args.out is None:
            raise InputError(
                "say with --out DIR where the new bundle goes: of a detector it is written whole, "
                "with the formats that --format names"
            )
        bundle, parity = export_detector(detector, args.out, chosen, request)
    else:
        for option in ("reference", "out"):
            if getattr(args, option) is None:
                raise InputError(f"--checkpoint needs --{option}")
        card = read_card(args.card) if args.card else {}
        pictures, _ = read_crops(args.reference)
        network, run = load_detector(args.checkpoint)
        bundle, parity = write_detector(
            network,
            args.out,
            pictures,
            provenance={**run, **card.get("provenance", {})},
            licences={**LICENCES, **card.get("licences", {})},
            export=chosen,
            request=request,
            weights=args.weights or "fp16",
        )
    for name in chosen:
        path = bundle.folder / bundle.artifacts[name]["path"]
        print(f"{path}: {bundle.size_of(name) / 1e6:.2f} MB")
        print(f"  {parity[name].render()}")
    return 0


def _request(args: argparse.Namespace, chosen: list[str], detector: bool = False) -> Request:
    """What was asked for, checked against the table before anything is loaded."""
    from . import formats
    from .request import Request

    optimize = tuple(name.strip() for name in args.optimize.split(",") if name.strip())
    request = Request(args.graph, args.precision, optimize)
    for name in chosen:
        request.resolve(name, formats.load(name).ABLE, formats.abilities(), detector)
    return request


def _list() -> int:
    from . import formats

    for name, able in formats.abilities().items():
        print(f"{name}\n  --graph {', '.join(able.graphs)}")
        print(f"  --precision {', '.join(able.precisions)}")
        of_detectors = able.precisions_of(detector=True)
        if of_detectors != able.precisions:
            print(f"  of detectors: {', '.join(of_detectors) or 'none'}")
        for option, (precisions, what) in able.optimizations.items():
            print(f"  --optimize {option} ({', '.join(precisions)}): {what}")
    return 0


def _explain(args: argparse.Namespace, request: Request, chosen: list[str]) -> int:
    from handmesh.bundle import Bundle
    from handmesh.graph import Topology

    from . import formats
    from .explain import explain
    from .export import load_bundle, load_checkpoint
    from .fold import fold
    from .forms import form_named

    network: Network
    if args.bundle:
        network = load_bundle(Bundle.load(args.bundle))
    else:
        network, _ = load_checkpoint(args.checkpoint, Topology.default())
    graphs = (request.resolve(name, formats.load(name).ABLE)[0] for name in chosen)
    for graph in dict.fromkeys(graphs):
        print(explain(fold(network, form_named(graph))).render())
    return 0
