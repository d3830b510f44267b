"""Room on the disk: taken before it is written to, and told where there is none."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

from handmesh.errors import InputError

# What file systems say that cannot set blocks aside: there the file grows as it is written.
_CANNOT = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def free_space(path: Path) -> str:
    """In words, of the disk that a file is to lie on."""
    with contextlib.suppress(OSError):
        return f"{shutil.disk_usage(path.parent).free / 1e6:.1f} MB are free there"
    return "how much is free there is not known"


def new_array(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[np.generic]:
    """A .npy file of zeros, mapped for writing, whose room on the disk is taken already.

    A mapped file without it has holes, and a process that writes into one on a full disk is killed
    (SIGBUS) before it could say anything.

    Raises:
        InputError: the file cannot be made, or the disk is too full for it.
    """
    needed = np.dtype(dtype).itemsize * math.prod(shape)
    try:
        array = np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape)
        _take_room(path)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise InputError(
            f"cannot write {path}, which takes {needed} bytes ({error.strerror or error}); "
            f"{free_space(path)}: make room, or use a folder on another disk"
        ) from error
    return array


def _take_room(path: Path) -> None:
    """Give a file all the blocks of its length.

    Raises:
        OSError: there are too few.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
