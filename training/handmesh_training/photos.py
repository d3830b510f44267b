"""Real photos with 2D joints, as crops for training and evaluation.

A photo set is a folder of images with a ``pseudo_labels.json``:
``{file: {"hands": [{"uv": 21 x [x, y] px, "world_m": 21 x [x, y, z] m, "handedness_as_reported": ...,
"ok": bool}]}}``. The joints are a teacher's opinion (MediaPipe Hands), not the truth. The teacher
reports handedness as for a selfie, so in un-mirrored photos its "Left" is the person's right hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from handmesh.errors import InputError
from handmesh.imaging import crop as crop_box
from handmesh.imaging import decode
from handmesh.types import Box
from numpy.typing import NDArray

from .samples import Crops

LABELS = "pseudo_labels.json"


@dataclass(frozen=True, eq=False)
class LabelledHand:
    """One hand in one photo.

    Attributes:
        path: the photo. joints_px: (21, 2) float64 image pixels. joints_m: (21, 3) float64 metres,
            camera axes, origin of the teacher's choosing. is_right: the person's right hand.
    """

    path: Path
    joints_px: NDArray[np.float64]
    joints_m: NDArray[np.float64]
    is_right: bool


def read_labels(folder: Path | str) -> Iterator[LabelledHand]:
    """Hands of one photo set, in the order of its label file.

    Photos whose labels the set itself marks as doubtful (``ok`` false) and photos with more than one hand
    are left out.

    Raises:
        InputError: no readable label file in ``folder``.
    """
    folder = Path(folder)
    try:
        labels = json.loads((folder / LABELS).read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder} holds no readable {LABELS} ({error}); a photo set is a folder of images with one"
        ) from error
    for name, entry in labels.items():
        hands = entry["hands"]
        if len(hands) != 1 or not hands[0].get("ok", True):
            continue
        hand = hands[0]
        # OpenCV's pixel-centre convention; the teacher counts from the image's corner.
        yield LabelledHand(
            path=folder / name,
            joints_px=np.asarray(hand["uv"], dtype=np.float64) - 0.5,
            joints_m=np.asarray(hand["world_m"], dtype=np.float64),
            is_right=hand["handedness_as_reported"] == "Left",
        )


def load_crops(
    folders: Sequence[Path | str], side: int, margin: float, vertex_count: int
) -> Crops:
    """All hands of photo sets as right-hand crops: left hands are mirrored.

    Args:
        folders: photo sets. side: crop side in pixels. margin: crop over the joints' tight box.
        vertex_count: V of the unlabelled vertices.

    Raises:
        InputError: a folder without labels; ImageError: a photo that cannot be decoded.
    """
    hands = [hand for folder in folders for hand in read_labels(folder)]
    crops = Crops.empty(len(hands), side, vertex_count)
    for i, hand in enumerate(hands):
        image = decode(hand.path)
        box = Box.from_points(hand.joints_px, margin=margin)
        picture = crop_box(image, box, side)
        uv = (hand.joints_px - (box.cx, box.cy)) / box.size + 0.5
        if not hand.is_right:
            picture = cv2.flip(picture, 1)
            uv[:, 0] = 1 - uv[:, 0]
        crops.images[i] = picture
        crops.joints[i, :, :2] = uv
    crops.has_hand[:] = crops.has_joints[:] = crops.is_right[:] = True
    return crops
