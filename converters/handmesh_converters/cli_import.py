"""The sub-command `handmesh import`."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

from handmesh.cli_shared import needing_extra

# By option: whose place in the authors' layout the file takes.
_FILES = {
    "heatmaps": "net_hm.pth, the state dict of the hourglasses",
    "mesh": "net_feat_mesh.pth, that of encoder and mesh decoder",
    "pose": "net_mesh_pose.pth, that of the pose regressor",
    "graph": ".npz with the graph they were trained on, see docs/importing.md",
}


def add_import(commands: Any) -> None:
    """Add `import` to argparse's sub-parsers."""
    parser = commands.add_parser(
        "import",
        help="make a bundle of a checkpoint in the layout of the paper's authors",
        description="The files are yours to bring and to have a licence for. All of their tensors "
        "must match by name and shape; nothing is imported in part. The bundle has its own graph, "
        "and no artifact yet: `handmesh export` makes them.",
    )
    for option, what in _FILES.items():
        parser.add_argument(f"--{option}", type=Path, required=True, metavar="FILE", help=what)
    parser.add_argument(
        "--reference",
        type=Path,
        required=True,
        metavar="FILE",
        help=".npz with `images`, crops (N, 256, 256, 3) uint8 RGB of right hands, on "
        "which artifacts will be proven, and `labels`, (N, 21, 3) true (u, v, d) of the joints, "
        "if they are known",
    )
    parser.add_argument(
        "--card",
        type=Path,
        metavar="FILE",
        help="JSON with `provenance` and `licences` (code, weights, data)",
    )
    parser.add_argument(
        "--channels",
        choices=("bgr", "rgb"),
        default="bgr",
        help="order in which the network was shown pixels (default bgr, as in the authors' code)",
    )
    parser.add_argument(
        "--laplacian",
        choices=("authors", "paper"),
        default="authors",
        help="how it rescaled Laplacians: L/(2 lambda_max) - I as the authors' code (default), or "
        "2L/lambda_max - I as the paper",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="of the bundle")
    parser.set_defaults(run=needing_extra(_import, "converters", "torch", "safetensors"))


def _import(args: argparse.Namespace) -> int:
    from .export import LICENCES, write_bundle
    from .importer import import_network, read_graph
    from .reading import read_card, read_crops

    card = read_card(args.card) if args.card else {}
    crops, labels = read_crops(args.reference)
    topology = read_graph(args.graph, args.laplacian)
    network = import_network(args.heatmaps, args.mesh, args.pose, topology, args.channels)
    sources = {option: _source(getattr(args, option)) for option in _FILES}
    imported = {**sources, "channels": args.channels, "laplacian": args.laplacian}
    written = write_bundle(
        network,
        topology,
        args.out,
        crops,
        labels=labels,
        provenance={"imported": imported, **card.get("provenance", {})},
        licences={**LICENCES, **card.get("licences", {})},
        export=(),
        weights="fp32",
    )
    print(f"{written.bundle.folder}: {args.out.name} on its own graph, {topology.sha256[:12]}...")
    print(f"next: handmesh export {args.out} --format onnx --precision fp32")
    return 0


def _source(path: Path) -> dict[str, str]:
    return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
