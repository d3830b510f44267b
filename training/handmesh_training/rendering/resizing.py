"""Resizing and filling in NumPy, with OpenCV's conventions, for machines that have no OpenCV.

Making pictures needs none; reading files does.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Whole = npt.NDArray[np.int64]

# Triangles that are filled at once.
FILLED = 512


def shrink(image: Array, width: int, height: int) -> Array:
    """Each pixel the mean of the area it covers, as OpenCV's INTER_AREA.

    Args:
        image: (H, W) or (H, W, C) float32, H >= height and W >= width.
    """
    if image.shape[:2] == (2 * height, 2 * width):
        pairs = image.reshape(height, 2, width, 2, *image.shape[2:])
        return np.asarray(pairs.mean(axis=(1, 3)), dtype=np.float32)
    return _apply(_area(image.shape[0], height), _area(image.shape[1], width), image)


def enlarge(image: Array, width: int, height: int, cubic: bool = False) -> Array:
    """Interpolated linearly, or by Keys' cubic with a = -0.75, as OpenCV's INTER_CUBIC.

    Args:
        image: (H, W) or (H, W, C) float32.
    """
    rows, columns = (
        _interpolation(old, new, cubic)
        for old, new in zip(image.shape[:2], (height, width), strict=True)
    )
    return _apply(rows, columns, image)


def fill(triangles: npt.NDArray[np.integer], width: int, height: int) -> npt.NDArray[np.bool_]:
    """(height, width) True on pixels whose centre lies in or on the border of a triangle, or within
    half a pixel of it.

    Args:
        triangles: (N, 3, 2) corners x, y in pixels.
    """
    mask = np.zeros((height, width), dtype=np.bool_)
    # A few at a time: all pixels around the triangles of a large texture are many.
    for first in range(0, len(triangles), FILLED):
        x, y = _covered(triangles[first : first + FILLED].astype(np.float64), width, height)
        mask[y, x] = True
    return mask


def _covered(corners: npt.NDArray[np.float64], width: int, height: int) -> tuple[Whole, Whole]:
    """x and y of the pixels that `fill` fills, (P,) each; some more than once."""
    low = np.maximum(corners.min(axis=1).astype(int), 0)  # (N, 2)
    high = np.minimum(corners.max(axis=1).astype(int), [width - 1, height - 1])
    columns, rows = np.maximum(high - low + 1, 0).T
    # The pixels of the box around each triangle, row after row, one triangle after the other.
    area = columns * rows
    owner = np.repeat(np.arange(len(corners)), area)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(area) - area, area)
    x, y = low[owner, 0] + place % columns[owner], low[owner, 1] + place // columns[owner]
    (ax, ay), (bx, by), (cx, cy) = corners.transpose(1, 2, 0)
    side = np.where((bx - ax) * (cy - ay) >= (by - ay) * (cx - ax), 1.0, -1.0)
    inside = np.ones(len(owner), dtype=np.bool_)
    for px, py, qx, qy in ((ax, ay, bx, by), (bx, by, cx, cy), (cx, cy, ax, ay)):
        dx, dy = qx - px, qy - py
        reach = 0.5 * np.maximum(abs(dx), abs(dy))  # half a pixel across, as a drawn line
        across = dx[owner] * (y - py[owner]) - dy[owner] * (x - px[owner])
        inside &= side[owner] * across >= -reach[owner]
    return x[inside], y[inside]


def _apply(rows: Array, columns: Array, image: Array) -> Array:
    narrow = np.tensordot(rows, image, axes=(1, 0))  # (h, W, ...)
    return np.moveaxis(np.tensordot(columns, narrow, axes=(1, 1)), 0, 1).astype(np.float32)


def _area(old: int, new: int) -> Array:
    """(new, old) share of each old pixel in each new one."""
    step = old / new
    low = np.arange(new)[:, None] * step
    pixel = np.arange(old)
    overlap = np.minimum(low + step, pixel + 1) - np.maximum(low, pixel)
    return (np.maximum(overlap, 0) / step).astype(np.float32)


def _interpolation(old: int, new: int, cubic: bool) -> Array:
    """(new, old) weights; the outermost pixels go on beyond the border."""
    place = (np.arange(new) + 0.5) * old / new - 0.5
    base = np.floor(place).astype(int)
    matrix = np.zeros((new, old))
    for tap in range(-1, 3):
        weight = _cubic(np.abs(place - base - tap)) if cubic else 1 - np.abs(place - base - tap)
        source = np.clip(base + tap, 0, old - 1)
        np.add.at(matrix, (np.arange(new), source), np.maximum(weight, weight if cubic else 0))
    return matrix.astype(np.float32)


def _cubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    a = -0.75
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
