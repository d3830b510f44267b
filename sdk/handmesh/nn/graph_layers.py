"""Chebyshev graph convolutions, pooling and unpooling.

Layout: here and in `graph_head` signals are node-major, (N, B, C), so that the sparse product with
a Laplacian is one `csr (N, N) @ dense (N, B*C)` without a transpose.

Why CSR: of sparse products, dense ones and neighbour gathers (ELL), forward and backward at a
training's batch, it is the fastest on CPUs by far: `pytest benchmarks/suites/test_graph_layers.py`.
All of it runs in float32 even under autocast: vertex coordinates in bfloat16 would be off
by a pixel.

Padding nodes of the coarsening have no edges and are masked to 0 in the paper's network, so they
carry nothing. Here they are not stored at all: a level's N counts its real nodes, in padded order.
That is the same network at four fifths of the cost, and batch statistics see real nodes only.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from handmesh.errors import InputError

if TYPE_CHECKING:
    from handmesh.graph import GraphLevel

POOLING = 4  # children of a node, two Graclus levels down

# torch warns once in a process that CSR is in beta; products are all that is used of it here.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.zeros(1, 1).to_sparse_csr()


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


class NodeLevel(nn.Module):
    """The real nodes of one level: rescaled Laplacian 2L/lambda_max - I, and the coarser parents.

    The CSR arrays are held as plain buffers, because sparse tensors as buffers do not survive
    distributed training or checkpoints; they are not part of the weights.

    Args:
        level: this level.
        coarser: the level with a quarter of the nodes, for pooling and unpooling; None, neither.
    """

    row_starts: Tensor
    columns: Tensor
    values: Tensor
    parents: Tensor
    share: Tensor

    def __init__(self, level: GraphLevel, coarser: GraphLevel | None = None) -> None:
        super().__init__()
        self.node_count = int(level.mask.sum())
        for name, array in zip(("row_starts", "columns", "values"), _real_rows(level), strict=True):
            self.register_buffer(name, torch.from_numpy(array), persistent=False)
        if coarser is None:
            return
        self.parent_count = int(coarser.mask.sum())
        padded_parents = torch.from_numpy(level.mask).nonzero()[:, 0] // POOLING
        rank = torch.from_numpy(coarser.mask).long().cumsum(0) - 1
        parents = rank[padded_parents]  # (N,)
        children = torch.bincount(parents, minlength=self.parent_count)
        self.register_buffer("parents", parents, persistent=False)
        share = (1.0 / children[parents]).reshape(-1, 1, 1)
        self.register_buffer("share", share, persistent=False)

    def laplacian(self) -> Tensor:
        """(N, N) sparse CSR view of the buffers."""
        size = (self.node_count, self.node_count)
        return torch.sparse_csr_tensor(
            self.row_starts, self.columns, self.values, size, check_invariants=False
        )

    def forward(self, signal: Tensor) -> Tensor:
        """Laplacian times a signal (N, B, C); same shape out."""
        n, batch, channels = signal.shape
        flat = signal.reshape(n, batch * channels)
        return symmetric_product(self.laplacian(), flat).view(n, batch, channels)

    def unpool(self, signal: Tensor) -> Tensor:
        """Copy each parent to its real children: (N_parents, B, C) -> (N, B, C)."""
        return signal.index_select(0, self.parents)

    def pool(self, signal: Tensor) -> Tensor:
        """Mean over each parent's real children: (N, B, C) -> (N_parents, B, C). Linear."""
        pooled = signal.new_zeros(self.parent_count, *signal.shape[1:])
        return pooled.index_add(0, self.parents, signal * self.share)


def _real_rows(
    level: GraphLevel,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Row starts, columns and values of the Laplacian of a level's N real nodes.

    Never the dense matrix: it has a million entries, and each network that is built wants two.
    MKL takes 32-bit indices without a conversion.
    """
    n = int(level.mask.sum())
    rank = np.cumsum(level.mask) - 1
    rows = np.repeat(np.arange(level.node_count), level.neighbours.shape[1])
    columns = level.neighbours.ravel()
    used = (level.weights.ravel() != 0) & level.mask[rows] & level.mask[columns]
    places, of = np.unique(rank[rows[used]] * n + rank[columns[used]], return_inverse=True)
    # As in the dense matrix, what stands at the same place is added, in double precision.
    values = np.bincount(of, level.weights.ravel()[used].astype(np.float64), len(places))
    places, values = places[values != 0], values[values != 0]
    starts = np.searchsorted(places, np.arange(n + 1) * n)
    return starts.astype(np.int32), (places % n).astype(np.int32), values.astype(np.float32)


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
        if order < 1:
            raise InputError(f"expected an order of at least 1, got {order}")
        self.channels_in, self.channels_out, self.order = channels_in, channels_out, order
        self.weight = nn.Parameter(torch.empty(channels_out, order * channels_in))
        nn.init.normal_(self.weight, std=math.sqrt(1.0 / (order * channels_in)))
        self.bias = nn.Parameter(torch.zeros(channels_out)) if bias else None

    def forward(self, signal: Tensor, level: NodeLevel, unpool: bool = False) -> Tensor:
        """Convolve a signal on a level's N nodes.

        Args:
            signal: (N, B, C_in); with `unpool`, on the parents, (N_parents, B, C_in).
            level: graph of the output.
            unpool: copy each parent to its children first.

        Returns:
            (N, B, C_out).
        """
        if unpool or self.channels_out <= self.channels_in:
            out = self._clenshaw(signal, level, unpool)
        else:
            out = self._recurrence(signal, level)
        return out if self.bias is None else out + self.bias

    def _recurrence(self, signal: Tensor, level: NodeLevel) -> Tensor:
        terms = [signal]
        for k in range(1, self.order):
            product = level(terms[-1])
            terms.append(product if k == 1 else 2.0 * product - terms[-2])
        return F.linear(torch.cat(terms, dim=-1), self.weight)  # (N, B, K*C_in) -> (N, B, C_out)

    def _clenshaw(self, signal: Tensor, level: NodeLevel, unpool: bool) -> Tensor:
        # sum_k T_k a_k = b_0 with b_k = a_k + 2 L b_{k+1} - b_{k+2}, and L instead of 2 L at k = 0.
        theta = self.weight.view(self.channels_out, self.order, self.channels_in)
        following: list[Tensor] = []  # b_{k+1}, b_{k+2}
        for k in range(self.order - 1, -1, -1):
            b = F.linear(signal, theta[:, k])  # (N or N_parents, B, C_out)
            if unpool:
                b = level.unpool(b)
            if following:
                b = torch.add(b, level(following[0]), alpha=1.0 if k == 0 else 2.0)
            if len(following) > 1:
                b = b - following[1]
            following = [b, *following[:1]]
        return following[0]
