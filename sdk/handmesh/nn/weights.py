"""Weights on disk: safetensors, tied to the graph and to the hyper-parameters they belong to."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from handmesh.atomic import write_atomic
from handmesh.errors import BundleError
from handmesh.nn.config import NetworkConfig, from_dict, to_dict

if TYPE_CHECKING:
    from handmesh.graph import Topology

FORMAT = "handmesh-weights-1"

Precision = Literal["fp32", "fp16"]
# Elements from which on a tensor is stored in fewer bytes. Those of 1,024 to 8,192 are a fiftieth
# of all bytes and hold half of the error, in a crop that leaves doubt far more.
LARGE = 8192


def save_weights(
    network: nn.Module,
    path: str | os.PathLike[str],
    config: NetworkConfig,
    topology: Topology | None,
    state: dict[str, Tensor] | None = None,
    precision: Precision = "fp32",
) -> None:
    """Write a network's weights, atomically. Equal weights give equal bytes.

    Args:
        network: made by `build(config, topology)`, or a `DetectorNetwork`, which has no topology.
        path: target; replaced if it exists.
        config: hyper-parameters, stored as metadata.
        topology: its hash is stored as metadata.
        state: weights to write instead of the network's own, such as a moving average.
        precision: "fp16" stores large tensors in half the bytes; they are rounded, and load into a
            float32 network all the same. Small ones (norms, biases) stay as they are.
    """
    tensors = network.state_dict() if state is None else state
    metadata = {
        "format": FORMAT,
        "network": config.name,
        "config": json.dumps(to_dict(config), sort_keys=True),
    }
    if topology is not None:
        metadata["graph_sha256"] = topology.sha256
    # Contiguous: training leaves convolutions in channels-last memory.
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    if precision == "fp16":
        learned = {name for name, _ in network.named_parameters()}
        plain = {n: _halved(tensor) if n in learned else tensor for n, tensor in plain.items()}
    write_atomic(path, _with_sorted_header(save(plain, metadata)))


def read_config(path: str | os.PathLike[str]) -> NetworkConfig:
    """The hyper-parameters that a weights file was written with.

    Raises:
        BundleError: missing, truncated, not a weights file.
    """
    return _config(_metadata(path), path)


def load_weights(
    network: nn.Module,
    path: str | os.PathLike[str],
    config: NetworkConfig,
    topology: Topology | None,
) -> None:
    """Load weights into a network made by `build(config, topology)`, or a `DetectorNetwork`.

    Raises:
        GraphMismatchError: the weights were trained on another graph.
        BundleError: missing, truncated, not a weights file, or of another network.
    """
    metadata = _metadata(path)
    if topology is not None:
        topology.check_sha256(metadata.get("graph_sha256", "of no graph"), str(path))
    stored = _config(metadata, path)
    if to_dict(stored) != to_dict(config):
        raise BundleError(
            f"{path} holds weights of {to_dict(stored)}, not of {to_dict(config)}; build the "
            "network from read_config(path)"
        )
    try:
        with safe_open(path, framework="pt") as archive:
            tensors = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
        network.load_state_dict(tensors)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise BundleError(f"{path} does not fit the network ({error}); restore it") from error


def _halved(tensor: Tensor) -> Tensor:
    if tensor.dtype != torch.float32 or tensor.numel() < LARGE:
        return tensor
    half = tensor.half()
    return half if half.isfinite().all() else tensor


def _with_sorted_header(data: bytes) -> bytes:
    """A safetensors file with the entries of its JSON header in order: equal weights, equal bytes.

    The library writes metadata in an order that changes from one process to the next. Offsets in
    the header count from its end, so it may be written anew.
    """
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":"))
    padded = header.encode() + b" " * (-len(header.encode()) % 8)  # tensors start aligned
    return len(padded).to_bytes(8, "little") + padded + data[8 + length :]


def _metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as archive:
            metadata: dict[str, str] = archive.metadata() or {}
    except FileNotFoundError as error:
        raise BundleError(f"no weights file at {path}; restore it or train one") from error
    except (OSError, SafetensorError) as error:
        raise BundleError(
            f"{path} is not a readable safetensors file ({error}); restore the original"
        ) from error
    wanted = {"config"} if metadata.get("network") == "detector" else {"graph_sha256", "config"}
    missing = wanted - set(metadata)
    if metadata.get("format") != FORMAT or missing:
        raise BundleError(
            f"expected a file of format {FORMAT!r} at {path}, got {metadata.get('format')!r}"
            f"{' without ' + ', '.join(sorted(missing)) if missing else ''}; "
            "write it with save_weights"
        )
    return metadata


def _config(metadata: dict[str, str], path: str | os.PathLike[str]) -> NetworkConfig:
    try:
        return from_dict(json.loads(metadata["config"]))
    except (ArithmeticError, AttributeError, RecursionError, TypeError, ValueError) as error:
        raise BundleError(
            f"{path} holds hyper-parameters that this version does not know ({error}); "
            "install the version it was written with"
        ) from error
