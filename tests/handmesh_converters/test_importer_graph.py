"""Graphs that owners bring: what is made of them, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from handmesh.errors import BundleError, InputError
from handmesh.graph import Topology
from handmesh_converters.importer import Scaling, read_graph

from ..helpers.foreign_network import Graph, foreign_graph

Edit = Callable[[Graph], object]


@pytest.fixture
def graph(topology: Topology) -> Graph:
    return foreign_graph(topology)


def _written(graph: Graph, folder: Path) -> Path:
    np.savez(folder / "graph.npz", **graph)
    return folder / "graph.npz"


@pytest.mark.parametrize(("scaling", "divisor"), [("authors", 2.0), ("paper", 0.5)])
def test_matrices_are_what_was_brought_rescaled(
    scaling: Scaling, divisor: float, graph: Graph, tmp_path: Path
) -> None:
    found = read_graph(_written(graph, tmp_path), scaling)

    for level in found.levels:
        brought = graph[f"laplacian_{level.node_count}"].astype(np.float64)
        largest = np.linalg.norm(brought, 2)  # of a positive matrix, its largest eigenvalue
        expected = brought / (divisor * largest) - np.eye(level.node_count)
        np.testing.assert_allclose(level.dense(), expected, atol=1e-6)
        by_formula = 2 * brought / level.lambda_max - np.eye(level.node_count)
        np.testing.assert_allclose(level.dense(), by_formula, atol=1e-6)


def test_vertices_and_padding(graph: Graph, topology: Topology, tmp_path: Path) -> None:
    found = read_graph(_written(graph, tmp_path))

    np.testing.assert_array_equal(found.node_of_vertex, topology.node_of_vertex)
    np.testing.assert_array_equal(found.faces, topology.faces)
    for level, ours in zip(found.levels, topology.levels, strict=True):
        np.testing.assert_array_equal(level.mask, ours.mask)
    np.testing.assert_allclose(found.joint_regressor.sum(1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(found.joint_blend.sum(1), 1.0, rtol=1e-5)
    found.save(tmp_path / "topology.npz")
    assert Topology.load(tmp_path / "topology.npz").sha256 == found.sha256


def _rescaled(graph: Graph) -> None:
    graph["laplacian_1280"] = graph["laplacian_1280"] / 3.0 - np.eye(1280)


def _other_order(graph: Graph) -> None:
    order = graph["order"]
    order[[0, 5]] = order[[5, 0]]


def _one_edge_less(graph: Graph) -> None:
    matrix = graph["laplacian_320"].copy()
    i, j = np.argwhere(np.triu(matrix, 1))[0]
    matrix[i, j] = matrix[j, i] = 0.0
    graph["laplacian_320"] = matrix


def _uneven_padding(graph: Graph) -> None:
    matrix = graph["laplacian_1280"].copy()
    at = int(np.flatnonzero(graph["order"] > graph["faces"].max())[0])
    matrix[at, at] = 0.5
    graph["laplacian_1280"] = matrix


def _lopsided(graph: Graph) -> None:
    graph["laplacian_80"] = np.triu(graph["laplacian_80"])


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda g: g.pop("laplacian_160"), "missing: laplacian_160"),
        (lambda g: g.update(mask=np.ones(3)), "not known: mask"),
        (lambda g: g.update(order=np.zeros(1280, dtype=int)), "each of 0..1279 once"),
        (lambda g: g.update(order=g["order"][:1279]), r"non-negative integers \(1280,\)"),
        (lambda g: g.update(faces=g["faces"].astype(float)), "integers .* not float64"),
        (lambda g: g.update(faces=g["faces"] + 2000), "vertices"),
        (lambda g: g.update(laplacian_80=np.eye(81)), r"finite floats \(80, 80\)"),
        (lambda g: g.update(laplacian_80=np.full((80, 80), np.nan)), "finite floats"),
        (_lopsided, "laplacian_80 must be symmetric"),
        (_rescaled, "before it is rescaled"),
        (_other_order, "differ in .* not of one graph"),
        (_one_edge_less, "laplacian_320 .* differ in 1 edges"),
        (_uneven_padding, "one value for all padding nodes"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    edit: Edit, told: str, graph: Graph, tmp_path: Path
) -> None:
    edit(graph)
    with pytest.raises(InputError, match=told):
        read_graph(_written(graph, tmp_path))


def test_pickles_are_not_opened(graph: Graph, tmp_path: Path) -> None:
    np.save(tmp_path / "graph_dict.npy", np.array({"graph_perm": []}, dtype=object))
    with pytest.raises(BundleError, match=r"graph_dict\.npy"):
        read_graph(tmp_path / "graph_dict.npy")
