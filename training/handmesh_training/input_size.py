"""Weights of a network trained on crops of one size, for the same network on crops of another.

Small crops cost a fraction of large ones, so a training may begin with them and end with the size
that the network is for.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from handmesh.nn import LightConfig, MeshConfig, NetworkConfig

# The one layer whose width hangs on the crop's size: it reads the last map, flattened.
_READS_MAP = "encode.weight"


def fit_input_size(
    weights: dict[str, Tensor], made_for: MeshConfig, wanted: MeshConfig
) -> dict[str, Tensor]:
    """The weights of ``made_for``, for ``wanted``.

    Convolutions stay as they are. The fully-connected layer behind the flattened last map, which
    has a weight for each cell, answers as the old one does to the map resampled to its own cells.

    Args:
        weights: `state_dict` of a network under any head, or of its trunk.
        made_for: hyper-parameters of that network. wanted: of the one to load them.

    Returns:
        A new dictionary; the same tensors but for that layer's. Where the two differ in more than
        ``input_size`` the weights as they are: loading them will say what does not fit. So are
        those of a network without that layer, as a detector is: they fit any size.
    """
    reads_map = any(name.removeprefix("trunk.") == _READS_MAP for name in weights)
    if not reads_map or not differ_in_size_alone(made_for, wanted):
        return dict(weights)
    channels, before = _flattened(made_for)
    after = _flattened(wanted)[1]
    return {
        name: _spread(tensor, channels, before, after)
        if before != after and name.removeprefix("trunk.") == _READS_MAP
        else tensor
        for name, tensor in weights.items()
    }


def differ_in_size_alone(made_for: NetworkConfig, wanted: NetworkConfig) -> bool:
    """Whether two networks are the same but for ``input_size``, which may be the same too."""
    if type(made_for) is not type(wanted):
        return False
    return replace(made_for, input_size=wanted.input_size) == wanted


def _flattened(config: MeshConfig) -> tuple[int, int]:
    """Channels and side of the map that is flattened."""
    if isinstance(config, LightConfig):
        return config.global_channels, config.input_size // 32
    return config.features, config.heatmap_size >> config.encoder_levels


def _spread(weight: Tensor, channels: int, before: int, after: int) -> Tensor:
    """(out, C * before^2 + rest) to (out, C * after^2 + rest)."""
    cells = channels * before * before
    maps = weight[:, :cells].unflatten(1, (channels, before * before))  # (out, C, h^2)
    one_each = torch.eye(after * after, dtype=weight.dtype).unflatten(1, (1, after, after))
    if after > before:
        resampled = F.interpolate(one_each, (before, before), mode="area")
    else:
        resampled = F.interpolate(one_each, (before, before), mode="bilinear", align_corners=False)
    wide = maps @ resampled.flatten(1).T.to(maps)  # (out, C, H^2)
    return torch.cat([wide.flatten(1), weight[:, cells:]], dim=1)
