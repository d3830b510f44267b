"""Shape directions that the template's data lacks: how full the flesh between thumb and hand is,
and how thick thumb and little finger are for themselves."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from handmesh.geometry import vertex_normals

from .segments import nearest_on_segment, segment_distances

FLESH_NAMES = ("thumb_ball", "first_web", "thumb_girth", "little_girth")
# A coefficient of one moves the skin this far at most. By eye, beside photos of thumbs bent before
# closed hands: there is no measurement of such flesh to take it from.
BALL_M, WEB_M = 0.003, 0.006
# What a coefficient of one adds to a finger's radius.
GIRTH_M = 0.001
# How wide both fade out: about the thickness of a thumb, so that no step is seen.
_BALL_SIGMA_M, _WEB_SIGMA_M = 0.012, 0.010
# Skin this near to the thumb's metacarpal lies on it.
_BONE_RADIUS_M = 0.011
# Joints of thumb and little finger from their first knuckle to the tip, and the pivots of the bones
# between them. About the thumb's metacarpal grows the ball.
_GIRTHS = (((2, 3, 4), (2, 3)), ((17, 18, 19, 20), (13, 14, 15)))
# Skin nearer to the bone than this, as at the dome of a fingertip, moves less: none through it.
_CORE_M = 0.004
# Of the web moves what looks outwards, and what looks aside at most by this (cosine).
_ASIDE = 0.3


def flesh_directions(vertices: Tensor, faces: Tensor, weights: Tensor, joints: Tensor) -> Tensor:
    """(4, V, 3) displacement of rest vertices for a unit of each of `FLESH_NAMES`.

    "thumb_ball" thickens the muscles about the thumb's metacarpal, along the skin's normals;
    "first_web" moves the fold between thumb and index finger outwards, away from the wrist, and
    with it the skin of both their first bones. Linear skinning alone leaves a ring where a thumb
    bends before the fingers, which flesh fills. "thumb_girth" and "little_girth" move the skin of
    these fingers away from their bones, and make none longer; where the web moves, less.

    Args:
        vertices: (V, 3) at rest, metres. faces: (F, 3). weights: (V, 17). joints: (21, 3).
    """
    normals = torch.from_numpy(vertex_normals(vertices.numpy(), faces.numpy())).to(vertices)
    base, knuckle, index = joints[1], joints[2], joints[5]
    # The ball ends at the thumb's knuckle, and where the arm begins.
    ends = 1 - weights[:, [2, 3, 5, 6, 16]].sum(dim=1).clamp(max=1)
    distance = segment_distances(vertices, torch.lerp(base, knuckle, 0.2), knuckle)
    ball = torch.exp(-0.5 * ((distance - _BONE_RADIUS_M).clamp(min=0) / _BALL_SIGMA_M) ** 2) * ends

    outward = F.normalize(
        F.normalize(knuckle - base, dim=0) + F.normalize(index - joints[0], dim=0), dim=0
    )
    fold = segment_distances(
        vertices, torch.lerp(knuckle, index, 0.15), torch.lerp(knuckle, index, 0.8)
    )
    facing = (normals @ outward + _ASIDE).clamp(0, 1)
    web = torch.exp(-0.5 * (fold / _WEB_SIGMA_M) ** 2) * facing
    thumb, little = (
        weights[:, list(pivots)].sum(dim=1)[:, None] * _away(vertices, joints[list(chain)])
        for chain, pivots in _GIRTHS
    )
    thumb = thumb * (1 - web[:, None])  # both at once would fold the web's skin over
    return torch.stack(
        [
            BALL_M * ball[:, None] * normals,
            WEB_M * web[:, None] * outward,
            GIRTH_M * thumb,
            GIRTH_M * little,
        ]
    )


def _away(points: Tensor, chain: Tensor) -> Tensor:
    """(V, 3) away from and across the nearest bone of a chain (J, 3): of length 1 or less."""
    bones = [*pairwise(chain)]
    distances = torch.stack([segment_distances(points, *bone) for bone in bones])  # (J - 1, V)
    across = []
    for start, end in bones:
        along = F.normalize(end - start, dim=0)
        off = points - nearest_on_segment(points, start, end)
        off = off - (off @ along)[:, None] * along
        across.append(off / off.norm(dim=1, keepdim=True).clamp(min=_CORE_M))
    # At a joint both its bones have a say, so that no step is seen.
    share = torch.softmax(-distances / _CORE_M, dim=0)  # (J - 1, V)
    return (share[..., None] * torch.stack(across)).sum(dim=0)
