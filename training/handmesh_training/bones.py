"""What is added to linear blend skinning: bones of any length, and joints that keep their girth."""

from __future__ import annotations

import torch
from torch import Tensor

FINGER_NAMES = ("thumb", "index", "middle", "ring", "little")
# A coefficient of one makes a bone this much longer, as the asset's finger lengths do.
STRETCH = 0.1


def bone_length_names() -> tuple[str, ...]:
    """Names of `bone_length_directions`: ``thumb_bone_1_length`` and so on, from base to tip."""
    return tuple(f"{finger}_bone_{k}_length" for finger in FINGER_NAMES for k in (1, 2, 3))


def bone_length_directions(vertices: Tensor, weights: Tensor, joints: Tensor) -> Tensor:
    """(15, V, 3) displacement of rest vertices that makes one finger bone a tenth longer.

    Skin of the bone stretches along it, all beyond is carried along, and the skinning weights fade
    both out at the joints, so that nothing tears.

    Args:
        vertices: (V, 3) at rest. weights: (V, 17) of the pivots. joints: (21, 3).
    """
    directions = []
    for finger in range(5):
        for bone in range(3):
            joint, pivot = 1 + 4 * finger + bone, 1 + 3 * finger + bone
            line = joints[joint + 1] - joints[joint]
            length = line.norm()
            axis = line / length
            along = ((vertices - joints[joint]) @ axis).clamp(min=0.0).minimum(length)  # (V,)
            beyond = weights[:, pivot + 1 : 4 + 3 * finger].sum(dim=1)
            shift = weights[:, pivot] * along + beyond * length
            directions.append(STRETCH * shift[:, None] * axis)
    return torch.stack(directions)  # (15, V, 3)


def quaternion_of(rotation: Tensor) -> Tensor:
    """(..., 4) unit quaternions w, x, y, z with w > 0 of (..., 3, 3) turns by less than 180°."""
    trace = rotation.diagonal(dim1=-2, dim2=-1).sum(-1)
    w = 0.5 * (1 + trace).clamp(min=1e-6).sqrt()
    x = rotation[..., 2, 1] - rotation[..., 1, 2]
    y = rotation[..., 0, 2] - rotation[..., 2, 0]
    z = rotation[..., 1, 0] - rotation[..., 0, 1]
    vector = torch.stack([x, y, z], dim=-1) / (4 * w[..., None])
    return torch.cat([w[..., None], vector], dim=-1)


def quaternion_product(a: Tensor, b: Tensor) -> Tensor:
    """(..., 4) Hamilton product: turning by b, then by a."""
    aw, av, bw, bv = a[..., :1], a[..., 1:], b[..., :1], b[..., 1:]
    w = aw * bw - (av * bv).sum(-1, keepdim=True)
    return torch.cat([w, aw * bv + bw * av + torch.linalg.cross(av, bv)], dim=-1)


def web_share(weights: Tensor) -> Tensor:
    """(V,) 0..1: how much a vertex with weights (V, 17) belongs to more than one finger.

    Between a straight and a bent finger there is no common joint to turn about: rigid blends throw
    such skin outwards, where a blend of matrices stretches it.
    """
    fingers = weights[:, 1:16].unflatten(1, (5, 3)).sum(dim=2)  # (V, 5)
    second = fingers.topk(2, dim=1).values[:, 1]
    return (10 * second).clamp(max=1.0)


def linear_skinning(rest: Tensor, weights: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """Posed vertices (B, V, 3): matrices (B, P, 3, 3) and shifts (B, P, 3) blended by weights."""
    # Blend the 3x4 transforms, then apply them: one product of (V, P) with (P, 12).
    transforms = torch.cat([rotation, translation[..., None]], dim=-1).flatten(2)  # (B, P, 12)
    blended = (weights @ transforms).unflatten(2, (3, 4))  # (B, V, 3, 4)
    return (blended[..., :3] @ rest[..., None])[..., 0] + blended[..., 3]  # (B, V, 3)


def dual_quaternion_skinning(
    rest: Tensor, weights: Tensor, turns: Tensor, translations: Tensor
) -> Tensor:
    """Posed vertices (B, V, 3): rigid motions blended as dual quaternions, not as matrices.

    A blend of matrices shrinks what it turns, so that a knuckle bent by a right angle keeps seven
    tenths of its girth. Kavan et al., Geometric skinning with approximate dual quaternion blending
    (2008). Nothing chooses between the two signs of a quaternion here: the caller's must be
    continuous along the chain of bones.

    Args:
        rest: (B, V, 3). weights: (V, P). turns: (B, P, 4) unit quaternions.
        translations: (B, P, 3), of the map from rest to pose.
    """
    half = torch.cat([torch.zeros_like(translations[..., :1]), 0.5 * translations], dim=-1)
    dual = quaternion_product(half, turns)  # (B, P, 4)
    blended = weights @ torch.cat([turns, dual], dim=-1)  # (B, V, 8)
    blended = blended / blended[..., :4].norm(dim=-1, keepdim=True)
    w, vector, dual_w, dual_vector = blended.split([1, 3, 1, 3], dim=-1)
    # x + 2 v x (v x x + w x), and the translation 2 (dual times the conjugate).
    inner = torch.linalg.cross(vector, rest) + w * rest
    turned = rest + 2 * torch.linalg.cross(vector, inner)
    shift = w * dual_vector - dual_w * vector + torch.linalg.cross(vector, dual_vector)
    return turned + 2 * shift  # (B, V, 3)
