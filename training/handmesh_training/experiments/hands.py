"""Hands that networks are measured on, and how rough a surface is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handmesh.graph import Topology
from handmesh.types import UNIT_BONE


@dataclass(frozen=True, eq=False)
class Hands:
    """N hands to be measured on: pictures at the network's input size, cameras and the truth.

    Attributes:
        images: (N, S, S, 3) uint8. intrinsics: (N, 4) float64 fx, fy, cx, cy.
        joints_m: (N, 21, 3), vertices_m: (N, V, 3) float64, camera frame.
    """

    images: NDArray[np.uint8]
    intrinsics: NDArray[np.float64]
    joints_m: NDArray[np.float64]
    vertices_m: NDArray[np.float64]

    def lift(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """(N, P, 3) of (u, v, d) to metres; root depth and scale given (section 5.1)."""
        start, end = UNIT_BONE
        bone = np.linalg.norm(self.joints_m[:, end] - self.joints_m[:, start], axis=-1)
        z = self.joints_m[:, :1, 2] + points[..., 2] * bone[:, None]  # (N, P)
        pixel = points[..., :2] * self.images.shape[1] - 0.5
        lens = self.intrinsics[:, None]
        xy = (pixel - lens[..., 2:]) / lens[..., :2] * z[..., None]
        return np.concatenate([xy, z[..., None]], axis=-1)


def roughness(offsets: NDArray[np.float64]) -> float:
    """Mean length of what Eq. (5) squares, for (N, V, 3) offsets from the truth: a vertex's offset
    less the mean of its neighbours'."""
    faces = Topology.default().faces
    count = offsets.shape[1]
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    pairs = np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0)
    near = np.zeros((count, count))
    near[pairs[:, 0], pairs[:, 1]] = 1
    near /= near.sum(axis=1, keepdims=True)
    return float(np.linalg.norm(offsets - near @ offsets, axis=-1).mean())
