"""The shipped graph, and a small synthetic one with padding at every level."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from handmesh.graph import GraphLevel, Topology

torch.set_num_threads(1)


def make_topology(seed: int = 0) -> Topology:
    """A 32x32 grid with some holes, in Morton order, padded to 1280 nodes by fake blocks."""
    rng = np.random.default_rng(seed)
    side, nodes = 32, 1280
    morton = np.zeros((side, side), dtype=np.int64)
    for bit in range(5):
        rows, columns = np.indices((side, side))
        morton |= ((columns >> bit) & 1) << (2 * bit)
        morton |= ((rows >> bit) & 1) << (2 * bit + 1)
    # 64 blocks of 16 grid points among 80: the other 16 blocks are padding at every level.
    block = rng.permutation(80)[:64]
    position = block[morton // 16] * 16 + morton % 16
    grid = rng.random((side, side)) > 0.04  # holes: padding nodes amid real ones
    count = int(grid.sum())
    vertex = np.full((side, side), -1)
    order = rng.permutation(count)
    vertex[grid] = order
    node_of_vertex = np.zeros(count, dtype=np.int32)
    node_of_vertex[order] = position[grid]
    faces = []
    for r in range(side - 1):
        for c in range(side - 1):
            a, b, d, e = vertex[r, c], vertex[r, c + 1], vertex[r + 1, c], vertex[r + 1, c + 1]
            faces += [f for f in ((a, b, e), (a, e, d)) if min(f) >= 0]
    weights = np.zeros((nodes, nodes))
    for face in faces:
        p = node_of_vertex[list(face)]
        for i, j in ((0, 1), (1, 2), (2, 0)):
            weights[p[i], p[j]] = weights[p[j], p[i]] = 1.0
    mask = np.zeros(nodes, dtype=bool)
    mask[node_of_vertex] = True
    levels = []
    while nodes >= 80:
        levels.append(_level(weights, mask))
        weights = weights.reshape(nodes // 2, 2, nodes // 2, 2).sum(axis=(1, 3))
        np.fill_diagonal(weights, 0.0)
        mask = mask.reshape(-1, 2).any(axis=1)
        nodes //= 2
    blend = rng.random((count, 21)).astype(np.float32) ** 8
    regressor = rng.random((21, count)).astype(np.float32) ** 8
    return Topology(
        faces=np.asarray(faces, dtype=np.int32),
        node_of_vertex=node_of_vertex,
        levels=tuple(levels),
        joint_regressor=regressor / regressor.sum(1, keepdims=True),
        joint_blend=blend / blend.sum(1, keepdims=True),
        uv=rng.random((count, 2)).astype(np.float32),
        template_vertices_m=rng.normal(size=(count, 3)).astype(np.float32),
        parts=np.zeros(count, dtype=np.uint8),
        bone_ratios=np.ones(20, dtype=np.float32),
    )


def _level(weights: np.ndarray, mask: np.ndarray) -> GraphLevel:
    degree = weights.sum(1)
    scale = np.where(degree > 0, 1 / np.sqrt(np.maximum(degree, 1e-12)), 0.0)
    laplacian = np.eye(len(weights)) - scale[:, None] * weights * scale[None]
    largest = 1.8  # any number rescales; the exact eigenvalue is the concern of graph tests
    rescaled = 2 * laplacian / largest - np.eye(len(weights))
    width = int((rescaled != 0).sum(1).max())
    neighbours = np.repeat(np.arange(len(rescaled), dtype=np.int32)[:, None], width, axis=1)
    values = np.zeros((len(rescaled), width), dtype=np.float32)
    for row, line in enumerate(rescaled):
        columns = np.flatnonzero(line)
        neighbours[row, : len(columns)] = columns
        values[row, : len(columns)] = line[columns]
    return GraphLevel(mask, neighbours, values, largest)


@pytest.fixture(scope="session")
def padded() -> Topology:
    """Synthetic graph with padding nodes at every level, the coarsest too."""
    return make_topology()


@pytest.fixture(scope="session")
def topology() -> Topology:
    """The hand."""
    return Topology.default()
