"""Constant sparse matrices times node features: a gather and a small matrix product."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["BlockProduct"]


class BlockProduct(nn.Module):
    """M x for a constant sparse M (N, N_in), in blocks of R rows; R = 1 is plain ELL.

    A block gathers the union of its rows' neighbours once. Rows are padded to a whole number of
    blocks; the filler rows come out as zeros.

    Attributes:
        rows: of the result, filler rows included.
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
        """(B, M_in, C), the first N_in rows of which are read, to (B, M_out, C)."""
        gathered = x.index_select(1, self.columns)  # (B, blocks * H, C)
        gathered = gathered.unflatten(1, (self.blocks, self.width))  # (B, blocks, H, C)
        return (self.weights @ gathered).flatten(1, 2)  # (B, blocks * R, C)
