"""How large a photo says it is, before it is unpacked: a few bytes may stand for gigabytes.

One function for each format that OpenCV reads, by what its files begin with. Each gives
(width, height), or None where the header is cut short or of a kind that is not known here: then the
decoder has the last word.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

__all__ = ["stated_size"]

Size = tuple[int, int]

_PNM = re.compile(rb"P[1-7Ff]\s+(?:#[^\n]*\n\s*)*(\d{1,10})\s+(\d{1,10})")
_PAM = re.compile(rb"P7\s.{0,200}?WIDTH\s+(\d{1,10})\s+HEIGHT\s+(\d{1,10})", re.DOTALL)
_HDR = re.compile(rb"[-+]Y\s+(\d{1,10})\s+[-+]X\s+(\d{1,10})")
# A header's comments and boxes come before the size, but not many of them.
_REACH = 4096
_TIFF_WIDTH, _TIFF_HEIGHT = 0x0100, 0x0101


def stated_size(data: bytes) -> Size | None:
    """(width, height) in pixels as the header of an image file says, None where it does not.

    Args:
        data: the file's bytes. Of JPEG files None: their size is far within, behind other blocks.
    """
    for start, read in _READERS:
        if data.startswith(start):
            try:
                return read(data)
            except (IndexError, KeyError, struct.error):  # cut short
                return None
    if data[4:8] == b"ftyp":
        return _avif(data)
    return None


def _png(data: bytes) -> Size:
    return struct.unpack_from(">II", data, 16)


def _bmp(data: bytes) -> Size:
    (length,) = struct.unpack_from("<I", data, 14)
    if length == 12:  # of OS/2
        return struct.unpack_from("<HH", data, 18)
    width, height = struct.unpack_from("<ii", data, 18)
    return abs(width), abs(height)  # negative: rows from the top


def _gif(data: bytes) -> Size:
    return struct.unpack_from("<HH", data, 6)


def _webp(data: bytes) -> Size | None:
    if data[12:16] != b"VP8X":
        return None  # 14 bits a side: never too large
    sides = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    return next(sides), next(sides)


def _sun(data: bytes) -> Size:
    return struct.unpack_from(">II", data, 4)


def _pnm(data: bytes) -> Size | None:
    found = _PNM.match(data[:_REACH]) or _PAM.match(data[:_REACH])
    return (int(found[1]), int(found[2])) if found else None


def _hdr(data: bytes) -> Size | None:
    found = _HDR.search(data[:_REACH])
    return (int(found[2]), int(found[1])) if found else None


def _jpeg2000(data: bytes) -> Size | None:
    at = data.find(b"ihdr", 0, _REACH)
    if at < 0:
        return None
    height, width = struct.unpack_from(">II", data, at + 4)
    return width, height


def _codestream(data: bytes) -> Size:
    right, bottom, left, top = struct.unpack_from(">IIII", data, 8)
    return max(0, right - left), max(0, bottom - top)


def _avif(data: bytes) -> Size | None:
    """The largest of the pictures in it."""
    sizes = [
        struct.unpack_from(">II", data, found.end() + 4)
        for found in re.finditer(b"ispe", data[:_REACH])
        if len(data) >= found.end() + 12
    ]
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _tiff(data: bytes) -> Size:
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    sides: dict[int, int] = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in (_TIFF_WIDTH, _TIFF_HEIGHT):
            layout = {3: "H", 4: "I"}[kind]  # SHORT or LONG
            (sides[tag],) = struct.unpack_from(order + layout, data, entry + 8)
    return sides[_TIFF_WIDTH], sides[_TIFF_HEIGHT]


_READERS: tuple[tuple[bytes, Callable[[bytes], Size | None]], ...] = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"BM", _bmp),
    (b"GIF8", _gif),
    (b"RIFF", _webp),
    (b"II*\0", _tiff),
    (b"MM\0*", _tiff),
    (b"\0\0\0\x0cjP  \r\n\x87\n", _jpeg2000),
    (b"\xff\x4f\xff\x51", _codestream),
    (b"\x59\xa6\x6a\x95", _sun),
    (b"#?", _hdr),
    (b"P", _pnm),
)
