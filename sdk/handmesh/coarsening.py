"""Graclus coarsening of a mesh graph into a balanced binary pooling tree.

Heavy-edge matching after Dhillon et al. (Graclus, 2007) as used for graph CNNs by Defferrard et
al. (2016, section 2.2): every level pairs neighbouring nodes, unpaired nodes get a fake partner,
and the nodes are ordered so that the children of node ``i`` are ``2 i`` and ``2 i + 1``. Pooling
and unpooling are then plain reshapes.

The result depends on how ties are broken. Here ties always go to the lowest index and every
comparison is between exact fractions, so the same mesh gives the same tree on every machine. The
tree is nevertheless computed once and frozen in ``topology.npz`` (see ``graph.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

EdgeWeights = dict[tuple[int, int], int]


@dataclass(frozen=True)
class Coarsening:
    """A pooling tree over ``levels + 1`` graphs, finest first.

    Attributes:
        node_of_vertex: (V,) int32, position of each input node in the padded finest level.
        masks: per level a (N_l,) bool array, True for real nodes; N_l = N_0 / 2**l.
        edges: per level (E_l, 2) int32 with i < j, in the padded order; fake nodes have none.
        edge_weights: per level (E_l,) int64, the number of finest edges merged into each edge.
    """

    node_of_vertex: NDArray[np.int32]
    masks: tuple[NDArray[np.bool_], ...]
    edges: tuple[NDArray[np.int32], ...]
    edge_weights: tuple[NDArray[np.int64], ...]

    @property
    def node_counts(self) -> tuple[int, ...]:
        return tuple(len(mask) for mask in self.masks)


def edges_of_faces(faces: NDArray[np.integer]) -> NDArray[np.int32]:
    """Unique undirected edges (E, 2), i < j, sorted, of triangles (F, 3)."""
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])  # (3F, 2)
    return np.unique(np.sort(pairs, axis=1), axis=0).astype(np.int32)  # (E, 2)


def _match(count: int, weights: EdgeWeights) -> NDArray[np.int64]:
    """One level of heavy-edge matching; returns the cluster (count,) of every node.

    Nodes are visited by increasing degree; each unmatched node takes the unmatched neighbour with
    the largest normalised cut w_ij (1/d_i + 1/d_j), or stays alone.
    """
    neighbours: list[dict[int, int]] = [{} for _ in range(count)]
    for (i, j), weight in weights.items():
        neighbours[i][j] = weight
        neighbours[j][i] = weight
    degree = [sum(row.values()) for row in neighbours]
    cluster = np.full(count, -1, dtype=np.int64)
    clusters = 0
    for node in sorted(range(count), key=lambda i: (degree[i], i)):
        if cluster[node] >= 0:
            continue
        best, best_score = -1, Fraction(0)
        for other in sorted(neighbours[node]):
            if cluster[other] < 0:
                score = neighbours[node][other] * (
                    Fraction(1, degree[node]) + Fraction(1, degree[other])
                )
                if score > best_score:
                    best, best_score = other, score
        cluster[node] = clusters
        if best >= 0:
            cluster[best] = clusters
        clusters += 1
    return cluster


def _merge(weights: EdgeWeights, cluster: NDArray[np.int64]) -> EdgeWeights:
    merged: EdgeWeights = {}
    for (i, j), weight in weights.items():
        a, b = sorted((int(cluster[i]), int(cluster[j])))
        if a != b:
            merged[a, b] = merged.get((a, b), 0) + weight
    return merged


def coarsen(node_count: int, edges: NDArray[np.integer], levels: int) -> Coarsening:
    """Coarsen a graph ``levels`` times by factors of two.

    Args:
        node_count: number of nodes V of the input graph.
        edges: (E, 2) undirected edges without self-loops.
        levels: number of halvings.

    Raises:
        InputError: no nodes, a negative number of levels, or edges that are out of range,
            duplicated or self-loops.
    """
    edges = np.asarray(edges)
    if node_count < 1 or levels < 0 or edges.ndim != 2 or edges.shape[1] != 2:
        raise InputError(
            f"expected (E, 2) edges of at least one node and no negative levels, got "
            f"{edges.shape} edges of {node_count} nodes and {levels} levels"
        )
    pairs = [(min(i, j), max(i, j)) for i, j in edges.tolist()]
    if len(set(pairs)) != len(pairs) or any(i == j or i < 0 or j >= node_count for i, j in pairs):
        raise InputError(
            f"expected unique undirected edges between {node_count} nodes without self-loops; "
            "remove duplicates with edges_of_faces()"
        )
    graphs: list[EdgeWeights] = [dict.fromkeys(pairs, 1)]
    clusters: list[NDArray[np.int64]] = []
    count = node_count
    for _ in range(levels):
        cluster = _match(count, graphs[-1])
        clusters.append(cluster)
        graphs.append(_merge(graphs[-1], cluster))
        count = int(cluster.max()) + 1

    # Walk from the coarsest level back, giving every node exactly two children: real ones
    # first, then fakes (-1). ``order`` lists the node standing at each padded position.
    order = list(range(count))
    orders = [order]
    for cluster in reversed(clusters):
        children: dict[int, list[int]] = {}
        for node, parent in enumerate(cluster.tolist()):
            children.setdefault(parent, []).append(node)
        order = [
            child
            for parent in order
            for child in ([*children[parent], -1][:2] if parent >= 0 else (-1, -1))
        ]
        orders.append(order)
    orders.reverse()

    masks, level_edges, level_weights = [], [], []
    for order, graph in zip(orders, graphs, strict=True):
        position = {node: slot for slot, node in enumerate(order) if node >= 0}
        rows = sorted((*sorted((position[i], position[j])), w) for (i, j), w in graph.items())
        table = np.array(rows, dtype=np.int64).reshape(-1, 3)  # (E, 3)
        masks.append(np.array(order) >= 0)
        level_edges.append(table[:, :2].astype(np.int32))
        level_weights.append(table[:, 2])
    node_of_vertex = np.full(node_count, -1, dtype=np.int32)
    for slot, node in enumerate(orders[0]):
        if node >= 0:
            node_of_vertex[node] = slot
    return Coarsening(node_of_vertex, tuple(masks), tuple(level_edges), tuple(level_weights))
