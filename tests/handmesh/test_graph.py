"""The frozen graph: Laplacians against dense float64; the committed asset."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, laplacian

from handmesh.errors import InputError
from handmesh.graph import (
    GraphLevel,
    Topology,
    graph_level,
    normalized_laplacian,
)
from handmesh.types import JOINT_PARENTS

Matrix = NDArray[np.float64]

# Trained weights belong to this graph: a change here makes every one of them useless.
FROZEN_SHA256 = "cf837913081758862163038c959866eb01a4e4ac96ab18ee107ca14afbfff15a"


def random_graph(seed: int) -> tuple[NDArray[np.bool_], NDArray[np.int32], NDArray[np.int64]]:
    """A connected weighted graph on 20 of 26 nodes; the other six are padding."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(26, dtype=bool)
    mask[rng.permutation(26)[:20]] = True
    real = np.flatnonzero(mask)
    ring = {tuple(sorted((real[i - 1], real[i]))) for i in range(20)}
    chords = {tuple(sorted(rng.choice(real, 2, replace=False))) for _ in range(15)}
    edges = np.array(sorted(ring | chords), dtype=np.int32)  # (E, 2)
    return mask, edges, rng.integers(1, 6, len(edges))


def adjacency(count: int, edges: NDArray[Any], weights: NDArray[Any]) -> Matrix:
    """Dense and symmetric, one edge at a time."""
    matrix = np.zeros((count, count))
    for (i, j), weight in zip(edges, weights, strict=True):
        matrix[i, j] += weight
        matrix[j, i] += weight
    return matrix


@pytest.fixture(scope="module", params=range(3))
def level(request: pytest.FixtureRequest) -> GraphLevel:
    return graph_level(*random_graph(request.param))


@pytest.mark.parametrize("seed", range(3))
def test_the_normalised_laplacian_is_scipy_s(seed: int) -> None:
    mask, edges, weights = random_graph(seed)
    expected = laplacian(adjacency(len(mask), edges, weights), normed=True)

    np.testing.assert_allclose(
        normalized_laplacian(len(mask), edges, weights), expected, atol=1e-14
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_level_is_the_laplacian_rescaled_by_its_largest_eigenvalue(seed: int) -> None:
    mask, edges, weights = random_graph(seed)
    plain = laplacian(adjacency(len(mask), edges, weights), normed=True)
    largest = np.linalg.eigvals(plain).real.max()

    level = graph_level(mask, edges, weights)

    assert level.lambda_max == pytest.approx(largest, abs=1e-6)
    real = np.ix_(mask, mask)
    expected = 2 * plain / largest - np.eye(len(mask))
    np.testing.assert_allclose(level.dense()[real], expected[real], atol=3e-6)


def check_spectrum(level: GraphLevel, components: int) -> None:
    """In [-1, 1], with both ends: 1 by the rescaling, -1 once for each part of the graph."""
    matrix = level.dense()[np.ix_(level.mask, level.mask)]
    np.testing.assert_array_equal(matrix, matrix.T)
    spectrum = np.linalg.eigvals(matrix).real
    assert spectrum.max() == pytest.approx(1, abs=2e-5)
    assert spectrum.min() == pytest.approx(-1, abs=2e-5)
    assert (spectrum < -1 + 1e-4).sum() == components


def test_the_rescaled_spectrum_fills_the_chebyshev_interval(level: GraphLevel) -> None:
    check_spectrum(level, components=1)


def test_padding_nodes_are_isolated(level: GraphLevel) -> None:
    matrix = level.dense()

    assert not matrix[~level.mask].any()
    assert not matrix[:, ~level.mask].any()
    own = np.arange(level.node_count)[:, None]
    unused = level.weights == 0
    assert (level.neighbours == own)[unused].all()
    assert matrix[level.mask].any(axis=1).all()


def test_ell_csr_and_dense_are_one_matrix(level: GraphLevel) -> None:
    features = np.random.default_rng(1).normal(size=(level.node_count, 4))
    pointers, columns, values = level.csr()
    assert all(np.all(np.diff(columns[a:b]) > 0) for a, b in itertools.pairwise(pointers))

    sparse = csr_array((values.astype(np.float64), columns, pointers), shape=level.dense().shape)

    np.testing.assert_array_equal(sparse.toarray(), level.dense())
    gathered = features[level.neighbours]  # (N, K, C)
    product = np.einsum("nk,nkc->nc", level.weights.astype(np.float64), gathered)
    np.testing.assert_allclose(product, level.dense() @ features, atol=1e-12)
    assert len(values) == np.count_nonzero(level.dense())


def test_a_graph_without_edges_is_refused() -> None:
    with pytest.raises(InputError, match="edge"):
        graph_level(np.ones(4, dtype=bool), np.zeros((0, 2), dtype=int), np.zeros(0, dtype=int))


class TestTheHand:
    """The committed topology."""

    def test_is_the_one_that_weights_were_trained_on(self, topology: Topology) -> None:
        assert topology.sha256 == FROZEN_SHA256
        assert topology.vertex_count == 1036
        assert topology.faces.shape == (2049, 3)
        assert tuple(level.node_count for level in topology.levels) == (1280, 640, 320, 160, 80)
        assert topology.levels[0].mask.sum() == 1036
        assert topology.levels[-1].mask.all()

    @pytest.mark.parametrize("number", range(5))
    def test_levels_follow_from_the_faces(self, topology: Topology, number: int) -> None:
        """Sum the mesh's edges over groups of 2^l nodes, then build the Laplacian anew."""
        faces = topology.node_of_vertex[topology.faces]
        pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        edges = np.unique(np.sort(pairs, axis=1), axis=0) >> number
        between = edges[edges[:, 0] != edges[:, 1]]
        level = topology.levels[number]
        ones = np.ones(len(between))
        weights = coo_array((ones, (between[:, 0], between[:, 1])), shape=[level.node_count] * 2)
        weights = (weights + weights.T).toarray()
        plain = laplacian(weights, normed=True)
        largest = np.linalg.eigvalsh(plain)[-1]
        expected = 2 * plain / largest - np.diag(level.mask.astype(float))

        assert level.lambda_max == pytest.approx(largest, abs=1e-6)
        np.testing.assert_allclose(level.dense(), expected, atol=3e-6)
        np.testing.assert_array_equal(level.mask, weights.any(axis=1))

    @pytest.mark.parametrize("number", [2, 3, 4])
    def test_spectra(self, topology: Topology, number: int) -> None:
        check_spectrum(topology.levels[number], components=1)

    def test_a_parent_is_real_if_a_child_is(self, topology: Topology) -> None:
        for fine, coarse in itertools.pairwise(topology.levels):
            np.testing.assert_array_equal(coarse.mask, fine.mask[0::2] | fine.mask[1::2])
            # A fake node comes second, so that i // 2 is real wherever i is.
            assert not (fine.mask[1::2] & ~fine.mask[0::2]).any()

    def test_the_mesh_is_one_manifold_with_one_rim(self, topology: Topology) -> None:
        faces = topology.faces
        directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        assert len(np.unique(directed, axis=0)) == len(directed), "each edge once in each direction"
        known = {(int(a), int(b)) for a, b in directed}
        rim = [(b, a) for a, b in known if (b, a) not in known]
        following = dict(rim)
        assert len(following) == len(rim)
        start = walker = rim[0][0]
        steps = 0
        while steps == 0 or walker != start:
            walker, steps = following[walker], steps + 1
        assert steps == len(rim), "the rim is a single loop"
        count = topology.vertex_count
        graph = coo_array((np.ones(len(directed)), directed.T), shape=(count, count))
        assert connected_components(graph)[0] == 1
        # Euler: V - E + F = 1 for a disc.
        assert count - (len(directed) + len(rim)) // 2 + len(faces) == 1

    def test_faces_turn_outwards(self, topology: Topology) -> None:
        corners = topology.template_vertices_m.astype(np.float64)[topology.faces]  # (F, 3, 3)
        # Signed volume over a point in the rim's plane, so that the open wrist adds nothing.
        rim = topology.template_vertices_m[topology.template_vertices_m[:, 1] > 0.005].mean(axis=0)
        volume = np.linalg.det(corners - rim).sum() / 6

        assert 1e-4 < volume < 5e-4, "an adult's hand has some 0.3 litres"

    def test_joints(self, topology: Topology) -> None:
        joints = topology.joint_regressor.astype(np.float64) @ topology.template_vertices_m
        np.testing.assert_allclose(topology.joint_regressor.sum(axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(joints[0], 0, atol=1e-6)
        bones = np.linalg.norm(joints[1:] - joints[list(JOINT_PARENTS[1:])], axis=1)  # (20,)
        np.testing.assert_allclose(topology.bone_ratios, bones / bones[9], atol=1e-4)
        assert bones[9] == pytest.approx(0.047, abs=0.001)
        # People's proportions, not those of the rig: wrist to knuckle, palm's width.
        assert 1.65 < bones[8] / bones[9] < 1.85
        chain = bones[8:12].sum()
        assert 0.34 < np.linalg.norm(joints[5] - joints[17]) / chain < 0.38
        # Fingers up, thumb right, palm towards the viewer: a right hand.
        tips = joints[[4, 8, 12, 16, 20]]
        assert (np.diff(tips[:, 0]) < 0).all()
        assert (tips[1:, 1] < joints[[5, 9, 13, 17], 1]).all()
        assert (tips[:, 2] < joints[[1, 5, 9, 13, 17], 2]).all(), "relaxed fingers bend to the palm"

    def test_blend_and_texture(self, topology: Topology) -> None:
        assert (topology.joint_blend >= 0).all()
        np.testing.assert_allclose(topology.joint_blend.sum(axis=1), 1, atol=1e-5)
        joints = topology.joint_regressor @ topology.template_vertices_m
        reached = topology.joint_blend @ joints
        assert np.linalg.norm(reached - topology.template_vertices_m, axis=1).max() < 0.035
        assert topology.uv.min() >= 0
        assert topology.uv.max() <= 1
        assert set(np.unique(topology.parts)) == set(range(21)) - {4, 8, 12, 16, 20}
