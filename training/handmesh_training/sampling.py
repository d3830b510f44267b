"""Random hands in front of random cameras: pose within joint limits, shape, view and crop.

Angles follow `HandModel.rotations`: twist, abduction, flexion in radians, flexion zero for a
straight finger. Ranges are those of healthy adults (goniometry: MCP flexion to 90 degrees, PIP to
about 105, DIP to about 80 and two thirds of the PIP's when bent actively).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .hand import FOREARM, PIVOT_COUNT, HandModel, PosedHand

Array = NDArray[np.float64]

TWIST, ABDUCTION, FLEXION = 0, 1, 2
FINGER_BASES = np.array([4, 7, 10, 13])  # pivots of index, middle, ring, little MCP
FLEXION_LIMITS_DEG = {"mcp": (-20.0, 90.0), "pip": (-5.0, 105.0), "dip": (-8.0, 80.0)}
# Natural fan of the fingers at full spread, degrees of abduction towards the thumb.
SPREAD_DEG = np.array([14.0, 2.0, -10.0, -20.0])

# Half thickness of thumb and finger bones where they meet others, metres, of the template.
RADIUS_M = 0.0075
OVERLAP_ALLOWED = 0.62  # skin gives: closer than this share of two radii counts as collision
PALM_DEPTH_M = -0.004  # joints of the fingers stay on this side of the palm's middle sheet

# Distance of the camera, and how far the hand stands off the optical axis (tangent).
DISTANCE_M = (0.22, 1.3)
OFF_AXIS = 0.35


def sample_angles(rng: np.random.Generator, count: int) -> Array:
    """Gestures (count, 17, 3): a mixture of families that people make, with noise on every joint.

    Families: each finger open or closed on its own (counting, pointing, signs), a common curl
    from flat hand to fist with a gradient over the fingers, pinches and grips with the thumb
    opposed, and independent joints.
    """
    family = rng.choice(4, size=count, p=[0.36, 0.30, 0.18, 0.16])
    curl = np.zeros((count, 4))

    # Own: open, half or closed per finger. Neighbours are correlated, as tendons are.
    state = rng.random((count, 4))
    previous = state[:, 0]
    for finger in range(1, 4):
        follow = rng.random(count) < 0.35
        state[:, finger] = np.where(follow, previous, state[:, finger])
        previous = state[:, finger]
    own = np.select([state < 0.45, state < 0.6], [0.0, rng.uniform(0.2, 0.8, (count, 4))], 1.0)
    own = own + rng.normal(0, 0.05, (count, 4))
    gradient = np.linspace(-1, 1, 4)
    common = rng.beta(0.7, 0.9, (count, 1)) + rng.normal(0, 0.12, (count, 1)) * gradient
    pinch = np.full((count, 4), 0.5) + rng.normal(0, 0.1, (count, 4))
    others = rng.choice([0.05, 0.3, 0.9], size=(count, 1)) + rng.normal(0, 0.08, (count, 3))
    alone = rng.random(count) < 0.6
    pinch[alone, 1:] = others[alone]
    free = rng.random((count, 4))
    for k, values in enumerate((own, common, pinch, free)):
        curl[family == k] = np.broadcast_to(values, (count, 4))[family == k]
    curl = np.clip(curl, -0.08, 1.05)

    # Distribute each curl over the three joints: hook (PIP first) to flat fist (MCP first).
    hook = rng.normal(0, 0.28, (count, 1)) + rng.normal(0, 0.10, (count, 4))
    mcp = np.clip(curl * (1 - hook), -0.2, 1) * 82 + rng.normal(0, 6, (count, 4))
    pip = np.clip(curl * (1 + hook), 0, 1.05) * 98 + rng.normal(0, 5, (count, 4))
    dip = pip * rng.normal(0.62, 0.1, (count, 4)) + rng.normal(0, 5, (count, 4))
    loose = family == 3
    size = (int(loose.sum()), 4)
    mcp[loose] = rng.uniform(-15, 88, size)
    pip[loose] = rng.uniform(0, 103, size)
    dip[loose] = rng.uniform(0, 75, size)

    angles = np.zeros((count, PIVOT_COUNT, 3))
    for offset, (name, values) in enumerate({"mcp": mcp, "pip": pip, "dip": dip}.items()):
        limits = FLEXION_LIMITS_DEG[name]
        angles[:, FINGER_BASES + offset, FLEXION] = np.deg2rad(np.clip(values, *limits))
    # Bent fingers cannot spread: their collateral ligaments are tight.
    straightness = np.clip(1 - np.clip(mcp, 0, 90) / 80, 0.1, 1)
    spread = rng.beta(1.2, 1.6, (count, 1)) * 1.5 - 0.4
    fan = spread * SPREAD_DEG + rng.normal(0, 4.0, (count, 4))
    angles[:, FINGER_BASES, ABDUCTION] = np.deg2rad(fan * straightness)
    angles[:, FINGER_BASES, TWIST] = np.deg2rad(rng.normal(0, 4, (count, 4)))
    _sample_thumb(rng, angles, family == 2, curl.mean(axis=1))

    angles[:, FOREARM, FLEXION] = np.clip(rng.normal(0, 0.45, count), -1.2, 1.2)
    angles[:, FOREARM, ABDUCTION] = np.clip(rng.normal(0, 0.18, count), -0.45, 0.45)
    return angles


def _sample_thumb(
    rng: np.random.Generator, angles: Array, opposed: NDArray[np.bool_], curl: Array
) -> None:
    """Thumb, in place: out, along the index, or across the palm as when opposed or in a fist.

    Angles of its base are relative to the rest pose.
    """
    count = len(angles)
    kind = rng.choice(3, size=count, p=[0.4, 0.25, 0.35])
    fist = (curl > 0.7) & (rng.random(count) < 0.6)
    kind[opposed | fist] = 2
    base_flexion = np.choose(kind, [rng.normal(-8, 10, count), rng.normal(0, 8, count),
                                    rng.normal(18, 12, count)])  # fmt: skip
    base_abduction = np.choose(kind, [rng.normal(-8, 12, count), rng.normal(12, 8, count),
                                      rng.normal(4, 12, count)])  # fmt: skip
    mcp = np.choose(kind, [rng.normal(5, 10, count), rng.normal(15, 12, count),
                           rng.normal(30, 16, count)])  # fmt: skip
    tip = np.choose(kind, [rng.normal(5, 15, count), rng.normal(15, 18, count),
                           rng.normal(35, 22, count)])  # fmt: skip
    angles[:, 1, FLEXION] = np.deg2rad(np.clip(base_flexion, -30, 45))
    angles[:, 1, ABDUCTION] = np.deg2rad(np.clip(base_abduction, -35, 30))
    angles[:, 1, TWIST] = np.deg2rad(np.clip(rng.normal(0, 10, count), -25, 25))
    angles[:, 2, FLEXION] = np.deg2rad(np.clip(mcp, -15, 65))
    angles[:, 2, ABDUCTION] = np.deg2rad(rng.normal(0, 4, count))
    angles[:, 3, FLEXION] = np.deg2rad(np.clip(tip, -25, 85))


def sample_shapes(rng: np.random.Generator, model: HandModel, count: int) -> Array:
    """Shape coefficients (count, S): adults of both sexes and all builds, and some children."""
    spread = {
        "age": 0.35, "finger_diameter": 0.6, "finger_distance": 0.5, "finger_length": 0.45,
        "forearm_fat": 0.5, "gender": 0.5, "hand_scale": 0.3, "height": 0.0, "muscle": 0.6,
        "proportions": 0.6, "weight": 0.6, "wrist_girth": 0.5,
    }  # fmt: skip
    sigma = np.array([spread.get(name, 0.35) for name in model.asset.shape_names])
    return np.clip(rng.normal(0, 1, (count, len(sigma))), -2, 2) * sigma


def self_collides(joints: Tensor) -> Tensor:
    """(B,) True where fingers of (B, 21, 3) joints run through each other or the palm.

    Bones are sampled at three points each and compared with the bones of other fingers. Joints are
    wrist-relative in the hand's own frame (palm towards -z).
    """
    chains = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16], [17, 18, 19, 20]]
    samples = []
    for chain in chains:
        start, end = joints[:, chain[:-1]], joints[:, chain[1:]]
        steps = torch.tensor([0.35, 0.7, 1.0], device=joints.device)[:, None]
        points = start[:, :, None] + (end - start)[:, :, None] * steps  # (B, 3, 3, 3)
        samples.append(points.flatten(1, 2))  # (B, 9, 3)
    scale = (joints[:, 9] - joints[:, 10]).norm(dim=-1) / 0.0475
    limit = 2 * RADIUS_M * OVERLAP_ALLOWED * scale  # (B,)
    bad = torch.zeros(len(joints), dtype=torch.bool, device=joints.device)
    for a in range(5):
        for b in range(a + 1, 5):
            distance = torch.cdist(samples[a][:, 2:], samples[b][:, 2:]).flatten(1)  # (B, 49)
            bad |= distance.min(dim=1).values < limit
    # Bent fingers end on the palm, not behind it.
    fingers = torch.cat(samples[1:], dim=1)
    below_knuckles = fingers[..., 1] > joints[:, 9, 1:2] * 0.98
    bad |= (below_knuckles & (fingers[..., 2] > PALM_DEPTH_M)).any(dim=1)
    thumb = samples[0][:, 5:]
    over_palm = thumb[..., 0] < joints[:, 5, 0:1]
    return bad | (over_palm & (thumb[..., 2] > PALM_DEPTH_M)).any(dim=1)


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
    """

    vertices_m: NDArray[np.float32]
    joints_m: NDArray[np.float32]
    intrinsics: NDArray[np.float32]
    joints: NDArray[np.float32]
    vertices: NDArray[np.float32]
    crop_in_bones: NDArray[np.float32]
    in_view: NDArray[np.bool_]


def pose_hands(rng: np.random.Generator, model: HandModel, count: int) -> PosedHand:
    """Posed hands in their own frame, re-drawn where fingers collide (mostly with the thumb)."""
    vertices, joints, found = [], [], 0
    while found < count:
        wanted = int((count - found) * 1.6) + 16
        shape = torch.from_numpy(sample_shapes(rng, model, wanted)).float()
        rotations = model.rotations(torch.from_numpy(sample_angles(rng, wanted)).float())
        with torch.no_grad():
            # Joints alone are cheap: decide on them, then skin only what is kept.
            good = ~self_collides(model.pose_joints(shape, rotations))
            posed = model(shape[good], rotations[good])
        vertices.append(posed.vertices)
        joints.append(posed.joints)
        found += int(good.sum())
    return PosedHand(torch.cat(vertices)[:count], torch.cat(joints)[:count])


def sample_views(
    rng: np.random.Generator, model: HandModel, count: int, crop_px: int, margin: float
) -> HandViews:
    """Hands before cameras at phone and webcam distances, and the crop around each.

    Args:
        rng: everything random comes from it. count: how many. crop_px: side of the crop.
        margin: side of the crop over the larger side of the joints' tight box.
    """
    posed = pose_hands(rng, model, count)
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
    )
