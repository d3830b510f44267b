"""Sparse products in a recurrence: the smallest form, and on CPUs the fastest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .ell import BlockProduct
from .spec import ConvSpec, in_powers

__all__ = ["Recurrence"]


@dataclass(frozen=True)
class Recurrence:
    """Sparse products in a recurrence, rows in small blocks that share one gather.

    With theta moved to powers of L and, where C_out <= C_in, applied first (it commutes with L and
    with unpooling, so it acts on the coarse nodes), the sum is Horner's scheme on C_out channels:
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


class _RecurrenceConv(nn.Module):
    """A convolution in the form `Recurrence`."""

    parents: Tensor | None

    def __init__(self, spec: ConvSpec, rows_per_block: int) -> None:
        super().__init__()
        powers = in_powers(spec.theta)  # (K, C_in, C_out)
        bias = torch.from_numpy(spec.bias).float()
        self.maps = nn.ModuleList()
        for k, theta in enumerate(powers):
            linear = nn.Linear(theta.shape[0], theta.shape[1], bias=k == 0)
            linear.weight.data = torch.from_numpy(theta.T.copy()).float()
            if k == 0:
                linear.bias.data = bias
            self.maps.append(linear)
        self.theta_first = powers.shape[2] <= powers.shape[1]
        self.product = BlockProduct(spec.laplacian, rows_per_block)
        # Straight from the parents: where neighbours share a parent, the gather gets shorter.
        self.first = self.product
        parents = None
        if spec.unpooling is not None and spec.parents is not None:
            self.first = BlockProduct(spec.laplacian @ spec.unpooling, rows_per_block)
            filled = np.zeros(self.product.rows, dtype=np.int64)
            filled[: len(spec.parents)] = spec.parents
            parents = torch.from_numpy(filled)
        self.register_buffer("parents", parents, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, M_in, C_in) to (B, M_out, C_out)."""
        if len(self.maps) == 1:
            return self._unpool(self.maps[0](x))
        return self._horner(x) if self.theta_first else self._powers(x)

    def _horner(self, x: Tensor) -> Tensor:
        last = len(self.maps) - 1
        y = self.maps[last](x)  # (B, M_in, C_out)
        for k in range(last - 1, -1, -1):
            product = self.first if k == last - 1 else self.product
            y = product(y) + self._unpool(self.maps[k](x))  # (B, M_out, C_out)
        return y

    def _powers(self, x: Tensor) -> Tensor:
        y = self._unpool(self.maps[0](x))  # (B, M_out, C_out)
        for k in range(1, len(self.maps)):
            x = (self.first if k == 1 else self.product)(x)  # (B, M_out, C_in)
            y = y + self.maps[k](x)
        return y

    def _unpool(self, x: Tensor) -> Tensor:
        return x if self.parents is None else x.index_select(1, self.parents)
