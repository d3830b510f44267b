"""Nearest points of triangles and surfaces, against closed forms and a search by brute force."""

from __future__ import annotations

import numpy as np

from handmesh_training.other_hand.closest import ClosestPoints, closest_weights, vertex_normals


def test_inside_over_edges_and_beyond_corners() -> None:
    corners = np.array([[0.0, 0, 0], [2, 0, 0], [0, 2, 0]])
    points = np.array([[0.5, 0.5, 3], [1, -1, 1], [-1, -2, 0], [4, -1, 2], [2, 2, 0]])
    found = closest_weights(points, np.broadcast_to(corners, (5, 3, 3))) @ corners
    wanted = [[0.5, 0.5, 0], [1, 0, 0], [0, 0, 0], [2, 0, 0], [1, 1, 0]]
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_nothing_of_a_triangle_is_nearer() -> None:
    rng = np.random.default_rng(0)
    corners, points = rng.normal(size=(200, 3, 3)), rng.normal(size=(200, 3)) * 2
    weights = closest_weights(points, corners)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    found = np.linalg.norm((weights[:, None] @ corners)[:, 0] - points, axis=1)
    tried = rng.dirichlet([0.5, 0.5, 0.5], 4000)
    distance = np.linalg.norm(tried @ corners - points[:, None], axis=-1).min(axis=1)  # (200,)
    assert (found <= distance + 1e-12).all()
    assert (distance - found).max() < 0.2


def grid(rows: int, height: float) -> tuple[np.ndarray, np.ndarray]:
    """A level square of two triangles a cell, facing up."""
    y, x = np.mgrid[: rows + 1, : rows + 1] / rows
    vertices = np.stack([x, y, np.full_like(x, height)], axis=-1).reshape(-1, 3)
    corner = (np.arange(rows)[:, None] * (rows + 1) + np.arange(rows)).reshape(-1)
    cell = corner[:, None] + [0, 1, rows + 2, rows + 1]
    return vertices, np.concatenate([cell[:, [0, 1, 2]], cell[:, [0, 2, 3]]])


def test_only_what_faces_the_same_way_is_near() -> None:
    low, faces = grid(6, 0.0)
    high, _ = grid(6, 0.1)
    both = np.concatenate([low, high])
    surface = ClosestPoints(both, np.concatenate([faces, faces[:, ::-1] + len(low)]))
    point = np.array([[0.31, 0.62, 0.08]])
    up = np.array([[0.0, 0, 1]])
    np.testing.assert_allclose(surface(point).points, [[0.31, 0.62, 0.1]])
    found = surface(point, up)
    np.testing.assert_allclose(found.points, [[0.31, 0.62, 0]], atol=1e-12)
    np.testing.assert_allclose(found.distance_m, 0.08)
    sideways = surface(point, np.array([[1.0, 0, 0]]))
    assert (sideways.distance_m[0], sideways.face[0]) == (np.inf, -1)
    assert np.isnan(sideways.points).all()
    np.testing.assert_allclose(vertex_normals(low, faces), np.broadcast_to(up, low.shape))
