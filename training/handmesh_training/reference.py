"""Reference crops: what a bundle carries to prove itself anywhere, and to calibrate quantisation.

Half are rendered hands, half are cut from real photos that may be shipped, each at a few places,
scales and turns around the hand and mirrored, as the network meets them in a search.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from handmesh import Box
from handmesh.detector import letterbox
from handmesh.errors import InputError
from handmesh.imaging import Pyramid, crop, decode
from handmesh.types import JOINT_NAMES

from .rendered import HandRenderer, RenderSettings
from .seeds import Purpose, generator

BOXES = "boxes.json"


class ReferenceCrops(NamedTuple):
    """N crops.

    Attributes:
        images: (N, S, S, 3) uint8 RGB.
        labels: (N, 21, 3) float32, true (u, v, d) of the joints as a network gives them; NaN where
            nobody knows: photos, and pictures without a hand.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.float32]


def reference_crops(
    photos: Path | str, side: int, rendered: int = 24, views: int = 4, seed: int = 2026
) -> ReferenceCrops:
    """``rendered`` rendered crops, then ``views`` of each photo.

    Args:
        photos: folder with photos and a ``boxes.json`` of ``{file: [x0, y0, x1, y1]}``.
        side: side of the crops in pixels. seed: of everything random.

    Raises:
        InputError: no readable ``boxes.json``; ImageError: an unreadable photo.
    """
    folder = Path(photos)
    try:
        boxes: dict[str, list[float]] = json.loads((folder / BOXES).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} holds no readable {BOXES} ({error})") from error
    rng = generator(seed, Purpose.REFERENCE)
    look = RenderSettings(crop_px=side, margin=1.5, empty=0.1)
    crops: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.float32]] = []
    if rendered:
        made = HandRenderer(look, seed).chunk(0, rendered)
        crops.append(made.images)
        labels.append(np.where(made.has_joints[:, None, None], made.joints, np.nan))
    for name, (x0, y0, x1, y1) in sorted(boxes.items()):
        image = decode(folder / name)
        for view in range(views):
            size = 1.4 * max(x1 - x0, y1 - y0) * np.exp(rng.normal(0, 0.12))
            centre = np.array([x0 + x1, y0 + y1]) / 2 + rng.normal(0, 0.05 * size, 2)
            box = Box(float(centre[0]), float(centre[1]), float(size), rng.uniform(-np.pi, np.pi))
            picture = crop(image, box, side)
            crops.append((picture[:, ::-1] if view % 2 else picture)[None])
            labels.append(np.full((1, len(JOINT_NAMES), 3), np.nan, dtype=np.float32))
    return ReferenceCrops(
        np.ascontiguousarray(np.concatenate(crops)), np.concatenate(labels).astype(np.float32)
    )


def reference_pictures(
    photos: Path | str, side: int, rendered: int = 24, seed: int = 2026
) -> NDArray[np.uint8]:
    """Whole pictures for a detector, (N, S, S, 3) uint8 RGB: each photo of the folder as it is,
    mirrored, smaller and turned, and ``rendered`` scenes with a hand, or without.

    Args:
        photos, side, seed: as in `reference_crops`.

    Raises:
        InputError: no photo in the folder. ImageError: an unreadable one.
    """
    files = sorted(Path(photos).glob("*.jpg"))
    if not files:
        raise InputError(f"{photos} holds no .jpg photo")
    made = []
    for file in files:
        pyramid = Pyramid(decode(file))
        square = letterbox(pyramid.width, pyramid.height)
        whole = pyramid.crop(square, side)
        made += [whole, whole[:, ::-1], pyramid.crop(square.scaled(2.0), side)]
        made.append(pyramid.crop(replace(square, angle=np.pi / 2), side))
    look = RenderSettings(crop_px=side, margin=4.2, empty=0.25)
    scenes = HandRenderer(look, seed).chunk(0, rendered).images
    return np.ascontiguousarray(np.concatenate([np.stack(made), scenes]))
