"""Which operations of a program with precision fp16 compute in float16."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from handmesh.nn.config import JOINT_COUNT

__all__ = ["computes_in_half"]

# Sums over many values, scores and differences of near values: little work, and rounding shows.
_EXACT = {"mul", "reduce_max", "reduce_mean", "reduce_sum", "sigmoid", "softmax", "stack", "sub"}
# What computes nothing stays in the precision of what it is given; if of both, in the higher one.
_MOVING = {"concat", "gather", "pad", "relu", "reshape", "slice_by_index", "transpose"}
# These too, but one value in float16 takes them along.
_JOINING = {"add", "batch_norm"}
_POINT_WIDTHS = {1, 2, 3, (JOINT_COUNT + 1) * 3}
# Larger constants than these are worth halving, whatever they make of it.
_LARGEST_OF_POINTS, _LARGEST_OF_FIRST_MAPS = 1 << 18, 80_000


def computes_in_half(operation: Any) -> bool:
    """For coremltools, which asks about operations in their order and rewrites as it goes.

    Convolutions, layers and graph convolutions do. In float32 are:

    - soft-argmax, coordinates and their blend, the joints' regression and the subtraction of the
      wrist's depth: the root's depth is solved from these, and a unit in the last place of a
      float16 near 1 moves it by a tenth of a millimetre for most hands, half of one for some;
    - the first convolutions as long as they are small, where an error of rounding reaches
      everything. For `light` these are the stem and three stages. With one stage less, the depth
      of one crop of 44 that the network is unsure of moves by 0.013 bones, where 0.01 is allowed.
    """
    kind = operation.op_type
    exact = [_is_exact(value) for value in _inputs(operation) if value.val is None]
    if kind in _EXACT:
        return False
    if kind in _MOVING:
        return not any(exact)
    (output,) = operation.outputs
    makes_points = output.rank > 0 and output.shape[-1] in _POINT_WIDTHS
    if kind in _JOINING:
        return not (makes_points or all(exact))
    constants = (value.val for value in _inputs(operation) if value.val is not None)
    largest = max(map(np.size, constants), default=0)
    if kind == "conv":
        return not all(exact) or largest > _LARGEST_OF_FIRST_MAPS
    return not makes_points or largest > _LARGEST_OF_POINTS


def _inputs(operation: Any) -> Iterator[Any]:
    """Those that are tensors or numbers, tuples unpacked."""
    for value in operation.inputs.values():
        yield from value if isinstance(value, tuple | list) else (value,)


def _is_exact(value: Any) -> bool:
    """Whether it comes from an operation in float32: what was halved ends in a cast."""
    return value.op is not None and value.op.op_type != "cast"
