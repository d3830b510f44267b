"""Convolution, pooling and upsampling of (N, C, D1, ...)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["OPERATIONS"]


def _pads(
    sizes: list[int], spans: list[int], strides: list[int], pad_type: str, pad: Tensor | None
) -> list[tuple[int, int]]:
    """Padding before and after each spatial axis.

    Args:
        sizes: of the input. spans: of the window, dilation included.
    """
    if pad_type == "custom":
        flat = [0] * (2 * len(sizes)) if pad is None else pad.tolist()
        return list(zip(flat[::2], flat[1::2], strict=True))
    if pad_type == "valid":
        return [(0, 0)] * len(sizes)
    if pad_type not in ("same", "same_lower"):
        raise ValueError(f"unknown pad_type {pad_type!r}")
    pairs = []
    for size, span, stride in zip(sizes, spans, strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + span - size, 0)
        small, large = total // 2, total - total // 2
        pairs.append((small, large) if pad_type == "same" else (large, small))
    return pairs


def _padded(x: Tensor, pairs: list[tuple[int, int]], value: float) -> Tensor:
    flat = [side for pair in reversed(pairs) for side in pair]
    return F.pad(x, flat, value=value) if any(flat) else x


def _ints(values: Tensor | None, axes: int) -> list[int]:
    return [1] * axes if values is None else values.tolist()


def conv(
    x: Tensor,
    weight: Tensor,
    strides: Tensor | None = None,
    pad_type: str = "valid",
    pad: Tensor | None = None,
    dilations: Tensor | None = None,
    groups: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Weight (C_out, C_in / groups, K1, ...)."""
    axes = x.ndim - 2
    stride, dilation = _ints(strides, axes), _ints(dilations, axes)
    spans = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
    x = _padded(x, _pads(list(x.shape[2:]), spans, stride, pad_type, pad), 0.0)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    count = 1 if groups is None else int(groups)
    return convolve(x, weight, bias, stride, dilation=dilation, groups=count)


def max_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    strides: Tensor | None = None,
    pad_type: str = "valid",
    pad: Tensor | None = None,
    ceil_mode: Tensor | None = None,
) -> Tensor:
    """Padding never wins."""
    kernel = kernel_sizes.tolist()
    stride = _ints(strides, len(kernel))
    pairs = _pads(list(x.shape[2:]), kernel, stride, pad_type, pad)
    x = _padded(x, pairs, float("-inf"))
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(kernel) - 1]
    return pool(x, kernel, stride, ceil_mode=bool(ceil_mode))


def upsample_nearest_neighbor(
    x: Tensor, scale_factor_height: Tensor | None = None, scale_factor_width: Tensor | None = None
) -> Tensor:
    """Of the last two axes. Output row i is input row floor(i / factor)."""
    for axis, factor in ((-2, scale_factor_height), (-1, scale_factor_width)):
        scale = 1.0 if factor is None else float(factor)
        rows = torch.arange(int(x.shape[axis] * scale))
        x = x.index_select(axis, (rows / scale).long().clamp(max=x.shape[axis] - 1))
    return x


OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "conv": conv,
    "max_pool": max_pool,
    "upsample_nearest_neighbor": upsample_nearest_neighbor,
}
