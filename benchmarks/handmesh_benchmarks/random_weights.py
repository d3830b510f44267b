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


def check_installed(export: Sequence[str]) -> None:
    """Raise `MissingExtra` where a package that makes or exports a network is not installed.

    Args:
        export: formats besides torch.
    """
    try:
        import torch  # noqa: F401

        import handmesh_converters.export  # noqa: F401
        from handmesh_converters import formats

        for name in export:
            formats.load(name)
    except MissingExtra as error:
        raise MissingExtra(error.package, extra_of(export)) from error
    except ImportError as cause:
        raise MissingExtra(cause.name or "torch", extra_of(export)) from cause


def extra_of(export: Sequence[str]) -> str:
    """The smallest extra of handmesh that brings what makes exports for these formats."""
    return "bench" if set(export) <= {"onnx"} else "converters"


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
    check_installed(export)
    import torch

    from handmesh.nn import build, from_dict
    from handmesh_converters.export import write_bundle

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
