"""The networks, in torch. Imported only by training, converters and the torch backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from handmesh.errors import InputError
from handmesh.nn.blocks import Latent, NetworkOutput
from handmesh.nn.config import (
    DecoderConfig,
    DetectorConfig,
    LightConfig,
    MeshConfig,
    NetworkConfig,
    PaperConfig,
    StageConfig,
    from_dict,
    to_dict,
)
from handmesh.nn.detector import DetectorNetwork
from handmesh.nn.light import LightNetwork
from handmesh.nn.network import HandNetwork
from handmesh.nn.paper import PaperNetwork
from handmesh.nn.summary import LayerRow, Summary, describe
from handmesh.nn.weights import load_weights, read_config, save_weights

if TYPE_CHECKING:
    from handmesh.graph import Topology

__all__ = [
    "DecoderConfig",
    "DetectorConfig",
    "DetectorNetwork",
    "HandNetwork",
    "Latent",
    "LayerRow",
    "LightConfig",
    "LightNetwork",
    "MeshConfig",
    "NetworkConfig",
    "NetworkOutput",
    "PaperConfig",
    "PaperNetwork",
    "StageConfig",
    "Summary",
    "build",
    "describe",
    "from_dict",
    "load_weights",
    "read_config",
    "save_weights",
    "to_dict",
]


def build(config: NetworkConfig, topology: Topology) -> LightNetwork | PaperNetwork:
    """A freshly initialised network; its forward takes (B, 3, S, S) and gives `NetworkOutput`.

    Raises:
        InputError: a detector's configuration: that is no network of meshes.
    """
    if isinstance(config, DetectorConfig):
        raise InputError("a detector has no mesh: make it with DetectorNetwork(config)")
    if isinstance(config, LightConfig):
        return LightNetwork(config, topology)
    return PaperNetwork(config, topology)
