"""Scenes to find hands in, composed on the fly, with their labels."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handmesh.geometry import upright_angle
from handmesh.types import CROP_MARGIN, Box

from ..develop import develop
from ..opencv import cv2
from ..seeds import Purpose, generator
from . import distractors
from .grounds import Grounds
from .layers import Layers
from .photos import Photo

Image = NDArray[np.uint8]
Frame = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels

# Hands of a scene at most; further ones are not placed.
MOST = 6
# Columns of a label: the box's centre and size in fractions of the scene, cosine and sine of its
# angle, whether the hand is a right one, whether the angle means anything, and the label's kind.
X, Y, SIZE, COS, SIN, RIGHT, TURNED, KIND = range(8)
NONE, HAND, IGNORED = 0.0, 1.0, -1.0
# Shares of scenes: composed of cut-outs, one photo or rendered picture, two of them side by side.
COMPOSED, SINGLE = 0.5, 0.38
# Share of scenes that go through a camera once more; a shrunk photo is clean and sharp.
DEVELOPED = 0.65
# How long shaken scenes' lines are, pixels, and how small scenes were, as a share of their side:
# their hands are small already.
MOTION, SMALL = (3, 7), (0.25, 0.8)
# Of whole pictures, the share that are photos.
PHOTOS = 0.6
# Of cut-outs, the share that are of photos.
REAL_CUT_OUTS = 0.2
# How many hands a composed scene has.
COUNTS = (0.25, 0.38, 0.27, 0.06, 0.04)
# Size of a hand's box, as a share of the scene.
SIZES = (0.06, 1.0)
# Share of scenes with one hand that fills its photo, or nearly, and how large its box then is, as
# a share of the photo's shorter side: half as large again as what it surrounds.
CLOSE = 0.22
CLOSE_SIZES = (0.8, 1.6)
# Width over height of the photos that scenes are letterboxed from.
ASPECTS = (1.0, 4 / 3, 3 / 4, 16 / 9, 9 / 16, 3 / 2, 2 / 3)
# A hand of whose joints fewer than this share are seen may be found or not.
_SEEN = 0.55
_GONE = 0.15
_NOBODY, _COVER = -1, -2


@dataclass(frozen=True, eq=False)
class Supplies:
    """What scenes are composed of.

    Attributes:
        grounds: behind composed scenes.
        cut_outs, pictures: rendered ones, see `layers`.
        photos, photo_cut_outs: real ones, of which there may be none.
    """

    grounds: Grounds
    cut_outs: Layers
    pictures: Layers
    photos: Sequence[Photo] = ()
    photo_cut_outs: Sequence[Photo] = ()


@dataclass(eq=False)
class _Canvas:
    """A scene in the making.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        owner: (S, S) int8: which hand is seen in a pixel, `_NOBODY` or `_COVER`.
        joints: of each hand so far, (21, 2) pixels. is_right: of each. frames: where each may be
            seen, x0, y0, x1, y1.
    """

    image: Image
    owner: NDArray[np.int8]
    joints: list[NDArray[np.float64]] = field(default_factory=list)
    is_right: list[bool] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)

    def cover(self, mask: NDArray[Any]) -> None:
        self.owner[mask > 127] = _COVER

    def add(self, joints: NDArray[np.float64], is_right: bool, frame: Frame) -> None:
        self.joints.append(joints)
        self.is_right.append(is_right)
        self.frames.append(frame)


def compose(
    rng: np.random.Generator, supplies: Supplies, side: int
) -> tuple[Image, NDArray[np.float32]]:
    """One scene.

    Returns:
        The picture (S, S, 3) uint8 RGB, and its labels (`MOST`, 8) float32, rows of zeros where
        there is no hand.
    """
    frame = _frame(rng, side)
    kind = rng.random()
    if kind < COMPOSED:
        canvas = _composed(rng, supplies, side, frame)
    elif kind < COMPOSED + SINGLE:
        canvas = _of_pictures(rng, supplies, side, [frame])
    else:
        canvas = _of_pictures(rng, supplies, side, _halves(rng, frame))
    image = canvas.image
    if rng.random() < DEVELOPED:
        image = np.array(develop(rng, image, _noise(side), MOTION, SMALL))
    x0, y0, x1, y1 = frame
    outside = np.ones((side, side), dtype=bool)
    outside[y0:y1, x0:x1] = False
    image[outside] = 0
    return image, labels(canvas.joints, canvas.is_right, _seen(canvas), side)


@functools.cache
def _noise(side: int) -> NDArray[np.float32]:
    """Grain to cut from: the same in every process."""
    size = (side + 64, side + 64, 3)
    return generator(0, Purpose.GRAIN).standard_normal(size, dtype=np.float32)


def labels(
    joints: Sequence[NDArray[np.float64]],
    is_right: Sequence[bool],
    seen: Sequence[float],
    side: int,
) -> NDArray[np.float32]:
    """Labels (`MOST`, 8) of a scene of that side in pixels.

    Args:
        joints: (21, 2) pixels of each hand. is_right: of each. seen: share of its joints in sight.
    """
    rows = np.zeros((MOST, 8), dtype=np.float32)
    for row, points, right, share in zip(rows, joints, is_right, seen, strict=False):
        if share < _GONE:
            continue
        box, turned = box_of(points)
        x, y = (box.cx + 0.5) / side, (box.cy + 0.5) / side
        inside = 0 <= x < 1 and 0 <= y < 1
        kind = HAND if inside and share >= _SEEN and box.size < 2 * side else IGNORED
        row[:] = x, y, box.size / side, np.cos(box.angle), np.sin(box.angle), right, turned, kind
    return rows


def box_of(joints_px: NDArray[np.float64]) -> tuple[Box, bool]:
    """The box that a hand is to be looked at in, and whether its angle means anything."""
    angle = upright_angle(joints_px)
    return Box.from_points(joints_px, CROP_MARGIN, angle or 0.0), angle is not None


def _frame(rng: np.random.Generator, side: int) -> Frame:
    """x0, y0, x1, y1 of the photo in its square: the rest is black."""
    aspect = float(rng.choice(ASPECTS))
    width, height = round(side * min(1, aspect)), round(side * min(1, 1 / aspect))
    x, y = (side - width) // 2, (side - height) // 2
    return x, y, x + width, y + height


def _halves(rng: np.random.Generator, frame: Frame) -> list[Frame]:
    x0, y0, x1, y1 = frame
    if x1 - x0 >= y1 - y0:
        middle = round(x0 + (x1 - x0) * rng.uniform(0.35, 0.65))
        return [(x0, y0, middle, y1), (middle, y0, x1, y1)]
    middle = round(y0 + (y1 - y0) * rng.uniform(0.35, 0.65))
    return [(x0, y0, x1, middle), (x0, middle, x1, y1)]


def _seen(canvas: _Canvas) -> list[float]:
    """Of each hand, the share of its joints that are inside its frame and covered by nothing."""
    shares = []
    for number, (joints, frame) in enumerate(zip(canvas.joints, canvas.frames, strict=True)):
        x0, y0, x1, y1 = frame
        x, y = np.round(joints.T).astype(int)
        inside = (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
        limit = len(canvas.owner) - 1
        owner = canvas.owner[np.clip(y, 0, limit), np.clip(x, 0, limit)]
        shares.append(float((inside & ((owner == number) | (owner == _NOBODY))).mean()))
    return shares


def _composed(rng: np.random.Generator, supplies: Supplies, side: int, frame: Frame) -> _Canvas:
    canvas = _Canvas(supplies.grounds.draw(rng, side), np.full((side, side), _NOBODY, np.int8))
    for _ in range(rng.choice(4, p=(0.4, 0.3, 0.2, 0.1))):
        distractors.draw_any(rng, canvas.image)
    if rng.random() < CLOSE:
        _place_cut_out(rng, canvas, supplies, *_close(rng, frame), frame)
        return canvas
    count = int(rng.choice(len(COUNTS), p=COUNTS))
    # Hands of one scene are of one person, more or less, about as far away.
    low, high = np.log(SIZES)
    common = np.exp(rng.uniform(low, high - 0.35 * max(0, count - 1)))
    for _ in range(count):
        size = np.clip(common * np.exp(rng.normal(0, 0.3)), *SIZES) * side
        x0, y0, x1, y1 = frame
        at = np.array([rng.uniform(x0, x1), rng.uniform(y0, y1)])
        _place_cut_out(rng, canvas, supplies, size, at, frame)
    if rng.random() < 0.12:
        canvas.cover(distractors.draw_any(rng, canvas.image))
    return canvas


def _close(rng: np.random.Generator, frame: Frame) -> tuple[float, NDArray[np.float64]]:
    """Size of the box, in pixels, and middle (2,) of a hand that fills its photo."""
    x0, y0, x1, y1 = frame
    size = min(x1 - x0, y1 - y0) * rng.uniform(*CLOSE_SIZES)
    middle, extent = np.array([x0 + x1, y0 + y1]) / 2, np.array([x1 - x0, y1 - y0])
    return size, middle + extent * rng.normal(0, 0.1, 2)


def _place_cut_out(
    rng: np.random.Generator,
    canvas: _Canvas,
    supplies: Supplies,
    size: float,
    at: NDArray[np.float64],
    frame: Frame,
) -> None:
    """Lay a hand over the scene, its box about ``size`` pixels large and its middle there."""
    side = len(canvas.image)
    if supplies.photo_cut_outs and rng.random() < REAL_CUT_OUTS:
        photo = supplies.photo_cut_outs[int(rng.integers(len(supplies.photo_cut_outs)))]
        image, joints, right = photo.image, photo.joints_px[0], bool(photo.is_right[0])
    else:
        index = int(rng.integers(len(supplies.cut_outs)))
        image, right = supplies.cut_outs.images[index], True
        joints = supplies.cut_outs.joints[index].astype(np.float64) * len(image) - 0.5
    turn = rng.uniform(-np.pi, np.pi) if rng.random() < 0.15 else rng.normal(0, 0.4)
    matrix, flip = _similarity(rng, image, joints, size, at, turn)
    layer = _warped(image, matrix, side, cv2.BORDER_REPLICATE)
    placed = joints @ matrix[:, :2].T + matrix[:, 2]
    colours = _relit(rng, layer[..., :3], layer[..., 3:])
    share = 255 - layer[..., 3:].astype(np.uint16)
    canvas.image[:] = np.minimum(colours + (canvas.image * share + 127) // 255, 255)
    canvas.owner[layer[..., 3] > 127] = len(canvas.joints)
    canvas.add(placed, right != flip, frame)
    if rng.random() < 0.3:
        _end_arm(rng, canvas, placed, size)


def _similarity(
    rng: np.random.Generator,
    image: Image,
    joints: NDArray[np.float64],
    size: float,
    at: NDArray[np.float64],
    turn: float,
) -> tuple[NDArray[np.float64], bool]:
    """(2, 3) map from a picture's pixels to the scene's, mirrored or not, that brings the hand's
    box to a size and its joints' middle to a place; and whether it mirrors."""
    zoom = size / box_of(joints)[0].size
    flip = bool(rng.random() < 0.5)
    c, s = zoom * np.cos(turn), zoom * np.sin(turn)
    linear = np.array([[c, -s], [s, c]]) @ np.diag([-1.0 if flip else 1.0, 1.0])
    middle = 0.5 * (joints.min(axis=0) + joints.max(axis=0))
    return np.column_stack([linear, at - linear @ middle]), flip


def _warped(image: Image, matrix: NDArray[np.float64], side: int, border: int) -> Image:
    """A picture in the scene; first shrunk by averaging where it gets much smaller."""
    zoom = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if zoom < 0.6:
        height, width = image.shape[:2]
        small = max(4, round(width * zoom * 1.2)), max(4, round(height * zoom * 1.2))
        scale = np.array([width / small[0], height / small[1]])
        image = np.asarray(cv2.resize(image, small, interpolation=cv2.INTER_AREA), np.uint8)
        # Pixel centres of the shrunk picture to those of the old one, then on.
        linear = matrix[:, :2] * scale
        matrix = np.column_stack([linear, matrix[:, 2] + matrix[:, :2] @ (0.5 * scale - 0.5)])
    warped = cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=border)
    return np.asarray(warped, dtype=np.uint8)


def _relit(rng: np.random.Generator, colours: Image, alpha: Image) -> NDArray[np.uint16]:
    """Premultiplied colours in another light, never brighter than their coverage allows."""
    gain = np.exp(rng.normal(0, 0.18) + rng.normal(0, 0.05, 3))
    lit = (colours * gain + 0.5).astype(np.uint16)
    return np.minimum(lit, alpha)


def _end_arm(
    rng: np.random.Generator, canvas: _Canvas, joints: NDArray[np.float64], size: float
) -> None:
    """Something in front of the arm, beyond the wrist: a body, a table's edge."""
    wrist, knuckles = joints[0], joints[[5, 9, 13, 17]].mean(axis=0)
    away = wrist - knuckles
    length = float(np.hypot(*away))
    if length < 0.1 * size:
        return
    radius = size * rng.uniform(0.45, 1.2)
    at = wrist + away / length * (0.75 * radius * 1.4 + size * rng.uniform(0.05, 0.6))
    canvas.cover(distractors.body(rng, canvas.image, at, 2 * radius / 1.4))


def _of_pictures(
    rng: np.random.Generator,
    supplies: Supplies,
    side: int,
    frames: Sequence[Frame],
) -> _Canvas:
    """Whole pictures, each in its frame."""
    canvas = _Canvas(np.zeros((side, side, 3), np.uint8), np.full((side, side), _NOBODY, np.int8))
    for frame in frames:
        _place_picture(rng, canvas, supplies, frame)
    return canvas


def _place_picture(
    rng: np.random.Generator, canvas: _Canvas, supplies: Supplies, frame: Frame
) -> None:
    """A photo or rendered picture into a frame of the scene, its hand at any size and place."""
    side = len(canvas.image)
    if supplies.photos and rng.random() < PHOTOS:
        photo = supplies.photos[int(rng.integers(len(supplies.photos)))]
        image, hands, rights = photo.image, photo.joints_px, photo.is_right
    else:
        index = int(rng.integers(len(supplies.pictures)))
        image = supplies.pictures.images[index]
        hands = supplies.pictures.joints[index][None].astype(np.float64) * len(image) - 0.5
        rights = np.ones(1, dtype=bool)
        if not supplies.pictures.has_hand[index]:
            hands, rights = hands[:0], rights[:0]
    x0, y0, x1, y1 = frame
    height, width = image.shape[:2]
    covers = max((x1 - x0) / width, (y1 - y0) / height)
    turn = rng.uniform(-np.pi, np.pi) if rng.random() < 0.1 else rng.normal(0, 0.2)
    if len(hands):
        joints = hands[int(rng.integers(len(hands)))]
        natural = box_of(joints)[0].size * covers
    else:  # any part of the picture
        corner = rng.uniform(0, [width, height])
        joints = corner + np.array([[0.0, 0], [1, 1]]).repeat([1, 20], axis=0) * 0.3 * width
        natural = box_of(joints)[0].size * covers
    frame_side = min(x1 - x0, y1 - y0)
    size = natural * np.exp(rng.uniform(-0.1, 0.5))
    if rng.random() < 0.45:
        size = frame_side * np.exp(rng.uniform(np.log(0.12), np.log(1.1)))
    size = float(np.clip(size, SIZES[0] * side, 1.3 * frame_side))
    at = np.array([rng.uniform(x0, x1), rng.uniform(y0, y1)])
    if rng.random() < CLOSE:
        size, at = _close(rng, frame)
    matrix, flip = _similarity(rng, image, joints, size, at, turn)
    if len(hands) and rng.random() < 0.7:
        matrix[:, 2] += _pulled_in(image, matrix, frame)
    part = np.s_[y0:y1, x0:x1]
    if rng.random() < 0.5:  # the picture's border goes on, or another place begins there
        canvas.image[part] = _warped(image, matrix, side, cv2.BORDER_REPLICATE)[part]
    else:
        ground = supplies.grounds.draw(rng, side)
        whole = np.concatenate([image, np.full_like(image[..., :1], 255)], axis=-1)
        warped = _warped(np.ascontiguousarray(whole), matrix, side, cv2.BORDER_CONSTANT)
        share = warped[..., 3:].astype(np.uint16)
        mixed = warped[..., :3] + (ground * (255 - share) + 127) // 255
        canvas.image[part] = np.minimum(mixed, 255)[part]
    for points, right in zip(hands, rights, strict=True):
        canvas.add(points @ matrix[:, :2].T + matrix[:, 2], bool(right) != flip, frame)


def _pulled_in(image: Image, matrix: NDArray[np.float64], frame: Frame) -> NDArray[np.float64]:
    """(2,) shift after which the picture fills its frame, as far as it can."""
    height, width = image.shape[:2]
    corners = np.array([[0.0, 0], [width, 0], [0, height], [width, height]]) - 0.5
    placed = corners @ matrix[:, :2].T + matrix[:, 2]
    low, high = placed.min(axis=0), placed.max(axis=0)
    start, end = np.array(frame[:2], float), np.array(frame[2:], float)
    shift = np.zeros(2)
    for axis in range(2):
        if high[axis] - low[axis] <= end[axis] - start[axis]:
            continue
        shift[axis] = min(0.0, start[axis] - low[axis]) + max(0.0, end[axis] - high[axis])
    return shift
