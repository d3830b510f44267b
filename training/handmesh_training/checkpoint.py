"""Training checkpoints on disk: written whole or not at all, read without running what they say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from handmesh import Bundle
from handmesh.atomic import replacing
from handmesh.errors import CheckpointError
from handmesh.graph import Topology
from handmesh.nn import NetworkConfig, from_dict, to_dict
from handmesh.nn.checkpoint import read_state

from .disk import free_space
from .heads import HeadName, build_network

FILE = "checkpoint.pt"


@dataclass(frozen=True, eq=False)
class LoadedNetwork:
    """A network out of a checkpoint, in eval mode.

    Attributes:
        network: (B, 3, S, S) float32, value / 255 - 0.5, to a `NetworkOutput`.
        config: of its trunk. head: what it ends in. input_size: S.
        step: batches it was trained for in its last stage. images_seen: crops in that stage.
        stage: the last one, as in `stages.STAGES`; None where that is not known.
    """

    network: nn.Module
    config: NetworkConfig
    head: HeadName
    step: int
    images_seen: int
    stage: str | None = None

    @property
    def input_size(self) -> int:
        return self.config.input_size


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write it; an old one stays whole until the new one is.

    Raises:
        CheckpointError: it cannot be written, as to a full disk.
    """
    try:
        with replacing(path) as temporary:
            torch.save(state, temporary)
    except (OSError, RuntimeError) as error:  # torch's writer raises the latter of a full disk
        raise CheckpointError(
            f"cannot write {path} ({str(error).splitlines()[0]}); {free_space(path)}: make room, "
            "then go on with --resume"
        ) from error


def read_checkpoint(
    path: Path, device: torch.device | str = "cpu", resumed: bool = False
) -> dict[str, Any]:
    """Its state, of this graph.

    Args:
        resumed: whether a run is to go on with it, its own, see `read_state`.

    Raises:
        CheckpointError: missing, damaged, no checkpoint of ours, or of another graph.
    """
    state = read_state(path, ("graph", "config", "average"), device, resumed)
    if state["graph"] != Topology.default().sha256:
        advice = "use another folder, or delete it" if resumed else "give one of this graph"
        raise CheckpointError(f"{path} is of another mesh graph; {advice}")
    return state


def describe_network(config: NetworkConfig, head: HeadName) -> dict[str, Any]:
    """What a checkpoint says of its network."""
    return {"config": to_dict(config), "head": head, "graph": Topology.default().sha256}


def weights_file(text: str) -> Path:
    """A checkpoint, or else the weights of the bundle of that name or folder.

    Raises:
        BundleError: no checkpoint's name, and no bundle with weights.
    """
    path = Path(text)
    return path if path.suffix == ".pt" else Path(Bundle.load(text).artifact("torch"))


def load_network(path: Path | str, device: torch.device | str = "cpu") -> LoadedNetwork:
    """The network of a checkpoint, with the weights that are to be evaluated and shipped.

    Raises:
        CheckpointError: see `read_checkpoint`, or weights that do not fit the network it names.
    """
    state = read_checkpoint(Path(path), device)
    try:
        config, head = from_dict(state["config"]), state.get("head", "mesh")
        network = build_network(config, Topology.default(), head).to(device)
        network.load_state_dict(state["average"])
    except (ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path} holds weights of no network known here ({error})") from error
    regressor: Any = getattr(network, "pose_regressor", None)
    if regressor is not None:
        regressor.freeze()
    step, images = int(state.get("step", 0)), int(state.get("images_seen", 0))
    return LoadedNetwork(network.eval(), config, head, step, images, state.get("stage"))
