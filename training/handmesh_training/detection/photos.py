"""Real photos for scenes: whole with all their hands, and hands cut out of plain grounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from handmesh.imaging import decode

from ..opencv import cv2
from ..photos import labelled_photos
from .layers import leaves_in_one_place

# Longer side to which photos are shrunk, pixels: scenes are smaller.
LONGEST_PX = 288
# A ground is plain where its colour varies by less than this over the photo's rim (CIE Lab, 8 bit),
# and a pixel is not of it from this difference on.
_PLAIN, _FAR = 3.5, (16.0, 30.0)
# Share of the rim that must be of the ground.
_RIM = 0.6
# Share of a photo that a cut-out hand covers, and of its joints that must lie on what was cut out.
_COVERS, _ON_HAND = (0.04, 0.6), 0.9


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo, or a hand cut out of one.

    Attributes:
        image: (H, W, 3) uint8 RGB; or (H, W, 4) RGBA, RGB already multiplied by A.
        joints_px: (N, 21, 2) float64 pixels of its N hands.
        is_right: (N,) bool.
    """

    image: NDArray[np.uint8]
    joints_px: NDArray[np.float64]
    is_right: NDArray[np.bool_]


def read_photos(folder: Path | str) -> Iterator[Photo]:
    """The photos of a set whose hands are all labelled beyond doubt, shrunk; see
    `handmesh_training.photos`.

    Raises:
        InputError: no readable label file, or an entry that is not a labelled photo.
        ImageError: a photo that cannot be decoded.
    """
    for hands in labelled_photos(folder):
        image = decode(hands[0].path)
        joints = np.stack([hand.joints_px for hand in hands])
        yield _shrunk(image, joints, np.array([hand.is_right for hand in hands]))


def _shrunk(
    image: NDArray[np.uint8], joints: NDArray[np.float64], is_right: NDArray[np.bool_]
) -> Photo:
    height, width = image.shape[:2]
    factor = min(1.0, LONGEST_PX / max(height, width))
    if factor == 1.0:
        return Photo(image, joints, is_right)
    size = round(width * factor), round(height * factor)
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    scale = np.array(size) / (width, height)
    return Photo(small, (joints + 0.5) * scale - 0.5, is_right)


def cut_outs(photos: Sequence[Photo]) -> list[Photo]:
    """The hands of those photos that show one hand before a plain ground, cut out of it."""
    made = (cut_out(photo) for photo in photos)
    return [photo for photo in made if photo is not None]


def cut_out(photo: Photo) -> Photo | None:
    """The hand with its arm, if the photo's ground is plain enough to be told from it.

    The ground's colour is a plane over the photo, fitted to its rim; what differs is the hand.
    """
    if len(photo.joints_px) != 1:
        return None
    lab = cv2.cvtColor(photo.image, cv2.COLOR_RGB2LAB).astype(np.float32)
    height, width = lab.shape[:2]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    place = np.stack([np.ones_like(rows), rows / height, columns / width], axis=-1)  # (H, W, 3)
    rim = np.ones((height, width), dtype=bool)
    edge = max(2, min(height, width) // 16)
    rim[edge:-edge, edge:-edge] = False
    for _ in range(4):  # the arm is on the rim, too: what is far off is left out
        plane, *_ = np.linalg.lstsq(place[rim], lab[rim], rcond=None)
        # Brightness tells less than colour: it has the hand's shadow in it.
        off = np.abs(lab - place @ plane) * (0.6, 1.0, 1.0)
        distance = np.sqrt((off**2).sum(axis=-1))
        rim &= distance < max(2 * float(np.median(distance[rim])), 6.0)
    if rim.sum() < _RIM * 2 * edge * (height + width) or distance[rim].std() > _PLAIN:
        return None
    low, high = _FAR
    alpha = np.clip((distance - low) / (high - low), 0, 1).astype(np.float32)
    _, regions = cv2.connectedComponents((alpha > 0.5).astype(np.uint8))
    x, y = np.clip(np.round(photo.joints_px[0].T), 0, [[width - 1], [height - 1]]).astype(int)
    under = regions[y, x]
    if not (under > 0).any():
        return None
    hand = np.bincount(under[under > 0]).argmax()
    solid = cv2.morphologyEx(
        (regions == hand).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)
    )
    on_hand = float((cv2.dilate(solid, np.ones((5, 5), np.uint8))[y, x] > 0).mean())
    if not _COVERS[0] < solid.mean() < _COVERS[1] or on_hand < _ON_HAND:
        return None
    if not leaves_in_one_place(solid * np.uint8(255), must=True):  # a hand without its arm
        return None
    soft = cv2.GaussianBlur(
        cv2.erode(solid, np.ones((3, 3), np.uint8)).astype(np.float32), (3, 3), 0
    )
    rgb = _without_spill(photo.image, lab, plane) * soft[..., None]
    image = np.concatenate([rgb, 255 * soft[..., None]], axis=-1) + 0.5
    return Photo(image.astype(np.uint8), photo.joints_px, photo.is_right)


def _without_spill(
    image: NDArray[np.uint8], lab: NDArray[np.float32], plane: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Without the green that a green screen throws on a hand."""
    out = image.astype(np.float32)
    if plane[0, 1] < 110:  # in Lab, green is below 128
        out[..., 1] = np.minimum(out[..., 1], np.maximum(out[..., 0], out[..., 2]))
    return out
