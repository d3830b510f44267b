"""From whatever a caller calls a photo to the crops that the network sees.

`decode` gives HWC uint8 RGB pixels, upright, or an `ImageError`; `Pyramid` cuts square crops out of
them at any scale without aliasing.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import ImageError
from .headers import stated_size
from .spelling import address
from .types import Box

__all__ = ["MAX_PIXELS", "MIN_SIDE", "ImageLike", "Pyramid", "crop", "decode", "read_photo"]


class HasArray(Protocol):
    """What NumPy converts by its own method: arrays, tensors."""

    def __array__(self) -> NDArray[Any]: ...


class HasArrayInterface(Protocol):
    """What tells NumPy where its pixels lie: PIL images."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


# A path, an encoded file's bytes, or pixels: a NumPy array or what converts to one (a PIL image).
ImageLike: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | HasArray | HasArrayInterface
)

# The largest phone sensors give 200 megapixels; three times 2^28 bytes are held at once, no more.
MAX_PIXELS = 2**28
# Below this a hand is a blot. The network's own crops have 128 pixels or more.
MIN_SIDE = 16

# Modes of PIL images whose array is what `decode` takes, or ("I", "F") what it refuses with advice:
# PIL itself would cut their values off at 255.
_PIL_PLAIN = frozenset({"L", "RGB", "RGBA", "I", "F"})

_JPEG_SIGNATURE = b"\xff\xd8\xff"
# In a JPEG's entropy-coded data a marker is 0xFF and anything but a stuffed zero, a restart marker
# (D0..D7) or another fill byte.
_NEXT_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")
_JPEG_END = 0xD9
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Files of HEIC's family list their brands up to some such byte at most.
_BRANDS_END = 256


def decode(image: ImageLike) -> NDArray[np.uint8]:
    """Any photo as pixels.

    Args:
        image: one of
            a path, or the bytes, of a JPEG, PNG, WebP, BMP or TIFF file. Its EXIF orientation is
            applied, 16 bits are reduced to 8, grey becomes RGB, transparency is ignored;
            an array in RGB order: (H, W, 3), (H, W, 4) whose alpha is ignored, (H, W) or (H, W, 1)
            grey; uint8 in 0..255, or uint16 in 0..65535;
            a PIL image of any mode of 8 bits a channel (palettes and CMYK are converted), or 16
            bits grey; its EXIF orientation is not applied: see `PIL.ImageOps.exif_transpose`;
            anything else that NumPy converts to such an array.

    Returns:
        (H, W, 3) uint8 RGB, contiguous. An array that is this already is returned as it is.

    Raises:
        ImageError: the file is missing, no image, or truncated; the array has another shape or
            type; the image is smaller than 16 pixels a side, or larger than 2^28 pixels.
    """
    if isinstance(image, (str, os.PathLike)):
        return _decode_bytes(read_photo(image), os.fspath(image))
    if isinstance(image, (bytes, bytearray, memoryview)):
        data = bytes(image)
        return _decode_bytes(data, f"an image of {len(data)} bytes")
    if hasattr(image, "mode") and hasattr(image, "convert"):
        return _from_array(_pil_pixels(image))
    if hasattr(image, "__array__") or hasattr(image, "__array_interface__"):
        try:
            array = np.asarray(image)
        except Exception as cause:  # whatever another library raises: a tensor on a GPU, say
            raise ImageError(
                f"the {type(image).__name__} cannot be converted to a NumPy array: {cause}"
            ) from cause
        return _from_array(array)
    raise ImageError(
        "an image is a path, the bytes of an image file, or an (H, W, 3) uint8 RGB array, "
        f"not {type(image).__name__}"
    )


def read_photo(path: str | os.PathLike[str]) -> bytes:
    """The bytes of an image file.

    Raises:
        ImageError: it cannot be read, or its name cannot be that of a file.
    """
    if not os.fspath(path):  # which `Path` takes for the current folder
        raise ImageError("the path is empty: expected that of an image file")
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as cause:  # ValueError: NUL, or half a character
        if (elsewhere := address(path)) is not None:
            raise ImageError(
                f"cannot read {elsewhere}: addresses are not opened: download it first"
            ) from cause
        reason = getattr(cause, "strerror", None) or str(cause)
        name = str(path) if str(path).isprintable() else repr(str(path))
        raise ImageError(f"cannot read the image file {name}: {reason}") from cause


def _decode_bytes(data: bytes, name: str) -> NDArray[np.uint8]:
    if not data:
        raise ImageError(f"{name} is empty: expected an image file")
    if data.startswith(_JPEG_SIGNATURE):
        size = _check_jpeg(data, name)
    else:
        size = stated_size(data)
    if _is_heic(data):
        raise ImageError(f"{name} is a HEIC photo, which OpenCV cannot read: export it as JPEG")
    if size is not None:  # before the pixels are unpacked
        _check_size(*size, name)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as cause:
        raise ImageError(f"{name} cannot be decoded: {cause.err or cause}") from cause
    if pixels is None:
        raise ImageError(
            f"{name} is not a complete image in a format that OpenCV reads "
            "(JPEG, PNG, WebP, BMP, TIFF): check that the file is what its name says"
        )
    _check_size(pixels.shape[1], pixels.shape[0], name)
    return np.ascontiguousarray(pixels, dtype=np.uint8)


def _is_heic(data: bytes) -> bool:
    """Whether a file's brands say HEIC. "mif1" alone is of AVIF files as well."""
    if data[4:8] != b"ftyp" or data[8:12] not in (b"heic", b"heix", b"mif1"):
        return False
    end = min(int.from_bytes(data[:4], "big"), _BRANDS_END)
    return not {data[at : at + 4] for at in range(16, end, 4)} & {b"avif", b"avis"}


def _check_jpeg(data: bytes, name: str) -> tuple[int, int] | None:
    """Walk a JPEG's markers to its end; (width, height) if its frame header tells.

    OpenCV paints the missing part of a truncated JPEG grey and says nothing, so it is found here.
    """
    size, at = None, 2
    while (found := _NEXT_JPEG_MARKER.search(data, at)) is not None:
        marker, at = found[1][0], found.end()
        if marker == _JPEG_END:
            return size
        if marker == 0x01:  # TEM stands alone
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if marker in _JPEG_FRAMES and len(data) >= at + 7:
            height, width = (int.from_bytes(data[at + i : at + i + 2], "big") for i in (3, 5))
            size = width, height
        at += max(length, 2)  # after a scan's header follow its data, up to the next marker
    raise ImageError(f"{name} is a truncated JPEG (no end marker): fetch or copy the file again")


def _pil_pixels(image: Any) -> NDArray[Any]:
    """A PIL image as an array: in other modes the bytes are palette indices, inks or luma."""
    try:
        if image.mode not in _PIL_PLAIN and not image.mode.startswith("I;16"):
            image = image.convert("RGB")
        return np.asarray(image)
    except (OSError, ValueError) as cause:  # a truncated file is read only now
        raise ImageError(
            f"the PIL image of mode {image.mode} cannot be converted to RGB: {cause}"
        ) from cause


def _from_array(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:  # of either byte order
        array = (array // 257).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ImageError(_wrong_type(array))
    if array.ndim == 2:
        array = array[..., None]  # (H, W, 1)
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        hint = ""
        if array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = ": it looks like channels first, pass image.transpose(1, 2, 0)"
        elif array.ndim == 4:
            hint = ": it looks like a batch, pass one image at a time"
        raise ImageError(
            f"an image array has shape (H, W, 3) RGB, (H, W, 4) or (H, W), not {array.shape}{hint}"
        )
    _check_size(array.shape[1], array.shape[0], "the image")
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)  # (H, W, 3)
    return np.ascontiguousarray(array[..., :3])


def _wrong_type(array: NDArray[Any]) -> str:
    message = f"an image array holds uint8 in 0..255, not {array.dtype}"
    if array.dtype.kind == "f" and array.size:
        if not np.isfinite(array).all():
            return message + ", and this one holds NaN or infinity: repair the source first"
        unit = float(array.max()) <= 1
        scale = "image * 255" if unit else "image"
        message += f" ({array.min():g} to {array.max():g}): pass ({scale}).round()"
        return message + ".clip(0, 255).astype(np.uint8)"
    return message + ": convert it with .astype(np.uint8) if its values are 0..255"


def _check_size(width: int, height: int, name: str) -> None:
    if min(width, height) < MIN_SIDE:
        raise ImageError(
            f"{name} has {width} x {height} pixels: a hand needs at least {MIN_SIDE} a side"
        )
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name} has {width * height / 1e6:.0f} megapixels, more than the "
            f"{MAX_PIXELS / 1e6:.0f} that are read: reduce it first"
        )


class Pyramid:
    """A photo at its own size and, made when first needed, at a half, a quarter, ...

    Crops are cut from the level where one crop pixel covers one to two pixels a side, and from
    there by averaging 2 x 2 samples: in all, close to the mean over the crop pixel's area. What
    lies outside the photo is black (0), as in training.

    Args:
        image: (H, W, 3) uint8 RGB.
    """

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.levels = [image]

    @property
    def width(self) -> int:
        return int(self.levels[0].shape[1])

    @property
    def height(self) -> int:
        return int(self.levels[0].shape[0])

    def crop(self, box: Box, size: int) -> NDArray[np.uint8]:
        """The region ``box``, in pixels of the photo, as (size, size, 3) uint8 RGB."""
        level = self._level(max(0, int(np.log2(max(box.size / size, 1.0)))))
        shrink = np.array([level.shape[1] / self.width, level.shape[0] / self.height])
        samples = size * (2 if box.size * shrink.max() > size else 1)
        # Photo pixel -> level pixel keeps outer corners, not centres: hence the halves.
        corners = (box.corners() + 0.5) * shrink - 0.5  # (4, 2), from the top left, clockwise
        origin = corners[0]
        steps = np.stack([corners[1] - origin, corners[3] - origin], axis=1) / samples  # (2, 2)
        start = origin + steps @ (0.5, 0.5)  # the level pixel under the first sample's centre
        # Warp from the part of the level that the crop covers: OpenCV takes at most 2^15 a side.
        limit = (level.shape[1], level.shape[0])
        low = np.clip(np.floor(corners.min(axis=0)) - 2, 0, limit).astype(int)
        high = np.clip(np.ceil(corners.max(axis=0)) + 3, 0, limit).astype(int)
        if (high <= low).any():
            return np.zeros((size, size, 3), dtype=np.uint8)
        region = level[low[1] : high[1], low[0] : high[0]]
        sampled = cv2.warpAffine(
            region,
            np.column_stack([steps, start - low]),
            (samples, samples),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(0, 0, 0),
        )
        if samples != size:
            sampled = cv2.resize(sampled, (size, size), interpolation=cv2.INTER_AREA)
        return np.asarray(sampled, dtype=np.uint8)

    def _level(self, index: int) -> NDArray[np.uint8]:
        while len(self.levels) <= index and min(self.levels[-1].shape[:2]) > 1:
            height, width = self.levels[-1].shape[:2]
            half = ((width + 1) // 2, (height + 1) // 2)
            smaller = cv2.resize(self.levels[-1], half, interpolation=cv2.INTER_AREA)
            self.levels.append(np.asarray(smaller, dtype=np.uint8))
        return self.levels[min(index, len(self.levels) - 1)]


def crop(image: NDArray[np.uint8], box: Box, size: int) -> NDArray[np.uint8]:
    """One crop of one photo: see `Pyramid`, which is faster for several.

    Args:
        image: (H, W, 3) uint8 RGB.
        box: the region, in pixels of the image; what lies outside the image is black.
        size: side of the result in pixels.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    return Pyramid(image).crop(box, size)
