"""Pickles of numbers, read with suspicion: nothing in them is called but what stands here.

NumPy's own functions for rebuilding arrays trust what they are given: ``numpy.ndarray`` itself
makes an array over whatever memory it is told of, and an array of objects holds pointers. None of
them is handed to a pickle: arrays are rebuilt here, from a number type and as many bytes as fit.
"""

from __future__ import annotations

import codecs
import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Booleans, integers, floats and complex numbers: no objects, no records, no dates.
NUMBERS = "biufc"


class _NumberType:
    """What a pickle takes for a `numpy.dtype`: that of a number, whatever it says of itself."""

    def __init__(self, code: str) -> None:
        dtype = np.dtype(code if isinstance(code, str) else "O")
        if dtype.kind not in NUMBERS:
            raise pickle.UnpicklingError(f"it holds an array of {code!r}, which is refused")
        self.dtype = dtype

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """The byte order; what else there is does not concern numbers."""
        if state[1] not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError(f"it asks for the byte order {state[1]!r}")
        self.dtype = self.dtype.newbyteorder(state[1])

    def array(self, data: object, shape: Any, order: str) -> NDArray[Any]:
        """Those bytes as an array of its own; they must be as many as it takes."""
        values: NDArray[Any] = np.frombuffer(_bytes_of(data), self.dtype).copy()
        return values.reshape(shape, order="F" if order == "F" else "C")


class _NumberArray(np.ndarray[Any, Any]):
    """An empty array that a pickle fills, as it would any of NumPy's."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, is_fortran, data = state
        whole = kind.array(data, shape, "F" if is_fortran else "C")
        super().__setstate__((1, whole.shape, whole.dtype, is_fortran, whole.tobytes("A")))


class _NumbersOnly(pickle.Unpickler):
    """Builds builtin containers, numbers, strings and arrays of numbers.

    What a pickle may call are methods: on a function it could set attributes.
    """

    def find_class(self, module: str, name: str) -> Any:
        allowed: dict[tuple[str, str], Callable[..., Any] | None] = {
            ("numpy", "ndarray"): None,  # only ever an argument, of `_reconstruct`
            ("numpy", "dtype"): self._number_type,
            ("numpy._core.multiarray", "_reconstruct"): self._empty,
            ("numpy._core.multiarray", "scalar"): self._scalar,
            ("numpy._core.numeric", "_frombuffer"): self._from_buffer,
            ("_codecs", "encode"): self._encoded,
        }
        try:
            return allowed[module.replace("numpy.core", "numpy._core"), name]
        except KeyError as error:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which is refused"
            ) from error

    def _number_type(self, code: str, *_: object) -> _NumberType:
        return _NumberType(code)

    def _empty(self, *_: object) -> _NumberArray:
        return np.empty(0, dtype=np.uint8).view(_NumberArray)

    def _scalar(self, kind: _NumberType, data: bytes) -> Any:
        return kind.array(data, (1,), "C")[0]

    def _from_buffer(
        self, data: bytes, kind: _NumberType, shape: Any, order: str, axes: Any = None
    ) -> NDArray[Any]:
        whole = kind.array(data, shape, order)
        return whole if axes is None else whole.transpose(axes)

    def _encoded(self, text: str, encoding: str) -> bytes:
        """`codecs.encode` for the one encoding in which pickles write bytes."""
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"it asks for the codec {encoding!r}, which is refused")
        return codecs.latin_1_encode(text)[0]


def _bytes_of(data: object) -> bytes:
    """Python 2 wrote bytes as text."""
    if isinstance(data, str):
        return data.encode("latin1")
    if isinstance(data, (bytes, bytearray)):
        return bytes(data)
    raise pickle.UnpicklingError(f"it holds an array of which the bytes are {type(data)}")


def loads(data: bytes) -> Any:
    """The numbers, strings, containers and arrays of numbers in a pickle. It cannot run code.

    Raises:
        Exception: nearly anything, if the pickle is broken or holds something else.
    """
    return _NumbersOnly(io.BytesIO(data), encoding="latin1").load()
