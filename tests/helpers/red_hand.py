"""A flat red hand to lay over scenes."""

from __future__ import annotations

import numpy as np

RED = np.array([250, 10, 10])


def flat_joints() -> np.ndarray:
    """(21, 2) fractions of a flat right hand that points up in the middle of a layer."""
    joints = np.zeros((21, 2))
    joints[0] = 0.5, 0.7
    for finger in range(5):
        x = 0.35 + 0.06 * finger
        for k in range(4):
            joints[1 + 4 * finger + k] = x, 0.55 - 0.08 * k
    return joints


def red_layer(size: int = 96) -> np.ndarray:
    """A red hand: a block around the joints, and an arm down to the lower border."""
    image = np.zeros((size, size, 4), dtype=np.uint8)
    block = np.s_[int(0.28 * size) : int(0.72 * size), int(0.31 * size) : int(0.65 * size)]
    arm = np.s_[int(0.7 * size) :, int(0.45 * size) : int(0.55 * size)]
    for part in (block, arm):
        image[part] = [*RED, 255]
    return image
