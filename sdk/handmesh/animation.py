"""A hand that moves, as binary glTF 2.0: see `handmesh.glb` for the frame and the skeleton.

The skeleton has the median lengths of the frames. The mesh at rest is the median of the frames'
meshes, brought back to the rest pose. Rotations of 16 joints and the translation of the wrist are
keyed at each time, counted from the first, with linear interpolation between.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .camera import finite, shown
from .errors import InputError
from .glb import Document, float32s
from .rig import Pose, Rig
from .types import JOINT_NAMES, JOINT_PARENTS, Hand

__all__ = ["Animation", "encode_animation"]

Array = NDArray[np.float64]

# Frames, evenly spaced, whose medians the lengths and the mesh at rest are: at most so many. More
# make them no steadier, and each is a mesh to be kept.
_MOST_SHAPES = 256


def encode_animation(hands: Sequence[Hand], seconds: Sequence[float]) -> bytes:
    """One hand that moves, a GLB file's bytes.

    Args:
        hands: one hand in N frames. seconds: (N,) when each was seen, ascending.

    Raises:
        InputError: no hands, another number of times, times that do not ascend, left and right
            hands mixed, or a mesh other than the package's.
    """
    if not isinstance(hands, Sequence):
        raise InputError(
            f"an animation is of a list of hands, one for each frame, not {shown(hands)}"
        )
    animation = Animation()
    for hand, time_s in zip(hands, _checked_times(hands, seconds), strict=True):
        animation.add(hand, time_s)
    return animation.encode()


class Animation:
    """One hand that moves, frame by frame. Of a frame less than a kilobyte is kept, and of at most
    256 frames a mesh."""

    def __init__(self) -> None:
        self._first: tuple[Hand, Pose] | None = None
        self._first_s = 0.0
        # As the file has them: when, rotations (21, 4) and the wrist's place (3,), of each frame.
        self._keys: list[tuple[np.float32, NDArray[np.float32], NDArray[np.float32]]] = []
        # (21, 3) and (V, 3) float32 of every n-th frame.
        self._shapes: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
        self._every = 1

    def add(self, hand: Hand, time_s: float) -> None:
        """The hand in the next frame.

        Args:
            hand: as it was seen. time_s: when, in seconds; later than the one before, also in the
                file, which counts from the first and holds float32.

        Raises:
            InputError: the time is not later, it is another hand than before (left and right, or
                mirrored and not), or its mesh is another than the package's.
        """
        if not isinstance(hand, Hand):
            raise InputError(f"an animation is of hands, not of {type(hand).__name__}")
        pose = hand.pose()
        if self._first is None:
            self._first = hand, pose
        first, first_pose = self._first
        if hand.handedness != first.handedness:
            raise InputError(
                "an animation is of one hand, and left and right ones came: write a file for each"
            )
        if pose.side != first_pose.side:
            raise InputError(
                "an animation is of one hand, and frames of mirrored and other video came: keep to "
                "one"
            )
        time_s = finite(time_s, "time_s, when a frame of an animation was seen,", InputError)
        if not self._keys:
            self._first_s = time_s
        with np.errstate(over="ignore"):
            key = np.float32(time_s - self._first_s)
        if not np.isfinite(key) or (self._keys and key <= self._keys[-1][0]):
            raise InputError(
                "the times of an animation must be seconds, each above the last, also as float32 "
                f"counted from the first: {time_s!r} cannot follow; leave that frame out"
            )
        if len(self._keys) % self._every == 0:
            self._shapes.append((float32s(pose.offsets_m), float32s(_unposed(hand, pose))))
            if len(self._shapes) > _MOST_SHAPES:
                self._shapes, self._every = self._shapes[::2], 2 * self._every
        # At once, so that what interrupts a video leaves no half of a frame.
        self._keys.append((key, float32s(pose.rotations), float32s(pose.wrist_m)))

    def encode(self) -> bytes:
        """A GLB file's bytes.

        Raises:
            InputError: no hand was added.
        """
        if self._first is None:
            raise InputError("an animation needs at least one hand; none came")
        hand, pose = self._first
        offsets, rest = (
            np.median(np.array(frames, dtype=np.float64), axis=0)  # (21, 3) and (V, 3)
            for frames in zip(*self._shapes, strict=True)
        )
        times, rotations, wrists_m = (
            np.array(values, dtype=np.float64) for values in zip(*self._keys, strict=True)
        )
        skeleton = Pose(pose.rotations, pose.wrist_m, offsets, pose.side)
        document = Document()
        document.add_mesh(hand, rest, skinned=True)
        unturned = np.tile(np.eye(3), (len(JOINT_NAMES), 1, 1))
        document.add_skeleton(skeleton, unturned, _rest_joints(offsets))
        document.add_animation(times, _continuous(rotations), wrists_m)
        return document.encode()


def _checked_times(hands: Sequence[Hand], seconds: Sequence[float]) -> list[float]:
    try:
        times = np.asarray(seconds, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as cause:
        raise InputError(
            f"seconds must be numbers, one for each hand, not {shown(seconds)}"
        ) from cause
    if times.shape != (len(hands),):
        raise InputError(
            f"an animation needs a time for each of its {len(hands)} hands, not {times.shape}"
        )
    return [float(time_s) for time_s in times]


def _rest_joints(offsets_m: Array) -> Array:
    """(21, 3) joints of a skeleton at rest, the wrist at the origin."""
    joints = np.zeros((len(JOINT_NAMES), 3))
    for joint, parent in enumerate(JOINT_PARENTS[1:], start=1):
        joints[joint] = joints[parent] + offsets_m[joint]
    return joints


def _unposed(hand: Hand, pose: Pose) -> Array:
    """(V, 3) the hand's vertices brought back to rest: the inverse of linear skinning."""
    turns = pose.world_rotations()  # (21, 3, 3)
    rest = _rest_joints(pose.offsets_m)
    shifts = pose.joints_m() - np.einsum("jab,jb->ja", turns, rest)  # (21, 3)
    weights = Rig.default().weights
    matrices = np.einsum("vj,jab->vab", weights, turns)
    moved = hand.vertices_m.astype(np.float64) - weights @ shifts
    # Blends of opposite turns have no inverse; a part of a millimetre's worth of damping gives one.
    damped = np.einsum("vba,vbc->vac", matrices, matrices) + 1e-6 * np.eye(3)
    return np.asarray(
        np.linalg.solve(damped, np.einsum("vba,vb->va", matrices, moved)[..., None])[..., 0]
    )


def _continuous(rotations: Array) -> Array:
    """(N, 21, 4) the same rotations with signs that do not jump from frame to frame."""
    steps = (rotations[1:] * rotations[:-1]).sum(axis=-1)  # (N - 1, 21)
    signs = np.cumprod(np.where(steps < 0, -1.0, 1.0), axis=0)
    return np.concatenate([rotations[:1], rotations[1:] * signs[..., None]])
