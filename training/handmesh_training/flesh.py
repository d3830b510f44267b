"""Shape directions that the template's data lacks: how full the flesh between thumb and hand is."""

from __future__ import annotations

import torch
from torch import Tensor

FLESH_NAMES = ("thumb_ball", "first_web")
# A coefficient of one moves the skin this far at most: about one standard deviation of people.
BALL_M, WEB_M = 0.003, 0.006
# How far it reaches.
_BALL_SIGMA_M, _WEB_SIGMA_M = 0.012, 0.010


def flesh_directions(vertices: Tensor, faces: Tensor, weights: Tensor, joints: Tensor) -> Tensor:
    """(2, V, 3) displacement of rest vertices for a unit of each of `FLESH_NAMES`.

    "thumb_ball" thickens the muscles about the thumb's metacarpal, along the skin's normals;
    "first_web" moves the fold between thumb and index finger outwards, away from the wrist. Linear
    skinning alone leaves a ring where a thumb bends before the fingers, which flesh fills.

    Args:
        vertices: (V, 3) at rest, metres. faces: (F, 3). weights: (V, 17). joints: (21, 3).
    """
    normals = _normals(vertices, faces)
    base, knuckle, index = joints[1], joints[2], joints[5]
    # Thumb and index finger beyond their knuckles stay as they are, and so does the arm.
    near = 1 - weights[:, [2, 3, 5, 6, 16]].sum(dim=1).clamp(max=1)

    distance = _to_segment(vertices, torch.lerp(base, knuckle, 0.2), knuckle)
    bone_radius = 0.011
    ball = torch.exp(-0.5 * ((distance - bone_radius).clamp(min=0) / _BALL_SIGMA_M) ** 2) * near
    outward = torch.nn.functional.normalize(
        torch.nn.functional.normalize(knuckle - base, dim=0)
        + torch.nn.functional.normalize(index - joints[0], dim=0),
        dim=0,
    )
    fold = _to_segment(vertices, torch.lerp(knuckle, index, 0.15), torch.lerp(knuckle, index, 0.8))
    facing = (normals @ outward + 0.3).clamp(0, 1)
    web = torch.exp(-0.5 * (fold / _WEB_SIGMA_M) ** 2) * facing
    return torch.stack([BALL_M * ball[:, None] * normals, WEB_M * web[:, None] * outward])


def _normals(vertices: Tensor, faces: Tensor) -> Tensor:
    a, b, c = vertices[faces].unbind(dim=1)
    across = torch.linalg.cross(b - a, c - a)
    summed = torch.zeros_like(vertices)
    for corner in range(3):
        summed.index_add_(0, faces[:, corner], across)
    return torch.nn.functional.normalize(summed, dim=1)


def _to_segment(points: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """(V,) distances of points (V, 3) to a segment."""
    line = end - start
    along = ((points - start) @ line / (line @ line)).clamp(0, 1)
    return (points - start - along[:, None] * line).norm(dim=1)
