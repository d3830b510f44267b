"""Pictures of a batch while training: what is labelled, and what the network sees in it."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from handmesh.draw import FINGER_COLORS
from handmesh.types import BONES, FINGERS

from .sources import Batch, to_input

COLUMNS, ROWS, TILE = 8, 2, 160
_COLOURS = {j: FINGER_COLORS[finger] for finger, joints in FINGERS.items() for j in joints}


@torch.no_grad()
def training_grid(network: nn.Module, batch: Batch) -> NDArray[np.uint8]:
    """(H, W, 3) RGB: crops spread over the batch, above with the labelled joints, below with those
    that the network finds."""
    count = len(batch["images"])
    rows = torch.arange(min(COLUMNS * ROWS, count)) * count // min(COLUMNS * ROWS, count)
    images = batch["images"][rows.to(batch["images"].device)]
    network.eval()
    found = network(to_input(images)).joints[..., :2].float().cpu().numpy()
    labelled = batch["joints"].cpu()[rows, :, :2].numpy()
    known = batch["has_joints"].cpu()[rows].numpy()
    tiles = []
    for image, truth, seen, is_known in zip(
        images.cpu().numpy(), labelled, found, known, strict=True
    ):
        large = cv2.resize(image, (TILE, TILE), interpolation=cv2.INTER_CUBIC)
        above = skeleton(large.copy(), truth) if is_known else large
        tiles.append(np.vstack([above, skeleton(large.copy(), seen)]))  # (2 T, T, 3)
    blank = np.zeros_like(tiles[0])
    tiles += [blank] * (-len(tiles) % COLUMNS)
    lines = [np.hstack(tiles[i : i + COLUMNS]) for i in range(0, len(tiles), COLUMNS)]
    return np.vstack(lines)


def skeleton(image: NDArray[np.uint8], uv: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Draw bones into (S, S, 3) RGB, in place; uv (21, 2) crop fractions."""
    points = np.clip(uv * image.shape[0] * 16, -(2**15), 2**15).round().astype(int)
    for start, end in BONES:
        cv2.line(
            image, points[start].tolist(), points[end].tolist(), _COLOURS[end], 2, cv2.LINE_AA, 4
        )
    return image
