"""Half-edge-collapse decimation: the kept vertices are a subset of the old ones.

Keeping a subset (rather than moving vertices to optimal places) makes every attribute of the coarse
mesh, posed positions included, a plain selection from the fine mesh: training labels are exact.
Costs are the quadric error of Garland and Heckbert (1997) plus a small length term for even
triangles. Arithmetic is plain Python floats in a fixed order, so the result is the same on every
machine.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

BOUNDARY_WEIGHT = 10.0
LENGTH_WEIGHT = 2e-3
MIN_NORMAL_DOT = 0.2

Vector = tuple[float, float, float]
Quadric = list[float]  # the upper triangle of a symmetric 4x4 matrix, row by row


def _sub(a: Vector, b: Vector) -> Vector:
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def _cross(a: Vector, b: Vector) -> Vector:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _plane_quadric(normal: Vector, point: Vector, weight: float) -> Quadric:
    a, b, c = normal
    d = -_dot(normal, point)
    return [
        weight * term
        for term in (a * a, a * b, a * c, a * d, b * b, b * c, b * d, c * c, c * d, d * d)
    ]


def _error(q: Quadric, p: Vector) -> float:
    x, y, z = p
    return (
        x * (q[0] * x + 2 * (q[1] * y + q[2] * z + q[3]))
        + y * (q[4] * y + 2 * (q[5] * z + q[6]))
        + z * (q[7] * z + 2 * q[8])
        + q[9]
    )


class Decimator:
    """Collapses one edge at a time; iterate over it and stop when the mesh suits."""

    def __init__(
        self,
        vertices: NDArray[np.float64],
        faces: NDArray[np.integer],
        keep: NDArray[np.bool_],
    ) -> None:
        """
        Args:
            vertices: (V, 3). faces: (F, 3), a manifold, possibly with boundaries; no face twice.
            keep: (V,) True where a vertex must stay.
        """
        self._points: list[Vector] = [(float(x), float(y), float(z)) for x, y, z in vertices]
        self._faces: dict[int, tuple[int, int, int]] = {
            k: (int(a), int(b), int(c)) for k, (a, b, c) in enumerate(faces)
        }
        self._keep = keep
        self._around: list[set[int]] = [set() for _ in self._points]
        for k, face in self._faces.items():
            for vertex in face:
                self._around[vertex].add(k)
        self._quadrics = [[0.0] * 10 for _ in self._points]
        self._edge_faces = self._count_edges()
        for face in self._faces.values():
            self._add_face_quadrics(face)

    def _count_edges(self) -> dict[tuple[int, int], int]:
        counts: dict[tuple[int, int], int] = {}
        for a, b, c in self._faces.values():
            for i, j in ((a, b), (b, c), (c, a)):
                key = (min(i, j), max(i, j))
                counts[key] = counts.get(key, 0) + 1
        return counts

    def _add_face_quadrics(self, face: tuple[int, int, int]) -> None:
        p = [self._points[v] for v in face]
        normal = _cross(_sub(p[1], p[0]), _sub(p[2], p[0]))
        length = _dot(normal, normal) ** 0.5
        if length == 0.0:
            return
        n = (normal[0] / length, normal[1] / length, normal[2] / length)
        for vertex in face:
            self._accumulate(vertex, _plane_quadric(n, p[0], 0.5 * length))
        for k in range(3):
            i, j = face[k], face[(k + 1) % 3]
            if self._edge_faces[min(i, j), max(i, j)] == 1:
                # A wall through each boundary edge keeps the wrist's rim where it is.
                edge = _sub(self._points[j], self._points[i])
                wall = _cross(edge, n)
                size = _dot(wall, wall) ** 0.5
                w = (wall[0] / size, wall[1] / size, wall[2] / size)
                quadric = _plane_quadric(w, self._points[i], BOUNDARY_WEIGHT * size * size)
                self._accumulate(i, quadric)
                self._accumulate(j, quadric)

    def _accumulate(self, vertex: int, quadric: Quadric) -> None:
        self._quadrics[vertex] = [
            a + b for a, b in zip(self._quadrics[vertex], quadric, strict=True)
        ]

    def _neighbours(self, vertex: int) -> set[int]:
        found = {v for k in self._around[vertex] for v in self._faces[k]}
        found.discard(vertex)
        return found

    def _is_boundary(self, vertex: int) -> bool:
        # On a closed fan every neighbour is shared by two faces.
        counts: dict[int, int] = {}
        for k in self._around[vertex]:
            for v in self._faces[k]:
                counts[v] = counts.get(v, 0) + 1
        return any(count == 1 for v, count in counts.items() if v != vertex)

    def _cost(self, gone: int, stays: int) -> float:
        merged = [a + b for a, b in zip(self._quadrics[gone], self._quadrics[stays], strict=True)]
        edge = _sub(self._points[gone], self._points[stays])
        squared = _dot(edge, edge)
        return _error(merged, self._points[stays]) + LENGTH_WEIGHT * squared * squared

    def _allowed(self, gone: int, stays: int) -> bool:
        if self._is_boundary(gone) and not (
            self._is_boundary(stays) and len(self._around[gone] & self._around[stays]) == 1
        ):
            return False
        shared = self._around[gone] & self._around[stays]
        # Link condition: common neighbours are exactly the tips of the shared faces.
        near_gone, near_stays = self._neighbours(gone), self._neighbours(stays)
        if len(near_gone & near_stays) != len(shared):
            return False
        if len(shared) == 2 and len(near_gone | near_stays) == 4:
            return False  # a tetrahedron would fall flat
        for k in self._around[gone] - shared:
            face = self._faces[k]
            before = [self._points[v] for v in face]
            after = [self._points[stays if v == gone else v] for v in face]
            n0 = _cross(_sub(before[1], before[0]), _sub(before[2], before[0]))
            n1 = _cross(_sub(after[1], after[0]), _sub(after[2], after[0]))
            if _dot(n0, n1) <= MIN_NORMAL_DOT * (_dot(n0, n0) * _dot(n1, n1)) ** 0.5:
                return False
        return True

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        """Yield the remaining faces (F', 3) after every collapse, over the old vertex numbers."""
        costs: dict[tuple[int, int], float] = {}
        for i, j in self._count_edges():
            for gone, stays in ((i, j), (j, i)):
                if not self._keep[gone]:
                    costs[gone, stays] = self._cost(gone, stays)
        while costs:
            # Linear scan: a couple of thousand edges, and no stale heap entries to reason about.
            for (gone, stays), _ in sorted(costs.items(), key=lambda item: (item[1], item[0])):
                if self._allowed(gone, stays):
                    break
            else:
                return
            for k in list(self._around[gone]):
                face = self._faces[k]
                if stays in face:
                    for vertex in face:
                        self._around[vertex].discard(k)
                    del self._faces[k]
                else:
                    a, b, c = (stays if v == gone else v for v in face)
                    self._faces[k] = (a, b, c)
                    self._around[gone].discard(k)
                    self._around[stays].add(k)
            self._accumulate(stays, self._quadrics[gone])
            costs = {e: cost for e, cost in costs.items() if gone not in e and stays not in e}
            for other in self._neighbours(stays):
                for i, j in ((stays, other), (other, stays)):
                    if not self._keep[i]:
                        costs[i, j] = self._cost(i, j)
            yield np.array([self._faces[k] for k in sorted(self._faces)], dtype=np.int64)
