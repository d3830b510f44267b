"""All T_k(L) written out, as sparse rows or as dense matrices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .ell import BlockProduct
from .spec import ConvSpec, polynomials

__all__ = ["Dense", "ExplicitConv", "Polynomials"]


@dataclass(frozen=True)
class Polynomials:
    """Sparse T_k, all terms in one product: no recurrence, so one gather in place of two.

    Where C_out <= C_in, theta comes first: y = sum_k T_k (x theta_k). Else T_k does, on C_in
    channels. T_2 reaches two rings of neighbours, so its rows are longer than those of L.

    Attributes:
        rows_per_block: as of `Recurrence`.
        merge_unpooling: whether T_k U is one constant, or nodes are unpooled before T_k.
    """

    rows_per_block: int = 7
    merge_unpooling: bool = True

    name = "polynomials"

    def describe(self) -> str:
        merged = "unpooling merged" if self.merge_unpooling else "unpooled before"
        return f"sparse T_k(L) in blocks of {self.rows_per_block} rows, {merged}"

    def convolution(self, spec: ConvSpec) -> nn.Module:
        rows = self.rows_per_block
        return ExplicitConv(spec, lambda m: BlockProduct(m, rows), rows, self.merge_unpooling)


@dataclass(frozen=True)
class Dense:
    """Dense T_k, as `Polynomials` otherwise: matrix products alone, for what cannot gather.

    Attributes:
        merge_unpooling: as of `Polynomials`; merged, the constants are a quarter as large, and
            there is no gather at all.
    """

    merge_unpooling: bool = True

    name = "dense"

    def describe(self) -> str:
        merged = "unpooling merged" if self.merge_unpooling else "unpooled before"
        return f"dense T_k(L), {merged}"

    def convolution(self, spec: ConvSpec) -> nn.Module:
        return ExplicitConv(spec, _DenseProduct, 1, self.merge_unpooling)


class _DenseProduct(nn.Module):
    """M x for a constant M (N, N_in)."""

    matrix: Tensor

    def __init__(self, matrix: NDArray[np.float64]) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.from_numpy(matrix).float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.matrix @ x


class ExplicitConv(nn.Module):
    """A convolution in the form `Polynomials` or `Dense`.

    Terms are interleaved along the nodes, (node 0, T_0), (node 0, T_1), ...: K channels of a node
    and K rows of it are the same memory, and filler rows stay at the end.

    Args:
        product: makes the module of M x from M. rows: what its number of rows is a multiple of.
    """

    parents: Tensor | None

    def __init__(
        self,
        spec: ConvSpec,
        product: Callable[[NDArray[np.float64]], nn.Module],
        rows: int,
        merge: bool,
    ) -> None:
        super().__init__()
        self.spec = spec
        terms = polynomials(spec)  # (K, N, N)
        order, width_in, width_out = spec.theta.shape
        count = len(spec.laplacian)
        filler = -count % rows
        parents = None
        if spec.unpooling is not None and merge:
            terms = terms @ spec.unpooling  # (K, N, N_parents)
        elif spec.parents is not None:
            parents = torch.from_numpy(np.pad(spec.parents, (0, filler)))
        self.register_buffer("parents", parents, persistent=False)
        self.order, self.theta_first = order, width_out <= width_in
        if self.theta_first:
            across = terms.transpose(1, 2, 0).reshape(count, -1)  # (N, N_in * K)
            self.product = product(across)
            theta = spec.theta.transpose(0, 2, 1).reshape(order * width_out, width_in)
            self.linear = nn.Linear(width_in, order * width_out, bias=False)
        else:
            down = np.pad(terms.transpose(1, 0, 2), ((0, filler), (0, 0), (0, 0)))
            self.product = product(down.reshape(-1, terms.shape[2]))  # (M * K, N_in)
            theta = spec.theta.transpose(2, 0, 1).reshape(width_out, order * width_in)
            self.linear = nn.Linear(order * width_in, width_out, bias=False)
        self.linear.weight.data = torch.from_numpy(theta.copy()).float()
        self.bias = nn.Parameter(torch.from_numpy(spec.bias).float())

    def forward(self, x: Tensor) -> Tensor:
        """(B, M_in, C_in) to (B, M_out, C_out)."""
        if self.parents is not None:
            x = x.index_select(1, self.parents)  # (B, M_out, C_in)
        if self.theta_first:
            y = self.linear(x).unflatten(2, (self.order, -1)).flatten(1, 2)  # (B, M K, C_out)
            return self.product(y) + self.bias  # (B, M_out, C_out)
        y = self.product(x).unflatten(1, (-1, self.order)).flatten(2, 3)  # (B, M_out, K C_in)
        return self.linear(y) + self.bias
