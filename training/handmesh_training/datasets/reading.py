"""Files of data sets, read with suspicion: they may be missing, cut short, or somebody's trap."""

from __future__ import annotations

import json
import mmap
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from handmesh.errors import ImageError, InputError

from . import pickles
from .dataset import require_file

# Where a list of lists ends: the inner list's bracket, then its own.
_ROW_END = re.compile(rb"\]\s*\]")


def read_pixels(path: Path, channels: int, what: str) -> NDArray[np.uint8]:
    """The 8-bit values of an image file as they are: no orientation, no conversion of colours.

    For depth coded in colours, masks, and pictures with transparency; photos go through
    `handmesh.imaging.decode`.

    Args:
        channels: 1 gives (H, W); 3 gives (H, W, 3) RGB; 4 gives (H, W, 4) RGBA.
        what: what the file should hold, for the error.

    Raises:
        ImageError: missing, truncated, no image, or another number of channels or bits.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read {path}, {what}: {error.strerror}") from error
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if pixels is None:
        raise ImageError(f"{path}, {what}, is not a complete image: fetch or unpack it again")
    found = 1 if pixels.ndim == 2 else pixels.shape[2]
    if pixels.dtype != np.uint8 or found != channels:
        raise ImageError(
            f"{path}, {what}: expected {channels} channels of 8 bits, got {found} of {pixels.dtype}"
        )
    order = {1: None, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}[channels]
    return np.asarray(pixels if order is None else cv2.cvtColor(pixels, order), dtype=np.uint8)


def read_json(path: Path, what: str) -> Any:
    """A whole JSON file.

    Raises:
        InputError: missing, truncated, or not JSON.
    """
    try:
        return json.loads(require_file(path, what).read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}, {what}, is not complete JSON ({error}); fetch it again"
        ) from error


def read_mat(path: Path, name: str, what: str) -> NDArray[np.float64]:
    """The variable ``name`` of a MATLAB file.

    Raises:
        InputError: missing, truncated, not a MATLAB file up to version 7, or without ``name``.
    """
    import scipy.io

    require_file(path, what)
    try:
        return np.asarray(scipy.io.loadmat(path, variable_names=[name])[name], dtype=np.float64)
    except Exception as error:  # SciPy's parser lets through whatever it trips over
        raise _bad_mat(path, name, what, error) from error


def mat_shape(path: Path, name: str, what: str) -> tuple[int, ...]:
    """The shape of that variable, from its header alone. Raises as `read_mat`."""
    import scipy.io

    require_file(path, what)
    try:
        return next(tuple(shape) for key, shape, _ in scipy.io.whosmat(path) if key == name)
    except Exception as error:
        raise _bad_mat(path, name, what, error) from error


def _bad_mat(path: Path, name: str, what: str, error: Exception) -> InputError:
    return InputError(
        f"{path}, {what}: expected a complete MATLAB file (up to v7) with the variable {name!r} "
        f"({type(error).__name__}: {error}); fetch it again"
    )


def read_pickle(path: Path, what: str) -> Any:
    """A pickle of numbers, strings, containers and arrays of numbers. It cannot run code.

    Raises:
        InputError: missing, truncated, or it asks for anything else.
    """
    try:
        data = require_file(path, what).read_bytes()
        return pickles.loads(data)
    except Exception as error:  # a broken pickle may raise nearly anything
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}, {what}, is not a complete pickle of plain values and arrays ({error}); "
            "fetch it again"
        ) from error


class JsonRows:
    """A JSON file that is a list of matrices, one of which is read at a time.

    The files of large sets hold gigabytes of text; parsed as a whole they need ten times that. Here
    the file is scanned once for where each row ends, and mapped, not read.

    Args:
        path: the file. what: what it holds, for errors.

    Raises:
        InputError: missing, truncated, or not a list of lists of lists.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path = require_file(path, what)
        self.what = what
        self._map: mmap.mmap | None = None
        data = self._data()
        ends = np.array([match.end() for match in _ROW_END.finditer(data)], dtype=np.int64)
        head, tail = data[:64].lstrip(), data[-64:].rstrip()
        closed = re.search(rb"\]\s*\]\s*\]$", tail) is not None
        if not len(ends) or not closed or re.match(rb"\[\s*\[\s*\[", head) is None:
            raise InputError(f"{path}, {what}, is not a complete list of matrices; fetch it again")
        self._ends = ends

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> NDArray[np.float64]:
        """Matrix ``index`` as float64.

        Raises:
            InputError: the row is no matrix of numbers.
        """
        data = self._data()
        start = data.find(b"[") + 1 if index == 0 else int(self._ends[index - 1])
        text = data[start : int(self._ends[index])].lstrip(b", \t\r\n")
        try:
            return np.array(json.loads(text), dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"{self.path}, {self.what}: row {index} is no matrix") from error

    def _data(self) -> mmap.mmap:
        if self._map is None:
            try:
                with self.path.open("rb") as file:
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:  # ValueError: an empty file
                raise InputError(f"{self.path}, {self.what}, cannot be read: {error}") from error
        return self._map

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}
