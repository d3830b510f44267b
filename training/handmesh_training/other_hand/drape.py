"""Our surface, laid onto another: moved smoothly until it is nearest to itself there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .closest import Array, ClosestPoints, Nearest, vertex_normals

# How stiff the displacement is, from the first round to the last, against a match's weight of one.
STIFF, SOFT, ROUNDS = 300.0, 0.3, 24
# Farther than this, nothing is the same place of a hand; it shrinks to the last of these.
NEAR_M = (0.02, 0.005)
# A match lies along the surface's normal, but at a rim, where what it should be is missing.
ALONG_NORMAL, TOUCHING_M = 0.8, 0.0005
FACING = 0.6
# Where nothing else decides, a vertex stays where it started.
LOOSE = 1e-4


def drape(
    start: Array,
    faces: NDArray[np.integer],
    trusted: Array,
    kept: Array,
    target: Array,
    target_faces: NDArray[np.integer],
) -> Array:
    """Vertices (V, 3) on a target's surface, as smoothly moved from where they started as can be.

    Rounds of matching both ways, each surface's vertices with the nearest points of the other that
    face the same way, and of solving for displacements whose Laplacian is small; ever softer.

    Args:
        start: (V, 3), roughly in place. faces: (F, 3).
        trusted: (V,) 0..1, how much a vertex's match counts; 0 where it has no counterpart.
        kept: (V,) 0..1, how firmly a vertex stays where it started.
        target: (N, 3). target_faces: (M, 3).
    """
    from scipy.sparse import csr_matrix, diags
    from scipy.sparse.linalg import splu

    surface = ClosestPoints(target, target_faces)
    normals = vertex_normals(target, target_faces)
    bending = _laplacian(faces, len(start))
    bending = bending.T @ bending
    moved = start.copy()
    for stiff, near_m in zip(
        np.geomspace(STIFF, SOFT, ROUNDS), np.geomspace(*NEAR_M, ROUNDS), strict=True
    ):
        # From ours to theirs: a weight on each vertex's own displacement.
        facing = vertex_normals(moved, faces)
        found = surface(moved, facing, FACING)
        weight = trusted * is_match(moved, found, surface.normals, near_m)
        goal = np.where(weight[:, None] > 0, found.points, moved)
        # From theirs to ours: each of their vertices has a place on one of our faces.
        ours = ClosestPoints(moved, faces)
        back = ours(target, normals, FACING)
        pull = is_match(target, back, ours.normals, near_m)
        rows = np.flatnonzero(pull)
        corners, share = faces[back.face[rows]], back.weights[rows]
        pull = (share * trusted[corners]).sum(axis=1)  # (R,)
        place = csr_matrix(
            (share.ravel(), (np.repeat(np.arange(len(rows)), 3), corners.ravel())),
            shape=(len(rows), len(start)),
        )
        pulled = place.T @ diags(pull)
        matrix = diags(weight) + pulled @ place + stiff * bending + diags(kept + LOOSE)
        right = weight[:, None] * (goal - start) + pulled @ (target[rows] - place @ start)
        moved = start + splu(matrix.tocsc()).solve(np.asarray(right))
    return moved


def is_match(points: Array, found: Nearest, face_normals: Array, near_m: float) -> Array:
    """(N,) 1 where the nearest point is the same place of the hand, 0 elsewhere."""
    known = found.distance_m < near_m
    offset = np.where(known[:, None], found.points - points, 0.0)
    along = np.abs((offset * face_normals[found.face]).sum(axis=1))
    straight = (along > ALONG_NORMAL * found.distance_m) | (found.distance_m < TOUCHING_M)
    return np.asarray(known & straight, dtype=np.float64)


def _laplacian(faces: NDArray[np.integer], count: int) -> Any:
    """(V, V) sparse: a vertex's value less the mean of its neighbours'."""
    from scipy.sparse import coo_matrix, diags, identity

    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    pairs = np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0)
    near = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    degree = np.asarray(near.sum(axis=1)).ravel()
    return identity(count) - diags(1 / np.maximum(degree, 1)) @ near.tocsr()
