"""Our hand, posed and shaped by its own parameters as like another as they get it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handmesh.errors import InputError

from ..hand import FOREARM, PIVOT_COUNT, TIP_JOINTS, HandModel
from ..limits import FINGER_BASES
from .closest import Array, ClosestPoints, vertex_normals
from .gltf import ModelledHand

# What is believed of the joints' places, metres: bones are placed by hand.
JOINT_M, ROUGH_JOINT_M = 0.004, 0.02
# Wrist and base of the thumb are where rigs differ most, and tips end before the finger does.
ROUGH_JOINTS = (0, 1, *TIP_JOINTS)
# With the surface to go by, joints only keep fingers from sliding into one another's place.
LATE_M = 0.012
# A millimetre for each vertex, but it says what its neighbours say, too: eight count as one.
PLANE_M = 0.001 * 8**0.5
# Where the surface is first looked for, and how far off the end may still be.
NEAR_M = 0.03
# Bones farther off than this after all the joints were fitted belong to something else.
LOST_M = 0.025
BY_JOINTS, BY_SURFACE = 12, 8
# Standard deviations of angles about the rest pose, degrees: twist, abduction, flexion.
HINGE_DEG, KNUCKLE_DEG, THUMB_DEG, ARM_DEG = (3, 4, 40), (6, 14, 40), (20, 25, 30), (2, 5, 5)
# Damping of the normal equations; all unknowns are in standard deviations.
DAMPING = 1e-3


class Planes(NamedTuple):
    """Where N of our vertices should be: rows (N,), points (N, 3) and unit normals (N, 3)."""

    rows: NDArray[np.integer]
    points: Array
    normals: Array


class PosedLike(NamedTuple):
    """How our hand is held, in another's frame.

    Attributes:
        rotations: (17, 3, 3) of the bones, as `HandModel` takes them.
        shape: (S,) coefficients.
        vertices_m: (V, 3) the surface that comes of it.
        root_m: (3,) where the wrist is.
    """

    rotations: Array
    shape: Array
    vertices_m: Array
    root_m: Array


def pose_like(
    model: HandModel, other: ModelledHand, surface: ClosestPoints, rows: NDArray[np.integer]
) -> PosedLike:
    """Gauss-Newton on pose and shape: to the joints first, then to the surface.

    Args:
        model: ours, in float64. other: the hand to be like. surface: its surface.
        rows: vertices of ours that have a counterpart there.

    Raises:
        InputError: its joints do not form a right hand such as ours can be.
    """
    if _bend(other.joints_m) * _bend(model.joints.numpy()) < 0:
        raise InputError(
            "expected a right hand; these fingers bend the other way, as a left hand's do: give "
            "hand_r.gltf"
        )
    problem = _Problem(model, other.joints_m)
    unknown = torch.zeros(problem.count, dtype=torch.float64)
    sigma = np.full(21, JOINT_M)
    sigma[list(ROUGH_JOINTS)] = ROUGH_JOINT_M
    for _ in range(BY_JOINTS):
        unknown = problem.step(unknown, sigma)
    off = np.delete(problem.joint_errors(unknown), ROUGH_JOINTS)
    if off.max() > LOST_M:
        raise InputError(
            f"expected the bones of a right hand of human size in metres: they stay up to "
            f"{1000 * off.max():.0f} mm from where our joints can go; give hand_r.gltf unscaled, "
            "with its bones in their bind pose"
        )
    faces = model.asset.faces
    for _ in range(BY_SURFACE):
        points = problem.vertices(unknown)
        found = surface(points[rows], vertex_normals(points, faces)[rows])
        near = found.distance_m < NEAR_M
        unknown = problem.step(
            unknown,
            np.full(21, LATE_M),
            Planes(rows[near], found.points[near], surface.normals[found.face[near]]),
        )
    return problem.result(unknown)


class _Problem:
    """Unknowns, all with a standard deviation of one: turn, shift, angles of the bones, shape."""

    def __init__(self, model: HandModel, joints_m: Array) -> None:
        self.model = model
        self.target = torch.from_numpy(joints_m)
        self.turn, self.shift = (torch.from_numpy(a) for a in _laid_on(model, joints_m))
        degrees = np.tile(np.array(HINGE_DEG, dtype=np.float64), (PIVOT_COUNT, 1))
        degrees[list(FINGER_BASES)] = KNUCKLE_DEG
        degrees[1] = THUMB_DEG
        degrees[FOREARM] = ARM_DEG
        self.spread = torch.from_numpy(np.deg2rad(degrees[1:]))  # (16, 3); the root has its turn
        self.count = 6 + self.spread.numel() + model.shape_count

    def _unpack(self, unknown: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotations (1, 17, 3, 3), shape (1, S) and shift (3,)."""
        bones = self.spread.numel()
        angles = unknown[6 : 6 + bones].reshape(self.spread.shape) * self.spread
        flexion = self.model.rest_flexion[1:, None] * torch.tensor([0.0, 0.0, 1.0])
        root = torch.zeros(1, 3, dtype=unknown.dtype)
        rotations = self.model.rotations(torch.cat([root, angles + flexion])[None])
        turn = _turn(unknown[:3]) @ self.turn
        rotations = torch.cat([turn[None, None], rotations[:, 1:]], dim=1)
        return rotations, unknown[None, 6 + bones :], self.shift + 0.1 * unknown[3:6]

    def _joints(self, unknown: Tensor) -> Tensor:
        rotations, shape, shift = self._unpack(unknown)
        return self.model.pose_joints(shape, rotations)[0] + shift

    def _posed(self, unknown: Tensor) -> tuple[Tensor, Tensor]:
        rotations, shape, shift = self._unpack(unknown)
        vertices, joints = self.model(shape, rotations)
        return vertices[0] + shift, joints[0] + shift

    def vertices(self, unknown: Tensor) -> Array:
        """(V, 3)."""
        return np.asarray(self._posed(unknown)[0].numpy())

    def joint_errors(self, unknown: Tensor) -> Array:
        """(21,) metres."""
        return np.asarray((self._joints(unknown) - self.target).norm(dim=-1).numpy())

    def step(self, unknown: Tensor, sigma_m: Array, planes: Planes | None = None) -> Tensor:
        """One step of Gauss-Newton towards the joints, known to ``sigma_m`` (21,), and planes."""
        sigma = torch.from_numpy(sigma_m)[:, None]

        def residuals(unknown: Tensor) -> Tensor:
            if planes is None:
                joints, off = self._joints(unknown), []
            else:
                vertices, joints = self._posed(unknown)
                offset = vertices[torch.from_numpy(planes.rows)] - torch.from_numpy(planes.points)
                off = [(offset * torch.from_numpy(planes.normals)).sum(-1) / PLANE_M]
            return torch.cat([((joints - self.target) / sigma).flatten(), unknown[6:], *off])

        now = residuals(unknown)
        slope = torch.func.jacfwd(residuals)(unknown)  # (R, P)
        # Far points count less: Cauchy's weights, at three standard deviations.
        weight = 1 / (1 + (now / 3) ** 2)
        weight[: 63 + len(unknown) - 6] = 1
        normal = slope.T @ (weight[:, None] * slope)
        normal += DAMPING * torch.eye(len(unknown), dtype=unknown.dtype)
        return unknown - torch.linalg.solve(normal, slope.T @ (weight * now))

    def result(self, unknown: Tensor) -> PosedLike:
        rotations, shape, shift = self._unpack(unknown)
        return PosedLike(
            rotations[0].numpy(), shape[0].numpy(), self.vertices(unknown), shift.numpy()
        )


def _laid_on(model: HandModel, joints_m: Array) -> tuple[Array, Array]:
    """Turn (3, 3) and shift (3,) that lay our joints at rest on others, wrist and thumb's base
    left aside (Kabsch 1976)."""
    sure = [j for j in range(21) if j not in ROUGH_JOINTS]
    ours, theirs = model.joints.numpy()[sure], joints_m[sure]
    u, _, v = np.linalg.svd((ours - ours.mean(0)).T @ (theirs - theirs.mean(0)))
    flip = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ v))])
    turn = (u @ flip @ v).T
    return turn, theirs.mean(0) - turn @ ours.mean(0)


def _bend(joints_m: Array) -> float:
    """How the four fingers bend, about the axis from little finger to index: a left hand's and a
    right hand's have other signs, wherever and however large they are."""
    bases = np.array([5, 9, 13, 17])
    first, last = joints_m[bases + 1] - joints_m[bases], joints_m[bases + 3] - joints_m[bases + 1]
    return float(np.cross(first, last).sum(axis=0) @ (joints_m[5] - joints_m[17]))


def _turn(vector: Tensor) -> Tensor:
    """(3, 3) rotation by a vector's length about it."""
    x, y, z = vector
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).reshape(3, 3)
    return torch.linalg.matrix_exp(cross)
