"""The mesh decoder and the linear pose regressor on top of it; both networks end in them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handmesh.errors import InputError
from handmesh.nn.config import JOINT_COUNT, DecoderConfig
from handmesh.nn.graph_layers import POOLING, ChebConv, NodeLevel

if TYPE_CHECKING:
    from handmesh.graph import GraphLevel, Topology

FINE_NODES, MIDDLE_NODES, COARSE_NODES = 1280, 320, 80


class _GraphBlock(nn.Module):
    """ChebConv, batch norm over (N*B, C), ReLU."""

    def __init__(self, channels_in: int, channels_out: int, order: int) -> None:
        super().__init__()
        self.conv = ChebConv(channels_in, channels_out, order, bias=False)
        self.norm = nn.BatchNorm1d(channels_out)

    def forward(self, signal: Tensor, level: NodeLevel, unpool: bool = False) -> Tensor:
        x = self.conv(signal, level, unpool)
        n, batch, channels = x.shape
        x = self.norm(x.view(n * batch, channels)).view(n, batch, channels)
        return F.relu(x)


class MeshDecoder(nn.Module):
    """Graph CNN of the paper's Fig. 4: a latent vector to values on the vertices.

    Args:
        latent: width F of the latent vector.
        config: widths.
        topology: the frozen graph.
    """

    row_of_vertex: Tensor

    def __init__(self, latent: int, config: DecoderConfig, topology: Topology) -> None:
        super().__init__()
        levels = {level.node_count: level for level in topology.levels}
        self.coarse_count = int(levels[COARSE_NODES].mask.sum())
        self.coarse_features = config.coarse_features
        self.middle = NodeLevel(levels[MIDDLE_NODES], levels[COARSE_NODES])
        self.fine = NodeLevel(levels[FINE_NODES], levels[MIDDLE_NODES])
        self.register_buffer("row_of_vertex", _rows_of_vertices(topology), persistent=False)
        self.expand = nn.Linear(latent, self.coarse_count * config.coarse_features)
        width_a, width_b = config.middle_channels
        self.block1 = _GraphBlock(config.coarse_features, width_a, config.order)
        self.block2 = _GraphBlock(width_a, width_b, config.order)
        self.block3 = _GraphBlock(width_b, config.fine_channels, config.order)
        self.out = ChebConv(config.fine_channels, 3, config.order)
        # Small first offsets: the mesh starts near its anchors instead of all over the crop.
        nn.init.normal_(self.out.weight, std=0.1 / math.sqrt(config.order * config.fine_channels))

    def forward(self, latent: Tensor) -> Tensor:
        """Latent (B, F) float32 to values at the vertices (B, V, 3) float32."""
        x = self.expand(latent).view(-1, self.coarse_count, self.coarse_features)
        x = x.transpose(0, 1).contiguous()  # (80, B, C)
        x = self.block1(x, self.middle, unpool=True)  # (320, B, 64)
        x = self.block2(x, self.middle)  # (320, B, 32)
        x = self.block3(x, self.fine, unpool=True)  # (1280, B, 32)
        x = self.out(x, self.fine)  # (1280, B, 3)
        return x.index_select(0, self.row_of_vertex).transpose(0, 1)  # (B, V, 3)


class PoseRegressor(nn.Module):
    """Linear graph CNN from vertices to the 21 joints: no activation anywhere.

    The whole module is one affine map of the V x 3 coordinates. The paper trains it first, alone,
    on true meshes; `freeze()` then fixes it and collapses it into that one map, which is also
    what an export uses, and far less work.
    """

    collapsed_weight: Tensor | None
    collapsed_bias: Tensor | None
    prior: Tensor | None
    vertex_of_row: Tensor

    def __init__(self, config: DecoderConfig, topology: Topology) -> None:
        super().__init__()
        levels = {level.node_count: level for level in topology.levels}
        coarse_count = int(levels[COARSE_NODES].mask.sum())
        self.vertex_count = topology.vertex_count
        self.middle = NodeLevel(levels[MIDDLE_NODES], levels[COARSE_NODES])
        self.fine = NodeLevel(levels[FINE_NODES], levels[MIDDLE_NODES])
        self.register_buffer(
            "vertex_of_row", _rows_of_vertices(topology).argsort(), persistent=False
        )
        fine_a, fine_b = config.pose_fine_channels
        middle_a, middle_b = config.pose_middle_channels
        self.conv1 = ChebConv(3, fine_a, config.order)
        self.conv2 = ChebConv(fine_a, fine_b, config.order)
        self.conv3 = ChebConv(fine_b, middle_a, config.order)
        self.conv4 = ChebConv(middle_a, middle_b, config.order)
        self.fc1 = nn.Linear(coarse_count * middle_b, config.pose_hidden)
        self.fc2 = nn.Linear(config.pose_hidden, JOINT_COUNT * 3)
        prior = None
        if config.pose_template_prior:
            prior = torch.from_numpy(topology.joint_regressor).float()  # (21, V)
            nn.init.zeros_(self.fc2.weight)  # start as the template's regressor
            nn.init.zeros_(self.fc2.bias)
        self.register_buffer("prior", prior, persistent=False)
        self.register_buffer("collapsed_weight", None, persistent=False)
        self.register_buffer("collapsed_bias", None, persistent=False)
        self.register_load_state_dict_post_hook(_recollapse)

    def forward(self, vertices: Tensor) -> Tensor:
        """Vertices (B, V, 3) float32 to joints (B, 21, 3), in the same coordinates."""
        if self.collapsed_weight is not None:
            joints = F.linear(vertices.flatten(1), self.collapsed_weight, self.collapsed_bias)
            return joints.view(-1, JOINT_COUNT, 3)
        x = self._pooled(vertices.transpose(0, 1))  # (80, B, 64)
        x = x.transpose(0, 1).flatten(1)  # (B, 5120)
        joints = self.fc2(self.fc1(x)).view(-1, JOINT_COUNT, 3)
        return joints if self.prior is None else joints + self.prior @ vertices

    def _pooled(self, vertices: Tensor) -> Tensor:
        """Vertices (V, B, 3) to features of the coarsest nodes (80, B, 64)."""
        x = vertices.index_select(0, self.vertex_of_row)  # (1280, B, 3)
        x = self.conv2(self.conv1(x, self.fine), self.fine)  # (1280, B, 32)
        x = self.fine.pool(x)  # (320, B, 32)
        x = self.conv4(self.conv3(x, self.middle), self.middle)  # (320, B, 64)
        return self.middle.pool(x)

    def affine(self) -> tuple[Tensor, Tensor]:
        """The map that this module computes: weight (63, V*3) and bias (63,), detached.

        Row 3*j + c is coordinate c of joint j, column 3*i + c coordinate c of vertex i.
        """
        if self.collapsed_weight is not None and self.collapsed_bias is not None:
            return self.collapsed_weight, self.collapsed_bias
        outputs = JOINT_COUNT * 3
        with torch.enable_grad():
            zero = self.fc2.weight.new_zeros(outputs, self.vertex_count, 3).requires_grad_()
            joints = self.forward(zero).view(outputs, outputs)
            # Sample i asks for the gradient of output i: the whole Jacobian in one pass.
            (rows,) = torch.autograd.grad(joints.diagonal().sum(), zero)
        return rows.flatten(1), joints[0].detach()

    def freeze(self) -> None:
        """Stop training this module and run it as its one affine map from now on."""
        self.unfreeze()
        self.requires_grad_(False)
        self.collapsed_weight, self.collapsed_bias = self.affine()

    def unfreeze(self) -> None:
        """Train this module (again)."""
        self.collapsed_weight = self.collapsed_bias = None
        self.requires_grad_(True)


class MaxPoseRegressor(PoseRegressor):
    """The regressor with max pooling: not linear, so that nothing of it collapses.

    In a network that stores padding nodes they take part in the maximum: they start at 0, are
    connected to themselves at most, and are nowhere constant 0 because of the biases. All of a
    level have the same value, so that one more node, the first padding one, stands for them here.
    """

    children_of_middle: Tensor
    children_of_coarse: Tensor

    def __init__(self, config: DecoderConfig, topology: Topology) -> None:
        super().__init__(config, topology)
        levels = {level.node_count: level for level in topology.levels}
        fine, middle = _with_padding(levels[FINE_NODES]), _with_padding(levels[MIDDLE_NODES])
        self.fine, self.middle = NodeLevel(fine), NodeLevel(middle)
        vertices = torch.full((FINE_NODES,), self.vertex_count)  # behind them comes a zero
        vertices[torch.from_numpy(topology.node_of_vertex).long()] = torch.arange(self.vertex_count)
        self.vertex_of_row = vertices[torch.from_numpy(fine.mask)]
        for name, level, finer, coarser in (
            ("middle", levels[FINE_NODES], fine, middle),
            ("coarse", levels[MIDDLE_NODES], middle, levels[COARSE_NODES]),
        ):
            rows = torch.from_numpy(finer.mask).long().cumsum(0) - 1
            real = torch.from_numpy(level.mask)
            rows[~real] = rows[~real][:1]
            parents = torch.from_numpy(coarser.mask).nonzero()  # (P, 1)
            children = rows[parents * POOLING + torch.arange(POOLING)]  # (P, 4)
            self.register_buffer(f"children_of_{name}", children, persistent=False)

    def _pooled(self, vertices: Tensor) -> Tensor:
        x = torch.cat([vertices, torch.zeros_like(vertices[:1])])
        x = x.index_select(0, self.vertex_of_row)
        x = self.conv2(self.conv1(x, self.fine), self.fine)
        x = x[self.children_of_middle].amax(dim=1)
        x = self.conv4(self.conv3(x, self.middle), self.middle)
        return x[self.children_of_coarse].amax(dim=1)

    def affine(self) -> tuple[Tensor, Tensor]:
        """Raises `InputError`: this is no affine map."""
        raise InputError("a pose regressor with max pooling is not linear: it is no affine map")

    def freeze(self) -> None:
        """Stop training this module; it runs as before."""
        self.requires_grad_(False)


def _with_padding(level: GraphLevel) -> GraphLevel:
    """The level with its first padding node, if it has any, among the real ones."""
    mask = level.mask.copy()
    mask[(~mask).nonzero()[0][:1]] = True
    return replace(level, mask=mask)


def _recollapse(module: nn.Module, incompatible_keys: object) -> None:
    """New weights make a collapsed map stale."""
    if isinstance(module, PoseRegressor) and module.collapsed_weight is not None:
        module.freeze()


def _rows_of_vertices(topology: Topology) -> Tensor:
    """(V,) row of each vertex among the real nodes of the finest level."""
    rank = torch.from_numpy(topology.levels[0].mask).long().cumsum(0) - 1
    return rank[torch.from_numpy(topology.node_of_vertex).long()]


class GraphHead(nn.Module):
    """Latent vector to vertices and joints: decoder, anchors, pose regressor, wrist depth 0.

    Args:
        latent: width F of the latent vector.
        config: decoder hyper-parameters.
        topology: the frozen graph.
    """

    blend: Tensor

    def __init__(self, latent: int, config: DecoderConfig, topology: Topology) -> None:
        super().__init__()
        self.decoder = MeshDecoder(latent, config, topology)
        regressor = MaxPoseRegressor if config.pose_pooling == "max" else PoseRegressor
        self.pose_regressor = regressor(config, topology)
        blend = torch.from_numpy(topology.joint_blend).float()  # (V, 21)
        self.register_buffer("blend", blend, persistent=False)

    def forward(self, latent: Tensor, joints_uv: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Vertices (B, V, 3) and joints (B, 21, 3), (u, v, d).

        Args:
            latent: (B, F) float32.
            joints_uv: (B, 21, 2) crop fractions. Given, each vertex's (u, v) is an offset from
                its blend of these; None, an offset from the crop's middle.

        The wrist's depth, as regressed from the mesh, is subtracted from every depth: a linear
        step, so that depth is root-relative by construction.
        """
        offsets = self.decoder(latent)  # (B, V, 3)
        if joints_uv is None:
            vertices = offsets + offsets.new_tensor([0.5, 0.5, 0.0])
        else:
            anchors = self.blend @ joints_uv  # (B, V, 2)
            vertices = offsets + F.pad(anchors, (0, 1))
        joints = self.pose_regressor(vertices)  # (B, 21, 3)
        wrist = F.pad(joints[:, :1, 2:], (2, 0))  # (B, 1, 3): (0, 0, wrist depth)
        return vertices - wrist, joints - wrist
