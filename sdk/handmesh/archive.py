"""Named arrays in a file: a byte-reproducible .npz, and a hash that does not depend on the file."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from .atomic import replacing
from .errors import BundleError


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Write a compressed .npz atomically; the same arrays give the same bytes."""
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in sorted(arrays.items()):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            # A fixed date, or two builds would differ in bytes.
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(2026, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, buffer.getvalue())


def read_arrays(path: str | os.PathLike[str], remedy: str) -> dict[str, NDArray[np.generic]]:
    """All arrays of an .npz file.

    Args:
        path: the file. remedy: what to do when it cannot be read, for the message.

    Raises:
        BundleError: the file is missing, truncated, damaged or not an .npz.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise BundleError(f"there is no file {path}; {remedy}") from error
    except Exception as error:  # damaged bytes make zipfile, zlib and NumPy raise a dozen types
        raise BundleError(f"{path} is not a readable .npz file ({error}); {remedy}") from error


def hash_arrays(label: str, arrays: Mapping[str, NDArray[np.generic]]) -> str:
    """SHA-256, in hex, of a label and of the names, types, shapes and bytes of all arrays."""
    digest = hashlib.sha256(label.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name}{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
