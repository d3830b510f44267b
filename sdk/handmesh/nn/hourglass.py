"""Stacked hourglass of the `paper` network: pre-activation bottlenecks at every position."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from handmesh.nn.blocks import conv_norm, maps_to_read
from handmesh.nn.config import JOINT_COUNT, PaperConfig


class Residual(nn.Module):
    """Pre-activation bottleneck: three times BN, ReLU, conv (1x1 to half, 3x3, 1x1), plus input."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        half = channels_out // 2
        self.body = nn.Sequential(
            nn.BatchNorm2d(channels_in),
            nn.ReLU(),  # not in place: the shortcut still needs the input
            nn.Conv2d(channels_in, half, 1),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, half, 3, padding=1),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, channels_out, 1),
        )
        self.shortcut: nn.Module = nn.Identity()
        if channels_in != channels_out:
            self.shortcut = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.shortcut(x) + self.body(x)
        return y


def residuals(channels: int, count: int) -> nn.Sequential:
    """`count` residuals that keep the width."""
    return nn.Sequential(*(Residual(channels, channels) for _ in range(count)))


class Hourglass(nn.Module):
    """Down `depth` times by 2x2 max-pooling, back up by nearest neighbours, with a branch each."""

    def __init__(self, depth: int, channels: int, count: int) -> None:
        super().__init__()
        self.branch = residuals(channels, count)
        self.before = residuals(channels, count)
        self.inner: nn.Module = (
            Hourglass(depth - 1, channels, count) if depth > 1 else residuals(channels, count)
        )
        self.after = residuals(channels, count)

    def forward(self, x: Tensor) -> Tensor:
        low = self.after(self.inner(self.before(F.max_pool2d(x, 2))))
        y: Tensor = self.branch(x) + F.interpolate(low, scale_factor=2.0, mode="nearest")
        return y


class Stack(nn.Module):
    """One hourglass with its output layers; hands x + conv(features) + conv(maps) on."""

    def __init__(self, config: PaperConfig) -> None:
        super().__init__()
        width, count = config.features, config.residuals_per_position
        self.hourglass = Hourglass(config.hourglass_depth, width, count)
        self.features = nn.Sequential(residuals(width, count), conv_norm(width, width, 1))
        self.maps = nn.Conv2d(width, JOINT_COUNT, 1)
        self.merge_features = nn.Conv2d(width, width, 1)
        self.merge_maps = nn.Conv2d(JOINT_COUNT, width, 1)

    def forward(self, x: Tensor, given: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (B, C, H, H) to the x handed on, same shape, and the stack's own maps (B, 21, H, H).

        Maps `given` (B, 21, H, H) are merged into the x handed on in place of its own.
        """
        features = self.features(self.hourglass(x))
        maps = self.maps(features)
        merged = self.merge_maps(maps_to_read(maps, given))
        return x + self.merge_features(features) + merged, maps


class Stem(nn.Module):
    """Image to features at stride 4: 7x7 conv stride 2, residual, max-pool, two residuals."""

    def __init__(self, features: int) -> None:
        super().__init__()
        quarter, half = features // 4, features // 2
        self.conv = conv_norm(3, quarter, 7, stride=2)
        self.first = Residual(quarter, half)
        self.rest = nn.Sequential(Residual(half, half), Residual(half, features))

    def forward(self, image: Tensor) -> Tensor:
        y: Tensor = self.rest(F.max_pool2d(self.first(self.conv(image)), 2))
        return y


class ResidualEncoder(nn.Module):
    """(residuals, 2x2 max-pool) times `encoder_levels`, flattened."""

    def __init__(self, config: PaperConfig) -> None:
        super().__init__()
        width, count = config.features, config.residuals_per_position
        self.levels = nn.ModuleList(residuals(width, count) for _ in range(config.encoder_levels))
        side = config.heatmap_size >> config.encoder_levels
        self.output_features = width * side * side

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, H) to (B, C * (H / 16)^2) for four levels."""
        for level in self.levels:
            x = F.max_pool2d(level(x), 2)
        return x.flatten(1)
