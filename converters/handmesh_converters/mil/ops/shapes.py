"""What moves values without changing them, or repeats one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["OPERATIONS"]

_PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


def reshape(x: Tensor, shape: Tensor) -> Tensor:
    """-1 is what remains, 0 the size of the same axis of x."""
    sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(shape.tolist())]
    return x.reshape(sizes)


def gather(
    x: Tensor,
    indices: Tensor,
    axis: Tensor | None = None,
    batch_dims: Tensor | None = None,
    validate_indices: Tensor | None = None,
) -> Tensor:
    """Slices of an axis; negative indices count from its end. The first batch_dims axes of x and
    indices go together."""
    del validate_indices  # a wrong index fails here in any case
    where = 0 if axis is None else int(axis)
    where = where + x.ndim if where < 0 else where
    batch = 0 if batch_dims is None else int(batch_dims)
    batch = batch + indices.ndim if batch < 0 else batch
    size = x.shape[where]
    rows = torch.where(indices < 0, indices + size, indices)
    if batch == 0:
        taken = x.index_select(where, rows.flatten())
        return taken.reshape(*x.shape[:where], *indices.shape, *x.shape[where + 1 :])
    one = torch.tensor(where - 1), torch.tensor(batch - 1)
    return torch.stack([gather(a, b, *one) for a, b in zip(x, rows, strict=True)])


def gather_along_axis(
    x: Tensor,
    indices: Tensor,
    axis: Tensor | None = None,
    validate_indices: Tensor | None = None,
) -> Tensor:
    """Of each line along an axis the places that the same line of indices names."""
    del validate_indices  # a wrong index fails here in any case
    where = 0 if axis is None else int(axis)
    size = x.shape[where]
    return x.gather(where, torch.where(indices < 0, indices + size, indices))


def topk(
    x: Tensor,
    k: Tensor | None = None,
    axis: Tensor | None = None,
    ascending: Tensor | None = None,
    sort: Tensor | None = None,
    return_indices: Tensor | None = None,
    output_indices_dtype: str | None = None,
) -> tuple[Tensor, ...]:
    """The largest values of an axis and their places; ascending, the smallest ones."""
    del output_indices_dtype  # whole numbers are int64 here
    found = x.topk(
        1 if k is None else int(k),
        -1 if axis is None else int(axis),
        largest=not bool(ascending),
        sorted=sort is None or bool(sort),
    )
    with_indices = return_indices is None or bool(return_indices)
    return (found.values, found.indices) if with_indices else (found.values,)


def slice_by_index(
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None = None,
    begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
) -> Tensor:
    """As Python's slices; a mask ignores a bound, or takes one place and drops the axis."""

    def flags(mask: Tensor | None) -> list[bool]:
        return [False] * x.ndim if mask is None else [bool(flag) for flag in mask.tolist()]

    steps = [1] * x.ndim if stride is None else stride.tolist()
    key: list[int | slice] = []
    for first, last, step, open_begin, open_end, single in zip(
        begin.tolist(),
        end.tolist(),
        steps,
        flags(begin_mask),
        flags(end_mask),
        flags(squeeze_mask),
        strict=True,
    ):
        if single:
            key.append(first)
        else:
            key.append(slice(None if open_begin else first, None if open_end else last, step))
    # NumPy's slices may go backwards, torch's may not.
    return torch.from_numpy(np.array(x.numpy()[tuple(key)]))


def concat(values: list[Tensor], axis: Tensor, interleave: Tensor | None = None) -> Tensor:
    """One after the other; interleaved, the first of each, the second of each, ..."""
    if not bool(interleave):
        return torch.cat(values, int(axis))
    where = int(axis) % values[0].ndim
    return torch.stack(values, where + 1).flatten(where, where + 1)


def pad(
    x: Tensor, pad: Tensor, mode: str = "constant", constant_val: Tensor | None = None
) -> Tensor:
    """Before and after each of the last axes, the first of these first."""
    pairs = pad.reshape(-1, 2).tolist()
    pairs = [[0, 0]] * (x.ndim - len(pairs)) + pairs
    if mode == "constant":
        value = 0.0 if constant_val is None else float(constant_val)
        return F.pad(x, [side for pair in reversed(pairs) for side in pair], value=value)
    return torch.from_numpy(np.pad(x.numpy(), pairs, mode=_PAD_MODES[mode]))  # type: ignore[call-overload]


def squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(axes.tolist())


def expand_dims(x: Tensor, axes: Tensor) -> Tensor:
    """Axes count in the result."""
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes.tolist()):
        x = x.unsqueeze(axis)
    return x


OPERATIONS: dict[str, Callable[..., Tensor | tuple[Tensor, ...]]] = {
    "concat": concat,
    "expand_dims": expand_dims,
    "fill_like": lambda ref_tensor, value: torch.full_like(ref_tensor, float(value)),
    "gather": gather,
    "gather_along_axis": gather_along_axis,
    "pad": pad,
    "reshape": reshape,
    "slice_by_index": slice_by_index,
    "squeeze": squeeze,
    "stack": lambda values, axis: torch.stack(values, int(axis)),
    "tile": lambda x, reps: x.tile(reps.tolist()),
    "topk": topk,
    "transpose": lambda x, perm: x.permute(perm.tolist()),
}
