"""Hands that networks are measured on, and how rough a surface is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from handmesh.geometry import Placement, lift
from handmesh.graph import Topology
from handmesh.types import UNIT_BONE, Camera

from ..surface import Surface


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
        bone = np.linalg.norm(self.joints_m[:, end] - self.joints_m[:, start], axis=-1)  # (N,)
        side = self.images.shape[1]
        return np.stack(
            [
                lift(
                    own[:, :2] * side - 0.5,
                    own[:, 2],
                    Camera(fx, fy, cx, cy, side, side),
                    Placement(joints[0, 2], length),
                )
                for own, (fx, fy, cx, cy), joints, length in zip(
                    points, self.intrinsics, self.joints_m, bone, strict=True
                )
            ]
        )


def roughness(offsets: NDArray[np.float64]) -> float:
    """Mean length of what Eq. (5) squares, for (N, V, 3) offsets from the truth: a vertex's offset
    less the mean of its neighbours'."""
    rows = torch.from_numpy(np.array(offsets)).transpose(0, 1)  # (V, N, 3)
    near = Surface.from_topology(Topology.default()).neighbour_mean(rows.flatten(1))  # (V, N * 3)
    return float((rows - near.unflatten(1, rows.shape[1:])).norm(dim=-1).mean())
