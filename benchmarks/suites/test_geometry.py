"""From (u, v, depth) to camera space, and what a mesh needs after that."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from handmesh import Box, Bundle, Camera
from handmesh.geometry import lift, place, solve_root_depth, vertex_normals


@pytest.fixture(scope="session")
def rest_pose(bundle: Bundle) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(V, 3) and (21, 3): the template in front of a camera, metres."""
    topology = bundle.topology
    vertices = np.asarray(topology.template_vertices_m, dtype=np.float64)
    return vertices + (0, 0, 0.5), topology.joint_regressor @ vertices + (0, 0, 0.5)


def test_solve_root_depth(
    benchmark: BenchmarkFixture,
    rest_pose: tuple[NDArray[np.float64], NDArray[np.float64]],
    bundle: Bundle,
    camera: Camera,
) -> None:
    joints = rest_pose[1]
    unit = float(np.linalg.norm(joints[10] - joints[9]))
    depth = (joints[:, 2] - joints[0, 2]) / unit

    bones = benchmark(
        solve_root_depth, camera.project(joints), depth, camera, bundle.topology.bone_ratios
    )

    assert bones * unit == pytest.approx(joints[0, 2], rel=0.05)


def test_lift_mesh(
    benchmark: BenchmarkFixture,
    rest_pose: tuple[NDArray[np.float64], NDArray[np.float64]],
    camera: Camera,
) -> None:
    vertices = rest_pose[0]
    depth = (vertices[:, 2] - 0.5) / 0.045
    placement = place(0.5 / 0.045, bone_length_m=0.045)

    lifted = benchmark(lift, camera.project(vertices), depth, camera, placement)

    assert np.allclose(lifted, vertices, atol=1e-9)


def test_crop_to_image(
    benchmark: BenchmarkFixture,
    rest_pose: tuple[NDArray[np.float64], NDArray[np.float64]],
    box: Box,
) -> None:
    uv = np.random.default_rng(0).random((len(rest_pose[0]), 2))
    assert benchmark(box.to_image, uv).shape == uv.shape


def test_vertex_normals(
    benchmark: BenchmarkFixture,
    rest_pose: tuple[NDArray[np.float64], NDArray[np.float64]],
    bundle: Bundle,
) -> None:
    normals = benchmark(vertex_normals, rest_pose[0], bundle.topology.faces)
    assert normals.shape == rest_pose[0].shape
