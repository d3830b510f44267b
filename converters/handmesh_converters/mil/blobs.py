"""Reading Core ML's weight file: a header, and aligned blobs that records point to.

Layout, little-endian: a header of 64 bytes (uint32 number of blobs, uint32 version 2); anywhere
after it records of 64 bytes (uint32 mark, uint32 type, uint64 bytes, uint64 offset of the data). A
program refers to a blob by the offset of its record.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from handmesh.errors import ExportError

__all__ = ["BlobFile"]

_VERSION = 2
_HEADER = struct.Struct("<II")
_RECORD = struct.Struct("<IIQQ")
_MARK = 0xDEADBEEF
# Of the types that a program's tensors may have, how the file numbers them.
_TYPES = {1: "float16", 2: "float32", 3: "uint8", 4: "int8", 6: "int16", 7: "uint16", 14: "int32"}


class BlobFile:
    """A weight file, read whole.

    Raises:
        ExportError: not a weight file, or of another version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._data = path.read_bytes()
        if len(self._data) < _HEADER.size or _HEADER.unpack_from(self._data)[1] != _VERSION:
            raise ExportError(f"{path} is not a Core ML weight file of version {_VERSION}")

    def read(self, offset: int, dtype: np.dtype) -> NDArray:
        """The blob whose record lies at an offset, flat.

        Raises:
            ExportError: there is no such record, or it is of another type than the program says.
        """
        if offset + _RECORD.size > len(self._data):
            raise ExportError(f"{self._path} ends before the record at {offset}")
        mark, kind, size, start = _RECORD.unpack_from(self._data, offset)
        if mark != _MARK or start + size > len(self._data):
            raise ExportError(f"{self._path} has no whole blob at {offset}")
        if _TYPES.get(kind) != dtype.name:
            raise ExportError(
                f"{self._path}: the blob at {offset} is of type {_TYPES.get(kind, kind)}, "
                f"and the program takes it for {dtype.name}"
            )
        return np.frombuffer(self._data, dtype.newbyteorder("<"), size // dtype.itemsize, start)
