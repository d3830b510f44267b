"""Compressed constants: what a runtime expands when it loads a program."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

__all__ = ["OPERATIONS"]


def _bits(packed: Tensor, count: int) -> np.ndarray:
    """The first bits of bytes, each from its lowest up: (count,) of 0 and 1."""
    return np.unpackbits(packed.numpy().astype(np.uint8), count=count, bitorder="little")


def lut_to_dense(indices: Tensor, lut: Tensor, shape: Tensor) -> Tensor:
    """A palette, and for every element its place in it, in as few bits as the palette needs."""
    width = (len(lut) - 1).bit_length()
    sizes = shape.tolist()
    bits = _bits(indices, width * int(np.prod(sizes))).reshape(-1, width)
    places = bits.astype(np.int64) @ (1 << np.arange(width))
    return lut[torch.from_numpy(places)].reshape(sizes)


def sparse_to_dense(nonzero_data: Tensor, mask: Tensor, shape: Tensor) -> Tensor:
    """A bit for every element, and the values where it is set, in the order of memory."""
    sizes = shape.tolist()
    chosen = torch.from_numpy(_bits(mask, int(np.prod(sizes))).astype(bool))
    dense = torch.zeros(len(chosen))
    dense[chosen] = nonzero_data
    return dense.reshape(sizes)


def affine_dequantize(
    quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: Tensor
) -> Tensor:
    """(q - zero point) * scale, both scalars or vectors along an axis."""

    def along(values: Tensor) -> Tensor:
        if values.ndim == 0:
            return values.float()
        sizes = [1] * quantized_data.ndim
        sizes[int(axis)] = -1
        return values.float().reshape(sizes)

    return (quantized_data.float() - along(zero_point)) * along(scale)


OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "constexpr_affine_dequantize": affine_dequantize,
    "constexpr_lut_to_dense": lut_to_dense,
    "constexpr_sparse_to_dense": sparse_to_dense,
}
