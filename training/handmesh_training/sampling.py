"""Random hands before random cameras: poses from `poses`, skin from `relief`, cameras from `views`;
and the crop around each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from .gestures.library import GestureLibrary
from .hand import FOREARM, HandModel, PosedHand
from .poses import ShapeShift, draw_poses
from .relief import sample_relief
from .views import sample_views_of

Array = NDArray[np.float64]

# Nothing of a hand or arm is nearer to the camera than this; an arm bends away from here on.
NEAR_M, BENDS_M = 0.05, 0.11
# The arm is drawn out from here on, metres below the wrist, where its end would be seen.
ARM_FROM_M = 0.07
ARM_END_M = 0.05  # the open end is cut aslant
ARM_STRETCHES = (0.8, 2.0, 4.0, 8.0, 16.0)


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


def sample_views(
    rng: np.random.Generator,
    model: HandModel,
    count: int,
    crop_px: int,
    margin: float,
    shape_shift: ShapeShift = (),
    library: GestureLibrary | None = None,
) -> HandViews:
    """Hands before cameras at phone and webcam distances, and the crop around each.

    Args:
        rng: everything random comes from it. count: how many. crop_px: side of the crop.
        margin: side of the crop over the larger side of the joints' tight box.
        shape_shift, library: see `poses.draw_poses`.
    """
    poses = draw_poses(rng, model, count, library, shape_shift)
    rotations = model.rotations(poses.angles)
    relief = sample_relief(rng, model.asset.vertices_m, count)
    with torch.no_grad():
        posed: PosedHand = model(poses.shape, rotations, relief)  # wrist at the origin
    arm = rotations[:, FOREARM, :, 1].double().numpy()  # (B, 3) of +y
    view = sample_views_of(rng, arm)
    turn = torch.from_numpy(view.turn).float()
    turned = posed.joints @ turn.transpose(1, 2)  # (B, 21, 3)
    # The middle of the hand, not the wrist, stands at the sampled place.
    shift = torch.from_numpy(view.middle).float()[:, None] - turned.mean(dim=1, keepdim=True)
    joints = (turned + shift).numpy()
    vertices = (posed.vertices @ turn.transpose(1, 2) + shift).numpy()

    plane = joints[..., :2] / joints[..., 2:]  # (B, 21, 2) tangents
    low, high = plane.min(axis=1), plane.max(axis=1)
    side = (high - low).max(axis=1) * margin
    corner = 0.5 * (low + high) - 0.5 * side[:, None]
    focal = crop_px / side
    # Crop fraction u = (x_px + 0.5) / crop_px, with x_px counted from pixel centres.
    principal = -corner * focal[:, None] - 0.5
    intrinsics = np.concatenate([focal[:, None], focal[:, None], principal], axis=1)

    lead_arms_away(model, vertices, (view.turn @ arm[..., None])[..., 0], intrinsics, crop_px)

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


def lead_arms_away(
    model: HandModel,
    vertices: NDArray[np.float32],
    arm: Array,
    intrinsics: Array,
    crop_px: int,
) -> None:
    """Draw out, in place, arms whose end would be in the crop, and bend those behind the camera.

    Only vertices (B, V, 3) below the labelled mesh move. ``arm`` (B, 3) points to the elbow.
    """
    height = model.asset.vertices_m[:, 1]
    moved = np.flatnonzero(height > ARM_FROM_M)
    beyond = height[moved] - ARM_FROM_M  # (N,)
    end = beyond > beyond.max() - ARM_END_M
    # The elbow bends sideways, out of the picture on the side to which the arm points already.
    out = arm.copy()
    out[:, 2] = 0
    out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-6)
    out = (out + arm * [1, 1, 0.25]).astype(np.float32)
    left = np.arange(len(vertices))
    extra = np.zeros(len(vertices), dtype=np.float32)
    for stretch in (0.0, *ARM_STRETCHES):
        extra[left] = stretch
        reach = extra[left, None, None] * beyond[end][:, None]
        ends = vertices[left][:, moved[end]] + reach * out[left, None]
        focal, centre = intrinsics[left, None, :2], intrinsics[left, None, 2:]
        pixel = focal * ends[..., :2] / np.maximum(ends[..., 2:], NEAR_M) + centre
        seen = ((pixel > -1) & (pixel < crop_px)).all(axis=-1).any(axis=1)
        left = left[seen & (ends[..., 2] > NEAR_M).any(axis=1)]
        if not len(left):
            break
    arms = vertices[:, moved] + (extra[:, None] * beyond)[..., None] * out[:, None]
    depth = arms[..., 2]
    bent = NEAR_M + (BENDS_M - NEAR_M) * np.exp((depth - BENDS_M) / (BENDS_M - NEAR_M))
    arms[..., 2] = np.where(depth < BENDS_M, bent, depth)
    vertices[:, moved] = arms
