"""How long somebody's bone is, from photos in which something of known size or distance is seen.

A photo tells the wrist's depth in bones, z0 (see `handmesh.geometry`); a bone of s metres puts it
at s z0. Whoever knows a depth Z in metres hence knows the bone: s = Z / z0. A hand that was placed
with a bone of s' has its wrist at s' z0, so each frame says

    s = s' Z / (depth of the hand as placed).

Z comes from a sensor or a tape measure, or from something of known size held at the hand's depth:
an object L metres long, parallel to the picture, whose ends are seen along the rays r1 and r2 (with
z = 1), is at Z = L / |r2 - r1|. There the focal length cancels, since it scales both depths alike
(exactly for a hand that is flat towards the camera): a wrong camera hardly matters.

Frames err, some of them badly, so many give their median, and how far they scatter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .camera import numbers, shown
from .errors import InputError
from .geometry import LONGEST_BONE_M
from .types import FINGERS, ROOT_JOINT, Camera, Hand, finite

__all__ = [
    "CREDIT_CARD_WIDTH_M",
    "BoneLength",
    "bone_length_from_depth",
    "bone_length_from_object",
    "object_depth",
]

# The longer side of cards in the format ID-1: bank cards, driving licences (ISO/IEC 7810).
CREDIT_CARD_WIDTH_M = 0.0856

# An object beside a hand is at the depth of its palm.
_PALM = [ROOT_JOINT, *(finger[0] for name, finger in FINGERS.items() if name != "thumb")]
# The median absolute deviation of normal errors over their standard deviation.
_MAD_OF_NORMAL = 0.6745


@dataclass(frozen=True, eq=False)
class BoneLength:
    """A calibrated bone: hand ``length_m`` over as ``bone_length_m`` of `handmesh.predict`.

    Attributes:
        length_m: median over the frames, metres, of the middle finger from knuckle (MCP) to next
            joint (PIP).
        spread_m: robust standard deviation of one frame's estimate, metres: the median absolute
            deviation over 0.6745. NaN of a single frame, which does not tell.
        estimates_m: (N,) float64, each frame's own.
    """

    length_m: float
    spread_m: float
    estimates_m: NDArray[np.float64]


def bone_length_from_depth(
    hands: Hand | Sequence[Hand], root_depth_m: float | ArrayLike
) -> BoneLength:
    """From one person's hand in frames where the depth of its wrist is known.

    Args:
        hands: one frame's hand, or that of several frames, predicted without ``root_depth_m``.
        root_depth_m: depth z of the wrist in metres, one for all frames or one for each.

    Raises:
        InputError: no hands, another number of depths, a depth that is not positive and finite, a
            hand that does not say by which bone it was placed, or a bone of more than 0.5 m.
    """
    frames = _frames(hands)
    depths = _depths(root_depth_m, len(frames), "root_depth_m")
    return _estimate(frames, depths, [ROOT_JOINT])


def bone_length_from_object(
    hands: Hand | Sequence[Hand],
    ends_px: ArrayLike,
    length_m: float = CREDIT_CARD_WIDTH_M,
) -> BoneLength:
    """From one person's hand in frames with something of known size beside it.

    Hold it next to the palm, at the same distance from the camera, and both turned to the camera.

    Args:
        hands: one frame's hand, or that of several frames, predicted without ``root_depth_m``.
        ends_px: (2, 2) pixels of the photo, where the object's two ends are seen, or (N, 2, 2) for
            N frames.
        length_m: what lies between the ends, metres; by default a bank card's longer side.

    Raises:
        InputError: no hands, other shapes, ends that fall together, a length that is not positive,
            a hand that does not say by which bone it was placed, or a bone of more than 0.5 m.
    """
    frames = _frames(hands)
    ends = _finite_numbers(ends_px, "ends_px")
    if ends.shape not in ((2, 2), (len(frames), 2, 2)):
        raise InputError(
            f"ends_px must have shape (2, 2), or ({len(frames)}, 2, 2) for so many hands, "
            f"not {ends.shape}"
        )
    ends = np.broadcast_to(ends, (len(frames), 2, 2))
    depths = [
        object_depth(frame.camera, two, length_m) for frame, two in zip(frames, ends, strict=True)
    ]
    return _estimate(frames, np.array(depths), _PALM)


def object_depth(camera: Camera, ends_px: ArrayLike, length_m: float) -> float:
    """Depth in metres of an object that is parallel to the picture.

    Args:
        camera: the photo's intrinsics. ends_px: (2, 2) pixels, where its ends are seen.
        length_m: what lies between them, metres.

    Raises:
        InputError: another shape, ends that fall together, or a length that is not positive.
    """
    ends = _finite_numbers(ends_px, "ends_px")
    if ends.shape != (2, 2):
        raise InputError(f"ends_px must have shape (2, 2), not {ends.shape}")
    if finite(length_m, "length_m", InputError) <= 0:
        raise InputError(f"length_m must be a positive number of metres, not {length_m}")
    first, second = camera.rays(ends)
    apart = float(np.linalg.norm(second - first))
    if apart < 1e-9:
        raise InputError("ends_px must be two places in the photo: they fall together")
    return float(length_m) / apart


def _estimate(
    frames: Sequence[Hand], depths_m: NDArray[np.float64], joints: Sequence[int]
) -> BoneLength:
    """From the true depth (N,) of the mean of some joints in each frame."""
    estimates = np.empty(len(frames))
    for k, (hand, depth) in enumerate(zip(frames, depths_m, strict=True)):
        if hand.bone_length_m is None:
            raise InputError(
                "a hand for calibration says by which bone it was placed (Hand.bone_length_m): "
                "take what handmesh.predict returns"
            )
        placed = float(hand.joints_m[list(joints), 2].astype(np.float64).mean())
        estimates[k] = hand.bone_length_m * depth / placed
    middle = float(np.median(estimates))
    if middle > LONGEST_BONE_M:
        raise InputError(
            f"this gives a bone of {middle:.3g} metres, and at most {LONGEST_BONE_M:g} is believed "
            "(0.047 for an average adult): depths and lengths are in metres, not millimetres"
        )
    spread = float("nan")
    if len(estimates) > 1:
        spread = float(np.median(np.abs(estimates - middle))) / _MAD_OF_NORMAL
    return BoneLength(middle, spread, estimates)


def _frames(hands: Hand | Sequence[Hand]) -> Sequence[Hand]:
    try:
        frames = [hands] if isinstance(hands, Hand) else list(hands)
    except TypeError as cause:
        raise InputError(
            f"calibration takes hands, as predict gives, not {shown(hands)}"
        ) from cause
    if not frames:
        raise InputError("calibration needs at least one hand; none came: was one found at all?")
    for frame in frames:
        if not isinstance(frame, Hand):
            raise InputError(f"calibration takes hands, as predict gives, not {shown(frame)}")
    return frames


def _depths(values: Any, count: int, name: str) -> NDArray[np.float64]:
    depths = _finite_numbers(values, name)
    if depths.shape not in ((), (count,)):
        raise InputError(f"{name} must be one number, or {count} for so many hands")
    if (depths <= 0).any():
        raise InputError(f"{name} must be positive metres, as 0.5 for a hand at half a metre")
    return np.broadcast_to(depths, (count,))


def _finite_numbers(values: Any, name: str) -> NDArray[np.float64]:
    array = numbers(values, name, InputError)
    if not np.isfinite(array).all():
        raise InputError(f"{name} must be finite; it holds NaN or infinity")
    return array
