"""Direct LBS (section 5.3, Table 2): from 21 joints to a mesh by inverse kinematics and skinning.

The hand is the template: its shape does not follow the joints, only its size does, which is that of
the middle finger's first bone. The palm is turned as a whole, then each finger bone by the smallest
rotation that brings it to its direction, from base to tip. So joints say nothing about a bone's
twist, and the lengths of all other bones are the template's: what the paper's comparison is about.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from handmesh.errors import InputError

from ..hand import PIVOT_COUNT, PIVOT_JOINTS, HandModel

# The wrist and these are one rigid body: the bases of the five fingers.
_BASES = [1, 5, 9, 13, 17]
# Ends of the middle finger's first bone.
_MCP, _PIP = 9, 10
_BONES_PER_FINGER = 3
# Metres below which two joints give no direction: far below what any label resolves.
_COINCIDENT = 1e-7
# 1 + cos below which a turn has no axis of its own.
_OPPOSITE = 1e-18


def fit_pose(model: HandModel, joints_m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The pose of the template hand whose bones point as those of given right hands.

    ``scale * model.pose_joints(0, rotations) + root`` are the joints again where the hand has the
    template's proportions. Computed in float64. Coincident joints leave a bone as it is against
    its parent; a bone folded right back turns about its axis of flexion.

    Args:
        model: the hand; on the device of the joints.
        joints_m: (B, 21, 3) metres, camera frame or any turned one.

    Returns:
        rotations (B, 17, 3, 3) as `HandModel.forward` takes them, the forearm in line with the
        hand; scale (B,) against the template; root (B, 3), the wrist. In the joints' dtype.

    Raises:
        InputError: another shape, or numbers that are not finite.
    """
    if joints_m.ndim != 3 or joints_m.shape[1:] != (21, 3):
        raise InputError(f"expected (B, 21, 3) joints in metres, got {tuple(joints_m.shape)}")
    if not joints_m.isfinite().all():
        raise InputError("expected joints in metres, got some that are not finite; leave them out")
    joints, rest = joints_m.double(), model.joints.double()
    root = joints[:, 0]
    scale = (joints[:, _PIP] - joints[:, _MCP]).norm(dim=-1) / (rest[_PIP] - rest[_MCP]).norm()

    palm = _rotation_between(rest[_BASES] - rest[0], joints[:, _BASES] - root[:, None])
    identity = torch.eye(3, dtype=palm.dtype, device=palm.device)
    rotations = identity.repeat(len(joints), PIVOT_COUNT, 1, 1)  # (B, 17, 3, 3)
    rotations[:, 0] = palm
    parent = palm[:, None].expand(-1, len(_BASES), -1, -1)  # (B, 5, 3, 3), hand to camera
    for bone in range(_BONES_PER_FINGER):
        pivots = [1 + _BONES_PER_FINGER * finger + bone for finger in range(len(_BASES))]
        start = [PIVOT_JOINTS[pivot] for pivot in pivots]
        end = [joint + 1 for joint in start]
        along = F.normalize(rest[end] - rest[start], dim=-1)  # (5, 3)
        step = (joints[:, end] - joints[:, start])[..., None, :] @ parent  # (B, 5, 1, 3)
        step = step[..., 0, :]  # (B, 5, 3), seen from the parent bone
        length = step.norm(dim=-1, keepdim=True)
        target = torch.where(length > _COINCIDENT, step / length.clamp(min=_COINCIDENT), along)
        flexion = model.axes[pivots, 2].double()  # (5, 3)
        rotations[:, pivots] = swing(along.expand_as(target), target, flexion)
        parent = parent @ rotations[:, pivots]
    dtype = joints_m.dtype
    return rotations.to(dtype), scale.to(dtype), root.to(dtype)


@torch.no_grad()
def skin_joints(model: HandModel, joints_m: Tensor) -> Tensor:
    """The mesh of direct LBS: the template in the pose of given joints.

    With ``HandModel(blending="linear")`` it is the paper's linear blend skinning.

    Args, errors: as of `fit_pose`.

    Returns:
        (B, V, 3) metres, the networks' mesh, in the frame and dtype of the joints.
    """
    rotations, scale, root = fit_pose(model, joints_m)
    dtype = model.vertices.dtype
    shape = torch.zeros(len(joints_m), model.shape_count, dtype=dtype, device=joints_m.device)
    rows = torch.from_numpy(model.asset.template_subset).to(joints_m.device).long()
    vertices = model(shape, rotations.to(dtype)).vertices[:, rows]  # (B, V, 3)
    return vertices.to(joints_m.dtype) * scale[:, None, None] + root[:, None]


def swing(a: Tensor, b: Tensor, hinge: Tensor) -> Tensor:
    """The smallest rotations (..., 3, 3) that turn unit vectors a (..., 3) to b (..., 3).

    Args:
        a, b: broadcast. hinge: (..., 3), not along a; what a half turn, which could go either way,
            turns about, as far as it is perpendicular to a.
    """
    axis = torch.linalg.cross(a, b)
    cosine = (a * b).sum(dim=-1, keepdim=True)  # (..., 1)
    # 1 + cos = sin^2 / (1 - cos): the left side loses all its digits near a half turn.
    behind = torch.where(
        cosine < 0, axis.square().sum(dim=-1, keepdim=True) / (1 - cosine), 1 + cosine
    )
    x, y, z = axis.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    identity = torch.eye(3, dtype=a.dtype, device=a.device)
    turn = identity + cross + cross @ cross / behind.clamp(min=_OPPOSITE)[..., None]
    across = hinge - (hinge * a).sum(dim=-1, keepdim=True) * a
    across = F.normalize(across, dim=-1)
    half_turn = 2 * across[..., None] * across[..., None, :] - identity
    return torch.where(behind[..., None] < _OPPOSITE, half_turn, turn)


def _rotation_between(a: Tensor, b: Tensor) -> Tensor:
    """Rotations (B, 3, 3) that bring a (N, 3) nearest to b (B, N, 3), least squares (Kabsch).

    Points on one line leave the turn about it open, and any is taken.
    """
    u, _, vt = torch.linalg.svd(a.T @ b)  # covariance (B, 3, 3)
    sign = torch.linalg.det(u) * torch.linalg.det(vt)  # -1 where the best would be a reflection
    v = vt.transpose(1, 2)
    v = torch.cat([v[..., :2], v[..., 2:] * sign[:, None, None]], dim=-1)
    return v @ u.transpose(1, 2)
