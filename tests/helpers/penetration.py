"""How deep a skinned hand runs into itself, measured on the mesh.

Slow and exact where `collisions` is quick and rounded: it is what the capsules are judged by.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from handmesh_training.hand import FOREARM, PIVOT_COUNT, HandAsset

Array = NDArray[np.float64]
Faces = NDArray[np.int64]

PALM = 5
FIRST_BONES = (2, 4, 7, 10, 13)
# Skin that moves with its own finger by less than this belongs to the webs between.
OWN_WEIGHT = 0.97


class MeshPenetration:
    """The mesh cut into five fingers and the palm, each closed with a cap over its cut."""

    def __init__(self, asset: HandAsset) -> None:
        weights = asset.weights.astype(np.float64)
        # Part of each vertex: thumb to little by their bones, the rest is palm. The thumb's
        # metacarpal lies in the palm.
        share = np.zeros((len(weights), 6))
        for pivot in range(PIVOT_COUNT):
            inside_palm = pivot in (0, 1, FOREARM)
            share[:, PALM if inside_palm else (pivot - 1) // 3] += weights[:, pivot]
        self.part = share.argmax(axis=1)
        self.own = share.max(axis=1) > OWN_WEIGHT
        self.first = np.isin(weights.argmax(axis=1), FIRST_BONES)
        faces = asset.faces.astype(np.int64)
        self.skin: list[Faces] = []
        self.caps: list[list[NDArray[np.int64]]] = []
        for part in range(6):
            inside = (self.part[faces] == part).all(axis=1)
            self.skin.append(faces[inside])
            self.caps.append(_loops(faces[inside]))

    def depth(self, vertices: Array) -> float:
        """Metres of the deepest vertex (V, 3) of one part below the skin of another; 0 if none."""
        points = np.asarray(vertices, dtype=np.float64)
        deepest = 0.0
        for part in range(6):
            triangles = points[self.skin[part]]  # (F, 3, 3)
            low, high = triangles.min(axis=(0, 1)), triangles.max(axis=(0, 1))
            others = (self.part != part) & self.own
            others &= ((points > low) & (points < high)).all(axis=1)
            if part == PALM:  # first bones grow out of the palm, and fold against it
                others &= ~self.first
            candidates = points[others]
            if not len(candidates):
                continue
            closed = np.concatenate([triangles, *(self._cap(points, c) for c in self.caps[part])])
            inside = winding_number(candidates, closed) > 0.5
            if inside.any():
                deepest = max(deepest, float(surface_distance(candidates[inside], triangles).max()))
        return deepest

    @staticmethod
    def _cap(points: Array, loop: NDArray[np.int64]) -> Array:
        """A fan (E, 3, 3) over a cut's edges (E, 2), closing it."""
        edges = points[loop]  # (E, 2, 3)
        middle = np.broadcast_to(edges.mean(axis=(0, 1)), (len(edges), 3))
        return np.stack([edges[:, 1], edges[:, 0], middle], axis=1)


def _loops(faces: Faces) -> list[NDArray[np.int64]]:
    """Border edges (E, 2) of a surface, in the faces' direction, one array for each border."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    present = {(int(a), int(b)) for a, b in edges}
    following: dict[int, list[int]] = {}
    for a, b in sorted(present):
        if (b, a) not in present:
            following.setdefault(a, []).append(b)
    found = []
    while following:
        start = at = next(iter(following))
        loop = []
        while at in following:
            ends = following[at]
            to = ends.pop()
            if not ends:
                del following[at]
            loop.append((at, to))
            at = to
            if at == start:
                break
        found.append(np.array(loop))
    return found


def winding_number(points: Array, triangles: Array) -> Array:
    """(N,) how often triangles (F, 3, 3), counter-clockwise from outside, surround points (N, 3).

    Sum of signed solid angles over 4 pi (Van Oosterom and Strackee).
    """
    a, b, c = (triangles[None, :, k] - points[:, None] for k in range(3))  # (N, F, 3)
    la, lb, lc = (np.linalg.norm(x, axis=-1) for x in (a, b, c))
    volume = (a * np.cross(b, c)).sum(axis=-1)
    below = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
    total: Array = np.arctan2(volume, below).sum(axis=1) / (2 * np.pi)
    return total


def surface_distance(points: Array, triangles: Array) -> Array:
    """(N,) distance from points (N, 3) to the nearest of triangles (F, 3, 3)."""
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    normal = np.cross(b - a, c - a)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-15)
    nearest = np.full(len(points), np.inf)
    offset = points[:, None] - a  # (N, F, 3)
    height = (offset * normal).sum(axis=-1)  # (N, F)
    foot = points[:, None] - height[..., None] * normal
    within = np.ones(height.shape, dtype=bool)
    for start, end in ((a, b), (b, c), (c, a)):
        within &= (np.cross(end - start, foot - start) * normal).sum(axis=-1) >= 0
        edge = end - start
        length = np.maximum((edge * edge).sum(axis=-1), 1e-15)
        t = np.clip(((points[:, None] - start) * edge).sum(axis=-1) / length, 0, 1)
        gap = points[:, None] - start - t[..., None] * edge
        nearest = np.minimum(nearest, np.linalg.norm(gap, axis=-1).min(axis=1))
    plane = np.where(within, np.abs(height), np.inf).min(axis=1)
    result: Array = np.minimum(nearest, plane)
    return result
