"""Arithmetic, activations, batch norm and reductions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["OPERATIONS"]


def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: Tensor | None = None,
) -> Tensor:
    """Of channels in axis 1."""
    eps = 1e-5 if epsilon is None else float(epsilon)
    sizes = [-1 if axis == 1 else 1 for axis in range(x.ndim)]
    y = (x - mean.reshape(sizes)) / torch.sqrt(variance.reshape(sizes) + eps)
    if gamma is not None:
        y = y * gamma.reshape(sizes)
    return y if beta is None else y + beta.reshape(sizes)


def clip(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return x.clamp(float(alpha), float(beta))


def cast(x: Tensor, dtype: str) -> Tensor:
    """Rounding to float16 is the executor's."""
    return x.float() if dtype.startswith("fp") else x.long()


def softmax(x: Tensor, axis: Tensor | None = None) -> Tensor:
    return x.softmax(-1 if axis is None else int(axis))


def _axes(x: Tensor, axes: Tensor | None) -> list[int]:
    return list(range(x.ndim)) if axes is None else axes.tolist()


def reduce_sum(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | None = None) -> Tensor:
    return x.sum(_axes(x, axes), keepdim=bool(keep_dims))


def reduce_mean(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | None = None) -> Tensor:
    return x.mean(_axes(x, axes), keepdim=bool(keep_dims))


def reduce_max(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | None = None) -> Tensor:
    return x.amax(_axes(x, axes), keepdim=bool(keep_dims))


OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "add": lambda x, y: x + y,
    "batch_norm": batch_norm,
    "cast": cast,
    "clip": clip,
    "exp": lambda x: x.exp(),
    "greater_equal": lambda x, y: x >= y,
    "mul": lambda x, y: x * y,
    "real_div": lambda x, y: x / y,
    "reduce_max": reduce_max,
    "reduce_mean": reduce_mean,
    "reduce_sum": reduce_sum,
    "relu": lambda x: x.relu(),
    "sigmoid": lambda x: x.sigmoid(),
    "softmax": softmax,
    "sqrt": lambda x: x.sqrt(),
    "sub": lambda x, y: x - y,
}
