"""From the joint orders, units and frames of others to ours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Sets that list each finger from the tip to its base, after the wrist.
TIP_TO_BASE = np.array([0, *(base + 3 - k for base in range(1, 21, 4) for k in range(4))])


def intrinsic_matrix(fx: float, fy: float, cx: float, cy: float) -> Array:
    """(3, 3) camera matrix, in pixels."""
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def project(points_m: Array, intrinsics: Array) -> Array:
    """(..., 3) camera space to (..., 2) pixels."""
    homogeneous = points_m @ intrinsics.T
    return homogeneous[..., :2] / homogeneous[..., 2:]


def from_corner(intrinsics: Array) -> Array:
    """The same camera with pixel centres at integers, of one that counts from the image's corner.

    A renderer whose principal point is exactly half the width counts so: its view is symmetric
    about the middle of the picture, which is the boundary between two pixels.
    """
    moved = intrinsics.copy()
    moved[:2, 2] -= 0.5
    return moved
