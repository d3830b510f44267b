"""The `paper` network: Ge et al., CVPR 2019, Figs. 3 and 4."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handmesh.nn.blocks import NetworkOutput
from handmesh.nn.config import PaperConfig
from handmesh.nn.graph_head import GraphHead, PoseRegressor
from handmesh.nn.hourglass import ResidualEncoder, Stack, Stem

if TYPE_CHECKING:
    from handmesh.graph import Topology

# A raw map may peak outside (0, 1); this keeps its logit within +-9.2.
_PEAK_MARGIN = 1e-4


class PaperNetwork(nn.Module):
    """Two-stack hourglass, residual encoder, graph CNN, linear pose regressor.

    The encoder reads the features handed on after the last stack: those between the stacks plus
    1x1 convolutions of the last features and the last maps. Joints come from the mesh alone; the
    heat-maps supervise and feed the encoder.

    The paper has no confidence, presence or handedness heads. Here a joint's confidence is the
    peak of its last heat-map, whose target peaks at 1, and presence is the mean of the 21 peaks;
    both as logits, not calibrated, detached from training. `handedness_logit` is None.
    """

    def __init__(self, config: PaperConfig, topology: Topology) -> None:
        super().__init__()
        self.config = config
        self.stem = Stem(config.features)
        self.stacks = nn.ModuleList(Stack(config) for _ in range(config.stacks))
        self.encoder = ResidualEncoder(config)
        self.encode = nn.Linear(self.encoder.output_features, config.latent)
        self.head = GraphHead(config.latent, config.decoder, topology)

    @property
    def pose_regressor(self) -> PoseRegressor:
        """The linear mesh-to-joints module, trainable by itself on true meshes."""
        return self.head.pose_regressor

    def forward(self, image: Tensor) -> NetworkOutput:
        """Image (B, 3, S, S) float32, value / 255 - 0.5, RGB, to a `NetworkOutput`."""
        x = self.stem(image)  # (B, 256, S/4, S/4)
        heatmaps = []
        for stack in self.stacks:
            x, maps = stack(x)
            heatmaps.append(maps.float())
        encoded = self.encoder(x)  # (B, 4096)
        with torch.autocast(image.device.type, enabled=False):
            latent = F.relu(self.encode(encoded.float()))  # (B, 512)
            vertices, joints = self.head(latent)
            peaks = heatmaps[-1].detach().flatten(2).amax(dim=2)  # (B, 21)
            peaks = peaks.clamp(_PEAK_MARGIN, 1.0 - _PEAK_MARGIN)
        return NetworkOutput(
            vertices, joints, heatmaps, peaks.logit(), peaks.mean(dim=1).logit(), None
        )
