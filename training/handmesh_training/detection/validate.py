"""How many hands are found, and how well, while the detector is trained."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from handmesh.nn.detector import decode

from ..sources import to_input
from .scenes import COS, HAND, KIND, NONE, SIN, SIZE, TURNED, X, Y
from .scenes import RIGHT as IS_RIGHT
from .stream import Scenes

BATCH = 64
# A hand counts as found from this score on.
SCORE = 0.3
# By a detection this near to its centre, as a share of its box, and at most so many times too large
# or too small.
NEAR, RATIO = 0.25, 1.6


@torch.no_grad()
def detection_errors(part: nn.Module, scenes: Scenes, device: torch.device) -> dict[str, float]:
    """Of a `DetectorNetwork` on scenes.

    Returns:
        ``found``: share of the hands. ``false``: detections of no hand per scene. Of those found:
        ``centre``: median distance over the box; ``size``: median relative error; ``angle``:
        median error in degrees; ``side``: share that are taken for the other hand.
    """
    part.eval()
    found = []
    for first in range(0, len(scenes), BATCH):
        pictures = torch.from_numpy(scenes.pictures[first : first + BATCH]).to(device)
        found.append(decode(part(to_input(pictures)), 16).cpu().numpy())
    return score(np.concatenate(found), scenes.labels)


def score(hands: NDArray[np.float32], labels: NDArray[np.float32]) -> dict[str, float]:
    """The same of detections (B, K, 7), as `decode` gives them, and labels (B, M, 8)."""
    wrong, total, errors = 0, 0, []
    for said, known in zip(hands, labels, strict=True):
        said = said[said[:, 0] >= SCORE]
        known = known[known[:, KIND] != NONE]
        apart = np.hypot(
            said[:, None, 1] - known[None, :, X], said[:, None, 2] - known[None, :, Y]
        )  # (K, M)
        ratio = np.abs(np.log(said[:, None, 3] / known[None, :, SIZE]))
        match = (apart < NEAR * known[None, :, SIZE]) & (ratio < np.log(RATIO))
        doubtful = (known[:, KIND] != HAND)[None] & (apart < known[None, :, SIZE])
        wrong += int((~(match | doubtful).any(axis=1)).sum())
        for m in np.flatnonzero(known[:, KIND] == HAND):
            total += 1
            if match[:, m].any():
                k = int(np.argmax(np.where(match[:, m], said[:, 0], -1)))
                errors.append(_errors(said[k], known[m]))
    table = np.array(errors).reshape(-1, 4)
    return {
        "found": len(table) / max(total, 1),
        "false": wrong / max(len(labels), 1),
        "centre": float(np.nanmedian(table[:, 0])) if len(table) else 1.0,
        "size": float(np.nanmedian(table[:, 1])) if len(table) else 1.0,
        "angle": float(np.nanmedian(table[:, 2])) if len(table) else 180.0,
        "side": float(np.mean(table[:, 3])) if len(table) else 1.0,
    }


def _errors(said: NDArray[np.float32], known: NDArray[np.float32]) -> tuple[float, ...]:
    size = float(known[SIZE])
    apart = float(np.hypot(said[1] - known[X], said[2] - known[Y])) / size
    cosine = float(np.clip(said[4] * known[COS] + said[5] * known[SIN], -1, 1))
    angle = float(np.degrees(np.arccos(cosine))) if known[TURNED] else float("nan")
    return apart, abs(float(said[3]) / size - 1), angle, float((said[6] > 0.5) != known[IS_RIGHT])
