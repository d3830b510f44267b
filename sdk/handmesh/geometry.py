"""From what the network says, (u, v) and relative depth, to camera space in metres.

The network gives each point's place in the image and its depth d behind the wrist in units of one
bone (the middle finger's MCP to PIP), as in the paper. A point's ray r = K^-1 (u, v, 1) and its
depth Z = s (z0 + d) make its place Z r, where s is that bone's length in metres and z0 the wrist's
depth *in bones*. Two numbers are missing, and they come apart:

z0 follows from the picture alone. The bone from joint p to joint c spans, in bones,

    |a z0 + e|  with  a = r_c - r_p  and  e = d_c r_c - d_p r_p,

and people's bones have known proportions rho, so each bone gives one equation |a z0 + e| = rho. One
bone is noisy, useless when it points at the camera, and may be bent wrongly by the network; the
middle of all 20 answers is steady (`solve_root_depth`). A least squares fit of the lengths
is not: noise can only make a bone look longer, so it brings the hand too near.

s scales everything. A photo cannot tell a child's hand nearby from an adult's far away, so s is
given or assumed (`place`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InputError
from .types import BONES, Camera, finite

__all__ = [
    "ADULT_BONE_LENGTH_M",
    "LONGEST_BONE_M",
    "Placement",
    "checked_lengths",
    "lift",
    "place",
    "solve_root_depth",
    "upright_angle",
    "vertex_normals",
]

# From joint centre to joint centre in the template hand, 174 mm long from wrist to fingertip. The
# bone itself measures 44.6 mm in radiographs of 66 adults, with a standard deviation of 3.8 mm
# (Buryanov and Kotiuk, Proportions of hand segments, Int. J. Morphol. 28(3), 2010); the centre of
# the knuckle lies a little inside the next bone. Another hand is placed nearer or farther, and made
# smaller or larger, in proportion.
ADULT_BONE_LENGTH_M = 0.047

_PARENTS, _CHILDREN = (np.array(ends) for ends in zip(*BONES, strict=True))
# Larger ones were given in another unit.
LONGEST_BONE_M, _DEEPEST_M = 0.5, 100.0
# Depth of the wrist, in bones, beyond which nothing is believed: about 10 cm and 90 m.
_NEAREST, _FARTHEST = 2.0, 2000.0
# What the network's outputs and the proportions of people are wrong by, roughly, in bones: only
# their ratio to each other and to a bone's length matters, for the weights.
_SIGMA_IMAGE, _SIGMA_DEPTH, _SIGMA_RATIO = 0.1, 0.2, 0.08

# Share of the weight, to either side of the median, whose answers count: a third may be nonsense.
_MIDDLE = 0.15

# Wrist to knuckles over the extent of all joints, below which a hand has no direction in an image.
SHORTEST_HAND = 0.2


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where and how large a hand is.

    Attributes:
        root_depth_m: depth z of the wrist, metres.
        bone_length_m: length of the middle finger's MCP to PIP, metres.
    """

    root_depth_m: float
    bone_length_m: float


def solve_root_depth(
    joints_px: ArrayLike,
    joints_depth: ArrayLike,
    camera: Camera,
    bone_ratios: ArrayLike,
    confidence: ArrayLike | None = None,
) -> float:
    """The wrist's depth in bone lengths, from 2D joints and relative depths.

    Args:
        joints_px: (21, 2) image points, pixels.
        joints_depth: (21,) depth behind the wrist in bone lengths.
        camera: intrinsics of that image.
        bone_ratios: (20,) length of each of `types.BONES` over that of MCP-PIP of the middle
            finger, of people in general.
        confidence: (21,) in 0..1, how much each joint is to be believed; all alike by default.

    Returns:
        z0, between 2 and 2000 bone lengths, and far enough for every joint to be in front of the
        camera.
    """
    rays = camera.rays(joints_px)  # (21, 3)
    depth = np.asarray(joints_depth, dtype=np.float64)  # (21,)
    ratios = np.asarray(bone_ratios, dtype=np.float64)  # (20,)
    trust = np.ones(21) if confidence is None else np.asarray(confidence, dtype=np.float64)

    # |a z + e|^2 = rho^2: the farther root, or the nearest approach where the bone is too long.
    a = rays[_CHILDREN] - rays[_PARENTS]  # (20, 3)
    e = rays[_CHILDREN] * depth[_CHILDREN, None] - rays[_PARENTS] * depth[_PARENTS, None]
    squared = np.maximum(np.einsum("bi,bi->b", a, a), 1e-18)  # (20,)
    half = np.einsum("bi,bi->b", a, e)
    rest = np.einsum("bi,bi->b", e, e) - ratios**2
    roots = (np.sqrt(np.maximum(half**2 - squared * rest, 0)) - half) / squared

    # A bone across the view tells its depth; one along it does not. Each answer weighs as much as
    # its expected relative error is small.
    step = depth[_CHILDREN] - depth[_PARENTS]
    across = np.sqrt(np.maximum(ratios**2 - step**2, (0.4 * ratios) ** 2))
    error = np.hypot(_SIGMA_IMAGE, np.hypot(_SIGMA_DEPTH * step, _SIGMA_RATIO * ratios**2) / across)
    pair_trust = np.clip(trust[_PARENTS] * trust[_CHILDREN], 1e-3, 1)
    z0 = _middle_mean(roots, pair_trust * across / error)
    return float(np.clip(z0, max(_NEAREST, 0.5 - depth.min()), _FARTHEST))


def place(
    root_depth_bones: float,
    bone_length_m: float | None = None,
    root_depth_m: float | None = None,
) -> Placement:
    """Metres for a hand whose wrist lies ``root_depth_bones`` away.

    Given neither length nor depth, an adult's bone is assumed. Given one, the other follows. Given
    both, both are believed and the picture's own answer is set aside (the paper's protocol): depth
    is stretched by the one, width and height by the other, so that both had better be true.

    Raises:
        InputError: as `checked_lengths`; or the bone that follows from the depth has more than
            0.5 m.
    """
    bone_length_m, root_depth_m = checked_lengths(bone_length_m, root_depth_m)
    if bone_length_m is None:
        if root_depth_m is None:
            bone_length_m = ADULT_BONE_LENGTH_M
        else:
            bone_length_m = root_depth_m / root_depth_bones
            if bone_length_m > LONGEST_BONE_M:
                raise InputError(
                    f"root_depth_m={root_depth_m:g} gives this hand a bone of {bone_length_m:.3g} "
                    f"metres, and at most {LONGEST_BONE_M:g} is believed: depths are in metres "
                    "(0.5 for a hand at half a metre), not millimetres or centimetres, and a photo "
                    "that was cropped, or taken by a tele lens, needs its camera"
                )
    if root_depth_m is None:
        root_depth_m = root_depth_bones * bone_length_m
    return Placement(root_depth_m, bone_length_m)


def checked_lengths(
    bone_length_m: float | None, root_depth_m: float | None
) -> tuple[float | None, float | None]:
    """A caller's lengths as floats, as far as they can be checked before a hand was seen.

    Raises:
        InputError: a length or a depth is not a positive, finite number, or more than 0.5 m of bone
            or 100 m of depth: then it was meant in another unit.
    """
    return (
        _metres(bone_length_m, "bone_length_m", "0.047 for an average adult", LONGEST_BONE_M),
        _metres(root_depth_m, "root_depth_m", "0.5 for a hand at half a metre", _DEEPEST_M),
    )


def _metres(value: float | None, name: str, example: str, most: float) -> float | None:
    """A caller's length as a float, whatever number it came as; None stays None."""
    if value is None:
        return None
    number = finite(value, name, InputError)
    if number <= 0:
        raise InputError(f"{name} must be a positive number of metres ({example}), not {value!r}")
    if number > most:
        raise InputError(
            f"{name} must be at most {most:g} metres ({example}), not {value!r}: is it in "
            "millimetres?"
        )
    return number


def lift(
    points_px: ArrayLike, depth: ArrayLike, camera: Camera, placement: Placement
) -> NDArray[np.float64]:
    """Image points (N, 2), pixels, and depths (N,) behind the wrist, in bones, to (N, 3) metres.

    The result projects back to ``points_px`` exactly. Points that would come to lie behind the
    camera are held 1 mm in front of it.
    """
    z = placement.root_depth_m + placement.bone_length_m * np.asarray(depth, dtype=np.float64)
    return camera.unproject(points_px, np.maximum(z, 1e-3))


def upright_angle(joints: ArrayLike) -> float | None:
    """The angle of the `Box` in which a hand points up, in radians.

    Up is from the wrist to the middle of the four finger knuckles. A network sees fewer poses when
    every crop is turned so.

    Args:
        joints: (21, 2 or more) points in an image, any unit; +x right, +y down.

    Returns:
        The angle in (-pi, pi], or None where the hand points at the camera or away from it, so
        that its direction in the image means nothing.
    """
    points = np.asarray(joints, dtype=np.float64)[:, :2]
    along = points[[5, 9, 13, 17]].mean(axis=0) - points[0]
    extent = (points.max(axis=0) - points.min(axis=0)).max()
    if not np.hypot(*along) > SHORTEST_HAND * extent:
        return None
    return float(np.arctan2(along[0], -along[1]))


def vertex_normals(vertices: NDArray[Any], faces: NDArray[np.int32]) -> NDArray[np.float32]:
    """Unit normals (V, 3), outward where faces are counter-clockwise from outside.

    Each is the mean over the faces around a vertex, weighted by area. Vertices of no face, or of
    flat ones only, get (0, 0, 1): glTF forbids normals of length 0.
    """
    corners = np.asarray(vertices, dtype=np.float64)[faces]  # (F, 3, 3)
    areas = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])  # (F, 3)
    normals = np.zeros((len(vertices), 3))
    for corner in range(3):
        np.add.at(normals, faces[:, corner], areas)
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)  # (V, 1)
    flat = lengths[:, 0] < 1e-20
    normals[flat], lengths[flat] = (0, 0, 1), 1
    return np.asarray(normals / lengths, dtype=np.float32)


def _middle_mean(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Mean of the values that the middle of the weight lies on, `_MIDDLE` to either side of half.

    The median itself is one of the values, and jumps to the next when a weight changes by nothing:
    with it all of a hand that was rounded, or moved a little.
    """
    order = np.argsort(values)
    above = np.cumsum(weights[order])
    below, total = above - weights[order], above[-1]
    inside = np.minimum(above, (0.5 + _MIDDLE) * total) - np.maximum(below, (0.5 - _MIDDLE) * total)
    share = np.maximum(inside, 0)
    return float(share @ values[order] / share.sum())
