"""The graph head in torch, for comparison with the kernels: three ways that one would write it.

All take the folded head, so that batch norm, the pose regressor and the order of vertices cost them
nothing, and are given a GPU's best layout: node-major, so that a sparse product is one call.

- `sparse`: theta by cuBLAS, then T_k U of all k as one CSR matrix, by cuSPARSE.
- `dense`: the same with T_k U written out, by cuBLAS alone.
- `pyg`: PyTorch Geometric's ChebConv, as its documentation uses it: it scales the Laplacian in
  every call. Unpooling is a gather before it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from handmesh.graph import Topology
from handmesh_kernels.constants import JOINTS, Convolution, HeadConstants

__all__ = ["PEERS", "Head", "make", "weighted_graph"]

# (latent (B, F), joints_uv (B, 21, 2)) -> vertices (B, V, 3), joints (B, 21, 3)
Head = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
PEERS = ("pyg", "sparse", "dense")


def make(
    name: str, constants: HeadConstants, topology: Topology, device: str, dtype: torch.dtype
) -> Head | None:
    """A peer; None where its package is not installed."""
    if name == "pyg" and importlib.util.find_spec("torch_geometric") is None:
        return None
    frame = _Frame(constants, device, dtype)
    if name == "pyg":
        return frame.head([_geometric(i, constants, topology, frame) for i in range(4)])
    return frame.head([_product(conv, frame, name == "sparse") for conv in constants.convolutions])


class _Frame:
    """Everything of the head but its convolutions."""

    def __init__(self, constants: HeadConstants, device: str, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.nodes = constants.node_count
        self.expand = self.tensor(constants.expand_weight), self.tensor(constants.expand_bias)
        self.pose = self.tensor(constants.pose_weight), self.tensor(constants.pose_bias)
        blend = constants.blend
        self.blend = None if blend is None else self.tensor(blend)

    def tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, self.dtype)

    def head(self, convolutions: list[Callable[[Tensor], Tensor]]) -> Head:
        """Convolutions take and give (nodes, B, C)."""

        def run(latent: Tensor, uv: Tensor) -> tuple[Tensor, Tensor]:
            x = F.linear(latent.to(self.dtype), *self.expand)
            x = x.view(len(latent), self.nodes, -1).transpose(0, 1).contiguous()  # (80, B, C)
            for convolution in convolutions[:-1]:
                x = F.relu(convolution(x))
            vertices = convolutions[-1](x).transpose(0, 1)  # (B, V, 3)
            if self.blend is not None:
                vertices = vertices + F.pad(self.blend @ uv.to(self.dtype), (0, 1))
            pose = F.linear(vertices.flatten(1), *self.pose)
            joints = pose[:, : 3 * JOINTS].view(-1, JOINTS, 3)
            return vertices - pose[:, None, 3 * JOINTS :], joints

        return run


def _product(conv: Convolution, frame: _Frame, sparse: bool) -> Callable[[Tensor], Tensor]:
    """theta first, then T_k U side by side."""
    matrix = frame.tensor(conv.matrix())  # (N, N_in * K)
    constant = matrix.to_sparse_csr() if sparse else matrix
    theta, bias = frame.tensor(conv.theta), frame.tensor(conv.bias)  # (K, C_in, C_out)

    def run(x: Tensor) -> Tensor:
        batch, width = x.shape[1], theta.shape[2]
        maps = torch.matmul(x.unsqueeze(1), theta)  # (N_in, K, B, C_out)
        y: Tensor = constant @ maps.reshape(-1, batch * width)  # (N, B * C_out)
        return y.view(-1, batch, width) + bias

    return run


def _geometric(
    i: int, constants: HeadConstants, topology: Topology, frame: _Frame
) -> Callable[[Tensor], Tensor]:
    """ChebConv of convolution i, with its weights."""
    from torch_geometric.nn import ChebConv

    conv = constants.convolutions[i]
    level = next(each for each in topology.levels if each.node_count == (320 if i < 2 else 1280))
    laplacian = level.dense()[level.mask][:, level.mask]
    edges, weights = weighted_graph(laplacian, level.lambda_max)
    layer = ChebConv(conv.theta.shape[1], conv.theta.shape[2], conv.order, normalization="sym")
    layer = layer.to(frame.device, frame.dtype)
    with torch.no_grad():
        for k, linear in enumerate(layer.lins):
            linear.weight.copy_(frame.tensor(conv.theta[k].T))
        layer.bias.copy_(frame.tensor(conv.bias))
    layer.requires_grad_(False)
    index = torch.from_numpy(edges).to(frame.device)
    values = frame.tensor(weights)
    largest = torch.tensor(level.lambda_max, device=frame.device, dtype=frame.dtype)
    rank = torch.from_numpy(np.cumsum(level.mask) - 1)
    rows = None  # vertices, at the end
    if i == 3:
        rows = rank[torch.from_numpy(topology.node_of_vertex).long()].to(frame.device)
    parents = None
    if i in (0, 2):
        coarse = 80 if i == 0 else 320
        mask = next(each.mask for each in topology.levels if each.node_count == coarse)
        padded = np.flatnonzero(level.mask) * coarse // level.node_count
        parents = torch.from_numpy((np.cumsum(mask) - 1)[padded]).to(frame.device)

    def run(x: Tensor) -> Tensor:
        if parents is not None:
            x = x.index_select(0, parents)
        # ChebConv takes (batch, nodes, channels).
        y: Tensor = layer(x.transpose(0, 1), index, values, lambda_max=largest).transpose(0, 1)
        return y if rows is None else y.index_select(0, rows)

    return run


def weighted_graph(
    laplacian: NDArray[np.float64], lambda_max: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Edges and weights whose rescaled Laplacian 2 (I - D^-1/2 W D^-1/2) / lambda_max - I is given.

    The eigenvector of D^-1/2 W D^-1/2 to its eigenvalue 1 is sqrt(D), which gives W, up to a factor
    that the Laplacian does not depend on.

    Returns:
        (2, E) int64 and (E,) float64, each edge in both directions.
    """
    count = len(laplacian)
    normalised = np.eye(count) - (laplacian + np.eye(count)) * lambda_max / 2
    np.fill_diagonal(normalised, 0.0)
    _, vectors = np.linalg.eigh(normalised)
    root = np.abs(vectors[:, -1])
    adjacency = normalised * root[:, None] * root[None, :]
    adjacency[np.abs(normalised) < 1e-9] = 0.0
    rows, columns = np.nonzero(adjacency)
    values = adjacency[rows, columns]
    return np.stack([rows, columns]).astype(np.int64), values / values.mean()
