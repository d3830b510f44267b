"""The `light` network: a mobile backbone, heat-maps, and the graph head."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handmesh.nn.blocks import Latent, conv_norm, maps_to_read, soft_argmax
from handmesh.nn.config import JOINT_COUNT, DetectorConfig, LightConfig, StageConfig
from handmesh.nn.graph_head import GraphHead
from handmesh.nn.network import HandNetwork

if TYPE_CHECKING:
    from handmesh.graph import Topology


def _start_at_zero(block: nn.Sequential) -> None:
    """Let a residual branch, which ends in this convolution and norm, start as nothing."""
    norm = block[1]
    if isinstance(norm, nn.BatchNorm2d):
        nn.init.zeros_(norm.weight)


class InvertedResidual(nn.Module):
    """Expand, filter, project; a skip connection where the shapes allow it.

    A block with stride 2 is always of the fused kind: the gradient of a strided depthwise
    convolution is slow on a CPU, slower than that of the dense one that replaces it.
    """

    def __init__(self, channels_in: int, stage: StageConfig, stride: int) -> None:
        super().__init__()
        hidden = round(channels_in * stage.expansion / 8) * 8
        if stage.block == "fused" or stride > 1:
            filters = [conv_norm(channels_in, hidden, stage.kernel, stride)]
        else:
            filters = [
                conv_norm(channels_in, hidden, 1),
                conv_norm(hidden, hidden, stage.kernel, stride, groups=hidden),
            ]
        project = conv_norm(hidden, stage.channels, 1, relu=False)
        self.body = nn.Sequential(*filters, project)
        self.skip = stride == 1 and channels_in == stage.channels
        if self.skip:
            _start_at_zero(project)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.skip else y


class PyramidBlock(nn.Module):
    """Depthwise and 1x1 convolution around a skip connection, for the decoder."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        mix = conv_norm(channels, channels, 1, relu=False)
        self.body = nn.Sequential(conv_norm(channels, channels, kernel, groups=channels), mix)
        _start_at_zero(mix)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class Backbone(nn.Module):
    """Strides 4, 8, 16, 32 from an image (B, 3, S, S)."""

    def __init__(self, config: LightConfig | DetectorConfig) -> None:
        super().__init__()
        self.stem = conv_norm(3, config.stem_channels, 3, stride=2)
        channels = config.stem_channels
        stages = []
        for stage in config.stages:
            blocks = []
            for i in range(stage.depth):
                blocks.append(InvertedResidual(channels, stage, 2 if i == 0 else 1))
                channels = stage.channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.stem(image)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class Pyramid(nn.Module):
    """Back from stride 32: add an upsampled coarser map to each backbone map, down to stride 4, or
    8 with two widths."""

    def __init__(self, config: LightConfig | DetectorConfig) -> None:
        super().__init__()
        widths = config.pyramid_channels  # finest first
        levels = len(widths)
        backbone = [stage.channels for stage in config.stages][-1 - levels :]
        coarser = [*widths[1:], backbone[-1]]
        self.lateral = nn.ModuleList(
            conv_norm(backbone[i], widths[i], 1, relu=False) for i in range(levels)
        )
        # The width changes before upsampling, on a quarter of the positions.
        self.narrow = nn.ModuleList(
            conv_norm(coarser[i], widths[i], 1, relu=False) for i in range(levels)
        )
        self.refine = nn.ModuleList(
            nn.Sequential(
                *(
                    PyramidBlock(widths[i], config.pyramid_kernel)
                    for _ in range(config.pyramid_depth[i])
                )
            )
            for i in range(levels)
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Backbone maps, finest first, to features (B, C, S/4, S/4); S/8 with two widths."""
        x = maps[-1]
        maps = maps[-1 - len(self.lateral) :]
        for i in reversed(range(len(self.lateral))):
            up = F.interpolate(self.narrow[i](x), scale_factor=2.0, mode="nearest")
            x = self.refine[i](F.relu(self.lateral[i](maps[i]) + up))
        return x


class ResidualPerceptron(nn.Module):
    """x + W2 relu(W1 x), for feature vectors (B, C); starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.Linear(channels, channels)
        self.project = nn.Linear(channels, channels)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(F.relu(self.expand(x)))


class LightNetwork(HandNetwork):
    """Mobile backbone, heat-maps, joint-aligned features, graph head.

    The latent vector holds global features, features gathered at each heat-map's joint and the
    joints' (u, v). Vertices are offsets from a blend of the heat-map joints, so that the
    heat-maps' precision reaches the mesh, and the mesh's losses reach the heat-maps. Which hand it
    is depends on view and thumb together, so handedness is read off the hidden layer too.

    Convolutions follow autocast; soft-argmax, fully-connected layers and graph run in float32.
    """

    def __init__(self, config: LightConfig, topology: Topology) -> None:
        super().__init__()
        self.config = config
        features, last = config.pyramid_channels[0], config.stages[-1].channels
        self.backbone = Backbone(config)
        self.pyramid = Pyramid(config)
        self.heatmaps = nn.Conv2d(features, JOINT_COUNT, 1)
        self.joint_features = conv_norm(features, config.joint_channels, 1)
        self.global_features = conv_norm(last, config.global_channels, 1)
        self.log_beta = nn.Parameter(torch.tensor(math.log(config.beta)))
        cells = (config.input_size // 32) ** 2
        latent_in = (
            config.global_channels * cells + JOINT_COUNT * config.joint_channels + JOINT_COUNT * 2
        )
        self.encode = nn.Linear(latent_in, config.latent)
        self.reason = ResidualPerceptron(config.latent)
        self.head = GraphHead(config.latent + JOINT_COUNT * 2, config.decoder, topology)
        self.confidence = nn.Parameter(torch.zeros(JOINT_COUNT, config.joint_channels + 1))
        self.confidence_bias = nn.Parameter(torch.zeros(JOINT_COUNT))
        self.presence = nn.Linear(last, 1)
        self.handedness = nn.Sequential(
            nn.Linear(last + config.latent, config.handedness_hidden),
            nn.ReLU(),
            nn.Linear(config.handedness_hidden, 1),
        )
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.heatmaps.weight, std=0.01)
        if self.heatmaps.bias is not None:
            nn.init.zeros_(self.heatmaps.bias)

    def latent(self, image: Tensor, heatmaps: Tensor | None = None) -> Latent:
        """Run the trunk alone; arguments and errors as in `forward`."""
        maps = self.backbone(image)
        fine = self.pyramid(maps)  # (B, C, S/4, S/4)
        own = self.heatmaps(fine)
        aligned = self.joint_features(fine)
        overall = self.global_features(maps[3])  # (B, G, S/32, S/32)
        with torch.autocast(image.device.type, enabled=False):
            own = own.float().contiguous()
            read = maps_to_read(own, heatmaps)
            uv, weights = soft_argmax(read, self.log_beta.exp())
            pixels = aligned.float().flatten(2).transpose(1, 2)  # (B, H*W, C)
            gathered = weights @ pixels  # (B, 21, C)
            uv_flat = (uv - 0.5).flatten(1)  # (B, 42)
            joined = torch.cat([overall.float().flatten(1), gathered.flatten(1), uv_flat], dim=1)
            hidden = self.reason(F.relu(self.encode(joined)))  # (B, latent)
            # Detached: confidence describes the joints and must not bend them.
            peaks = read.flatten(2).amax(dim=2, keepdim=True)
            evidence = torch.cat([gathered, peaks], dim=2).detach()  # (B, 21, C + 1)
            pooled = maps[3].float().mean(dim=(2, 3))  # (B, C)
            return Latent(
                features=torch.cat([hidden, uv_flat], dim=1),  # (B, latent + 42)
                heatmaps=[own],
                uv=uv,
                anchors=uv if self.config.anchor_to_heatmaps else None,
                confidence_logits=(evidence * self.confidence).sum(dim=2) + self.confidence_bias,
                presence_logit=self.presence(pooled)[:, 0],
                handedness_logit=self.handedness(torch.cat([pooled, hidden], dim=1))[:, 0],
            )
