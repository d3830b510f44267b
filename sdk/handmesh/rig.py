"""Joint rotations of a hand for rigs: what turns a rest skeleton into the hand that was seen.

The rest skeleton is that of the template, a raised right hand seen from its palm: in the camera's
frame its fingers point up (-y), its thumb right (+x), its palm towards the camera (-z). At rest no
joint is turned, so each joint's axes are the frame's. A left hand's rest skeleton is its mirror
image in x.

Where a bone points follows from the joints at its ends, and how it is turned about itself from the
skin around it: of all rotations that bring the bone where it is, the one that brings the template's
vertices nearest to the hand's, blended between joints as in a skinned file: Kabsch's problem with
one degree of freedom left, which has a closed solution. The palm is one rigid part, turned by
Kabsch's rotation of its vertices and of the joints on it (W. Kabsch, Acta Cryst. A32, 922, 1976).
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .archive import read_arrays
from .errors import BundleError, InputError
from .graph import Topology
from .types import FINGERS, JOINT_NAMES, JOINT_PARENTS, Hand, Handedness

__all__ = ["RIG_PATH", "Pose", "Rig", "pose_of", "quaternions", "rotation_matrices"]

Array = NDArray[np.float64]

RIG_PATH = Path(__file__).parent / "assets" / "rig.npz"
# Every vertex hangs on so many joints at most: one glTF attribute of four.
INFLUENCES = 4
# Joints that turn something; the fingertips end the last bones.
TURNING = tuple(j for j in range(len(JOINT_NAMES)) if j not in {f[3] for f in FINGERS.values()})
_MIRROR = np.array([-1.0, 1.0, 1.0])
# A mirror image in x turns about x as before, about y and z the other way: (x, y, z, w).
_MIRRORED_TURN = np.array([1.0, -1.0, -1.0, 1.0])
# In the template, skin below follows the forearm too: it does not tell how the palm is turned.
_PALM_ABOVE_M = -0.027
# How much is held, in shares of what the skin says, of a bone's being turned about itself as the
# bone before it is: at the base of a finger little, further on more, since those joints are hinges
# and the skin around thin bones tells their twist badly.
_BASE_HINGE, _HINGE = 0.1, 3.0
# Skin near a joint hangs on both its bones. The first pass goes by the skin that is most a bone's
# own: shares count by this power. The others take off what the other bones do to it.
_SHARPNESS = 4
_PASSES = 3
_LEAST_SHARE = 0.05
_SHORTEST_BONE_M = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class Rig:
    """A rest skeleton and how the mesh hangs on it, for one side.

    Attributes:
        joints_m: (21, 3) float64, metres, wrist at the origin.
        vertices_m: (V, 3) float64, the template, metres.
        weights: (V, 21) float64, rows sum to 1, at most four of a row above 0; those of fingertips
            are 0.
        faces: (F, 3) int32 triangles of a right hand.
    """

    joints_m: Array
    vertices_m: Array
    weights: Array
    faces: NDArray[np.int32]

    def side(self, hand: Hand) -> Handedness | None:
        """Which hand's mesh a hand has, by its winding; None if the mesh is another.

        In a mirrored photo a person's right hand has the shape of a left one.
        """
        if len(hand.vertices_m) != len(self.vertices_m):
            return None
        if np.array_equal(hand.faces, self.faces):
            return "right"
        return "left" if np.array_equal(hand.faces, self.faces[:, ::-1]) else None

    @classmethod
    def default(cls, side: Handedness = "right") -> Rig:
        """The rig of the mesh that ships with the package; its arrays are not to be written.

        Raises:
            BundleError: its file is missing or damaged.
        """
        return _default(side)


@lru_cache(maxsize=2)
def _default(side: Handedness) -> Rig:
    topology = Topology.default()
    remedy = "reinstall handmesh or restore the file"
    arrays = read_arrays(RIG_PATH, remedy)
    joints, shares = arrays.get("joints"), arrays.get("shares")
    shape = (topology.vertex_count, INFLUENCES)
    if joints is None or shares is None or joints.shape != shape or shares.shape != shape:
        raise BundleError(f"{RIG_PATH} is no rig of a mesh of {shape[0]} vertices; {remedy}")
    weights = np.zeros((topology.vertex_count, len(JOINT_NAMES)))  # (V, 21)
    rows = np.arange(len(weights))[:, None]
    np.add.at(weights, (rows, joints.astype(np.int64)), shares.astype(np.float64))
    weights /= weights.sum(axis=1, keepdims=True)
    vertices = topology.template_vertices_m.astype(np.float64)
    rest = topology.joint_regressor.astype(np.float64) @ vertices
    rest -= rest[0]
    flip = _MIRROR if side == "left" else np.ones(3)
    rig = Rig(rest * flip, vertices * flip, weights, topology.faces)
    for array in (rig.joints_m, rig.vertices_m, rig.weights):
        array.flags.writeable = False  # everybody's
    return rig


@dataclasses.dataclass(frozen=True, eq=False)
class Pose:
    """How the joints of a hand are turned, relative to the rest skeleton (see `handmesh.rig`).

    Attributes:
        rotations: (21, 4) float64 unit quaternions (x, y, z, w), as in glTF, in the order of
            `JOINT_NAMES`. Each turns its joint in the frame of the joint's parent; the wrist's
            turns the whole hand in the camera's frame. Fingertips are not turned: (0, 0, 0, 1).
        wrist_m: (3,) float64, where the wrist is, camera space, metres.
        offsets_m: (21, 3) float64, where each joint is in its parent's frame, metres: along fingers
            the template's directions with this hand's own lengths. The wrist's is 0.
        side: which rest skeleton it is; "left" is the mirror image of "right". It is the hand's
            shape in the picture: in a mirrored photo the other one than `Hand.handedness`.
    """

    rotations: Array
    wrist_m: Array
    offsets_m: Array
    side: Handedness

    def world_rotations(self) -> Array:
        """(21, 3, 3) rotations from rest to the camera's frame."""
        local = rotation_matrices(self.rotations)
        world = np.empty((len(local), 3, 3))
        for joint, parent in enumerate(JOINT_PARENTS):
            world[joint] = local[joint] if parent < 0 else world[parent] @ local[joint]
        return world

    def joints_m(self, offsets_m: Array | None = None) -> Array:
        """(21, 3) joints in camera space, metres: the skeleton posed.

        Args:
            offsets_m: (21, 3) another skeleton's, to be posed alike; this hand's by default.
        """
        offsets = self.offsets_m if offsets_m is None else offsets_m
        world = self.world_rotations()
        joints = np.empty((len(world), 3))
        for joint, parent in enumerate(JOINT_PARENTS):
            if parent < 0:
                joints[joint] = self.wrist_m
            else:
                joints[joint] = joints[parent] + world[parent] @ offsets[joint]
        return joints


def pose_of(hand: Hand) -> Pose:
    """The joint rotations of a hand.

    Raises:
        InputError: the hand has another mesh than the one that ships with the package, or two of
            its joints that a bone joins lie in one place.
    """
    rig = Rig.default("right")
    side = rig.side(hand)
    if side is None:
        raise InputError(
            f"rotations are known of the package's mesh of {len(rig.vertices_m)} vertices, and "
            f"this hand's mesh of {len(hand.vertices_m)} is another: use a bundle with the "
            "package's graph"
        )
    flip = _MIRROR if side == "left" else np.ones(3)
    joints = hand.joints_m.astype(np.float64) * flip
    world = _world_rotations(rig, joints, hand.vertices_m.astype(np.float64) * flip)

    offsets = np.zeros((len(JOINT_NAMES), 3))
    local = np.tile(np.eye(3), (len(JOINT_NAMES), 1, 1))
    local[0] = world[0]
    for joint, parent in enumerate(JOINT_PARENTS[1:], start=1):
        if joint in TURNING:
            local[joint] = world[parent].T @ world[joint]
        offsets[joint] = world[parent].T @ (joints[joint] - joints[parent])
    rotations = quaternions(local)
    if side == "left":
        rotations = rotations * _MIRRORED_TURN
    return Pose(rotations, hand.joints_m[0].astype(np.float64), offsets * flip, side)


def _world_rotations(rig: Rig, joints: Array, vertices: Array) -> Array:
    """(21, 3, 3) from rest to the camera's frame, of a right hand; those of tips stay the unit."""
    world = np.tile(np.eye(3), (len(JOINT_NAMES), 1, 1))
    palm_joints = [0, *(finger[0] for finger in FINGERS.values())]
    on_palm = (rig.weights[:, 0] > 0.5) & (rig.vertices_m[:, 1] < _PALM_ABOVE_M)
    # The joints on the palm weigh together as much as its skin.
    weights = rig.weights[on_palm, 0] ** _SHARPNESS
    weights = np.concatenate([weights, np.full(len(palm_joints), weights.sum() / len(palm_joints))])
    world[0] = _kabsch(
        np.concatenate([rig.vertices_m[on_palm], rig.joints_m[palm_joints]]),
        np.concatenate([vertices[on_palm], joints[palm_joints]]),
        weights,
    )
    skin = None  # what each joint makes of the template's skin, once all turns are roughly known
    for _ in range(_PASSES):
        for joint in TURNING[1:]:
            swung, axis = _swing(rig, world, joints, joint)
            share = rig.weights[:, joint]
            own = share > _LEAST_SHARE
            seen = vertices[own]
            if skin is not None:  # less what the other joints move it by
                blend = np.einsum("vj,jvc->vc", rig.weights[own], skin[:, own])
                seen = skin[joint, own] + (seen - blend) / share[own, None]
            a = (rig.vertices_m[own] - rig.joints_m[joint]) @ swung.T
            shares = share[own] ** _SHARPNESS
            hinge = _BASE_HINGE if JOINT_PARENTS[joint] == 0 else _HINGE
            turn = _twist(a, seen - joints[joint], axis, shares, hinge)
            world[joint] = _about(axis, turn) @ swung
        rest = rig.vertices_m - rig.joints_m[:, None]  # (21, V, 3)
        skin = np.einsum("jac,jvc->jva", world, rest) + joints[:, None]
    return world


def _swing(rig: Rig, world: Array, joints: Array, joint: int) -> tuple[Array, Array]:
    """The rotation (3, 3) that brings a bone where it is, with no turn about itself against the
    bone before it; and the bone's direction (3,)."""
    parent, child = JOINT_PARENTS[joint], joint + 1
    after = joints[child] - joints[joint]
    length = float(np.linalg.norm(after))
    if length < _SHORTEST_BONE_M:
        raise InputError(
            f"{JOINT_NAMES[joint]} and {JOINT_NAMES[child]} lie in one place: no bone between them "
            "has a direction"
        )
    before = world[parent] @ (rig.joints_m[child] - rig.joints_m[joint])
    return _shortest(before, after) @ world[parent], after / length


def _kabsch(before: Array, after: Array, weights: Array) -> Array:
    """The rotation (3, 3) that brings points (N, 3) nearest to points (N, 3), means aligned."""
    a, b = (x - np.average(x, axis=0, weights=weights) for x in (before, after))
    u, _, vt = np.linalg.svd((weights[:, None] * b).T @ a)
    u[:, 2] *= np.sign(np.linalg.det(u) * np.linalg.det(vt))  # no reflection
    return np.asarray(u @ vt)


def _shortest(start: Array, end: Array) -> Array:
    """The rotation (3, 3) by the smallest angle from the direction of one vector to another's."""
    a, b = start / np.linalg.norm(start), end / np.linalg.norm(end)
    cosine = float(a @ b)
    if cosine < -1 + 1e-12:  # half a turn, about any axis across
        across = np.cross(a, np.eye(3)[np.argmin(np.abs(a))])
        return _about(across / np.linalg.norm(across), np.pi)
    axis = np.cross(a, b)
    cross = _cross_matrix(axis)
    return np.asarray(np.eye(3) + cross + cross @ cross / (1 + cosine))


def _twist(a: Array, b: Array, axis: Array, weights: Array, hinge: float) -> float:
    """The turn about an axis, radians, that brings points (N, 3) nearest to points (N, 3).

    No turn at all counts as so many points' worth of evidence as ``hinge`` says, in shares of all.
    """
    sine = float(weights @ (np.cross(a, b) @ axis))
    along_a, along_b = a @ axis, b @ axis
    cosine = float(weights @ ((a * b).sum(axis=1) - along_a * along_b))
    across_a = np.sqrt(np.maximum((a * a).sum(axis=1) - along_a**2, 0))
    across_b = np.sqrt(np.maximum((b * b).sum(axis=1) - along_b**2, 0))
    return float(np.arctan2(sine, cosine + hinge * float(weights @ (across_a * across_b))))


def _about(axis: Array, angle: float) -> Array:
    """Rodrigues' rotation (3, 3) about a unit axis."""
    cross = _cross_matrix(axis)
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross))


def _cross_matrix(v: Array) -> Array:
    return np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])


def quaternions(rotations: Array) -> Array:
    """(..., 4) unit quaternions (x, y, z, w), w >= 0, of rotation matrices (..., 3, 3)."""
    m = np.asarray(rotations, dtype=np.float64)
    # Of the four ways to divide, each row's is the one by its largest component: never by nearly 0.
    xx, yy, zz = (m[..., i, i] for i in range(3))
    xy, xz, yz = (m[..., i, j] + m[..., j, i] for i, j in ((0, 1), (0, 2), (1, 2)))
    wx, wy, wz = (m[..., j, i] - m[..., i, j] for i, j in ((1, 2), (2, 0), (0, 1)))
    outer = np.stack(
        [
            np.stack([1 + xx - yy - zz, xy, xz, wx], axis=-1),
            np.stack([xy, 1 - xx + yy - zz, yz, wy], axis=-1),
            np.stack([xz, yz, 1 - xx - yy + zz, wz], axis=-1),
            np.stack([wx, wy, wz, 1 + xx + yy + zz], axis=-1),
        ],
        axis=-2,
    )  # (..., 4, 4): 4 q q^T
    largest = np.argmax(np.diagonal(outer, axis1=-2, axis2=-1), axis=-1)
    q = np.take_along_axis(outer, largest[..., None, None], axis=-2)[..., 0, :]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    return np.asarray(np.where(q[..., 3:] < 0, -q, q))


def rotation_matrices(rotations: Array) -> Array:
    """(..., 3, 3) rotation matrices of unit quaternions (..., 4) (x, y, z, w)."""
    x, y, z, w = np.moveaxis(np.asarray(rotations, dtype=np.float64), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
