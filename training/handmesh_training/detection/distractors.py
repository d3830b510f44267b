"""What may be taken for hands, and what hides them: skin, faces, arms, clothes, things.

Each draws onto a scene in place, and returns the share of each pixel that it covers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..opencv import cv2
from .grounds import skin_colour

Image = NDArray[np.uint8]
Mask = NDArray[Any]  # (S, S) uint8

# Sub-pixel bits of OpenCV's drawing.
_SHIFT = 4


def draw_any(rng: np.random.Generator, scene: Image) -> Mask:
    """One of them, anywhere."""
    side = len(scene)
    middle = rng.uniform(0, side, 2)
    size = side * float(np.exp(rng.uniform(np.log(0.06), np.log(0.6))))
    kind = rng.random()
    if kind < 0.35:
        return face(rng, scene, middle, size)
    if kind < 0.55:
        return blob(rng, scene, middle, size, skin_colour(rng))
    if kind < 0.7:
        return limb(rng, scene, middle, size)
    if kind < 0.85:
        return comb(rng, scene, middle, size)
    return blob(rng, scene, middle, size, rng.uniform(0, 255, 3))


def blob(
    rng: np.random.Generator, scene: Image, middle: NDArray[Any], size: float, colour: NDArray[Any]
) -> Mask:
    """A smooth closed shape of one colour, shaded, about ``size`` pixels across."""
    count = int(rng.integers(5, 11))
    turn = np.sort(rng.uniform(0, 2 * np.pi, count))
    reach = 0.5 * size * rng.uniform(0.5, 1.0, count)
    stretch = np.exp(rng.normal(0, 0.3))
    corners = np.stack([np.cos(turn) * stretch, np.sin(turn) / stretch], axis=1) * reach[:, None]
    mask = _filled(scene.shape[0], [corners + middle])
    soft = cv2.GaussianBlur(mask, (0, 0), max(0.6, 0.06 * size))
    mask = cv2.LUT(soft, np.clip((np.arange(256) - 96) * 4, 0, 255).astype(np.uint8))
    return _paint(rng, scene, mask, colour)


def limb(rng: np.random.Generator, scene: Image, middle: NDArray[Any], size: float) -> Mask:
    """A bare arm or leg: a tapering bar, mostly across the whole scene."""
    turn = rng.uniform(0, 2 * np.pi)
    along = np.array([np.cos(turn), np.sin(turn)])
    across = np.array([-along[1], along[0]])
    length = rng.choice([size, 4.0 * len(scene)])
    wide, narrow = 0.16 * size * np.exp(rng.normal(0, 0.3)), rng.uniform(0.5, 1.0)
    ends = middle - 0.3 * along * length, middle + along * length
    corners = [
        ends[0] + across * wide * narrow, ends[1] + across * wide,
        ends[1] - across * wide, ends[0] - across * wide * narrow,
    ]  # fmt: skip
    mask = _filled(scene.shape[0], [np.array(corners)])
    return _paint(rng, scene, mask, skin_colour(rng))


def comb(rng: np.random.Generator, scene: Image, middle: NDArray[Any], size: float) -> Mask:
    """Bars side by side in one colour, as fingers are: fences, railings, bananas, gloves' racks."""
    turn, count = rng.uniform(0, 2 * np.pi), int(rng.integers(2, 9))
    along = np.array([np.cos(turn), np.sin(turn)])
    across = np.array([-along[1], along[0]])
    apart = size / count
    wide = 0.5 * apart * rng.uniform(0.3, 0.9)
    polygons = []
    for i in range(count):
        at = middle + across * apart * (i - count / 2)
        reach = 0.5 * size * rng.uniform(0.8, 1.2)
        ends = at - along * reach, at + along * reach
        corners = [ends[0] + across * wide, ends[1] + across * wide]
        polygons.append(np.array([*corners, ends[1] - across * wide, ends[0] - across * wide]))
    colour = skin_colour(rng) if rng.random() < 0.5 else rng.uniform(0, 255, 3)
    return _paint(rng, scene, _filled(scene.shape[0], polygons), colour)


def face(rng: np.random.Generator, scene: Image, middle: NDArray[Any], size: float) -> Mask:
    """A head with neck, shoulders, hair, eyes and mouth, ``size`` pixels high."""
    side, skin = len(scene), skin_colour(rng)
    lean = rng.normal(0, 0.15)
    turn = np.array([[np.cos(lean), -np.sin(lean)], [np.sin(lean), np.cos(lean)]])

    def ellipse(x: float, y: float, rx: float, ry: float) -> Mask:
        mask = np.zeros((side, side), np.uint8)
        at = middle + turn @ (np.array([x, y]) * size)
        _ellipse(mask, at, (rx * size, ry * size), np.degrees(lean))
        return mask

    cloth, hair = rng.uniform(0, 255, 3), rng.uniform(5, 90) * np.array([1.0, 0.8, 0.6])
    width = rng.uniform(0.34, 0.42)
    covered = np.zeros((side, side), np.uint8)
    if rng.random() < 0.7:
        covered |= _paint(rng, scene, ellipse(0, 1.35, 1.0, 0.75), cloth)
        covered |= _paint(rng, scene, ellipse(0, 0.5, 0.2, 0.3), skin * 0.85)
    if rng.random() < 0.85:
        covered |= _paint(rng, scene, ellipse(0, -0.1, width * 1.15, 0.5), hair)
    covered |= _paint(rng, scene, ellipse(0, 0.03, width, 0.46), skin)
    look = rng.normal(0, 0.06)
    for sign in (-1, 1):
        eye = sign * 0.16 + look
        _paint(rng, scene, ellipse(eye, -0.04, 0.07, 0.035), np.full(3, 225.0))
        _paint(rng, scene, ellipse(eye, -0.04, 0.03, 0.035), np.full(3, 25.0))
        _paint(rng, scene, ellipse(eye, -0.13, 0.08, 0.018), hair)
    _paint(rng, scene, ellipse(look, 0.1, 0.04, 0.08), skin * 0.88)
    _paint(rng, scene, ellipse(look, 0.25, 0.12, 0.035), skin * np.array([0.85, 0.55, 0.55]))
    return covered


def body(rng: np.random.Generator, scene: Image, middle: NDArray[Any], size: float) -> Mask:
    """A piece of clothing, or furniture, that an arm ends behind."""
    return blob(rng, scene, middle, size * 1.4, rng.uniform(0, 230, 3))


def _filled(side: int, polygons: list[NDArray[Any]]) -> Mask:
    mask = np.zeros((side, side), np.uint8)
    bounded = [np.clip(p, -4 * side, 5 * side) * (1 << _SHIFT) for p in polygons]
    points = [np.round(p).astype(np.int32) for p in bounded]
    cv2.fillPoly(mask, points, 255, cv2.LINE_AA, _SHIFT)
    return mask


def _ellipse(mask: Mask, at: NDArray[Any], axes: tuple[float, float], degrees: float) -> None:
    unit = 1 << _SHIFT
    centre = tuple(np.round(np.asarray(at) * unit).astype(int).tolist())
    sizes = tuple(max(1, round(axis * unit)) for axis in axes)
    cv2.ellipse(mask, centre, sizes, degrees, 0, 360, 255, -1, cv2.LINE_AA, _SHIFT)


def _paint(rng: np.random.Generator, scene: Image, mask: Mask, colour: NDArray[Any]) -> Mask:
    """Lay a colour over a scene, lighter on one side than on the other."""
    x, y, width, height = cv2.boundingRect(mask)
    if not width:
        return mask
    part = np.s_[y : y + height, x : x + width]
    slope = np.linspace(-1, 1, height)[:, None] * rng.normal(0, 0.2)
    slope = slope + np.linspace(-1, 1, width)[None] * rng.normal(0, 0.2)
    shaded = np.clip(np.asarray(colour) * (1 + slope[..., None]), 0, 255)
    share = mask[part][..., None].astype(np.float32) / 255
    scene[part] = (scene[part] * (1 - share) + shaded * share + 0.5).astype(np.uint8)
    return mask
