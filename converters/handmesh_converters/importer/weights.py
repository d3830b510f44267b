"""Names and arrangement of the authors' parameters, and where each goes in our `paper` network.

What is arranged in another way computes the same:

- convolutions before a batch norm have a bias there; it moves into the norm's running mean;
- a graph convolution's inputs are ordered by feature, then by Chebyshev term; here by term first;
- the first convolution reads BGR; here its input channels are turned round;
- the mesh's (u, v) are crop fractions; here they are offsets from the crop's middle;
- the pose network gives the depths of joints 1 to 20 relative to joint 0; here they are rows of a
  map to 63 coordinates, all others 0.
"""

from __future__ import annotations

import os
from typing import Literal, cast

import torch
from torch import Tensor, nn

from handmesh.graph import Topology
from handmesh.nn import DecoderConfig, PaperConfig, PaperNetwork, build
from handmesh.nn.config import JOINT_COUNT
from handmesh.nn.graph_layers import ChebConv

from .state import StateFile

__all__ = ["AUTHORS", "Channels", "import_network"]

Channels = Literal["bgr", "rgb"]

# The paper's sizes, with what its authors' code does otherwise.
AUTHORS = PaperConfig(decoder=DecoderConfig(pose_pooling="max"), uv_from_heatmaps=True)

_RESIDUAL = {
    "bn": "body.0",
    "conv1": "body.2",
    "bn1": "body.3",
    "conv2": "body.5",
    "bn2": "body.6",
    "conv3": "body.8",
    "conv4": "shortcut",
}


def import_network(
    heatmaps: str | os.PathLike[str],
    mesh: str | os.PathLike[str],
    pose: str | os.PathLike[str],
    topology: Topology,
    channels: Channels = "bgr",
    config: PaperConfig = AUTHORS,
) -> PaperNetwork:
    """The network of three files, which computes what theirs computes, from RGB.

    Args:
        heatmaps: file of the hourglasses, net_hm.pth.
        mesh: file of encoder and mesh decoder, net_feat_mesh.pth.
        pose: file of the pose regressor, net_mesh_pose.pth.
        topology: the graph they were trained on, see `read_graph`.
        channels: order in which the network reads a pixel.
        config: sizes, and what is done otherwise than in the paper.

    Returns:
        In evaluation mode. The batch norms of the pose network, which its code never runs, are
        checked and left out.

    Raises:
        CheckpointError: a file cannot be read, or a tensor is missing, not known, of another shape
            or not finite.
    """
    network = cast(PaperNetwork, build(config, topology))
    files = (
        StateFile(heatmaps, "the heat-map network (net_hm.pth)", "conv1_.weight"),
        StateFile(mesh, "the mesh network (net_feat_mesh.pth)", "feat_net.heatmap_conv.weight"),
        StateFile(pose, "the pose network (net_mesh_pose.pth)", "cl.0.weight"),
    )
    of_heatmaps, of_mesh, of_pose = (_Mapping(file, network) for file in files)
    _map_heatmaps(of_heatmaps, config, channels)
    _map_mesh(of_mesh, config)
    _map_pose(of_pose)
    for file in files:
        file.finish()
    # Counters of batches are ours.
    mapped = {name: t for name, t in network.state_dict().items() if name.endswith("_tracked")}
    for mapping in (of_heatmaps, of_mesh, of_pose):
        mapped.update(mapping.mapped)
    network.load_state_dict(mapped)
    return network.eval()


class _Mapping:
    """Takes tensors of one file for modules of ours, by their shapes."""

    def __init__(self, file: StateFile, network: PaperNetwork) -> None:
        self.file, self.network = file, network
        self.mapped: dict[str, Tensor] = {}

    def copy(self, theirs: str, ours: str) -> None:
        """All parameters and statistics of a module that has the same of everything."""
        for name, tensor in self.network.get_submodule(ours).state_dict().items():
            if not name.endswith("_tracked"):
                self.mapped[f"{ours}.{name}"] = self.file.take(f"{theirs}.{name}", tensor.shape)

    def residuals(self, theirs: str, ours: str, first: int = 0) -> None:
        """A row of residuals, theirs counted from `first` on."""
        for i in range(len(cast(nn.Sequential, self.network.get_submodule(ours)))):
            self.residual(f"{theirs}.{first + i}", f"{ours}.{i}")

    def residual(self, theirs: str, ours: str) -> None:
        for their_name, our_name in _RESIDUAL.items():
            self.copy(f"{theirs}.{their_name}", f"{ours}.{our_name}")

    def norm(self, theirs: str, ours: str, bias_before: Tensor) -> None:
        """A batch norm, and the bias of what it follows, which has none here."""
        self.copy(theirs, ours)
        self.mapped[f"{ours}.running_mean"] = self.mapped[f"{ours}.running_mean"] - bias_before

    def conv_norm(self, conv: str, norm: str, ours: str) -> None:
        self.copy(conv, f"{ours}.0")
        width = len(self.mapped[f"{ours}.0.weight"])
        self.norm(norm, f"{ours}.1", self.file.take(f"{conv}.bias", (width,)))

    def graph_conv(self, theirs: str, ours: str) -> Tensor:
        """The weight of a graph convolution; returns its bias."""
        conv = cast(ChebConv, self.network.get_submodule(ours))
        width, width_in, order = conv.channels_out, conv.channels_in, conv.order
        by_feature = self.file.take(f"{theirs}.weight", (width, width_in * order))
        by_term = by_feature.view(width, width_in, order).transpose(1, 2)
        self.mapped[f"{ours}.weight"] = by_term.reshape(width, order * width_in)
        return self.file.take(f"{theirs}.bias", (width,))


def _map_heatmaps(mapping: _Mapping, config: PaperConfig, channels: Channels) -> None:
    mapping.conv_norm("conv1_", "bn1", "stem.conv")
    if channels == "bgr":
        mapping.mapped["stem.conv.0.weight"] = mapping.mapped["stem.conv.0.weight"].flip(1)
    mapping.residual("r1", "stem.first")
    mapping.residual("r4", "stem.rest.0")
    mapping.residual("r5", "stem.rest.1")
    for i in range(config.stacks):
        ours = f"stacks.{i}"
        their_hourglass, our_hourglass = f"hourglass.{i}", f"{ours}.hourglass"
        for depth in range(config.hourglass_depth, 0, -1):
            mapping.residuals(f"{their_hourglass}.up1_", f"{our_hourglass}.branch")
            mapping.residuals(f"{their_hourglass}.low1_", f"{our_hourglass}.before")
            mapping.residuals(f"{their_hourglass}.low3_", f"{our_hourglass}.after")
            our_inner = f"{our_hourglass}.inner"
            if depth == 1:
                mapping.residuals(f"{their_hourglass}.low2_", our_inner)
            their_hourglass, our_hourglass = f"{their_hourglass}.low2", our_inner
        mapping.residuals("Residual", f"{ours}.features.0", i * config.residuals_per_position)
        mapping.conv_norm(f"lin_.{i}.0", f"lin_.{i}.1", f"{ours}.features.1")
        mapping.copy(f"tmpOut.{i}", f"{ours}.maps")
        if i < config.stacks - 1:  # what the last stack hands on goes to the encoder, in its file
            mapping.copy(f"ll_.{i}", f"{ours}.merge_features")
            mapping.copy(f"tmpOut_.{i}", f"{ours}.merge_maps")


def _map_mesh(mapping: _Mapping, config: PaperConfig) -> None:
    last = f"stacks.{config.stacks - 1}"
    mapping.copy("feat_net.encoding_conv", f"{last}.merge_features")
    mapping.copy("feat_net.heatmap_conv", f"{last}.merge_maps")
    for level in range(config.encoder_levels):
        first = level * config.residuals_per_position
        mapping.residuals("feat_net.reg_", f"encoder.levels.{level}", first)
    mapping.copy("mesh_net.fc.fc_1.fc", "encode")
    mapping.copy("mesh_net.fc.fc_2.fc", "head.decoder.expand")
    for i in range(3):
        block = f"head.decoder.block{i + 1}"
        bias = mapping.graph_conv(f"mesh_net.cl.{i}", f"{block}.conv")
        mapping.norm(f"mesh_net.bn.{i}", f"{block}.norm", bias)
    bias = mapping.graph_conv("mesh_net.cl.3", "head.decoder.out")
    mapping.mapped["head.decoder.out.bias"] = bias - torch.tensor([0.5, 0.5, 0.0])


def _map_pose(mapping: _Mapping) -> None:
    ours = "head.pose_regressor"
    for i in range(4):
        bias = mapping.graph_conv(f"cl.{i}", f"{ours}.conv{i + 1}")
        mapping.mapped[f"{ours}.conv{i + 1}.bias"] = bias
        for name in ("weight", "bias", "running_mean", "running_var"):
            mapping.file.take(f"bn.{i}.{name}", bias.shape)  # never run
    mapping.copy("fc.fc_1.fc", f"{ours}.fc1")
    width = len(mapping.mapped[f"{ours}.fc1.bias"])
    for name, shape in (("weight", (width,)), ("bias", ())):
        depths = mapping.file.take(f"fc.fc_2.fc.{name}", (JOINT_COUNT - 1, *shape))
        coordinates = torch.zeros(JOINT_COUNT, 3, *shape)
        coordinates[1:, 2] = depths
        mapping.mapped[f"{ours}.fc2.{name}"] = coordinates.flatten(0, 1)
