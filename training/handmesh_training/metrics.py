"""Errors of joints and vertices, with the protocol in the name.

All functions take arrays of any float dtype, compute in float64 and return one value a hand, in the
unit of their input.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def mean_distance(predicted: ArrayLike, truth: ArrayLike) -> Array:
    """(N,) mean Euclidean distance over the points of (N, P, D) against (N, P, D)."""
    difference = np.asarray(predicted, dtype=np.float64) - np.asarray(truth, dtype=np.float64)
    return np.linalg.norm(difference, axis=-1).mean(axis=-1)


def root_aligned_error(predicted: ArrayLike, truth: ArrayLike, root: int = 0) -> Array:
    """(N,) mean distance after moving point ``root`` of both to the origin, and nothing else."""
    a, b = (np.asarray(x, dtype=np.float64) for x in (predicted, truth))
    return mean_distance(a - a[:, root : root + 1], b - b[:, root : root + 1])


def procrustes_align(predicted: ArrayLike, truth: ArrayLike) -> Array:
    """``predicted`` (N, P, 3) after the similarity (rotation, scale, shift) that fits it best.

    Least squares after Umeyama (1991); reflections are not allowed.
    """
    a, b = (np.asarray(x, dtype=np.float64) for x in (predicted, truth))
    a_mean, b_mean = a.mean(axis=1, keepdims=True), b.mean(axis=1, keepdims=True)
    a0, b0 = a - a_mean, b - b_mean
    u, s, vt = np.linalg.svd(np.einsum("npi,npj->nij", b0, a0))  # covariance (N, 3, 3)
    sign = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    s[:, 2] *= sign
    u[:, :, 2] *= sign[:, None]
    rotation = u @ vt
    scale = s.sum(axis=1) / np.maximum((a0**2).sum(axis=(1, 2)), 1e-30)
    turned = np.einsum("nij,npj->npi", rotation, a0)
    return np.asarray(scale[:, None, None] * turned + b_mean)


def procrustes_error(predicted: ArrayLike, truth: ArrayLike) -> Array:
    """(N,) mean distance after the best similarity: PA-MPJPE for joints, PA-MPVPE for vertices."""
    return mean_distance(procrustes_align(predicted, truth), truth)


def box_normalised_error(predicted_px: ArrayLike, truth_px: ArrayLike) -> Array:
    """(N,) mean 2D distance over the larger side of the true joints' tight box."""
    truth = np.asarray(truth_px, dtype=np.float64)
    side = (truth.max(axis=1) - truth.min(axis=1)).max(axis=-1)
    return mean_distance(predicted_px, truth) / side


def pck(errors: ArrayLike, thresholds: ArrayLike) -> Array:
    """Share of ``errors`` (any shape) at or below each of ``thresholds`` (T,)."""
    flat = np.asarray(errors, dtype=np.float64).ravel()
    return (flat[None] <= np.asarray(thresholds, dtype=np.float64)[:, None]).mean(axis=1)


def auc(errors: ArrayLike, low: float, high: float, steps: int = 100) -> float:
    """Area under the PCK curve between two thresholds, as a share of the best possible."""
    thresholds = np.linspace(low, high, steps)
    return float(np.trapezoid(pck(errors, thresholds), thresholds) / (high - low))
