"""The rasteriser against a brute-force ray caster in float64."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial import Delaunay

from handmesh_training.rendering import native

SIZE = 64
NEAR = 0.02  # metres, kNear of raster.cpp


class Raster(NamedTuple):
    face: npt.NDArray[np.int32]  # (N, N), -1 where nothing is
    weights: npt.NDArray[np.float32]  # (N, N, 3)
    inverse_z: npt.NDArray[np.float32]  # (N, N)
    hits: npt.NDArray[np.int32]  # (N, N)


def draw(
    vertices: npt.NDArray[np.float64],
    faces: npt.NDArray[np.integer],
    camera: tuple[float, float, float, float],
    size: int = SIZE,
) -> Raster:
    points = np.ascontiguousarray(vertices, dtype=np.float32)
    index = np.ascontiguousarray(faces, dtype=np.int32)
    lens = np.array(camera, dtype=np.float32)
    result = Raster(
        np.zeros((size, size), np.int32),
        np.zeros((size, size, 3), np.float32),
        np.zeros((size, size), np.float32),
        np.zeros((size, size), np.int32),
    )

    def pointer(array: npt.NDArray[np.generic]) -> ctypes.c_void_p:
        return ctypes.c_void_p(array.ctypes.data)

    native.load().hm_rasterise(
        pointer(points),
        pointer(index),
        ctypes.c_int32(len(index)),
        pointer(lens),
        ctypes.c_int32(size),
        *(pointer(array) for array in result),
    )
    return result


def cast(
    vertices: npt.NDArray[np.float64],
    faces: npt.NDArray[np.integer],
    camera: tuple[float, float, float, float],
    size: int = SIZE,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Depth (F, N, N), inf where missed, and weights (F, N, N, 3), by one linear solve a ray."""
    fx, fy, cx, cy = np.array(camera, dtype=np.float32).astype(np.float64)
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    rays = np.stack([(x - cx) / fx, (y - cy) / fy, np.ones_like(x, float)], -1)  # (N, N, 3)
    points = vertices.astype(np.float32).astype(np.float64)
    depths, weights = [], []
    for face in faces:
        corners = points[face].T  # columns: ray = corners @ (w / z)
        solved = np.linalg.solve(corners, rays.reshape(-1, 3).T).T.reshape(size, size, 3)
        total = solved.sum(-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = 1 / total
            weight = solved / total[..., None]
        inside = (solved >= 0).all(-1) & (total > 0) & (depth >= NEAR)
        depths.append(np.where(inside, depth, np.inf))
        weights.append(weight)
    return np.array(depths), np.array(weights)


def edge_distance(
    vertices: npt.NDArray[np.float64],
    faces: npt.NDArray[np.integer],
    camera: tuple[float, float, float, float],
    size: int = SIZE,
) -> npt.NDArray[np.float64]:
    """(N, N) distance in samples to the nearest edge of any face, all in front of the camera."""
    fx, fy, cx, cy = camera
    flat = vertices[:, :2] / vertices[:, 2:] * [fx, fy] + [cx, cy]
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    sample = np.stack([x, y], -1).astype(float)
    nearest = np.full((size, size), np.inf)
    for face in faces:
        for a, b in ((0, 1), (1, 2), (2, 0)):
            p, q = flat[face[a]], flat[face[b]]
            along = np.clip(((sample - p) @ (q - p)) / max((q - p) @ (q - p), 1e-12), 0, 1)
            gap = np.linalg.norm(sample - p - along[..., None] * (q - p), axis=-1)
            nearest = np.minimum(nearest, gap)
    return nearest


def random_triangles(
    seed: int, count: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    centre = rng.uniform([-0.4, -0.4, 0.5], [0.4, 0.4, 1.5], (count, 1, 3))
    vertices = centre + rng.normal(0, 0.15, (count, 3, 3))
    thin = rng.random(count) < 0.3  # slivers: the third corner almost on the first edge
    along = rng.random((count, 1))
    on_edge = vertices[:, 0] * along + vertices[:, 1] * (1 - along)
    vertices[thin, 2] = (on_edge + rng.normal(0, 0.003, (count, 3)))[thin]
    vertices[..., 2] = np.maximum(vertices[..., 2], 0.1)
    return vertices.reshape(-1, 3), np.arange(3 * count).reshape(-1, 3)


CAMERA = (55.0, 60.0, 31.3, 30.1)


@pytest.mark.parametrize("seed", range(6))
def test_coverage_depth_and_weights_match_ray_casting(seed: int) -> None:
    vertices, faces = random_triangles(seed, 12)
    got = draw(vertices, faces, CAMERA)
    depths, weights = cast(vertices, faces, CAMERA)
    nearest = depths.min(0)
    winner = np.where(np.isfinite(nearest), depths.argmin(0), -1)
    # Vertices are snapped to 1/256 of a sample: only beside an edge may the two differ.
    clear = edge_distance(vertices, faces, CAMERA) > 0.01
    assert clear.mean() > 0.9
    assert (winner[clear] >= 0).sum() > 200
    # Two faces at the same depth (to float32) may come in either order.
    second = np.sort(depths, axis=0)[1]
    with np.errstate(invalid="ignore"):
        tied = np.isfinite(second) & (second - nearest < 1e-5)
    clear &= ~tied
    np.testing.assert_array_equal(got.face[clear], winner[clear])
    hit = clear & (winner >= 0)
    np.testing.assert_allclose(1 / got.inverse_z[hit], nearest[hit], rtol=2e-5)
    expected = np.take_along_axis(weights, np.maximum(winner, 0)[None, ..., None], 0)[0]
    # Weights of a sliver are ill-conditioned; what they are for, the point on it, is not.
    corners = vertices[faces[winner[hit]]]  # (hits, 3, 3)
    point = np.einsum("hk,hkc->hc", got.weights[hit], corners)
    np.testing.assert_allclose(point, np.einsum("hk,hkc->hc", expected[hit], corners), atol=3e-5)


def test_weights_are_perspective_correct() -> None:
    # A floor running away from the camera: halfway on the screen is far from halfway along it.
    vertices = np.array([[-1.0, 0.5, 0.6], [1.0, 0.5, 0.6], [0.0, 0.5, 12.0]])
    faces = np.array([[0, 1, 2]])
    got = draw(vertices, faces, CAMERA)
    _, weights = cast(vertices, faces, CAMERA)
    hit = got.face == 0
    assert hit.sum() > 300
    np.testing.assert_allclose(got.weights[hit], weights[0][hit], atol=2e-5)
    fx, fy, cx, cy = CAMERA
    screen = vertices[:, :2] / vertices[:, 2:] * [fx, fy] + [cx, cy]
    y = np.nonzero(hit)[0]
    affine = (y - screen[0, 1]) / (screen[2, 1] - screen[0, 1])
    assert np.abs(got.weights[hit][:, 2] - affine).max() > 0.3


@pytest.mark.parametrize("kind", ["random", "lattice", "slivers"])
def test_shared_edges_leave_no_hole_and_no_double_hit(kind: str) -> None:
    rng = np.random.default_rng(3)
    if kind == "lattice":  # every vertex, and many an edge, exactly on samples
        x, y = np.meshgrid(np.arange(4, 61, 4), np.arange(4, 61, 4))
        flat = np.stack([x, y], -1).reshape(-1, 2).astype(float)
    elif kind == "random":
        flat = rng.uniform(4, 60, (300, 2))
    else:
        flat = np.stack([rng.uniform(4, 60, 200), 30 + rng.normal(0, 0.4, 200)], -1)
        flat = np.concatenate([flat, [[4, 4], [60, 4], [60, 60], [4, 60]]])
    faces = Delaunay(flat).simplices.copy()
    flip = rng.random(len(faces)) < 0.5  # either facing is drawn
    faces[flip] = faces[flip][:, ::-1]
    depth = 0.5  # exact in binary, so that lattice corners project onto samples exactly
    vertices = np.column_stack([flat * depth / 64.0, np.full(len(flat), depth)])
    got = draw(vertices, faces, (64.0, 64.0, 0.0, 0.0))
    assert got.hits.max() == 1
    hull = Delaunay(flat)
    x, y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    samples = np.stack([x, y], -1).reshape(-1, 2).astype(float)
    inner = flat.mean(0) + (samples - flat.mean(0)) * 1.02
    inside = (hull.find_simplex(inner) >= 0).reshape(SIZE, SIZE)
    assert inside.sum() > 1000
    assert got.hits[inside].min() == 1


def test_a_lattice_square_covers_exactly_its_samples() -> None:
    # Corners on samples: the top and left rows belong to it, the bottom and right do not.
    flat = np.array([[10.0, 20.0], [30.0, 20.0], [30.0, 35.0], [10.0, 35.0]])
    vertices = np.column_stack([flat * 0.5 / 64.0, np.full(4, 0.5)])
    got = draw(vertices, np.array([[0, 1, 2], [0, 2, 3]]), (64.0, 64.0, 0.0, 0.0))
    expected = np.zeros((SIZE, SIZE), np.int32)
    expected[20:35, 10:30] = 1
    np.testing.assert_array_equal(got.hits, expected)


@pytest.mark.parametrize("behind", [1, 2])
def test_triangles_through_the_near_plane_are_cut_there(behind: int) -> None:
    vertices = np.array([[-0.3, 0.2, 1.0], [0.3, 0.25, 1.2], [0.05, -0.3, 0.9]])
    vertices[:behind, 2] = [-0.4, -0.2][:behind]
    faces = np.array([[0, 1, 2]])
    got = draw(vertices, faces, CAMERA)
    depths, weights = cast(vertices, faces, CAMERA)
    expected = np.isfinite(depths[0])
    differs = (got.face == 0) != expected
    assert expected.sum() > 100
    assert differs.mean() < 0.003  # only beside an edge
    both = (got.face == 0) & expected
    np.testing.assert_allclose(got.weights[both], weights[0][both], atol=1e-4)
    np.testing.assert_allclose(1 / got.inverse_z[both], depths[0][both], rtol=1e-4)


def test_what_lies_behind_the_camera_is_not_drawn() -> None:
    vertices = np.array([[-1.0, -1.0, -1.0], [1.0, -1.0, -1.0], [0.0, 1.0, -1.0]])
    assert draw(vertices, np.array([[0, 1, 2]]), CAMERA).hits.sum() == 0


def test_huge_and_degenerate_triangles_do_no_harm() -> None:
    vertices = np.array(
        [
            [-1e2, -1e2, 0.03],  # projects a million samples away
            [1e2, -1e2, 0.03],
            [0.0, 1e2, 0.03],
            [0.1, 0.1, 1.0],
            [0.1, 0.1, 1.0],
        ]
    )
    got = draw(vertices, np.array([[0, 1, 2], [3, 4, 3], [3, 4, 0]]), CAMERA)
    assert (got.face == 0).all()
    np.testing.assert_allclose(got.inverse_z, 1 / 0.03, rtol=1e-4)


def test_order_of_faces_does_not_matter() -> None:
    vertices, faces = random_triangles(9, 20)
    first = draw(vertices, faces, CAMERA)
    order = np.random.default_rng(0).permutation(len(faces))
    second = draw(vertices, faces[order], CAMERA)
    np.testing.assert_array_equal(first.inverse_z, second.inverse_z)
