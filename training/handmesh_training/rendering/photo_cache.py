"""Photos as backgrounds, shrunk once and then read from disk as they are needed.

Thousands of photos do not fit into memory, let alone into that of every worker. They are decoded
one by one, on first use of a folder, to a file in the user's cache folder; all processes map that
file, so that memory holds only what the system sees fit to keep of it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from handmesh.errors import ImageError, InputError
from handmesh_training.opencv import cv2
from handmesh_training.rendering.native import cache_folder
from handmesh_training.rendering.textures import TextureStack, log_brightness, srgb_to_linear

LAYOUT = b"handmesh-photos-1"
TEXELS, TABLES = "texels.bin", "tables.npz"


def open_photos(files: Sequence[Path], side: int) -> tuple[TextureStack, npt.NDArray[np.float32]]:
    """Photos (T files) as a stack on disk, and the brightness (T,) of each.

    Args:
        files: the photos. side: shorter side in px to which larger ones are shrunk.

    Raises:
        ImageError: a file that is not an image.
        InputError: the cache folder cannot be written to.
    """
    place = cache_folder() / f"photos-{_digest(files, side)[:20]}"
    try:
        if not place.is_dir():
            _write(files, side, place)
        with np.load(place / TABLES) as tables:
            stack = TextureStack.mapped(place / TEXELS, tables["offset"], tables["extent"])
            return stack, tables["brightness"]
    except OSError as error:
        raise InputError(
            f"{len(files)} photos cannot be kept in {place}, about a megabyte each: {error}; make "
            "room there, or name another cache folder in XDG_CACHE_HOME"
        ) from error


def _digest(files: Sequence[Path], side: int) -> str:
    """Of what decides the pixels: where each file lies, its size and when it was written."""
    digest = hashlib.sha256(LAYOUT + f"\0{side}\0{cv2.__version__}\0".encode())
    for file in files:
        state = file.stat()
        digest.update(f"{file.resolve()}\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _write(files: Sequence[Path], side: int, place: Path) -> None:
    brightness: list[float] = []

    def noted() -> Iterator[npt.NDArray[np.float32]]:
        for file in files:
            image = _read(file, side)
            brightness.append(log_brightness(image))
            yield image

    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        with (made / TEXELS).open("wb") as out:
            offset, extent = TextureStack.write(noted(), lambda texels: out.write(texels.data))
        np.savez(
            made / TABLES,
            offset=offset,
            extent=extent,
            brightness=np.array(brightness, dtype=np.float32),
        )
        try:
            os.rename(made, place)
        except OSError:
            if not place.is_dir():  # else another process was quicker
                raise


def _read(file: Path, side: int) -> npt.NDArray[np.float32]:
    """(H, W, 3) float32 linear light in [0, 1]."""
    pixels = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ImageError(f"{file}: not an image that OpenCV can read; remove it")
    smaller = side / min(pixels.shape[:2])
    if smaller < 1:
        pixels = cv2.resize(pixels, None, fx=smaller, fy=smaller, interpolation=cv2.INTER_AREA)
    return srgb_to_linear(pixels[..., ::-1] / np.float32(255))
