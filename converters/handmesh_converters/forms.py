"""Forms of a folded Chebyshev convolution: how sum_k T_k(L) x theta_k becomes constant operators.

A form is a class with the members of `GraphForm`; nothing else knows how it computes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["ConvSpec", "GraphForm", "Recurrence"]


@dataclass(frozen=True, eq=False)
class ConvSpec:
    """One Chebyshev convolution as numbers, its batch norm folded in.

    Attributes:
        laplacian: (N, N) float64, rescaled, over the output's real nodes.
        theta: (K, C_in, C_out) float64.
        bias: (C_out,) float64.
        parents: (N,) int64, input node of each output node when unpooling comes first; None
            where input and output live on the same nodes.
    """

    laplacian: NDArray[np.float64]
    theta: NDArray[np.float64]
    bias: NDArray[np.float64]
    parents: NDArray[np.int64] | None


class GraphForm(Protocol):
    """How the graph convolutions of an export are computed."""

    @property
    def name(self) -> str:
        """Short, as it stands in a manifest."""

    def describe(self) -> str:
        """The same for a reader, with parameters."""

    def convolution(self, spec: ConvSpec) -> nn.Module:
        """A module from (B, M_in, C_in) to (B, M_out, C_out) float32.

        The first rows are the nodes; M may exceed their number by filler rows of any finite
        value, which nothing may read. Convolutions of one form on one graph agree in M.
        """


@dataclass(frozen=True)
class Recurrence:
    """Sparse products in a recurrence, rows in small blocks that share one gather.

    With theta moved to powers of L, theta applied first (it commutes with L and with unpooling,
    so it acts on the coarse nodes), the sum is Horner's scheme on C_out channels:
    y = a_0 + L (a_1 + L (a_2 + ...)), a_k = x theta_k. For K = 3 these are two sparse products.

    A sparse product is an ELL gather of neighbours and a small matrix product with their weights.
    What a gather costs is its number of rows, not their length, so rows of the result are taken
    together: a block gathers the union of its rows' neighbours once (the graph's order is
    clustered). `rows_per_block=1` is plain ELL. The whole head of `light`, ONNX Runtime 1.32, batch
    1, one thread of a shared AMD EPYC, median CPU time in one run, and the products' weights:

        rows per block      1      4      7      8     10     12     16
        milliseconds     2.62   1.96   1.73   1.78   1.73   1.76   1.78
        KB                  83    198    265    300    355    412    461

    Powers of L are as good as T_k for the few terms in use; their coefficients grow as 2^K.
    """

    rows_per_block: int = 7

    name = "recurrence"

    def describe(self) -> str:
        return f"recurrence in L, gathered in blocks of {self.rows_per_block} rows"

    def convolution(self, spec: ConvSpec) -> nn.Module:
        return _RecurrenceConv(spec, self.rows_per_block)


class _BlockProduct(nn.Module):
    """M x for a constant sparse M (N, N_in), in blocks of R rows.

    Rows are padded to a whole number of blocks; the filler rows come out as zeros.
    """

    columns: Tensor
    weights: Tensor

    def __init__(self, matrix: NDArray[np.float64], rows_per_block: int) -> None:
        super().__init__()
        starts = range(0, len(matrix), rows_per_block)
        needed = [
            np.flatnonzero((matrix[start : start + rows_per_block] != 0).any(axis=0))
            for start in starts
        ]
        width = max(map(len, needed))  # H
        columns = np.zeros((len(needed), width), dtype=np.int64)
        weights = np.zeros((len(needed), rows_per_block, width))
        for block, (start, used) in enumerate(zip(starts, needed, strict=True)):
            rows = matrix[start : start + rows_per_block]
            columns[block, : len(used)] = used
            weights[block, : len(rows), : len(used)] = rows[:, used]
        self.blocks, self.width = columns.shape
        self.rows = self.blocks * rows_per_block
        self.register_buffer("columns", torch.from_numpy(columns.ravel()), persistent=False)
        self.register_buffer("weights", torch.from_numpy(weights).float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        gathered = x.index_select(1, self.columns)  # (B, blocks * H, C)
        gathered = gathered.unflatten(1, (self.blocks, self.width))  # (B, blocks, H, C)
        return (self.weights @ gathered).flatten(1, 2)  # (B, blocks * R, C)


class _RecurrenceConv(nn.Module):
    """A convolution in the form `Recurrence`."""

    parents: Tensor | None

    def __init__(self, spec: ConvSpec, rows_per_block: int) -> None:
        super().__init__()
        powers = _in_powers(spec.theta)  # (K, C_in, C_out)
        bias = torch.from_numpy(spec.bias).float()
        self.maps = nn.ModuleList()
        for k, theta in enumerate(powers):
            linear = nn.Linear(theta.shape[0], theta.shape[1], bias=k == 0)
            linear.weight.data = torch.from_numpy(theta.T.copy()).float()
            if k == 0:
                linear.bias.data = bias
            self.maps.append(linear)
        self.product = _BlockProduct(spec.laplacian, rows_per_block)
        # Straight from the parents: where neighbours share a parent, the gather gets shorter.
        self.first = self.product
        parents = None
        if spec.parents is not None:
            unpool = np.zeros((len(spec.parents), spec.parents.max() + 1))  # (N, N_parents)
            unpool[np.arange(len(spec.parents)), spec.parents] = 1.0
            self.first = _BlockProduct(spec.laplacian @ unpool, rows_per_block)
            filled = np.zeros(self.product.rows, dtype=np.int64)
            filled[: len(spec.parents)] = spec.parents
            parents = torch.from_numpy(filled)
        self.register_buffer("parents", parents, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, M_in, C_in) to (B, M_out, C_out)."""
        last = len(self.maps) - 1
        y = self.maps[last](x)  # (B, M_in, C_out)
        if last == 0:
            return self._unpool(y)
        for k in range(last - 1, -1, -1):
            product = self.first if k == last - 1 else self.product
            y = product(y) + self._unpool(self.maps[k](x))  # (B, M_out, C_out)
        return y

    def _unpool(self, x: Tensor) -> Tensor:
        return x if self.parents is None else x.index_select(1, self.parents)


def _in_powers(theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients of sum_k T_k(L) theta_k (K, C_in, C_out) in powers of L, same shape."""
    order = len(theta)
    change = np.zeros((order, order))  # row k: T_k in powers
    for k in range(order):
        change[k, : k + 1] = chebyshev.cheb2poly(np.eye(order)[k, : k + 1])
    return np.einsum("kp,kio->pio", change, theta)
