"""From samples of any set to the crops that the networks are trained on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handmesh.errors import InputError
from handmesh.imaging import crop
from handmesh.types import FINGERS, ROOT_JOINT, UNIT_BONE, Box

from ..samples import Crops
from .sample import JOINT_COUNT, Sample

# Of one finger alone four joints are known, with the wrist five.
MIN_JOINTS = 6
_PALM = np.zeros(JOINT_COUNT, dtype=bool)
_PALM[[ROOT_JOINT, *(finger[0] for finger in FINGERS.values())]] = True


def locates_hand(sample: Sample) -> bool:
    """Whether the known joints tell where the hand is, and how large.

    A fingertip, or the knuckles alone, may lie in any corner of the hand and span a small part of
    it: at least `MIN_JOINTS` must be known, some of the palm (wrist and the base of each finger)
    and some of the fingers beyond, and they must span a pixel.
    """
    known = sample.joint_known
    if known.sum() < MIN_JOINTS or not (known & _PALM).any() or not (known & ~_PALM).any():
        return False
    return bool(np.ptp(sample.joints_px[known], axis=0).max() >= 1)


def can_crop(sample: Sample) -> bool:
    """Whether it is known which hand this is, and where."""
    return sample.is_right is not None and locates_hand(sample)


def to_crops(samples: Iterable[Sample], side: int, margin: float, vertex_count: int) -> Crops:
    """Samples as crops of right hands: left ones are mirrored, picture, labels and all.

    The crop is the square around the known joints. Joints count as labelled where all 21 are known:
    losses have no notion of a hand known in part. Depth is labelled where there are a camera and
    joints in 3D as well, and these tell a scale (`tells_scale`). Meshes of other sets are not ours
    and are left out.

    Args:
        samples: whatever iterates over them; a `Dataset` is read through.
        side: of the crop in pixels. margin: side of the crop over the joints' tight box.
        vertex_count: V of the unlabelled vertices.

    Raises:
        InputError: a hand of unknown side, or of which too little is known (`locates_hand`):
            neither can be turned into a right hand in the middle of a crop.
    """
    rows = [_to_crop(sample, side, margin, vertex_count) for sample in samples]
    return Crops.concatenate(rows) if rows else Crops.empty(0, side, vertex_count)


def _to_crop(sample: Sample, side: int, margin: float, vertex_count: int) -> Crops:
    if sample.is_right is None:
        raise InputError(
            f"{sample.key}: it is not known whether this is a right or a left hand; "
            "networks are trained on right ones (left ones mirrored): leave such samples out"
        )
    known = sample.joint_known
    if not locates_hand(sample):
        raise InputError(
            f"{sample.key}: {known.sum()} known joints do not tell where the hand is: it takes "
            f"{MIN_JOINTS} that are apart, of palm and fingers"
        )
    box = Box.from_points(sample.joints_px[known], margin=margin)
    made = Crops.empty(1, side, vertex_count)
    picture, uv = crop(sample.image, box, side), box.to_crop(sample.joints_px)
    if not sample.is_right:
        picture = picture[:, ::-1]
        uv[:, 0] = 1 - uv[:, 0]
    made.images[0] = picture
    made.has_hand[0] = made.is_right[0] = True
    made.has_joints[0] = known.all()
    if sample.joint_taught is not None:
        made.taught[0] = sample.joint_taught
    if sample.outline_px is not None and sample.outline_known is not None:
        outline = box.to_crop(sample.outline_px)  # (OUTLINE_POINTS, 2)
        if not sample.is_right:
            outline[:, 0] = 1 - outline[:, 0]
        made.outline[0] = outline
        made.outline_known[0] = sample.outline_known
    if known.all():
        made.joints[0, :, :2] = uv
    if known.all() and sample.joints_m is not None and sample.intrinsics is not None:
        _label_depth(made, sample.joints_m, float(sample.intrinsics[0, 0]), box)
    return made


def tells_scale(joints_m: NDArray[np.floating[Any]]) -> bool:
    """Whether (21, 3) joints in metres are a hand's before a camera: finite, the wrist in front of
    it, the bone that is the unit of depth longer than nothing."""
    bone = np.linalg.norm(joints_m[UNIT_BONE[1]] - joints_m[UNIT_BONE[0]])
    return bool(np.isfinite(joints_m).all() and joints_m[ROOT_JOINT, 2] > 0 and bone > 0)


def _label_depth(made: Crops, joints_m: NDArray[np.floating[Any]], focal: float, box: Box) -> None:
    """Depth and scale of one crop; a label that tells none leaves it as it is. One that is not
    finite would turn a whole batch's loss into none."""
    if not tells_scale(joints_m) or not focal > 0:
        return
    bone = float(np.linalg.norm(joints_m[UNIT_BONE[1]] - joints_m[UNIT_BONE[0]]))
    # The crop at the wrist's depth is as wide as the rays through its sides are apart there.
    width_m = box.size / focal * joints_m[ROOT_JOINT, 2]
    with np.errstate(over="ignore"):
        depth = ((joints_m[:, 2] - joints_m[ROOT_JOINT, 2]) / bone).astype(np.float32)
        scale = np.float32(width_m / bone)
    if np.isfinite(depth).all() and np.isfinite(scale):
        made.joints[0, :, 2], made.crop_in_bones[0], made.has_depth[0] = depth, scale, True
