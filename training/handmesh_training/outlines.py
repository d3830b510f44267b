"""The outline of a hand in a photo whose joints are labelled: what tells how broad it is.

Joints alone leave breadth to what rendered hands have. Where a photo shows a hand before something
of another colour, GrabCut (Rother et al., SIGGRAPH 2004, OpenCV's) tells the two apart, seeded with
the labelled bones. Only those points of the outline are taken for known that lie where the outline
of a hand can lie, on a step of colour, and not on forearm or border.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from handmesh.types import FINGERS, ROOT_JOINT, Box

from .samples import OUTLINE_POINTS as POINTS

REVISION = 1  # one more whenever other outlines are found
# The square that is looked at, in pixels, and over the joints' box: as large as stored crops, so
# that a forearm ends where they end.
SIDE, MARGIN = 192, 1.9
ROUNDS = 3
FEWEST = 64  # pixels that a colour model is made of
# Distances from bones and palm, in lengths of the palm: skin for sure, likely skin, and where none
# can be any more. Half a finger is 0.1 to 0.13 of them, the ball of the thumb 0.25.
SURE, LIKELY, FARTHEST = 0.03, 0.14, 0.32
OUTLINE_FROM, OUTLINE_TO = 0.03, 0.27
# How far beyond the wrist, towards the fingers, the outline is the hand's.
BEYOND_WRIST = 0.12
# Least step of colour across the outline, in CIE Lab units, and how far to both sides it is read.
STEP, STEP_PX = 10.0, 3.0
# Of the outline beyond the wrist so much must be known, or something else was found.
LEAST_KNOWN = 0.6
_KNUCKLES = [finger[0] for name, finger in FINGERS.items() if name != "thumb"]
_PALM = [ROOT_JOINT, *(finger[0] for finger in FINGERS.values())]
_TIPS = [finger[-1] for finger in FINGERS.values()]


@dataclass(frozen=True, eq=False)
class Outline:
    """The closed outline of a hand, and of what hangs together with it, as a forearm.

    Attributes:
        points: (POINTS, 2) float64 pixels of the picture, pixel centres at integers; in order,
            evenly spaced.
        known: (POINTS,) bool, what is the hand's own outline beyond doubt.
    """

    points: NDArray[np.float64]
    known: NDArray[np.bool_]


def find_outline(image: NDArray[np.uint8], joints_px: NDArray[np.float64]) -> Outline | None:
    """The outline of the hand with these joints; None where it cannot be told from its ground.

    Args:
        image: (H, W, 3) uint8 RGB. joints_px: (21, 2) pixels, pixel centres at integers.

    Returns:
        Points in pixels of the image.
    """
    box = Box.from_points(joints_px, margin=MARGIN)
    corner = np.floor([box.cx - box.size / 2, box.cy - box.size / 2]).astype(int)
    low = np.maximum(corner, 0)
    high = np.minimum(corner + int(np.ceil(box.size)), [image.shape[1], image.shape[0]])
    if (high - low < 16).any():
        return None
    # The photo ends where it ends: black beyond it would be learnt as a colour of the ground.
    region = image[low[1] : high[1], low[0] : high[0]]
    scale = SIDE / box.size
    size = np.maximum(np.round((high - low) * scale), 8).astype(int)
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(region, (int(size[0]), int(size[1])), interpolation=kind)
    to_region = size / (high - low)
    joints = (joints_px - low + 0.5) * to_region - 0.5
    found = _outline(np.asarray(small, dtype=np.uint8), joints)
    if found is None:
        return None
    return Outline((found.points + 0.5) / to_region - 0.5 + low, found.known)


def _outline(image: NDArray[np.uint8], joints: NDArray[np.float64]) -> Outline | None:
    """`find_outline` in a picture of the hand alone."""
    inner = np.delete(joints, _TIPS, axis=0)
    if not ((inner >= 0) & (inner <= np.array(image.shape[1::-1]) - 1)).all():
        return None
    palm = _palm_length(joints)
    away = _distance_from_bones(image.shape[:2], joints) / palm
    beyond = _beyond_wrist(_pixels(image.shape[:2]), joints)  # (H, W), in palms
    labels = np.full(image.shape[:2], cv2.GC_PR_BGD, dtype=np.uint8)
    labels[away < LIKELY] = cv2.GC_PR_FGD
    labels[(away > FARTHEST) & (beyond > 0)] = cv2.GC_BGD
    labels[(away > LIKELY) & (away < 2 * FARTHEST) & (beyond < 0)] = cv2.GC_PR_FGD
    labels[away < SURE] = cv2.GC_FGD
    skin = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))
    if not (labels == cv2.GC_BGD).any() or min(skin.sum(), (~skin).sum()) < FEWEST:
        return None
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # its colour models begin at random
    whole = (0, 0, image.shape[1], image.shape[0])  # not looked at where a mask is given
    cv2.grabCut(image, labels, whole, background, foreground, ROUNDS, cv2.GC_INIT_WITH_MASK)
    mask = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contour = max(contours, key=cv2.contourArea)[:, 0].astype(np.float64)  # (N, 2)
    if len(contour) < POINTS:
        return None
    if any(cv2.pointPolygonTest(contour.astype(np.float32), p.tolist(), False) < 0 for p in inner):
        return None
    points = _resampled(contour)
    normals = outward_normals(points)
    points = points + 0.5 * normals  # the contour runs through the outermost pixels' centres
    known = (
        _inside(points, image.shape[:2])
        & (_read(away, points) > OUTLINE_FROM)
        & (_read(away, points) < OUTLINE_TO)
    )
    own = _beyond_wrist(points, joints) > BEYOND_WRIST
    known &= _steps(image, points, normals) > STEP
    if not own.any() or (known & own).sum() < LEAST_KNOWN * own.sum():
        return None
    return Outline(points, known & own)


def outward_normals(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 2) unit normals of a closed outline (N, 2) at its points, whichever way it runs.

    The twin of `silhouette.outward_normals`.
    """
    along = np.roll(points, -1, axis=0) - np.roll(points, 1, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    x, y = points.T
    area = float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())
    return np.stack([along[:, 1], -along[:, 0]], axis=1) * (1.0 if area > 0 else -1.0)


def _palm_length(joints: NDArray[np.float64]) -> float:
    """Of the palm seen from before it: shortened where it is seen from its end, so not below what
    the whole hand tells."""
    seen = np.linalg.norm(joints[_KNUCKLES] - joints[ROOT_JOINT], axis=1).max()
    return float(max(seen, 0.45 * np.ptp(joints, axis=0).max()))


def _distance_from_bones(
    shape: tuple[int, ...], joints: NDArray[np.float64]
) -> NDArray[np.float32]:
    core = np.ones(shape, dtype=np.uint8)
    whole = np.round(joints).astype(np.int32)
    for finger in FINGERS.values():
        cv2.polylines(core, [whole[list(finger)]], False, 0, 1)
    cv2.fillConvexPoly(core, cv2.convexHull(whole[_PALM]), 0)
    return np.asarray(cv2.distanceTransform(core, cv2.DIST_L2, cv2.DIST_MASK_PRECISE))


def _beyond_wrist(points: NDArray[np.float64], joints: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far points lie beyond the wrist towards the knuckles, in palms. Of a hand seen from its
    end, how far from the wrist."""
    palm, offset = _palm_length(joints), points - joints[ROOT_JOINT]
    axis = joints[_KNUCKLES].mean(axis=0) - joints[ROOT_JOINT]
    length = np.linalg.norm(axis)
    if length < 0.4 * palm:
        return np.asarray(np.linalg.norm(offset, axis=-1) / palm - 0.3)
    return np.asarray(offset @ (axis / length) / palm)


def _pixels(shape: tuple[int, ...]) -> NDArray[np.float64]:
    return np.stack(np.meshgrid(np.arange(shape[1]), np.arange(shape[0])), axis=-1).astype(float)


def _resampled(contour: NDArray[np.float64]) -> NDArray[np.float64]:
    """`POINTS` evenly spaced points of a closed chain of pixels, its stairs smoothed."""
    smooth = np.mean([np.roll(contour, k, axis=0) for k in (-2, -1, 0, 1, 2)], axis=0)
    closed = np.concatenate([smooth, smooth[:1]])
    ends = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    places = np.arange(POINTS) / POINTS * ends[-1]
    return np.stack([np.interp(places, ends, closed[:, k]) for k in (0, 1)], axis=1)


def _inside(points: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    border = STEP_PX + 1
    limit = np.array([shape[1], shape[0]]) - 1 - border
    return np.asarray(((points > border) & (points < limit)).all(axis=1))


def _read(values: NDArray[np.float32], points: NDArray[np.float64]) -> NDArray[np.float32]:
    """Bilinear, the border's value beyond it."""
    x, y = points.astype(np.float32).T
    read = cv2.remap(values, x[None], y[None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(read[0])


def _steps(
    image: NDArray[np.uint8], points: NDArray[np.float64], normals: NDArray[np.float64]
) -> NDArray[np.float32]:
    colours = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    lab = np.asarray(cv2.GaussianBlur(colours, (0, 0), 1.0), dtype=np.float32)
    inside, outside = (_read(lab, points + sign * STEP_PX * normals) for sign in (-1, 1))
    return np.asarray(np.linalg.norm(inside - outside, axis=1))
