"""Checks of arrays handed to the renderer: C++ must only ever see what it expects."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from handmesh.errors import InputError


def checked(
    name: str,
    value: object,
    dtype: npt.DTypeLike,
    shape: tuple[int | None, ...],
    *,
    low: float | None = None,
    high: float | None = None,
) -> npt.NDArray[Any]:
    """A C-contiguous array of the dtype and shape, finite and within [low, high].

    Args:
        name: what to call it in the message.
        value: the array. Floating arrays of another precision are converted; integers must be
            integers already, and a float array is never taken for one.
        dtype: the dtype returned.
        shape: expected shape, None for any length.
        low: smallest value allowed.
        high: largest value allowed.

    Raises:
        InputError: wrong kind, shape or values.
    """
    wanted = np.dtype(dtype)
    if not isinstance(value, np.ndarray):
        raise InputError(f"{name}: expected a NumPy array, got {type(value).__name__}")
    kinds = "f" if wanted.kind == "f" else "iu"
    if value.dtype.kind not in kinds:
        raise InputError(f"{name}: expected dtype {wanted}, got {value.dtype}")
    fits = value.ndim == len(shape) and all(
        want is None or want == got for want, got in zip(shape, value.shape, strict=True)
    )
    if not fits:
        text = ", ".join("any" if want is None else str(want) for want in shape)
        raise InputError(f"{name}: expected shape ({text}), got {value.shape}")
    if wanted.kind == "f" and not np.isfinite(value).all():
        count = int(np.count_nonzero(~np.isfinite(value)))
        raise InputError(f"{name}: {count} values are NaN or infinite; all must be finite")
    if value.size and low is not None and value.min() < low:
        raise InputError(f"{name}: values must be at least {low}, the smallest is {value.min()}")
    if value.size and high is not None and value.max() > high:
        raise InputError(f"{name}: values must be at most {high}, the largest is {value.max()}")
    return np.ascontiguousarray(value, dtype=wanted)
