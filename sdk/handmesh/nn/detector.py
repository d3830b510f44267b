"""The `detector` network: hands in a photo as centres on a grid (CenterNet, Zhou et al. 2019).

The photo is shown as a small square. In every cell of a grid of 8 x 8 pixels the network says
whether the middle of a hand's `handmesh.types.Box` lies there, and if so where exactly, how large
the box is, how it is turned, and which hand it holds.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handmesh.nn.config import DetectorConfig
from handmesh.nn.light import Backbone, Pyramid

# Channels of the network's output.
PRESENCE, OFFSET, SIZE, DIRECTION, RIGHT = 0, slice(1, 3), 3, slice(4, 6), 6
CHANNELS = 7
# Sizes are said as logarithms, relative to this share of the square's side.
UNIT_SIZE = 0.25
# Share of cells that hold a hand, roughly: what an untrained network says.
_PRIOR = 0.01


class DetectorNetwork(nn.Module):
    """Mobile backbone, and a pyramid down to stride 8 that every output is read off.

    Attributes:
        config: its hyper-parameters.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        self.pyramid = Pyramid(config)
        self.head = nn.Conv2d(config.pyramid_channels[0], CHANNELS, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.head.weight, std=0.01)
        bias = self.head.bias
        assert bias is not None
        nn.init.zeros_(bias)
        with torch.no_grad():
            bias[PRESENCE] = math.log(_PRIOR / (1 - _PRIOR))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, S, S) float32 in -0.5..0.5 to the grid (B, 7, S/8, S/8) float32.

        Channels: presence logit; offset (x, y) of the box's centre from the cell's, in cells;
        log(size / (`UNIT_SIZE` S)); cosine and sine of the box's angle, of any length; logit of a
        right hand.
        """
        grid: Tensor = self.head(self.pyramid(self.backbone(image)))
        return grid.float()


def decode(grid: Tensor, candidates: int) -> Tensor:
    """The surest hands of a grid.

    A cell counts where none of its eight neighbours is surer.

    Args:
        grid: (B, 7, G, G), as `DetectorNetwork.forward` gives it.
        candidates: K, how many are given.

    Returns:
        (B, K, 7) float32, the surest first: score in 0..1; centre x, y and size of the box, in
        fractions of the square from its outer corner; cosine and sine of its angle; probability of
        a right hand. Where there are fewer peaks than K, the rest have a score of 0.
    """
    side = grid.shape[-1]
    score = grid[:, PRESENCE : PRESENCE + 1].sigmoid()  # (B, 1, G, G)
    peak = score * (score >= F.max_pool2d(score, 3, stride=1, padding=1))
    middle = (torch.arange(side, device=grid.device, dtype=grid.dtype) + 0.5) / side
    x = middle.view(1, 1, 1, side) + grid[:, 1:2] / side
    y = middle.view(1, 1, side, 1) + grid[:, 2:3] / side
    size = UNIT_SIZE * grid[:, SIZE : SIZE + 1].exp()
    direction = grid[:, DIRECTION]
    length = (direction.square().sum(dim=1, keepdim=True) + 1e-6).sqrt()
    right = grid[:, RIGHT : RIGHT + 1].sigmoid()
    said = torch.cat([peak, x, y, size, direction / length, right], dim=1)
    said = said.flatten(2).transpose(1, 2)  # (B, G*G, 7)
    best = peak.flatten(1).topk(candidates, dim=1).indices  # (B, K)
    return said.gather(1, best[..., None].expand(-1, -1, CHANNELS))


class PicturesToHands(nn.Module):
    """What is exported: pictures as they are, to `decode`'s hands."""

    def __init__(self, network: DetectorNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 RGB to (B, K, 7) float32."""
        # Cast first: TensorRT takes bytes as input of a cast alone.
        scaled = image.float().permute(0, 3, 1, 2) / 255 - 0.5  # (B, 3, S, S)
        return decode(self.network(scaled), self.network.config.candidates)
