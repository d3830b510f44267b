"""A sheet of scenes with their labels drawn, to look at before a training is trusted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from handmesh.types import Box

from ..opencv import cv2
from .scenes import COS, IGNORED, KIND, NONE, RIGHT, SIN, SIZE, X, Y
from .stream import Scenes

# Colours (RGB) of right hands, left hands, hands in doubt, and the side that fingers point to.
_RIGHT, _LEFT, _DOUBT, _UP = (255, 60, 60), (70, 130, 255), (150, 150, 150), (60, 255, 60)


def contact_sheet(scenes: Scenes, columns: int = 10, tile: int = 256) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB: scenes in rows, each ``tile`` pixels large; the upper side of each
    hand's box is green. Scenes that fill no row are left out."""
    drawn = []
    for picture, labels in zip(scenes.pictures, scenes.labels, strict=True):
        image = np.array(cv2.resize(picture, (tile, tile), interpolation=cv2.INTER_CUBIC))
        for row in labels[labels[:, KIND] != NONE]:
            angle = float(np.arctan2(row[SIN], row[COS]))
            box = Box(row[X] * tile - 0.5, row[Y] * tile - 0.5, row[SIZE] * tile, angle)
            corners = np.round(box.corners()).astype(np.int32)
            colour = _RIGHT if row[RIGHT] else _LEFT
            cv2.polylines(image, [corners], True, _DOUBT if row[KIND] == IGNORED else colour, 1)
            cv2.line(image, corners[0].tolist(), corners[1].tolist(), _UP, 2)
        drawn.append(image)
    rows = [np.hstack(drawn[i : i + columns]) for i in range(0, len(drawn), columns)]
    whole = [row for row in rows if row.shape[1] == columns * tile]
    return np.vstack(whole) if whole else rows[0]
