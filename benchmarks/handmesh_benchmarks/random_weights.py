"""A network with random weights as a bundle, for its speed, which does not depend on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from handmesh import Bundle
from handmesh.errors import MissingExtra
from handmesh.graph import Topology

SEED = 0


def random_bundle(
    folder: Path,
    topology: Topology,
    network: Literal["paper", "light"] = "paper",
    export: Sequence[str] = ("onnx",),
) -> Bundle:
    """Write a bundle that torch and the formats given can run, exported as any other.

    Args:
        folder: of the bundle; its parent must exist.
        topology: the mesh graph, that of the network it is compared with.
        network: which, with its default hyper-parameters; also the bundle's name.
        export: formats besides torch.

    Raises:
        MissingExtra: a package that makes or exports the network is not installed.
        ExportError: the export failed, or computes something else than torch.
    """
    try:
        import torch

        from handmesh.nn import build, from_dict
        from handmesh_converters.export import write_bundle
    except ImportError as cause:
        raise MissingExtra(cause.name or "torch", "converters") from cause
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        module = build(from_dict({"network": network}), topology)
    size = module.config.input_size
    crops = np.random.default_rng(SEED).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    written = write_bundle(
        module.eval(),
        topology,
        folder,
        crops,
        name=network,
        export=export,
        provenance={"weights": f"random, seed {SEED}; for measuring latency only"},
        licences={"code": "Apache-2.0", "weights": "none: random", "data": "none"},
    )
    return written.bundle
