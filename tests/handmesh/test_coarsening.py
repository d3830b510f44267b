"""Graclus coarsening: properties of a pooling tree, and a second, naive implementation of it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from handmesh.coarsening import Coarsening, coarsen, edges_of_faces
from handmesh.errors import InputError
from handmesh.graph import Topology

Edges = NDArray[np.int32]


def random_edges(seed: int, nodes: int = 14, share: float = 0.25) -> Edges:
    """A random graph, possibly in several parts and with isolated nodes."""
    rng = np.random.default_rng(seed)
    pairs = [pair for pair in itertools.combinations(range(nodes), 2) if rng.random() < share]
    return np.array(pairs, dtype=np.int32).reshape(-1, 2)


def grid_edges(rows: int, columns: int) -> Edges:
    number = np.arange(rows * columns).reshape(rows, columns)
    right = np.stack([number[:, :-1].ravel(), number[:, 1:].ravel()], axis=1)
    down = np.stack([number[:-1].ravel(), number[1:].ravel()], axis=1)
    return np.concatenate([right, down]).astype(np.int32)


GRAPHS = [
    *((14, random_edges(seed)) for seed in range(4)),
    (20, random_edges(9, 20, 0.1)),
    (30, grid_edges(5, 6)),
    (9, np.array([[0, k] for k in range(1, 9)])),  # a star: one match, the rest alone
    (3, np.zeros((0, 2), dtype=np.int32)),
]


@pytest.fixture(params=range(len(GRAPHS)))
def graph(request: pytest.FixtureRequest) -> tuple[int, Edges]:
    return GRAPHS[request.param]


def weight_matrices(tree: Coarsening) -> list[NDArray[np.int64]]:
    """Per level the dense symmetric weights (N, N)."""
    matrices = []
    for count, edges, weights in zip(tree.node_counts, tree.edges, tree.edge_weights, strict=True):
        matrix = np.zeros((count, count), dtype=np.int64)
        matrix[edges[:, 0], edges[:, 1]] = weights
        matrices.append(matrix + matrix.T)
    return matrices


def test_the_finest_level_is_the_graph_itself(graph: tuple[int, Edges]) -> None:
    count, edges = graph
    tree = coarsen(count, edges, 2)

    assert len(set(tree.node_of_vertex.tolist())) == count
    assert tree.masks[0][tree.node_of_vertex].all()
    assert tree.masks[0].sum() == count
    moved = {tuple(sorted(tree.node_of_vertex[list(edge)].tolist())) for edge in edges}
    assert moved == {tuple(edge) for edge in tree.edges[0].tolist()}
    assert (tree.edge_weights[0] == 1).all()


def test_every_parent_has_two_places_in_padded_order(graph: tuple[int, Edges]) -> None:
    tree = coarsen(*graph, 3)

    for fine, coarse in itertools.pairwise(tree.masks):
        assert len(fine) == 2 * len(coarse)
        children = fine.reshape(-1, 2)
        np.testing.assert_array_equal(children.any(axis=1), coarse)
        assert not (children[:, 1] & ~children[:, 0]).any(), "the fake child comes second"
    assert tree.masks[-1].all(), "no padding at the coarsest level"


def test_children_of_one_parent_are_neighbours_and_no_match_is_missed(
    graph: tuple[int, Edges],
) -> None:
    tree = coarsen(*graph, 3)

    for level, weights in enumerate(weight_matrices(tree)[:-1]):
        pairs = tree.masks[level].reshape(-1, 2)
        first = np.arange(0, len(weights), 2)
        assert (weights[first, first + 1][pairs.all(axis=1)] > 0).all()
        # Maximal: two nodes left alone are never neighbours.
        alone = first[pairs.sum(axis=1) == 1]
        assert not weights[np.ix_(alone, alone)].any()


def test_weights_are_sums_over_the_merged_edges(graph: tuple[int, Edges]) -> None:
    matrices = weight_matrices(coarsen(*graph, 3))

    for fine, coarse in itertools.pairwise(matrices):
        merged = fine.reshape(len(coarse), 2, len(coarse), 2).sum(axis=(1, 3))
        np.fill_diagonal(merged, 0)
        np.testing.assert_array_equal(coarse, merged)


def naive_clusters(weights: NDArray[np.int64]) -> list[list[int]]:
    """Heavy-edge matching on a dense matrix, scores as exact integers over a common denominator."""
    degree = weights.sum(axis=1).tolist()
    free = set(range(len(weights)))
    clusters = []
    for node in np.lexsort((np.arange(len(weights)), degree)).tolist():
        if node not in free:
            continue
        free.remove(node)
        # w (1/d_i + 1/d_j) with d_i fixed grows with w (d_i + d_j) / d_j.
        best = None
        for other in sorted(free):
            w = int(weights[node, other])
            if w == 0:
                continue
            numerator, denominator = w * (degree[node] + degree[other]), degree[other]
            if best is None or numerator * best[2] > best[1] * denominator:
                best = (other, numerator, denominator)
        cluster = [node]
        if best is not None:
            cluster.append(best[0])
            free.remove(best[0])
        clusters.append(cluster)
    return clusters


def naive_tree(count: int, edges: Edges, levels: int) -> list[set[frozenset[int]]]:
    """Per level the sets of input nodes that share a node there."""
    weights = np.zeros((count, count), dtype=np.int64)
    weights[edges[:, 0], edges[:, 1]] = 1
    weights += weights.T
    members = [frozenset([node]) for node in range(count)]
    found = [set(members)]
    for _ in range(levels):
        clusters = naive_clusters(weights)
        choose = np.zeros((len(clusters), len(weights)), dtype=np.int64)
        for row, cluster in enumerate(clusters):
            choose[row, cluster] = 1
        weights = choose @ weights @ choose.T
        np.fill_diagonal(weights, 0)
        members = [frozenset().union(*(members[node] for node in c)) for c in clusters]
        found.append(set(members))
    return found


@pytest.mark.parametrize("seed", range(12))
def test_a_naive_implementation_makes_the_same_tree(seed: int) -> None:
    edges = random_edges(seed, nodes=16 + seed, share=0.1 + 0.02 * seed)
    tree = coarsen(16 + seed, edges, 3)

    for level, expected in enumerate(naive_tree(16 + seed, edges, 3)):
        groups: dict[int, set[int]] = {}
        for vertex, node in enumerate(tree.node_of_vertex.tolist()):
            groups.setdefault(node >> level, set()).add(vertex)
        assert {frozenset(group) for group in groups.values()} == expected


def test_order_and_direction_of_edges_do_not_matter() -> None:
    edges = random_edges(1)
    shuffled = np.random.default_rng(0).permutation(edges)[:, ::-1]
    one, two = coarsen(14, edges, 3), coarsen(14, shuffled, 3)

    np.testing.assert_array_equal(one.node_of_vertex, two.node_of_vertex)
    for level in range(4):
        np.testing.assert_array_equal(one.edges[level], two.edges[level])
        np.testing.assert_array_equal(one.edge_weights[level], two.edge_weights[level])


def test_no_levels_is_the_identity() -> None:
    edges = random_edges(2)
    tree = coarsen(14, edges, 0)

    np.testing.assert_array_equal(tree.node_of_vertex, np.arange(14))
    np.testing.assert_array_equal(tree.edges[0], edges)
    assert tree.node_counts == (14,)


def test_the_committed_hand_comes_out_again(topology: Topology) -> None:
    tree = coarsen(topology.vertex_count, edges_of_faces(topology.faces), 4)

    assert tree.node_counts == (1280, 640, 320, 160, 80)
    np.testing.assert_array_equal(tree.node_of_vertex, topology.node_of_vertex)
    for mask, level in zip(tree.masks, topology.levels, strict=True):
        np.testing.assert_array_equal(mask, level.mask)


def test_edges_of_faces() -> None:
    faces = np.array([[2, 0, 1], [2, 1, 3]])

    np.testing.assert_array_equal(edges_of_faces(faces), [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]])


@pytest.mark.parametrize(
    ("count", "edges", "levels"),
    [
        (3, [[0, 0]], 1),
        (3, [[0, 3]], 1),
        (3, [[-1, 1]], 1),
        (3, [[0, 1], [1, 0]], 1),
        (3, [[0, 1], [0, 1]], 1),
        (3, [[0, 1, 2]], 1),
        (3, [0, 1], 1),
        (3, [[0, 1]], -1),
        (0, np.zeros((0, 2), dtype=int), 1),
    ],
)
def test_bad_graphs_are_refused(count: int, edges: list[list[int]], levels: int) -> None:
    with pytest.raises(InputError, match="expected"):
        coarsen(count, np.array(edges), levels)
