"""What both networks are built of: the output type, soft-argmax and convolution blocks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class NetworkOutput(NamedTuple):
    """What a network returns for a batch of B crops.

    Attributes:
        vertices: (B, V, 3) float32, (u, v) in crop fractions, depth in bone lengths behind the
            wrist; template vertex order.
        joints: (B, 21, 3) float32, same coordinates; the wrist's depth is 0.
        heatmaps: one (B, 21, H, H) float32 per stack; raw values, trained towards a Gaussian of
            height 1.
        confidence_logits: (B, 21) float32.
        presence_logit: (B,) float32.
        handedness_logit: (B,) float32, positive for a right hand; None for a network that has no
            such head.
        heatmap_uv: (B, 21, 2) float32, crop fractions read off the heat-maps by soft-argmax; None
            for a network that does not use them so.
    """

    vertices: Tensor
    joints: Tensor
    heatmaps: list[Tensor]
    confidence_logits: Tensor
    presence_logit: Tensor
    handedness_logit: Tensor | None
    heatmap_uv: Tensor | None = None


def conv_norm(
    channels_in: int,
    channels_out: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    relu: bool = True,
) -> nn.Sequential:
    """Convolution without bias, batch norm and, unless told otherwise, ReLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(
            channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(channels_out),
    ]
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def soft_argmax(maps: Tensor, beta: Tensor | float) -> tuple[Tensor, Tensor]:
    """Spatial softmax of beta * maps and its expectation.

    Args:
        maps: (B, J, H, W) float32.
        beta: sharpness, positive.

    Returns:
        uv (B, J, 2), crop fractions: the centre of cell (row i, column j) is
        ((j + 0.5) / W, (i + 0.5) / H); and the weights (B, J, H*W), which sum to 1.
    """
    batch, joints, height, width = maps.shape
    weights = torch.softmax(beta * maps.reshape(batch, joints, -1), dim=-1)  # (B, J, H*W)
    grid = weights.view(batch, joints, height, width)
    u = (torch.arange(width, device=maps.device, dtype=maps.dtype) + 0.5) / width
    v = (torch.arange(height, device=maps.device, dtype=maps.dtype) + 0.5) / height
    uv = torch.stack([grid.sum(2) @ u, grid.sum(3) @ v], dim=-1)  # (B, J, 2)
    return uv, weights
