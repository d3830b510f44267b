"""Random hands before random cameras: poses from `poses`, view, distance and crop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from .gestures.library import GestureLibrary
from .hand import HandModel, PosedHand
from .poses import Poses, draw_poses

Array = NDArray[np.float64]

# Distance of the camera, and how far the hand stands off the optical axis (tangent).
DISTANCE_M = (0.22, 1.3)
OFF_AXIS = 0.35


def sample_orientations(rng: np.random.Generator, count: int) -> Array:
    """Rotations (count, 3, 3): four in ten uniform over all, the others as held up to a camera."""
    quaternion = rng.normal(0, 1, (count, 4))
    quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
    anyhow = _quaternion_matrix(quaternion)
    # Palm or back towards the camera, then pitched, yawed and rolled.
    yaw = rng.normal(0, 0.55, count) + np.pi * (rng.random(count) < 0.4)
    # Thumb-side and edge views are the hard ones: a good share of them.
    around = rng.random(count) < 0.4
    yaw[around] = rng.uniform(-np.pi, np.pi, int(around.sum()))
    held = _turn(2, rng.normal(0, 0.7, count)) @ _turn(0, rng.normal(0, 0.5, count)) @ _turn(1, yaw)
    return np.where((rng.random(count) < 0.4)[:, None, None], anyhow, held)


def _quaternion_matrix(q: Array) -> Array:
    w, x, y, z = q.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)  # (count, 3, 3)


def _turn(axis: int, angle: Array) -> Array:
    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.zeros((len(angle), 3, 3))
    matrix[:, axis, axis] = 1
    matrix[:, a, a] = matrix[:, b, b] = np.cos(angle)
    matrix[:, a, b], matrix[:, b, a] = -np.sin(angle), np.sin(angle)
    return matrix


@dataclass(frozen=True, eq=False)
class HandViews:
    """Hands before cameras, ready to render, with their labels.

    Attributes:
        vertices_m: (B, V, 3) float32 fine mesh, camera frame.
        joints_m: (B, 21, 3) float32 camera frame.
        intrinsics: (B, 4) float32 fx, fy, cx, cy of the square crop, pixels.
        joints: (B, 21, 3) float32 (u, v, d): crop fractions and wrist-relative depth in bones.
        vertices: (B, V_t, 3) float32, the same for the networks' mesh.
        crop_in_bones: (B,) float32, the crop's side at the wrist's depth in bone lengths.
        in_view: (B,) bool, False where the picture is to be left without the hand.
        gesture: (B,) int32 index in the gesture library, -1 for transitions and free poses.
    """

    vertices_m: NDArray[np.float32]
    joints_m: NDArray[np.float32]
    intrinsics: NDArray[np.float32]
    joints: NDArray[np.float32]
    vertices: NDArray[np.float32]
    crop_in_bones: NDArray[np.float32]
    in_view: NDArray[np.bool_]
    gesture: NDArray[np.int32]


def skin(model: HandModel, poses: Poses) -> PosedHand:
    """Posed hands in their own frame, wrist at the origin."""
    with torch.no_grad():
        posed: PosedHand = model(poses.shape, model.rotations(poses.angles))
    return posed


def pose_hands(
    rng: np.random.Generator,
    model: HandModel,
    count: int,
    library: GestureLibrary | None = None,
) -> PosedHand:
    """Random posed hands in their own frame that do not run into themselves."""
    return skin(model, draw_poses(rng, model, count, library))


def sample_views(
    rng: np.random.Generator, model: HandModel, count: int, crop_px: int, margin: float
) -> HandViews:
    """Hands before cameras at phone and webcam distances, and the crop around each.

    Args:
        rng: everything random comes from it. count: how many. crop_px: side of the crop.
        margin: side of the crop over the larger side of the joints' tight box.
    """
    poses = draw_poses(rng, model, count)
    posed = skin(model, poses)
    turn = torch.from_numpy(sample_orientations(rng, count)).float()
    distance = np.exp(rng.uniform(np.log(DISTANCE_M[0]), np.log(DISTANCE_M[1]), count))
    place = np.concatenate([rng.uniform(-OFF_AXIS, OFF_AXIS, (count, 2)), np.ones((count, 1))], 1)
    # The middle of the hand, not the wrist, stands at the sampled place.
    offset = torch.from_numpy(place * distance[:, None]).float()[:, None]
    turned = posed.joints @ turn.transpose(1, 2)  # (B, 21, 3)
    centre = turned.mean(dim=1, keepdim=True)
    joints = (turned - centre + offset).numpy()
    vertices = (posed.vertices @ turn.transpose(1, 2) - centre + offset).numpy()

    plane = joints[..., :2] / joints[..., 2:]  # (B, 21, 2) tangents
    low, high = plane.min(axis=1), plane.max(axis=1)
    side = (high - low).max(axis=1) * margin
    corner = 0.5 * (low + high) - 0.5 * side[:, None]
    focal = crop_px / side
    # Crop fraction u = (x_px + 0.5) / crop_px, with x_px counted from pixel centres.
    principal = -corner * focal[:, None] - 0.5
    intrinsics = np.concatenate([focal[:, None], focal[:, None], principal], axis=1)

    bone = np.linalg.norm(joints[:, 10] - joints[:, 9], axis=-1)
    root = joints[:, :1, 2:]

    def normalised(points: NDArray[np.float32]) -> NDArray[np.float32]:
        uv = (points[..., :2] / points[..., 2:] - corner[:, None]) / side[:, None, None]
        return np.concatenate([uv, (points[..., 2:] - root) / bone[:, None, None]], axis=-1)

    return HandViews(
        vertices_m=vertices.astype(np.float32),
        joints_m=joints.astype(np.float32),
        intrinsics=intrinsics.astype(np.float32),
        joints=normalised(joints).astype(np.float32),
        vertices=normalised(vertices[:, model.asset.template_subset]).astype(np.float32),
        crop_in_bones=(side * root[:, 0, 0] / bone).astype(np.float32),
        in_view=np.ones(count, dtype=bool),
        gesture=poses.gesture,
    )
