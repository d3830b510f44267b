"""The graph of an imported network, as its owner brings it: a permutation and five Laplacians.

It cannot be derived from the template mesh: the authors' matching differs from ours, its ties fall
as NumPy's sorting lets them, and their coarser graphs have self-loops.
"""

from __future__ import annotations

import os
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from handmesh.archive import read_arrays
from handmesh.coarsening import edges_of_faces
from handmesh.errors import InputError
from handmesh.graph import LEVEL_NODE_COUNTS, GraphLevel, Topology, ell_level
from handmesh.nn.config import JOINT_COUNT

__all__ = ["Scaling", "read_graph"]

Scaling = Literal["authors", "paper"]
# L is divided by this times its largest eigenvalue before I is subtracted: 2 L / lambda_max - I in
# the paper, L / (2 lambda_max) - I in its authors' code.
_DIVISOR: dict[Scaling, float] = {"authors": 2.0, "paper": 0.5}

_ARRAYS = ("order", "faces", *(f"laplacian_{count}" for count in LEVEL_NODE_COUNTS))
_TOLERANCE = 1e-4  # of eigenvalues and symmetry: the authors' matrices are float32
_REMEDY = "write it as docs/importing.md says, from the graph_dict.npy of the network's own run"

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def read_graph(path: str | os.PathLike[str], scaling: Scaling = "authors") -> Topology:
    """The topology of an imported network.

    Args:
        path: .npz with `order` (1280,), the vertex at each node of the finest level, V or more for
            padding; `faces` (F, 3) over the V vertices; `laplacian_1280`, `_640`, `_320`, `_160`
            and `_80`, dense (N, N), normalised and not yet rescaled.
        scaling: how the network rescales them. It is in the matrices from here on.

    Returns:
        A topology whose padding nodes keep what the Laplacian has on their diagonal. What such a
        network does not use is filled in: joint regressor and blend with means, the template's
        vertices, texture coordinates and parts with zeros. Bone ratios are those of our hand.

    Raises:
        BundleError: the file cannot be read.
        InputError: an array is missing or not known, or they do not fit together.
    """
    arrays: dict[str, Any] = read_arrays(path, _REMEDY)
    missing, surplus = set(_ARRAYS) - set(arrays), set(arrays) - set(_ARRAYS)
    if missing or surplus:
        raise InputError(
            f"{path} must hold {', '.join(_ARRAYS)}; missing: {', '.join(sorted(missing)) or '-'}, "
            f"not known: {', '.join(sorted(surplus)) or '-'}; {_REMEDY}"
        )
    order, faces = _indices(path, arrays, "order"), _indices(path, arrays, "faces")
    finest, vertex_count = LEVEL_NODE_COUNTS[0], int(faces.max()) + 1
    if not np.array_equal(np.sort(order), np.arange(finest)):
        raise InputError(f"{path}: order must name each of 0..{finest - 1} once; {_REMEDY}")
    if vertex_count > finest:
        raise InputError(f"{path}: faces name {vertex_count} vertices, {finest} nodes hold fewer")
    node_of_vertex = np.argsort(order)[:vertex_count]
    masks = _masks(order < vertex_count)
    if not masks[-1].all():
        raise InputError(
            f"{path}: {int((~masks[-1]).sum())} of the {len(masks[-1])} coarsest nodes are padding "
            f"alone; order and faces are not of one graph: {_REMEDY}"
        )
    laplacians = [_laplacian(path, arrays, count) for count in LEVEL_NODE_COUNTS]
    edges = np.zeros((finest, finest), dtype=bool)
    first, second = node_of_vertex[edges_of_faces(faces)].T
    edges[first, second] = edges[second, first] = True
    levels = []
    for mask, laplacian in zip(masks, laplacians, strict=True):
        _check_edges(path, laplacian, edges)
        levels.append(_rescaled(path, mask, laplacian, scaling))
        pairs = edges.reshape(len(mask) // 2, 2, len(mask) // 2, 2)
        edges = pairs.any(axis=(1, 3)) & ~np.eye(len(mask) // 2, dtype=bool)
    zeros = np.zeros((vertex_count, 3), dtype=np.float32)
    return Topology(
        faces=faces.astype(np.int32),
        node_of_vertex=node_of_vertex.astype(np.int32),
        levels=tuple(levels),
        joint_regressor=np.full((JOINT_COUNT, vertex_count), 1 / vertex_count, np.float32),
        joint_blend=np.full((vertex_count, JOINT_COUNT), 1 / JOINT_COUNT, np.float32),
        uv=zeros[:, :2],
        template_vertices_m=zeros,
        parts=zeros[:, 0].astype(np.uint8),
        bone_ratios=Topology.default().bone_ratios,
    )


def _indices(path: Any, arrays: dict[str, Any], name: str) -> NDArray[np.int64]:
    array = arrays[name]
    shape = (LEVEL_NODE_COUNTS[0],) if name == "order" else (len(array), 3)
    if array.dtype.kind not in "iu" or array.shape != shape or not array.size or array.min() < 0:
        raise InputError(
            f"{path}: {name} must be non-negative integers {shape}, not {array.dtype} {array.shape}"
        )
    return cast("NDArray[np.int64]", array.astype(np.int64))


def _masks(finest: Mask) -> list[Mask]:
    """Per level, which nodes are real: those with a real child."""
    return [np.logical_or.reduce(finest.reshape(count, -1), axis=1) for count in LEVEL_NODE_COUNTS]


def _laplacian(path: Any, arrays: dict[str, Any], count: int) -> Array:
    """The plain matrix (N, N), checked by itself."""
    name = f"laplacian_{count}"
    array = arrays[name]
    if array.dtype.kind != "f" or array.shape != (count, count) or not np.isfinite(array).all():
        raise InputError(
            f"{path}: {name} must be finite floats ({count}, {count}), dense, not {array.dtype} "
            f"{array.shape}"
        )
    matrix: Array = array.astype(np.float64)
    if np.abs(matrix - matrix.T).max() > _TOLERANCE:
        raise InputError(f"{path}: {name} must be symmetric; {_REMEDY}")
    return (matrix + matrix.T) / 2


def _check_edges(path: Any, laplacian: Array, edges: Mask) -> None:
    """Raise `InputError` unless the matrix joins exactly the nodes that the faces join."""
    joined = (laplacian != 0) & ~np.eye(len(laplacian), dtype=bool)
    if not np.array_equal(joined, edges):
        raise InputError(
            f"{path}: laplacian_{len(laplacian)} and the faces in this order differ in "
            f"{int((joined != edges).sum()) // 2} edges; they are not of one graph: {_REMEDY}"
        )


def _rescaled(path: Any, mask: Mask, laplacian: Array, scaling: Scaling) -> GraphLevel:
    name = f"laplacian_{len(mask)}"
    eigenvalues = np.linalg.eigvalsh(laplacian)
    smallest, largest = float(eigenvalues[0]), float(eigenvalues[-1])
    if abs(smallest) > _TOLERANCE or not 0 < largest <= 2 + _TOLERANCE:
        raise InputError(
            f"{path}: a normalised Laplacian has eigenvalues from 0 to at most 2, {name} from "
            f"{smallest:.3f} to {largest:.3f}; bring it before it is rescaled"
        )
    padding = laplacian.diagonal()[~mask]
    if padding.size and np.ptp(padding) > 0:
        raise InputError(f"{path}: {name} must have one value for all padding nodes; {_REMEDY}")
    divisor = _DIVISOR[scaling] * largest
    # The level's own formula is 2 L / lambda_max - I, whatever was meant by it.
    return ell_level(mask, laplacian / divisor - np.eye(len(mask)), lambda_max=2 * divisor)
