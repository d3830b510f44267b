"""Chebyshev graph convolutions, the mesh decoder and the linear pose regressor.

Layout: inside this file signals are node-major, (N, B, C), so that the sparse product with a
Laplacian is one `csr (N, N) @ dense (N, B*C)` without a transpose.

Why CSR: forward and backward of one product at batch 32, 2 threads, float32, 6.5 entries a row:
    nodes x channels    CSR       dense     neighbour gather (ELL)
    320 x 64            1.3 ms    11 ms     31 ms
    1280 x 32           2.7 ms    135 ms    130 ms
    1280 x 3            0.25 ms   16 ms     1.5 ms
Everything here runs in float32 even under autocast: vertex coordinates in bfloat16 would be off
by a pixel.

Padding nodes have no edges, so they cannot reach real ones through a Laplacian. They are set to 0
after each layer, so that they add only a constant share of zeros to the batch statistics.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handmesh.nn.config import JOINT_COUNT, DecoderConfig

if TYPE_CHECKING:
    from handmesh.graph import GraphLevel, Topology

FINE_NODES, MIDDLE_NODES, COARSE_NODES = 1280, 320, 80


class _SymmetricProduct(torch.autograd.Function):
    """L @ X for a constant symmetric L: the gradient is L @ dY, which needs no transposed copy."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, signal: Tensor) -> Tensor:
        ctx.matrix = matrix
        return matrix @ signal

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor]:
        return None, symmetric_product(ctx.matrix, grads[0])


def symmetric_product(matrix: Tensor, signal: Tensor) -> Tensor:
    """Product of a constant symmetric matrix with a signal, differentiable in the signal.

    Args:
        matrix: (N, N) symmetric, sparse CSR or dense.
        signal: (N, M), same dtype.

    Returns:
        (N, M).
    """
    product: Tensor = _SymmetricProduct.apply(matrix, signal.contiguous())
    return product


class GraphLaplacian(nn.Module):
    """The rescaled Laplacian 2L/lambda_max - I of one level, with its mask of real nodes.

    The three CSR arrays are held as plain buffers, because sparse tensors as buffers do not
    survive distributed training or checkpoints; they are not part of the weights.
    """

    row_starts: Tensor
    columns: Tensor
    values: Tensor
    mask: Tensor

    def __init__(self, level: GraphLevel) -> None:
        super().__init__()
        dense = torch.from_numpy(level.dense())
        with warnings.catch_warnings():  # torch warns once that CSR is in beta
            warnings.simplefilter("ignore")
            csr = dense.to_sparse_csr()
        self.node_count = int(level.node_count)
        # MKL takes 32-bit indices without a conversion.
        self.register_buffer("row_starts", csr.crow_indices().int(), persistent=False)
        self.register_buffer("columns", csr.col_indices().int(), persistent=False)
        self.register_buffer("values", csr.values().float(), persistent=False)
        mask = torch.from_numpy(level.mask.astype("float32")).reshape(-1, 1, 1)
        self.register_buffer("mask", mask, persistent=False)

    def matrix(self) -> Tensor:
        """(N, N) sparse CSR view of the buffers."""
        size = (self.node_count, self.node_count)
        return torch.sparse_csr_tensor(
            self.row_starts, self.columns, self.values, size, check_invariants=False
        )

    def forward(self, signal: Tensor) -> Tensor:
        """Product with a signal (N, B, C); same shape out."""
        n, batch, channels = signal.shape
        flat = signal.reshape(n, batch * channels)
        return symmetric_product(self.matrix(), flat).view(n, batch, channels)


class ChebConv(nn.Module):
    """Chebyshev graph convolution, Eq. (1) of the paper: sum_k T_k(L) x theta_k + bias.

    `weight` is (C_out, K * C_in): one linear map over the concatenated [T_0 x, T_1 x, ...],
    T_0 x = x, T_1 x = L x, T_k x = 2 L T_{k-1} x - T_{k-2} x.

    Two orders of evaluation give the same result. "Recurrence" forms T_k x first. "Clenshaw"
    applies theta first and sums the series backwards, so that the sparse products act on C_out
    channels; theta then also acts before unpooling, on a quarter of the nodes:
    (T_k U x) theta = T_k U (x theta). The cheaper one is chosen from the widths.

    Args:
        channels_in, channels_out: C_in, C_out.
        order: K, at least 1.
        bias: add a bias; needless before a batch norm.
    """

    bias: Tensor | None

    def __init__(
        self, channels_in: int, channels_out: int, order: int = 3, bias: bool = True
    ) -> None:
        super().__init__()
        self.channels_in, self.channels_out, self.order = channels_in, channels_out, order
        self.weight = nn.Parameter(torch.empty(channels_out, order * channels_in))
        nn.init.normal_(self.weight, std=math.sqrt(1.0 / (order * channels_in)))
        self.bias = nn.Parameter(torch.zeros(channels_out)) if bias else None

    def forward(self, signal: Tensor, laplacian: GraphLaplacian, unpool: int = 1) -> Tensor:
        """Convolve, after copying each node to its `unpool` children.

        Args:
            signal: (N / unpool, B, C_in).
            laplacian: of the N nodes.
            unpool: children per node: 1 (no unpooling) or 4.

        Returns:
            (N, B, C_out); padding nodes are not masked.
        """
        if unpool > 1 or self.channels_out <= self.channels_in:
            out = self._clenshaw(signal, laplacian, unpool)
        else:
            out = self._recurrence(signal, laplacian)
        return out if self.bias is None else out + self.bias

    def _recurrence(self, signal: Tensor, laplacian: GraphLaplacian) -> Tensor:
        terms = [signal]
        for k in range(1, self.order):
            product = laplacian(terms[-1])
            terms.append(product if k == 1 else 2.0 * product - terms[-2])
        return F.linear(torch.cat(terms, dim=-1), self.weight)  # (N, B, K*C_in) -> (N, B, C_out)

    def _clenshaw(self, signal: Tensor, laplacian: GraphLaplacian, unpool: int) -> Tensor:
        theta = self.weight.view(self.channels_out, self.order, self.channels_in)
        b_next: Tensor | None = None  # b_{k+1} of Clenshaw's b_k = a_k + 2 L b_{k+1} - b_{k+2}
        b_after: Tensor | None = None
        for k in range(self.order - 1, -1, -1):
            b = unpool_nodes(F.linear(signal, theta[:, k]), unpool)  # (N, B, C_out)
            if unpool > 1:
                b = b * laplacian.mask
            if b_next is not None:
                product = laplacian(b_next)
                b = b + (product if k == 0 else 2.0 * product)
            if b_after is not None:
                b = b - b_after
            b_next, b_after = b, b_next
        if b_next is None:
            raise ValueError(f"order must be at least 1, got {self.order}")
        return b_next


def unpool_nodes(signal: Tensor, factor: int) -> Tensor:
    """Copy each node to its children: (N, B, C) -> (factor*N, B, C); child i has parent i//factor."""
    if factor == 1:
        return signal
    n, batch, channels = signal.shape
    return signal.unsqueeze(1).expand(n, factor, batch, channels).reshape(-1, batch, channels)


def pool_nodes(signal: Tensor, factor: int) -> Tensor:
    """Mean over the `factor` children of each node: (N, B, C) -> (N/factor, B, C).

    Padding children are 0 and counted, so a parent with padding among its children gets a
    smaller mean. That is a constant factor per parent: the map stays linear, and the
    fully-connected layer behind it absorbs the factor.
    """
    n, batch, channels = signal.shape
    return signal.view(n // factor, factor, batch, channels).mean(dim=1)


class _GraphBlock(nn.Module):
    """ChebConv, batch norm over (N*B, C), ReLU, mask."""

    def __init__(self, channels_in: int, channels_out: int, order: int) -> None:
        super().__init__()
        self.conv = ChebConv(channels_in, channels_out, order, bias=False)
        self.norm = nn.BatchNorm1d(channels_out)

    def forward(self, signal: Tensor, laplacian: GraphLaplacian, unpool: int = 1) -> Tensor:
        x = self.conv(signal, laplacian, unpool)
        n, batch, channels = x.shape
        x = self.norm(x.view(n * batch, channels)).view(n, batch, channels)
        return F.relu(x) * laplacian.mask


class MeshDecoder(nn.Module):
    """Graph CNN of the paper's Fig. 4: a latent vector to values on the 1280 padded nodes."""

    def __init__(self, latent: int, config: DecoderConfig, topology: Topology) -> None:
        super().__init__()
        self.coarse_features = config.coarse_features
        levels = {level.node_count: level for level in topology.levels}
        self.middle = GraphLaplacian(levels[MIDDLE_NODES])
        self.fine = GraphLaplacian(levels[FINE_NODES])
        self.register_buffer(
            "coarse_mask",
            torch.from_numpy(levels[COARSE_NODES].mask.astype("float32")).reshape(-1, 1, 1),
            persistent=False,
        )
        self.expand = nn.Linear(latent, COARSE_NODES * config.coarse_features)
        width_a, width_b = config.middle_channels
        self.block1 = _GraphBlock(config.coarse_features, width_a, config.order)
        self.block2 = _GraphBlock(width_a, width_b, config.order)
        self.block3 = _GraphBlock(width_b, config.fine_channels, config.order)
        self.out = ChebConv(config.fine_channels, 3, config.order)
        # Small first offsets: the mesh starts near its anchors instead of all over the crop.
        nn.init.normal_(self.out.weight, std=0.1 / math.sqrt(config.order * config.fine_channels))

    coarse_mask: Tensor

    def forward(self, latent: Tensor) -> Tensor:
        """Latent (B, F) float32 to node values (1280, B, 3) float32, padding nodes 0."""
        x = self.expand(latent)
        x = x.view(-1, COARSE_NODES, self.coarse_features).transpose(0, 1)  # (80, B, C)
        x = (x * self.coarse_mask).contiguous()
        x = self.block1(x, self.middle, unpool=4)  # (320, B, 64)
        x = self.block2(x, self.middle)  # (320, B, 32)
        x = self.block3(x, self.fine, unpool=4)  # (1280, B, 32)
        x = self.out(x, self.fine)  # (1280, B, 3)
        return x * self.fine.mask


class PoseRegressor(nn.Module):
    """Linear graph CNN from padded vertices to the 21 joints: no activation anywhere.

    The whole module is one affine map of the 1280 x 3 coordinates. The paper trains it first,
    alone, on true meshes; `freeze()` then fixes it and collapses it into that one map, which is
    also what an export uses and costs a hundredth.
    """

    collapsed_weight: Tensor | None
    collapsed_bias: Tensor | None
    prior: Tensor | None
    real: Tensor

    def __init__(self, config: DecoderConfig, topology: Topology) -> None:
        super().__init__()
        levels = {level.node_count: level for level in topology.levels}
        self.fine = GraphLaplacian(levels[FINE_NODES])
        self.middle = GraphLaplacian(levels[MIDDLE_NODES])
        fine_a, fine_b = config.pose_fine_channels
        middle_a, middle_b = config.pose_middle_channels
        self.conv1 = ChebConv(3, fine_a, config.order)
        self.conv2 = ChebConv(fine_a, fine_b, config.order)
        self.conv3 = ChebConv(fine_b, middle_a, config.order)
        self.conv4 = ChebConv(middle_a, middle_b, config.order)
        self.fc1 = nn.Linear(COARSE_NODES * middle_b, config.pose_hidden)
        self.fc2 = nn.Linear(config.pose_hidden, JOINT_COUNT * 3)
        prior = None
        if config.pose_template_prior:
            prior = torch.zeros(JOINT_COUNT, FINE_NODES)
            nodes = torch.from_numpy(topology.node_of_vertex).long()
            prior[:, nodes] = torch.from_numpy(topology.joint_regressor).float()
            nn.init.zeros_(self.fc2.weight)  # start as the template's regressor
            nn.init.zeros_(self.fc2.bias)
        self.register_buffer("prior", prior, persistent=False)
        self.register_buffer("collapsed_weight", None, persistent=False)
        self.register_buffer("collapsed_bias", None, persistent=False)
        self.register_load_state_dict_post_hook(_recollapse)

    def forward(self, nodes: Tensor) -> Tensor:
        """Padded vertices (1280, B, 3), padding 0, to joints (B, 21, 3); any coordinates."""
        if self.collapsed_weight is not None and self.collapsed_bias is not None:
            flat = nodes.transpose(0, 1).reshape(-1, FINE_NODES * 3)  # (B, 3840)
            return F.linear(flat, self.collapsed_weight, self.collapsed_bias).view(
                -1, JOINT_COUNT, 3
            )
        x = self.conv1(nodes, self.fine) * self.fine.mask  # (1280, B, 32)
        x = self.conv2(x, self.fine) * self.fine.mask  # (1280, B, 32)
        x = pool_nodes(x, 4)  # (320, B, 32)
        x = self.conv3(x, self.middle) * self.middle.mask  # (320, B, 64)
        x = self.conv4(x, self.middle) * self.middle.mask  # (320, B, 64)
        x = pool_nodes(x, 4)  # (80, B, 64)
        x = x.transpose(0, 1).flatten(1)  # (B, 5120)
        joints: Tensor = self.fc2(self.fc1(x)).view(-1, JOINT_COUNT, 3)
        if self.prior is not None:
            joints = joints + torch.einsum("jn,nbc->bjc", self.prior, nodes)
        return joints

    def affine(self) -> tuple[Tensor, Tensor]:
        """The map that this module computes: weight (63, 3840) and bias (63,), detached.

        Column 3*n + c belongs to coordinate c of padded node n. Columns of padding nodes are 0.
        """
        if self.collapsed_weight is not None and self.collapsed_bias is not None:
            return self.collapsed_weight, self.collapsed_bias
        outputs = JOINT_COUNT * 3
        with torch.enable_grad():
            zero = torch.zeros(
                FINE_NODES, outputs, 3, device=self.fc2.weight.device, dtype=self.fc2.weight.dtype
            ).requires_grad_()
            joints = self.forward(zero).view(outputs, outputs)
            # Sample i asks for the gradient of output i: 63 rows of the Jacobian in one pass.
            (rows,) = torch.autograd.grad(joints.diagonal().sum(), zero)
        weight = (rows * self.fine.mask).transpose(0, 1).reshape(outputs, -1)  # (63, 3840)
        return weight.detach(), joints[0].detach()

    def freeze(self) -> None:
        """Stop training this module and run it as its one affine map from now on."""
        self.requires_grad_(False)
        self.collapsed_weight = self.collapsed_bias = None
        self.collapsed_weight, self.collapsed_bias = self.affine()

    def unfreeze(self) -> None:
        """Train this module (again)."""
        self.collapsed_weight = self.collapsed_bias = None
        self.requires_grad_(True)


def _recollapse(module: nn.Module, incompatible_keys: object) -> None:
    """New weights make a collapsed map stale."""
    if isinstance(module, PoseRegressor) and module.collapsed_weight is not None:
        module.freeze()


class GraphHead(nn.Module):
    """Latent vector to vertices and joints: decoder, anchors, pose regressor, wrist depth 0.

    Args:
        latent: width of the latent vector.
        config: decoder hyper-parameters.
        topology: the frozen graph.
    """

    blend: Tensor
    node_of_vertex: Tensor

    def __init__(self, latent: int, config: DecoderConfig, topology: Topology) -> None:
        super().__init__()
        self.decoder = MeshDecoder(latent, config, topology)
        self.pose_regressor = PoseRegressor(config, topology)
        nodes = torch.from_numpy(topology.node_of_vertex).long()
        blend = torch.zeros(FINE_NODES, JOINT_COUNT)
        blend[nodes] = torch.from_numpy(topology.joint_blend).float()
        self.register_buffer("blend", blend, persistent=False)
        self.register_buffer("node_of_vertex", nodes, persistent=False)

    def forward(self, latent: Tensor, joints_uv: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Vertices (B, V, 3) and joints (B, 21, 3), (u, v, d).

        Args:
            latent: (B, F) float32.
            joints_uv: (B, 21, 2) crop fractions. Given, each vertex's (u, v) is an offset from
                its blend of these; None, an offset from the crop's middle.

        The wrist's depth, as regressed from the mesh, is subtracted from every depth: an affine
        step, so that depth is root-relative by construction.
        """
        nodes = self.decoder(latent)  # (1280, B, 3)
        if joints_uv is None:
            anchors = 0.5 * self.decoder.fine.mask
            uv = nodes[..., :2] + anchors
        else:
            uv = nodes[..., :2] + torch.einsum("nj,bjc->nbc", self.blend, joints_uv)
        nodes = torch.cat([uv, nodes[..., 2:]], dim=-1)
        joints = self.pose_regressor(nodes)  # (B, 21, 3)
        vertices = nodes.index_select(0, self.node_of_vertex).transpose(0, 1)  # (B, V, 3)
        wrist = F.pad(joints[:, :1, 2:], (2, 0))  # (B, 1, 3): (0, 0, wrist depth)
        return vertices - wrist, joints - wrist
