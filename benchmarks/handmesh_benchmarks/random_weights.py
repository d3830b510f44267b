"""A network with random weights as a bundle, for its speed, which does not depend on them."""

from __future__ import annotations

from pathlib import Path

from handmesh import Bundle
from handmesh.bundle import io_specs, write_manifest
from handmesh.errors import MissingExtra
from handmesh.graph import Topology

SEED = 0


def random_bundle(folder: Path, topology: Topology, network: str = "paper") -> Bundle:
    """Write a bundle that the torch backend can run.

    Args:
        folder: an empty folder.
        topology: the mesh graph, that of the network it is compared with.
        network: "paper" or "light", with their default hyper-parameters; also the bundle's name.

    Raises:
        MissingExtra: torch or safetensors is not installed.
    """
    try:
        import torch

        from handmesh.nn import build, from_dict, save_weights, to_dict
    except ImportError as cause:
        raise MissingExtra("torch", "torch") from cause
    config = from_dict({"network": network})
    torch_artifact = {"path": "weights.safetensors", "precision": "float32"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        module = build(config, topology)
    topology.save(folder / "topology.npz")
    save_weights(module, folder / "weights.safetensors", config, topology)
    write_manifest(
        folder,
        {
            "name": network,
            "network": network,
            "config": to_dict(config),
            **io_specs(config.input_size, topology.vertex_count),
            "artifacts": {"torch": torch_artifact},
            "licences": {"code": "Apache-2.0", "weights": "none: random", "data": "none"},
            "provenance": {"weights": f"random, seed {SEED}; for measuring latency only"},
        },
    )
    return Bundle.load(folder)
