"""The nearest point of a triangulated surface, among those that face the same way."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Triangles are looked at in the order of their centres' distance; so many hold the nearest point
# even where large ones lie beside small ones.
CANDIDATES = 16
# As many points at a time, so that the candidates' corners stay within a hundred megabytes.
ROWS = 1 << 14


class Nearest(NamedTuple):
    """Of N points: what is nearest on a surface.

    Attributes:
        points: (N, 3), NaN where nothing near faces the same way.
        distance_m: (N,), infinite there.
        face: (N,) int64, -1 there.
        weights: (N, 3) of the face's corners.
    """

    points: Array
    distance_m: Array
    face: NDArray[np.int64]
    weights: Array


class ClosestPoints:
    """A surface that is asked for its points nearest to others.

    Args:
        vertices: (V, 3). faces: (F, 3), counter-clockwise from outside.
    """

    def __init__(self, vertices: Array, faces: NDArray[np.integer]) -> None:
        from scipy.spatial import cKDTree

        self.faces = np.asarray(faces)
        self.corners = vertices[self.faces]  # (F, 3, 3)
        self.normals = unit(face_areas(self.corners))
        self._tree = cKDTree(self.corners.mean(axis=1))

    def __call__(self, points: Array, normals: Array | None = None, facing: float = 0.5) -> Nearest:
        """Nearest to points (N, 3), on faces whose normal and the point's own, of ``normals``
        (N, 3), have a cosine above ``facing``."""
        parts = [
            self._nearest(points[i : i + ROWS], None if normals is None else normals[i : i + ROWS],
                          facing)
            for i in range(0, len(points), ROWS)
        ]  # fmt: skip
        return Nearest(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _nearest(self, points: Array, normals: Array | None, facing: float) -> Nearest:
        count = min(CANDIDATES, len(self.faces))
        near = self._tree.query(points, k=count)[1].reshape(len(points), count)  # (N, K)
        weights = closest_weights(points[:, None], self.corners[near])  # (N, K, 3)
        found = np.einsum("nkc,nkcd->nkd", weights, self.corners[near])
        distance = np.linalg.norm(found - points[:, None], axis=-1)
        if normals is not None:
            same = np.einsum("nkd,nd->nk", self.normals[near], normals) > facing
            distance = np.where(same, distance, np.inf)
        best = distance.argmin(axis=1)
        rows = np.arange(len(points))
        length = distance[rows, best]
        known = np.isfinite(length)
        return Nearest(
            np.where(known[:, None], found[rows, best], np.nan),
            length,
            np.where(known, near[rows, best], -1),
            weights[rows, best],
        )


def closest_weights(points: Array, corners: Array) -> Array:
    """Barycentric weights (..., 3) of the point of a triangle (..., 3, 3) nearest to a point.

    The nearest point of the plane where that lies inside, else of the nearest edge.
    """
    a, b, c = (corners[..., i, :] for i in range(3))
    ab, ac, ap = b - a, c - a, points - a
    d11, d12, d22 = (ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1)
    e1, e2 = (ab * ap).sum(-1), (ac * ap).sum(-1)
    area = np.maximum(d11 * d22 - d12 * d12, 1e-30)
    v, w = (d22 * e1 - d12 * e2) / area, (d11 * e2 - d12 * e1) / area
    inside = np.stack([1 - v - w, v, w], axis=-1)
    best = np.full(v.shape, np.inf)
    edge = np.zeros_like(inside)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        start, along = corners[..., i, :], corners[..., j, :] - corners[..., i, :]
        t = ((points - start) * along).sum(-1) / np.maximum((along * along).sum(-1), 1e-30)
        t = np.clip(t, 0, 1)
        square = ((points - start - t[..., None] * along) ** 2).sum(-1)
        closer = square < best
        best = np.where(closer, square, best)
        weights = np.zeros_like(inside)
        weights[..., i], weights[..., j] = 1 - t, t
        edge = np.where(closer[..., None], weights, edge)
    return np.where((inside >= 0).all(axis=-1, keepdims=True), inside, edge)


def unit(vectors: Array) -> Array:
    """Vectors (..., 3) at length one; zero stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-30)


def face_areas(corners: Array) -> Array:
    """(F, 3) outward normals of triangles (F, 3, 3), as long as twice their area."""
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def vertex_normals(vertices: Array, faces: NDArray[np.integer]) -> Array:
    """(V, 3) unit normals: the faces' around each vertex, weighted by area."""
    areas = face_areas(vertices[faces])
    total = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(total, faces[:, corner], areas)
    return unit(total)
