"""What a photo's EXIF block says about the camera: the focal length, read without any library.

EXIF is a small TIFF file inside a JPEG, PNG or WebP (CIPA DC-008, Exif 3.0). Two ways lead from its
entries to a focal length in pixels:

- FocalLengthIn35mmFilm f35: the lens that sees as much on 36 x 24 mm film. Its diagonal of 43.27 mm
  is the picture's (CIPA DCG-001), so f = f35 / 43.27 * diagonal in pixels. It is a whole number, so
  that 26 mm stands for 25.5 to 26.5: 2 %. It holds however the photo was reduced.
- FocalLength in mm and FocalPlaneXResolution in pixels a mm, of the photo at the size that
  PixelXDimension states.

The first is taken where both are there. Neither survives cropping, which is refused where it shows.
"""

from __future__ import annotations

import math
import os
import struct

from .errors import CameraError
from .imaging import ImageLike, decode, read_photo
from .types import Camera

__all__ = ["camera_from_exif"]

_ORIENTATION, _EXIF_IFD = 0x0112, 0x8769
_FOCAL_LENGTH, _FOCAL_LENGTH_35MM = 0x920A, 0xA405
_PIXELS_X, _PIXELS_Y = 0xA002, 0xA003
_PLANE_X, _PLANE_Y, _PLANE_UNIT = 0xA20E, 0xA20F, 0xA210
_USED = frozenset(
    {_ORIENTATION, _EXIF_IFD, _FOCAL_LENGTH, _FOCAL_LENGTH_35MM}
    | {_PIXELS_X, _PIXELS_Y, _PLANE_X, _PLANE_Y, _PLANE_UNIT}
)
# TIFF types with one number each: BYTE, SHORT, LONG, RATIONAL.
_FORMATS = {1: "B", 3: "H", 4: "I", 5: "II"}
_DIAGONAL_35MM = math.hypot(36, 24)
# FocalPlaneResolutionUnit: inch (the default), centimetre, millimetre, micrometre.
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 1e-3}
# Fields of view along the longer side that no lens for taking photos of hands goes beyond.
_NARROWEST_DEG, _WIDEST_DEG = 2.0, 160.0
# Rounding the sides of a reduced photo changes their ratio by less.
_ASPECT_TOLERANCE = 0.02
_REMEDY = "give the camera's field of view instead, or leave the camera to be assumed"


def camera_from_exif(
    photo: ImageLike, width: int | None = None, height: int | None = None
) -> Camera:
    """The intrinsics of a photo; see `handmesh.types.Camera.from_exif`."""
    name, data = _bytes_of(photo)
    tags = _tags(data, name)
    if width is None or height is None:
        height, width = decode(data).shape[:2]
    _check_not_cropped(tags, width, height, name)
    focal = _focal_from_35mm(tags, width, height) or _focal_from_plane(tags, width, height)
    if focal is None:
        raise CameraError(
            f"the EXIF of {name} tells no focal length (neither FocalLengthIn35mmFilm nor "
            f"FocalLength with FocalPlaneXResolution): {_REMEDY}"
        )
    longer = focal[0] if width >= height else focal[1]
    degrees = math.degrees(2 * math.atan(max(width, height) / (2 * longer)))
    if not _NARROWEST_DEG <= degrees <= _WIDEST_DEG:
        raise CameraError(
            f"the EXIF of {name} gives a field of view of {degrees:.3g} degrees, which cannot be: "
            f"{_REMEDY}"
        )
    return Camera(*focal, (width - 1) / 2, (height - 1) / 2, width, height)


def _bytes_of(photo: ImageLike) -> tuple[str, bytes]:
    if isinstance(photo, (str, os.PathLike)):
        return os.fspath(photo), read_photo(photo)
    if isinstance(photo, (bytes, bytearray, memoryview)):
        data = bytes(photo)
        return f"a photo of {len(data)} bytes", data
    raise CameraError(
        f"pixels carry no EXIF ({type(photo).__name__} came): pass the photo's path or the bytes "
        f"of its file, or {_REMEDY}"
    )


def _focal_from_35mm(tags: dict[int, float], width: int, height: int) -> tuple[float, float] | None:
    equivalent = tags.get(_FOCAL_LENGTH_35MM, 0.0)
    if equivalent <= 0:  # 0 means unknown
        return None
    focal = equivalent / _DIAGONAL_35MM * math.hypot(width, height)
    return focal, focal


def _focal_from_plane(
    tags: dict[int, float], width: int, height: int
) -> tuple[float, float] | None:
    focal_mm, across = tags.get(_FOCAL_LENGTH, 0.0), tags.get(_PLANE_X, 0.0)
    unit = _UNIT_MM.get(int(tags.get(_PLANE_UNIT, 2)))
    if focal_mm <= 0 or across <= 0 or unit is None:
        return None
    down = tags.get(_PLANE_Y, 0.0) or across
    if tags.get(_ORIENTATION, 1) >= 5:  # the sensor's x is the upright photo's y
        across, down = down, across
    stated = max(tags.get(_PIXELS_X, 0.0), tags.get(_PIXELS_Y, 0.0)) or max(width, height)
    scale = focal_mm / unit * max(width, height) / stated
    return scale * across, scale * down


def _check_not_cropped(tags: dict[int, float], width: int, height: int, name: str) -> None:
    stated = sorted((tags.get(_PIXELS_X, 0.0), tags.get(_PIXELS_Y, 0.0)))
    if stated[0] <= 0:
        return
    short, long = sorted((width, height))
    # A photo of a few hundred pixels is rounded more coarsely.
    allowed = _ASPECT_TOLERANCE + 1 / short
    if abs(stated[1] / stated[0] / (long / short) - 1) > allowed:
        raise CameraError(
            f"the EXIF of {name} describes {stated[1]:.0f} x {stated[0]:.0f} pixels, and there are "
            f"{long} x {short}: it was cropped, and its focal length with it is no longer known: "
            f"{_REMEDY}"
        )


def _tags(data: bytes, name: str) -> dict[int, float]:
    """The numbers that are of use here, by tag, of the first image and its EXIF part."""
    block = _exif_block(data)
    if block is None:
        raise CameraError(
            f"{name} carries no EXIF (messengers and many programs remove it): {_REMEDY}"
        )
    try:
        order = {b"II*\0": "<", b"MM\0*": ">"}[block[:4]]
        first = _directory(block, order, *struct.unpack_from(order + "I", block, 4))
        return first | (
            _directory(block, order, int(first[_EXIF_IFD])) if _EXIF_IFD in first else {}
        )
    except (KeyError, struct.error) as cause:
        raise CameraError(f"the EXIF of {name} is damaged: {_REMEDY}") from cause


def _directory(block: bytes, order: str, at: int) -> dict[int, float]:
    """The entries of one TIFF directory that hold one number each."""
    (count,) = struct.unpack_from(order + "H", block, at)
    tags: dict[int, float] = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, length = struct.unpack_from(order + "HHI", block, entry)
        if tag not in _USED or length != 1 or kind not in _FORMATS:
            continue
        layout = order + _FORMATS[kind]
        place = entry + 8
        if struct.calcsize(layout) > 4:
            (place,) = struct.unpack_from(order + "I", block, place)
        values = struct.unpack_from(layout, block, place)
        if len(values) == 1:
            tags[tag] = float(values[0])
        elif values[1]:  # a rational over 0 is the standard's way to say unknown
            tags[tag] = values[0] / values[1]
    return tags


def _exif_block(data: bytes) -> bytes | None:
    """The TIFF structure inside a JPEG, PNG, WebP or TIFF file; None where there is none."""
    if data.startswith(b"\xff\xd8"):
        return _in_jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _in_chunks(data, 8, ">I4s", b"eXIf", trailer=4, even=False)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _in_chunks(data, 12, "<4sI", b"EXIF", trailer=0, even=True)
    return data if data[:4] in (b"II*\0", b"MM\0*") else None


def _in_jpeg(data: bytes) -> bytes | None:
    at = 2
    while len(data) >= at + 4 and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xDA:  # the pixels begin: all blocks came before
            return None
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            return data[at + 10 : at + 2 + length]
        at += 1 if marker == 0xFF else 2 + max(length, 2)
    return None


def _in_chunks(
    data: bytes, at: int, layout: str, wanted: bytes, trailer: int, even: bool
) -> bytes | None:
    """The body of the first chunk of that name, in a PNG (length first) or a RIFF (name first)."""
    while len(data) >= at + 8:
        head = struct.unpack_from(layout, data, at)
        name, length = sorted(head, key=lambda part: isinstance(part, int))
        if name == wanted:
            return data[at + 8 : at + 8 + length].removeprefix(b"Exif\0\0")
        at += 8 + length + trailer + (length % 2 if even else 0)
    return None
