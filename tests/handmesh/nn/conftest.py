"""A small synthetic graph with the attributes of `handmesh.graph.Topology`."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


def make_topology(seed: int = 0) -> SimpleNamespace:
    """A 32x32 grid with some holes, in Morton order, padded to 1280 nodes by fake blocks."""
    rng = np.random.default_rng(seed)
    side, nodes = 32, 1280
    morton = np.zeros((side, side), dtype=np.int64)
    for bit in range(5):
        rows, columns = np.indices((side, side))
        morton |= ((columns >> bit) & 1) << (2 * bit)
        morton |= ((rows >> bit) & 1) << (2 * bit + 1)
    # 64 blocks of 16 grid points among 80: the other 16 blocks are padding from the start
    block = rng.permutation(80)[:64]
    position = block[morton // 16] * 16 + morton % 16
    grid = rng.random((side, side)) > 0.04  # holes: padding nodes amid real ones
    vertex = np.full((side, side), -1)
    order = rng.permutation(int(grid.sum()))
    vertex[grid] = order
    count = int(grid.sum())
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
    return SimpleNamespace(
        vertex_count=count,
        faces=np.asarray(faces, dtype=np.int32),
        node_of_vertex=node_of_vertex,
        levels=tuple(levels),
        joint_blend=blend / blend.sum(1, keepdims=True),
        joint_regressor=regressor / regressor.sum(1, keepdims=True),
        sha256="0" * 64,
    )


def _level(weights: np.ndarray, mask: np.ndarray) -> SimpleNamespace:
    degree = weights.sum(1)
    scale = np.where(degree > 0, 1 / np.sqrt(np.maximum(degree, 1e-12)), 0.0)
    laplacian = np.eye(len(weights)) - scale[:, None] * weights * scale[None]
    largest = float(np.linalg.eigvalsh(laplacian)[-1])
    rescaled = 2 * laplacian / largest - np.eye(len(weights))
    return SimpleNamespace(node_count=len(weights), mask=mask, dense=lambda: rescaled)


@pytest.fixture(scope="session")
def topology() -> SimpleNamespace:
    return make_topology()
