"""The triangulation as the mesh losses see it: edges, their faces, neighbours."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handmesh.errors import InputError
from handmesh.graph import Topology
from handmesh.nn.graph_layers import symmetric_product


class Surface(nn.Module):
    """What the mesh losses need to know of the triangulation, as buffers.

    Args:
        faces: (F, 3) integer vertex indices.
        vertex_count: V.

    Raises:
        InputError: more than two faces meet at an edge.

    Attributes:
        edges: (E, 2) int64, each undirected edge once.
        faces_of_edge: (E, 2) int64, the one or two faces at an edge; F where there is no second.
    """

    faces: Tensor
    edges: Tensor
    faces_of_edge: Tensor
    row_starts: Tensor
    columns: Tensor
    neighbour_counts: Tensor

    def __init__(self, faces: np.ndarray, vertex_count: int) -> None:
        super().__init__()
        faces = np.asarray(faces, dtype=np.int64)
        sides = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]], axis=2).reshape(-1, 2)  # (3F, 2)
        edges, edge_of_side = np.unique(sides, axis=0, return_inverse=True)
        faces_of_edge = np.full((len(edges), 2), len(faces), dtype=np.int64)
        for side, edge in enumerate(edge_of_side.reshape(-1)):
            slot = 0 if faces_of_edge[edge, 0] == len(faces) else 1
            if faces_of_edge[edge, slot] != len(faces):
                raise InputError(
                    f"expected at most two faces at each edge, got three at {edges[edge]}"
                )
            faces_of_edge[edge, slot] = side // 3
        both = np.concatenate([edges, edges[:, ::-1]])
        both = both[np.lexsort((both[:, 1], both[:, 0]))]
        counts = np.bincount(both[:, 0], minlength=vertex_count)
        self.vertex_count, self.face_count, self.edge_count = vertex_count, len(faces), len(edges)
        self.register_buffer("faces", torch.from_numpy(faces), persistent=False)
        self.register_buffer("edges", torch.from_numpy(edges), persistent=False)
        self.register_buffer("faces_of_edge", torch.from_numpy(faces_of_edge), persistent=False)
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        self.register_buffer("row_starts", torch.from_numpy(starts), persistent=False)
        columns = torch.from_numpy(both[:, 1].astype(np.int32))
        self.register_buffer("columns", columns, persistent=False)
        counts_column = torch.from_numpy(np.maximum(counts, 1).astype(np.float32))[:, None]
        self.register_buffer("neighbour_counts", counts_column, persistent=False)

    @classmethod
    def from_topology(cls, topology: Topology) -> Surface:
        """The surface of the hand mesh."""
        return cls(topology.faces, topology.vertex_count)

    def edge_vectors(self, points: Tensor) -> Tensor:
        """(B, V, 3) to (E, B, 3): second minus first end of each edge."""
        rows = points.transpose(0, 1)  # (V, B, 3): gathering whole rows is fast both ways
        return rows.index_select(0, self.edges[:, 1]) - rows.index_select(0, self.edges[:, 0])

    def face_normals(self, points: Tensor) -> Tensor:
        """(B, V, 3) to unit normals (F, B, 3); 0 for a face without area."""
        rows = points.transpose(0, 1)
        a, b, c = (rows.index_select(0, self.faces[:, i]) for i in range(3))
        return F.normalize(torch.linalg.cross(b - a, c - a), dim=-1)

    def neighbour_mean(self, values: Tensor) -> Tensor:
        """(V, M) to (V, M): mean over the vertices at the other ends of a vertex's edges."""
        size = (self.vertex_count, self.vertex_count)
        ones = torch.ones(len(self.columns), device=values.device, dtype=values.dtype)
        adjacency = torch.sparse_csr_tensor(
            self.row_starts, self.columns, ones, size, check_invariants=False
        )
        return symmetric_product(adjacency, values) / self.neighbour_counts.to(values.dtype)
