"""Where the hands are: what the scene around them is placed by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from handmesh.errors import InputError
from handmesh_training.rendering.arrays import checked

Array = npt.NDArray[np.float64]

MIDDLE_BONE_M = 0.0475  # first bone of the middle finger, for which sizes below are meant


@dataclass(frozen=True)
class Hands:
    """B right hands before their cameras. Camera frame: +x right, +y down, +z away, metres.

    Attributes:
        vertices: (B, V, 3) float.
        joints: (B, 21, 3) float.
        camera: (B, 4) float, fx, fy, cx, cy in px of the picture.
        size: side of the picture in px.
        arm: (V,) float, metres beyond the wrist along the arm at rest, at most 0 on the hand.
        present: (B,) bool, False where the picture will be left without the hand.

    Raises:
        InputError: arrays of a wrong shape or dtype, or not finite.
    """

    vertices: npt.NDArray[np.floating]
    joints: npt.NDArray[np.floating]
    camera: npt.NDArray[np.floating]
    size: int
    arm: npt.NDArray[np.floating]
    present: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        checked("hands.vertices", self.vertices, np.float64, (None, len(self.arm), 3))
        count = len(self.vertices)
        checked("hands.joints", self.joints, np.float64, (count, 21, 3))
        checked("hands.camera", self.camera, np.float64, (count, 4))
        if self.present.shape != (count,):
            raise InputError(f"hands.present: expected shape ({count},), got {self.present.shape}")

    def __len__(self) -> int:
        return len(self.vertices)

    def frame(self, index: int) -> HandFrame:
        """One of them."""
        return HandFrame(
            np.asarray(self.vertices[index], dtype=np.float64),
            np.asarray(self.joints[index], dtype=np.float64),
            np.asarray(self.camera[index], dtype=np.float64),
            self.size,
            np.asarray(self.arm, dtype=np.float64),
            bool(self.present[index]),
        )


@dataclass(frozen=True)
class HandFrame:
    """One right hand, with the directions that things in it go by; arrays as in `Hands`."""

    vertices: Array
    joints: Array
    camera: Array
    size: int
    arm: Array
    present: bool

    @cached_property
    def scale(self) -> float:
        """Size over that of the hand the sizes of things are meant for."""
        return float(np.linalg.norm(self.joints[10] - self.joints[9])) / MIDDLE_BONE_M

    @cached_property
    def palm(self) -> Array:
        """(3,) middle of the palm."""
        knuckles = self.joints[[5, 9, 13, 17]].mean(axis=0)
        return np.asarray(0.4 * self.joints[0] + 0.6 * knuckles)

    @cached_property
    def outward(self) -> Array:
        """(3,) unit vector out of the palm."""
        wrist = self.joints[0]
        return unit(cross(self.joints[5] - wrist, self.joints[17] - wrist))

    @cached_property
    def up(self) -> Array:
        """(3,) unit vector from the wrist towards the middle finger, square to `outward`."""
        along = self.joints[9] - self.joints[0]
        return unit(along - (along @ self.outward) * self.outward)

    @cached_property
    def across(self) -> Array:
        """(3,) unit vector towards the thumb's side."""
        return cross(self.up, self.outward)

    @cached_property
    def depth(self) -> float:
        """Mean depth of the joints."""
        return float(self.joints[:, 2].mean())

    def seen(self, points: Array) -> Array:
        """(N, 3) points to (N, 2) crop fractions."""
        fx, fy, cx, cy = self.camera
        x = points[:, :2] / np.maximum(points[:, 2:], 1e-3) * [fx, fy] + [cx + 0.5, cy + 0.5]
        return np.asarray(x / self.size)

    def place(self, u: float, v: float, depth: float) -> Array:
        """(3,) point that shows at crop fractions (u, v), at a depth."""
        fx, fy, cx, cy = self.camera
        x, y = u * self.size - 0.5 - cx, v * self.size - 0.5 - cy
        return np.array([x / fx, y / fy, 1.0]) * depth

    @cached_property
    def probes(self) -> Array:
        """(N, 3) joints and a few vertices: what an occluder must not hide too much of."""
        hand = self.vertices[self.arm <= 0.0]
        return np.concatenate([self.joints, hand[:: max(1, len(hand) // 60)]])


def unit(vector: Array) -> Array:
    """A vector's direction."""
    return np.asarray(vector / (math.sqrt(vector @ vector) + 1e-12))


def cross(a: Array, b: Array) -> Array:
    """(3,) product of two (3,) vectors; np.cross takes ten times as long for one pair."""
    ax, ay, az = a.tolist()
    bx, by, bz = b.tolist()
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


def frame_of(y: Array, hint: Array) -> Array:
    """(3, 3) orthonormal rows x, y, z: y as given, z as near the hint as can be."""
    y = unit(y)
    z = hint - (hint @ y) * y
    if z @ z < 1e-12:
        z = cross(y, np.eye(3)[0 if abs(y[0]) < 0.9 else 1])
    z = unit(z)
    return np.stack([cross(y, z), y, z])


def tilted(rng: np.random.Generator, vector: Array, sigma: float) -> Array:
    """A direction off by a random angle of about sigma radians."""
    return unit(unit(vector) + rng.normal(0, sigma, 3))
