"""The `paper` network: Ge et al., CVPR 2019, Figs. 3 and 4."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handmesh.nn.blocks import HighestPoints, Latent, NetworkOutput, maps_to_read
from handmesh.nn.config import PaperConfig
from handmesh.nn.graph_head import GraphHead
from handmesh.nn.hourglass import ResidualEncoder, Stack, Stem
from handmesh.nn.network import HandNetwork

if TYPE_CHECKING:
    from handmesh.graph import Topology

# A raw map may peak outside (0, 1); this keeps its logit within +-9.2.
_PEAK_MARGIN = 1e-4


class PaperNetwork(HandNetwork):
    """Two-stack hourglass, residual encoder, graph CNN, linear pose regressor.

    The encoder reads the features handed on after the last stack: those between the stacks plus
    1x1 convolutions of the last features and the last maps. Joints come from the mesh alone, unless
    `uv_from_heatmaps` says otherwise; the heat-maps supervise and feed the encoder.

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
        self.highest_points = (
            HighestPoints(config.heatmap_size, config.input_size)
            if config.uv_from_heatmaps
            else None
        )

    def forward(self, image: Tensor, heatmaps: Tensor | None = None) -> NetworkOutput:
        """As of any `HandNetwork`."""
        output = super().forward(image, heatmaps)
        if self.highest_points is None:
            return output
        with torch.autocast(image.device.type, enabled=False):
            uv = self.highest_points(maps_to_read(output.heatmaps[-1], heatmaps))
        return output._replace(joints=torch.cat([uv, output.joints[..., 2:]], dim=-1))

    def latent(self, image: Tensor, heatmaps: Tensor | None = None) -> Latent:
        """Run the trunk alone; arguments and errors as in `forward`.

        Given heat-maps are merged back after every stack, since each predicts the same joints.
        """
        x = self.stem(image)  # (B, 256, S/4, S/4)
        own = []
        for stack in self.stacks:
            x, maps = stack(x, heatmaps)
            own.append(maps.float())
        encoded = self.encoder(x)  # (B, 4096)
        with torch.autocast(image.device.type, enabled=False):
            features = F.relu(self.encode(encoded.float()))  # (B, 512)
            read = maps_to_read(own[-1], heatmaps)
            peaks = read.detach().flatten(2).amax(dim=2)  # (B, 21)
            peaks = peaks.clamp(_PEAK_MARGIN, 1.0 - _PEAK_MARGIN)
        return Latent(
            features=features,
            heatmaps=own,
            uv=None,
            anchors=None,
            confidence_logits=peaks.logit(),
            presence_logit=peaks.mean(dim=1).logit(),
            handedness_logit=None,
        )
