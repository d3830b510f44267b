"""Matrix products."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

__all__ = ["OPERATIONS"]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Weight (C_out, C_in), over the last axis."""
    return F.linear(x, weight, bias)


def matmul(
    x: Tensor, y: Tensor, transpose_x: Tensor | None = None, transpose_y: Tensor | None = None
) -> Tensor:
    """Over the last two axes, broadcasting the others."""
    x = x.transpose(-1, -2) if bool(transpose_x) else x
    y = y.transpose(-1, -2) if bool(transpose_y) else y
    return x @ y


OPERATIONS: dict[str, Callable[..., Tensor]] = {"linear": linear, "matmul": matmul}
