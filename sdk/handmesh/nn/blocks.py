"""What both networks are built of: latent and output types, soft-argmax, convolution blocks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from handmesh.errors import InputError


class NetworkOutput(NamedTuple):
    """What a network returns for a batch of B crops.

    Attributes:
        vertices: (B, V, 3) float32, (u, v) in crop fractions, depth in bone lengths behind the
            wrist; template vertex order. (B, 0, 3) from a network that gives joints alone.
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


class Latent(NamedTuple):
    """What a network's trunk knows of B crops, before any head turns it into a hand.

    Attributes:
        features: (B, F) float32, the vector that the head reads.
        heatmaps: the network's own, one (B, 21, H, H) float32 per stack.
        uv: (B, 21, 2) float32, crop fractions read off the heat-maps that were read, the given
            ones if there were any; None for a network that does not use them so.
        anchors: (B, 21, 2) float32, the (u, v) that the head's are offsets from; None, the
            middle of the crop.
        confidence_logits: (B, 21) float32.
        presence_logit: (B,) float32.
        handedness_logit: (B,) float32 or None.
    """

    features: Tensor
    heatmaps: list[Tensor]
    uv: Tensor | None
    anchors: Tensor | None
    confidence_logits: Tensor
    presence_logit: Tensor
    handedness_logit: Tensor | None

    def output(self, vertices: Tensor, joints: Tensor) -> NetworkOutput:
        """With what a head made of it: vertices (B, V, 3) and joints (B, 21, 3)."""
        return NetworkOutput(
            vertices,
            joints,
            self.heatmaps,
            self.confidence_logits,
            self.presence_logit,
            self.handedness_logit,
            self.uv,
        )


def scores(output: NetworkOutput | Latent) -> tuple[Tensor, Tensor, Tensor]:
    """Confidence (B, 21), presence (B,) and handedness (B,), 1 for a right hand, all in 0..1.

    A network that has no handedness head takes every hand for a right one.
    """
    presence = output.presence_logit.sigmoid()
    right = output.handedness_logit
    return (
        output.confidence_logits.sigmoid(),
        presence,
        torch.ones_like(presence) if right is None else right.sigmoid(),
    )


def maps_to_read(own: Tensor, given: Tensor | None) -> Tensor:
    """The heat-maps that the rest of a network reads: the given ones, else its own.

    Args:
        own: (B, J, H, H). given: the same shape, any float dtype, or None.

    Raises:
        InputError: given ones of another shape.
    """
    if given is None:
        return own
    if given.shape != own.shape:
        raise InputError(
            f"expected heat-maps {tuple(own.shape)}, one for each joint at a quarter of the "
            f"crop's side, got {tuple(given.shape)}"
        )
    return given.to(own.dtype)


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


class HighestPoints(nn.Module):
    """The pixel at which each heat-map is highest once it has been enlarged to the crop.

    Bilinear enlargement as two products with a constant: of equal neighbours, and beyond the outer
    cells' centres, it makes exactly equal pixels. The first of them is taken, in every runtime.

    Args:
        side: H of the maps. size: S of the crop, in pixels.
    """

    enlarge: Tensor

    def __init__(self, side: int, size: int) -> None:
        super().__init__()
        self.size = size
        at = ((torch.arange(size) + 0.5) * side / size - 0.5).clamp(0, side - 1)  # (S,) in cells
        distance = (at[:, None] - torch.arange(side)).abs()  # (S, H)
        self.register_buffer("enlarge", (1 - distance).clamp(min=0), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, J, H, H) to crop fractions (u, v), (B, J, 2): column and row of the pixel over S.

        Of the pixel's corner, not its centre, as the authors of the paper count. No gradient.
        """
        enlarged = self.enlarge @ maps.detach() @ self.enlarge.T  # (B, J, S, S)
        highest = enlarged.flatten(2).argmax(dim=2)  # (B, J)
        rows = highest.div(self.size, rounding_mode="floor")
        return torch.stack([highest - rows * self.size, rows], dim=-1).to(maps.dtype) / self.size


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
