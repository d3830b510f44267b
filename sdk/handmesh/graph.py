"""The fixed graph of the hand: mesh topology, pooling levels, rescaled Laplacians.

A `Topology` is an asset, not something to recompute: Graclus coarsening depends on how ties are
broken, so it was computed once (``handmesh_training.template.build``) and frozen in
``topology.npz``. Its ``sha256`` ties weights to the graph they were trained on.

Notation follows section 4.2 of the paper: L = I - D^-1/2 W D^-1/2 is the normalised Laplacian,
L~ = 2 L / lambda_max - I the rescaled one, whose Chebyshev polynomials T_k(L~) with T_0 = I,
T_1 = L~, T_k = 2 L~ T_{k-1} - T_{k-2} the networks apply (`handmesh.nn.graph_layers`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .archive import hash_arrays, read_arrays, write_arrays
from .errors import BundleError, GraphMismatchError, InputError

FORMAT_VERSION = 1
LEVEL_NODE_COUNTS = (1280, 640, 320, 160, 80)
DEFAULT_PATH = Path(__file__).parent / "assets" / "topology.npz"

_INDEX, _FLOAT = np.dtype("<i4"), np.dtype("<f4")
_ARRAYS: dict[str, np.dtype[Any]] = {
    "faces": _INDEX,
    "node_of_vertex": _INDEX,
    "joint_regressor": _FLOAT,
    "joint_blend": _FLOAT,
    "uv": _FLOAT,
    "template_vertices_m": _FLOAT,
    "parts": np.dtype("u1"),
    "bone_ratios": _FLOAT,
}


@dataclass(frozen=True, eq=False)
class GraphLevel:
    """One level of the pooling pyramid, in padded (Graclus) node order.

    Attributes:
        mask: (N,) bool, True for real nodes. Fake nodes have no edges.
        neighbours: (N, K) int32, columns of the rescaled Laplacian; unused slots repeat the row.
        weights: (N, K) float32, its values; unused slots are 0. The matrix is symmetric.
        lambda_max: largest eigenvalue of the normalised Laplacian it was rescaled with.
    """

    mask: NDArray[np.bool_]
    neighbours: NDArray[np.int32]
    weights: NDArray[np.float32]
    lambda_max: float

    @property
    def node_count(self) -> int:
        return len(self.mask)

    def dense(self) -> NDArray[np.float64]:
        """The rescaled Laplacian as an (N, N) float64 matrix."""
        matrix = np.zeros((self.node_count, self.node_count))  # (N, N)
        rows = np.repeat(np.arange(self.node_count), self.neighbours.shape[1])
        np.add.at(matrix, (rows, self.neighbours.ravel()), self.weights.ravel().astype(np.float64))
        return matrix

    def csr(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """The same matrix as (row pointers (N+1,), columns (nnz,), values (nnz,))."""
        used = self.weights != 0
        pointers = np.concatenate([[0], np.cumsum(used.sum(axis=1))]).astype(np.int64)  # (N+1,)
        columns, values = [], []
        for row, keep in enumerate(used):
            order = np.argsort(self.neighbours[row, keep], kind="stable")
            columns.append(self.neighbours[row, keep][order])
            values.append(self.weights[row, keep][order])
        return pointers, np.concatenate(columns).astype(np.int64), np.concatenate(values)


@dataclass(frozen=True, eq=False)
class Topology:
    """Everything about the hand mesh that does not change between images.

    V real vertices in template order; the networks work on 1280 padded nodes in Graclus order.

    Attributes:
        faces: (F, 3) int32, counter-clockwise seen from outside, over the V vertices. Read-only
            where it was loaded: every hand of a mesh shares it.
        node_of_vertex: (V,) int32, padded node of each vertex.
        levels: pooling levels of 1280, 640, 320, 160 and 80 nodes; the parent of node i is i // 2.
        joint_regressor: (21, V) float32, rows sum to 1: rest-pose joints from rest-pose vertices.
        joint_blend: (V, 21) float32, rows sum to 1: each vertex from the joints at the two
            ends of its bone; a smooth interpolation of joint positions to the surface.
        uv: (V, 2) float32 in [0, 1], one texture coordinate a vertex.
        template_vertices_m: (V, 3) float32, rest-pose right hand, metres.
        parts: (V,) uint8, joint index of the bone that moves the vertex most.
        bone_ratios: (20,) float32, rest length of the bone ending in joint 1..20 over that of
            the middle finger's first bone (joints 9 to 10).
    """

    faces: NDArray[np.int32]
    node_of_vertex: NDArray[np.int32]
    levels: tuple[GraphLevel, ...]
    joint_regressor: NDArray[np.float32]
    joint_blend: NDArray[np.float32]
    uv: NDArray[np.float32]
    template_vertices_m: NDArray[np.float32]
    parts: NDArray[np.uint8]
    bone_ratios: NDArray[np.float32]

    @property
    def vertex_count(self) -> int:
        return len(self.node_of_vertex)

    @cached_property
    def mirrored_faces(self) -> NDArray[np.int32]:
        """(F, 3) int32, `faces` wound the other way, as a mirrored surface is. Read-only."""
        return _frozen(self.faces[:, ::-1])

    def _flat(self) -> dict[str, NDArray[np.generic]]:
        arrays: dict[str, NDArray[np.generic]] = {
            name: np.ascontiguousarray(getattr(self, name), dtype=dtype)
            for name, dtype in _ARRAYS.items()
        }
        for level in self.levels:
            prefix = f"level{level.node_count}_"
            arrays[prefix + "mask"] = level.mask.astype(np.uint8)
            arrays[prefix + "neighbours"] = level.neighbours.astype("<i4")
            arrays[prefix + "weights"] = level.weights.astype("<f4")
            arrays[prefix + "lambda_max"] = np.array(level.lambda_max, dtype="<f8")
        return arrays

    @cached_property
    def sha256(self) -> str:
        """Hash of names, shapes and bytes of all arrays; independent of the container file."""
        return hash_arrays(f"handmesh-topology-{FORMAT_VERSION}", self._flat())

    def check_sha256(self, expected: str, owner: str) -> None:
        """Raise `GraphMismatchError` unless ``expected`` is this graph's hash."""
        if expected != self.sha256:
            raise GraphMismatchError(
                f"{owner} was made for graph {expected[:12]}..., but this one is "
                f"{self.sha256[:12]}...; use the topology.npz that came with it"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a compressed, byte-reproducible .npz atomically."""
        write_arrays(path, self._flat())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Topology:
        """Read and check a topology file.

        Raises:
            BundleError: the file is missing, unreadable, or its arrays do not fit together.
        """
        arrays: dict[str, Any] = read_arrays(path, "reinstall handmesh or restore the file")
        try:
            levels = tuple(
                GraphLevel(
                    mask=arrays[f"level{count}_mask"] != 0,
                    neighbours=arrays[f"level{count}_neighbours"],
                    weights=arrays[f"level{count}_weights"],
                    lambda_max=float(arrays[f"level{count}_lambda_max"]),
                )
                for count in LEVEL_NODE_COUNTS
            )
            arrays["faces"] = _frozen(arrays["faces"])
            topology = cls(levels=levels, **{name: arrays[name] for name in _ARRAYS})
        except KeyError as error:
            raise BundleError(f"{path} is not a handmesh topology: it has no {error}") from error
        except (TypeError, ValueError) as error:
            raise BundleError(f"{path} is not a handmesh topology: {error}") from error
        topology._check(str(path))
        return topology

    @classmethod
    def default(cls) -> Topology:
        """The right hand that ships with the package."""
        return cls.load(DEFAULT_PATH)

    def _check(self, owner: str) -> None:
        count = self.node_of_vertex.size
        shapes = {
            "faces": (self.faces.size // 3, 3),
            "node_of_vertex": (count,),
            "joint_regressor": (21, count),
            "joint_blend": (count, 21),
            "uv": (count, 2),
            "template_vertices_m": (count, 3),
            "parts": (count,),
            "bone_ratios": (20,),
        }
        for name, dtype in _ARRAYS.items():
            _check_array(owner, name, getattr(self, name), dtype, shapes[name])
        for nodes, level in zip(LEVEL_NODE_COUNTS, self.levels, strict=True):
            prefix = f"{owner}: level {nodes}"
            width = level.neighbours.shape[-1] if level.neighbours.ndim else 0
            _check_array(prefix, "mask", level.mask, np.dtype(bool), (nodes,))
            _check_array(prefix, "neighbours", level.neighbours, _INDEX, (nodes, width))
            _check_array(prefix, "weights", level.weights, _FLOAT, (nodes, width))
            _check_range(prefix, "neighbours", level.neighbours, nodes)
            if not np.isfinite(level.lambda_max) or level.lambda_max <= 0:
                raise BundleError(f"{prefix}: lambda_max is {level.lambda_max}")
        _check_range(owner, "faces", self.faces, count)
        _check_range(owner, "node_of_vertex", self.node_of_vertex, LEVEL_NODE_COUNTS[0])
        taken = np.zeros(LEVEL_NODE_COUNTS[0], dtype=bool)
        taken[self.node_of_vertex] = True
        if int(taken.sum()) != count or (taken != self.levels[0].mask).any():
            raise BundleError(f"{owner}: the vertex order does not match the padding mask")


def _frozen(array: NDArray[np.int32]) -> NDArray[np.int32]:
    """A copy, row after row in memory, that cannot be written to."""
    copied = np.array(array, order="C")
    copied.flags.writeable = False
    return copied


def _check_array(
    owner: str, name: str, array: Any, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise BundleError(
            f"{owner}: {name} is {array.dtype} {array.shape}, expected {dtype} {shape}; "
            "restore the original file"
        )
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise BundleError(f"{owner}: {name} holds NaN or infinity; restore the original file")


def _check_range(owner: str, name: str, indices: NDArray[np.int32], count: int) -> None:
    if indices.size and (indices.min() < 0 or indices.max() >= count):
        raise BundleError(f"{owner}: {name} must lie in 0..{count - 1}; restore the original file")


def normalized_laplacian(
    node_count: int, edges: NDArray[np.integer], weights: NDArray[np.integer]
) -> NDArray[np.float64]:
    """L = I - D^-1/2 W D^-1/2 as (N, N) float64. Isolated (fake) nodes get a zero row."""
    adjacency = np.zeros((node_count, node_count))  # (N, N)
    adjacency[edges[:, 0], edges[:, 1]] = weights
    adjacency[edges[:, 1], edges[:, 0]] = weights
    degree = adjacency.sum(axis=1)
    connected = degree > 0
    scale = np.zeros(node_count)
    scale[connected] = 1.0 / np.sqrt(degree[connected])
    return np.diag(connected.astype(np.float64)) - scale[:, None] * adjacency * scale[None, :]


def graph_level(
    mask: NDArray[np.bool_], edges: NDArray[np.integer], weights: NDArray[np.integer]
) -> GraphLevel:
    """Build a level: the Laplacian rescaled by its own largest eigenvalue, in ELL form.

    Eigenvalue and entries are rounded to 6 decimals, far below what training notices, so that the
    frozen bytes do not depend on the linear-algebra library that computed them.

    Args:
        mask: (N,) bool, True for real nodes. edges: (E, 2), without self-loops and duplicates.
        weights: (E,), positive.

    Raises:
        InputError: no edges, so nothing to rescale by.
    """
    if len(edges) == 0:
        raise InputError("a graph level needs at least one edge, or its Laplacian is zero")
    count = len(mask)
    laplacian = normalized_laplacian(count, edges, weights)
    lambda_max = round(float(np.linalg.eigvalsh(laplacian)[-1]), 6)
    rescaled = np.round(2.0 * laplacian / lambda_max - np.eye(count), 6)
    rescaled[~mask] = 0.0  # features of fake nodes are zero, and stay so through every T_k
    return ell_level(mask, rescaled, lambda_max)


def ell_level(
    mask: NDArray[np.bool_], rescaled: NDArray[np.float64], lambda_max: float
) -> GraphLevel:
    """A level in ELL form of its mask (N,) and its rescaled Laplacian (N, N), which is kept."""
    count = len(mask)
    used = rescaled != 0
    width = int(used.sum(axis=1).max())
    neighbours = np.repeat(np.arange(count, dtype=np.int32)[:, None], width, axis=1)  # (N, K)
    values = np.zeros((count, width), dtype=np.float32)  # (N, K)
    for row in range(count):
        columns = np.flatnonzero(used[row])
        neighbours[row, : len(columns)] = columns
        values[row, : len(columns)] = rescaled[row, columns]
    return GraphLevel(mask, neighbours, values, lambda_max)
