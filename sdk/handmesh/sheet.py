"""Many photos at a glance: a contact sheet of what was found in each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import InputError

__all__ = ["Tile", "contact_sheet"]

GAP = 6
CAPTION_PX = 20
PAPER, INK = (28, 28, 32), (235, 235, 235)
LARGEST_SIDE_PX = 16_000  # of a sheet; JPEG holds 65,535, viewers and memory less


class Tile(NamedTuple):
    """One photo of a sheet.

    Attributes:
        picture: (H, W, 3) uint8 RGB, what was found drawn over it (`handmesh.draw.overlay`).
        caption: a line of ASCII below it; what is too long for the tile is cut off.
    """

    picture: NDArray[np.uint8]
    caption: str


def contact_sheet(tiles: Sequence[Tile], tile_px: int = 240, columns: int = 5) -> NDArray[np.uint8]:
    """Pictures in rows, each with a caption.

    Args:
        tiles: at least one. tile_px: side of the square that each picture is fitted into.
        columns: pictures in a row.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        InputError: no tile, or a size or number of columns that makes no sheet.
    """
    if not tiles:
        raise InputError("a contact sheet needs at least one photo")
    if columns < 1 or not 32 <= tile_px <= 2048:
        raise InputError(
            f"a sheet has at least 1 column and tiles of 32 to 2048 pixels, not {columns} columns "
            f"and {tile_px} pixels"
        )
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    height = rows * (tile_px + CAPTION_PX + GAP) + GAP
    width = columns * (tile_px + GAP) + GAP
    if max(height, width) > LARGEST_SIDE_PX:
        raise InputError(
            f"{len(tiles)} photos make a sheet of {width} x {height} pixels, more than "
            f"{LARGEST_SIDE_PX}: take fewer photos, smaller tiles or another number of columns"
        )
    sheet = np.full((height, width, 3), PAPER, dtype=np.uint8)
    for i, tile in enumerate(tiles):
        row, column = divmod(i, columns)
        top = GAP + row * (tile_px + CAPTION_PX + GAP)
        left = GAP + column * (tile_px + GAP)
        drawn = _fitted(tile.picture, tile_px)
        y = top + (tile_px - drawn.shape[0]) // 2
        x = left + (tile_px - drawn.shape[1]) // 2
        sheet[y : y + drawn.shape[0], x : x + drawn.shape[1]] = drawn
        label = sheet[top + tile_px : top + tile_px + CAPTION_PX, left : left + tile_px]
        strip = np.ascontiguousarray(label)
        text = tile.caption.encode("ascii", "replace").decode()
        cv2.putText(strip, text, (2, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, INK, 1, cv2.LINE_AA)
        label[:] = strip
    return sheet


def _fitted(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    scale = side / max(image.shape[:2])
    size = [max(1, round(length * scale)) for length in image.shape[1::-1]]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=how), dtype=np.uint8)
