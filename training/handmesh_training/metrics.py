"""Errors of joints and vertices, with the alignment in the name.

All functions take arrays of any float dtype, compute in float64 and return one value a hand, in the
unit of their input, unless they say otherwise. What was given to the network beforehand is no
matter of these functions: see `handmesh_training.protocols`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from handmesh.errors import InputError

Array = NDArray[np.float64]

# Known points below which a similarity, which has seven degrees of freedom, fits whatever it is
# given: an error after Procrustes alignment over fewer means little.
PROCRUSTES_MIN_POINTS = 10
# Sides of a hand's box, in pixels of the picture, between which 2D errors are averaged apart.
BOX_SIDES_PX = (0.0, 48.0, 96.0, 192.0, 384.0, float("inf"))


class Similarity(NamedTuple):
    """Points x become ``scale * rotation @ x + shift``, for each of N hands.

    Attributes:
        scale: (N,). rotation: (N, 3, 3), never a reflection. shift: (N, 3), in the points' unit.
    """

    scale: Array
    rotation: Array
    shift: Array

    def apply(self, points: ArrayLike) -> Array:
        """(N, P, 3) points moved so, float64."""
        x = np.asarray(points, dtype=np.float64)
        turned = np.einsum("nij,npj->npi", self.rotation, x)
        return np.asarray(self.scale[:, None, None] * turned + self.shift[:, None])


def point_distances(predicted: ArrayLike, truth: ArrayLike) -> Array:
    """(N, P) Euclidean distances of (N, P, D) from (N, P, D)."""
    difference = np.asarray(predicted, dtype=np.float64) - np.asarray(truth, dtype=np.float64)
    return np.asarray(np.linalg.norm(difference, axis=-1))


def mean_distance(predicted: ArrayLike, truth: ArrayLike) -> Array:
    """(N,) mean Euclidean distance over the points of (N, P, D) against (N, P, D).

    In the camera's frame, of vertices the paper's mesh error, of joints its pose error (section
    5.1).
    """
    return np.asarray(point_distances(predicted, truth).mean(axis=-1))


def root_aligned(points: ArrayLike, root: int = 0) -> Array:
    """(N, P, D) with point ``root`` moved to the origin."""
    x = np.asarray(points, dtype=np.float64)
    return np.asarray(x - x[:, root : root + 1])


def root_aligned_error(predicted: ArrayLike, truth: ArrayLike, root: int = 0) -> Array:
    """(N,) mean distance after moving point ``root`` of both to the origin, and nothing else."""
    return mean_distance(root_aligned(predicted, root), root_aligned(truth, root))


def best_similarity(predicted: ArrayLike, truth: ArrayLike) -> Similarity:
    """The similarity that brings (N, P, 3) nearest to (N, P, 3), in the sense of least squares.

    After Umeyama (1991); reflections are not allowed.
    """
    a, b = (np.asarray(x, dtype=np.float64) for x in (predicted, truth))
    a_mean, b_mean = a.mean(axis=1), b.mean(axis=1)  # (N, 3)
    a0, b0 = a - a_mean[:, None], b - b_mean[:, None]
    u, s, vt = np.linalg.svd(np.einsum("npi,npj->nij", b0, a0))  # covariance (N, 3, 3)
    sign = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    s[:, 2] *= sign
    u[:, :, 2] *= sign[:, None]
    rotation = u @ vt
    scale = s.sum(axis=1) / np.maximum((a0**2).sum(axis=(1, 2)), 1e-30)
    shift = b_mean - scale[:, None] * np.einsum("nij,nj->ni", rotation, a_mean)
    return Similarity(scale, rotation, shift)


def procrustes_align(predicted: ArrayLike, truth: ArrayLike) -> Array:
    """``predicted`` (N, P, 3) after the similarity (rotation, scale, shift) that fits it best."""
    return best_similarity(predicted, truth).apply(predicted)


def procrustes_error(predicted: ArrayLike, truth: ArrayLike) -> Array:
    """(N,) mean distance after the best similarity: PA-MPJPE for joints, PA-MPVPE for vertices."""
    return mean_distance(procrustes_align(predicted, truth), truth)


def f_score(predicted: ArrayLike, truth: ArrayLike, thresholds: ArrayLike) -> Array:
    """(T,) F-scores of one hand's vertices at thresholds (T,), in 0..1, as FreiHAND counts them.

    Precision is the share of predicted vertices with a true one nearer than the threshold, recall
    the share of true ones with a predicted one so near; F is their harmonic mean. No correspondence
    is needed: the sets may differ in size.

    Args:
        predicted: (P, 3). truth: (Q, 3). thresholds: in the same unit.

    Raises:
        InputError: one of the sets holds no vertex.
    """
    from scipy.spatial import cKDTree

    a, b = (np.asarray(x, dtype=np.float64) for x in (predicted, truth))
    if not (len(a) and len(b)):
        raise InputError(f"an F-score needs vertices on both sides, got {len(a)} and {len(b)}")
    limits = np.asarray(thresholds, dtype=np.float64)[:, None]  # (T, 1)
    precision, recall = (
        (cKDTree(there).query(here)[0] < limits).mean(axis=1)  # (T,)
        for here, there in ((a, b), (b, a))
    )
    return np.asarray(2 * precision * recall / np.maximum(precision + recall, 1e-30))


def box_sides(points_px: ArrayLike) -> Array:
    """(N,) larger side of the tight box around each hand's points (N, P, 2)."""
    points = np.asarray(points_px, dtype=np.float64)
    return np.asarray((points.max(axis=1) - points.min(axis=1)).max(axis=-1))


def box_normalised_error(predicted_px: ArrayLike, truth_px: ArrayLike) -> Array:
    """(N,) mean 2D distance over the larger side of the true joints' tight box."""
    return mean_distance(predicted_px, truth_px) / box_sides(truth_px)


class SizeBin(NamedTuple):
    """Hands whose box has a side from ``low_px`` up to, but not including, ``high_px``.

    Attributes:
        hands: how many. error: their mean error; NaN where there is none.
    """

    low_px: float
    high_px: float
    hands: int
    error: float


def by_box_side(
    errors: ArrayLike, sides_px: ArrayLike, edges_px: ArrayLike = BOX_SIDES_PX
) -> list[SizeBin]:
    """Errors (N,) averaged apart by the side (N,) of the hand's box in pixels of the picture.

    Args:
        edges_px: (K + 1,) ascending sides that part the K bins.
    """
    values, sides = (np.asarray(x, dtype=np.float64) for x in (errors, sides_px))
    edges = np.asarray(edges_px, dtype=np.float64)
    bins = np.searchsorted(edges, sides, side="right") - 1
    rows = []
    for k in range(len(edges) - 1):
        inside = values[bins == k]
        mean = float(inside.mean()) if len(inside) else float("nan")
        rows.append(SizeBin(float(edges[k]), float(edges[k + 1]), len(inside), mean))
    return rows


def root_error(predicted: ArrayLike, truth: ArrayLike) -> tuple[Array, Array]:
    """How far off the roots (N, 3) are in the camera's frame.

    Returns:
        (N,) distances, and (N,) errors of the depth z alone as shares of the true depth.
    """
    a, b = (np.asarray(x, dtype=np.float64) for x in (predicted, truth))
    return np.linalg.norm(a - b, axis=-1), abs(a[:, 2] - b[:, 2]) / b[:, 2]


def pck(errors: ArrayLike, thresholds: ArrayLike) -> Array:
    """(T,) share of ``errors`` (any shape) at or below each of ``thresholds`` (T,).

    Raises:
        InputError: there are no errors.
    """
    ascending = np.sort(np.asarray(errors, dtype=np.float64), axis=None)
    if not len(ascending):
        raise InputError("a PCK curve needs at least one error")
    limits = np.asarray(thresholds, dtype=np.float64)
    return np.asarray(np.searchsorted(ascending, limits, side="right") / len(ascending))


def auc(errors: ArrayLike, low: float, high: float, steps: int = 100) -> float:
    """Area under the PCK curve between two thresholds, as a share of the best possible.

    By the trapezoid rule over ``steps`` even thresholds. Raises as `pck`.
    """
    thresholds = np.linspace(low, high, steps)
    return float(np.trapezoid(pck(errors, thresholds), thresholds) / (high - low))
