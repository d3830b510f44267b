"""The layout of the paper's authors' checkpoints, written out: random ones, and what they compute.

Names and shapes are facts about their files; the arithmetic is written from the paper and from
those facts, on all padded nodes and with dense matrices, and shares nothing with `handmesh.nn`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from handmesh.graph import Topology

State = dict[str, Tensor]
Shapes = Iterator[tuple[str, tuple[int, ...]]]
Graph = dict[str, NDArray[np.generic]]

JOINTS, COARSE = 21, 80


class Widths(NamedTuple):
    """Sizes that their code fixes (the defaults), made smaller for most tests."""

    stem: int = 64
    features: int = 256
    latent: int = 512
    encoded: int = 4096  # features * (size / 64)^2
    coarse: int = 64
    graph: tuple[int, int] = (64, 32)
    pose: tuple[int, int] = (32, 64)
    hidden: int = 512


class States(NamedTuple):
    heatmaps: State
    mesh: State
    pose: State

    def save(self, folder: Path) -> tuple[Path, Path, Path]:
        names = ("net_hm.pth", "net_feat_mesh.pth", "net_mesh_pose.pth")
        paths = tuple(folder / name for name in names)
        for state, path in zip(self, paths, strict=True):
            torch.save(state, path)
        return paths[0], paths[1], paths[2]


def _conv(name: str, c_in: int, c_out: int, kernel: int = 1) -> Shapes:
    yield f"{name}.weight", (c_out, c_in, kernel, kernel)
    yield f"{name}.bias", (c_out,)


def _linear(name: str, c_in: int, c_out: int) -> Shapes:
    yield f"{name}.weight", (c_out, c_in)
    yield f"{name}.bias", (c_out,)


def _norm(name: str, width: int) -> Shapes:
    for each in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{each}", (width,)
    yield f"{name}.num_batches_tracked", ()


def _residual(name: str, c_in: int, c_out: int) -> Shapes:
    yield from _norm(f"{name}.bn", c_in)
    yield from _conv(f"{name}.conv1", c_in, c_out // 2)
    yield from _norm(f"{name}.bn1", c_out // 2)
    yield from _conv(f"{name}.conv2", c_out // 2, c_out // 2, 3)
    yield from _norm(f"{name}.bn2", c_out // 2)
    yield from _conv(f"{name}.conv3", c_out // 2, c_out)
    if c_in != c_out:
        yield from _conv(f"{name}.conv4", c_in, c_out)


def heatmap_shapes(w: Widths) -> Shapes:
    yield from _conv("conv1_", 3, w.stem, 7)
    yield from _norm("bn1", w.stem)
    yield from _residual("r1", w.stem, 2 * w.stem)
    yield from _residual("r4", 2 * w.stem, 2 * w.stem)
    yield from _residual("r5", 2 * w.stem, w.features)
    for stack in range(2):
        for level in range(4):
            inside = f"hourglass.{stack}" + ".low2" * level
            rows = ("up1_", "low1_", "low3_") + (("low2_",) if level == 3 else ())
            for row in rows:
                for i in range(2):
                    yield from _residual(f"{inside}.{row}.{i}", w.features, w.features)
        for i in range(2):
            yield from _residual(f"Residual.{2 * stack + i}", w.features, w.features)
        yield from _conv(f"lin_.{stack}.0", w.features, w.features)
        yield from _norm(f"lin_.{stack}.1", w.features)
        yield from _conv(f"tmpOut.{stack}", w.features, JOINTS)
    yield from _conv("ll_.0", w.features, w.features)
    yield from _conv("tmpOut_.0", JOINTS, w.features)


def mesh_shapes(w: Widths) -> Shapes:
    yield from _conv("feat_net.heatmap_conv", JOINTS, w.features)
    yield from _conv("feat_net.encoding_conv", w.features, w.features)
    for i in range(8):
        yield from _residual(f"feat_net.reg_.{i}", w.features, w.features)
    yield from _linear("mesh_net.fc.fc_1.fc", w.encoded, w.latent)
    yield from _linear("mesh_net.fc.fc_2.fc", w.latent, COARSE * w.coarse)
    a, b = w.graph
    for i, (c_in, c_out) in enumerate([(w.coarse, a), (a, b), (b, b), (b, 3)]):
        yield from _linear(f"mesh_net.cl.{i}", 3 * c_in, c_out)
        if i < 3:
            yield from _norm(f"mesh_net.bn.{i}", c_out)


def pose_shapes(w: Widths) -> Shapes:
    a, b = w.pose
    for i, (c_in, c_out) in enumerate([(3, a), (a, a), (a, b), (b, b)]):
        yield from _linear(f"cl.{i}", 3 * c_in, c_out)
        yield from _norm(f"bn.{i}", c_out)
    yield from _linear("fc.fc_1.fc", COARSE * b, w.hidden)
    yield from _linear("fc.fc_2.fc", w.hidden, 20)


_GAINS = {
    ".conv3.": 0.3,
    "tmpOut.": 0.1,
    "feat_net.reg_": 0.5,
    "mesh_net.cl.3": 0.3,
    "fc.fc_2": 0.3,
}


def random_states(widths: Widths, seed: int = 0) -> States:
    """Tensors that keep signals alive through the whole network, and end in the size of a hand."""
    generator = torch.Generator().manual_seed(seed)

    def made(name: str, shape: tuple[int, ...]) -> Tensor:
        if name.endswith("num_batches_tracked"):
            return torch.tensor(1000)
        if name.endswith("running_var"):
            return torch.rand(shape, generator=generator) + 0.5
        noise = torch.randn(shape, generator=generator)
        noise *= next((gain for part, gain in _GAINS.items() if part in name), 1.0)
        if len(shape) == 1:
            return 1 + 0.2 * noise if name.endswith("weight") else 0.3 * noise
        return noise * (1.0 / noise[0].numel()) ** 0.5

    shapes = (heatmap_shapes, mesh_shapes, pose_shapes)
    return States(*({n: made(n, s) for n, s in each(widths)} for each in shapes))


def foreign_graph(topology: Topology) -> Graph:
    """What an owner brings, made from a graph of ours: coarser levels with self-loops, as theirs.

    Padding nodes come in any order behind the vertices, and have 1 on the diagonal.
    """
    order = np.full(1280, -1)
    order[topology.node_of_vertex] = np.arange(topology.vertex_count)
    padding = np.flatnonzero(order < 0)
    order[padding] = topology.vertex_count + np.random.default_rng(0).permutation(len(padding))
    weights = np.zeros((1280, 1280))
    for i, j in ((0, 1), (1, 2), (2, 0)):
        first, second = topology.node_of_vertex[topology.faces[:, [i, j]]].T
        weights[first, second] = weights[second, first] = 1.0
    arrays: Graph = {"order": order, "faces": topology.faces}
    while len(weights) >= COARSE:
        degree = weights.sum(axis=0)
        scale = np.where(degree > 0, np.maximum(degree, 1e-9) ** -0.5, 0.0)
        laplacian = np.eye(len(weights)) - scale[:, None] * weights * scale
        arrays[f"laplacian_{len(weights)}"] = laplacian.astype(np.float32)
        weights = weights.reshape(len(weights) // 2, 2, -1, 2).sum(axis=(1, 3))
    return arrays


class Outputs(NamedTuple):
    """Float64, of N crops.

    Attributes:
        heatmaps: (N, 21, H, H), the last.
        mesh: (N, V, 3), (u, v, d) in the template's order.
        depths: (N, 20), of joints 1 to 20.
    """

    heatmaps: Tensor
    mesh: Tensor
    depths: Tensor


def run(states: States, graph: Mapping[str, NDArray[np.generic]], crops: Tensor) -> Outputs:
    """What their network makes of RGB crops (N, S, S, 3) uint8, which it is shown as BGR."""
    heatmaps, mesh, pose = ({n: t.double() for n, t in state.items()} for state in states)
    image = crops.flip(3).permute(0, 3, 1, 2).double() / 255 - 0.5
    maps, handed_on, features = _heatmaps(heatmaps, image)
    latent = _latent(mesh, maps, handed_on, features)
    laplacians = {count: _rescaled(graph[f"laplacian_{count}"]) for count in (1280, 320)}
    order = torch.from_numpy(graph["order"])
    count = int(graph["faces"].max()) + 1
    nodes = _mesh(mesh, latent, laplacians) * (order < count)[:, None]
    vertices = torch.zeros(len(nodes), count, 3, dtype=torch.float64)
    for node, vertex in enumerate(order.tolist()):
        if vertex < count:
            vertices[:, vertex] = nodes[:, node]
    return Outputs(maps, vertices, _depths(pose, nodes, laplacians))


def _conv2d(state: State, name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state[f"{name}.bias"], stride, weight.shape[-1] // 2)


def _batch_norm(state: State, name: str, x: Tensor) -> Tensor:
    """Over dimension 1."""
    mean, var, weight, bias = (
        state[f"{name}.{each}"].view(-1, *[1] * (x.ndim - 2))
        for each in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def _residual_out(state: State, name: str, x: Tensor) -> Tensor:
    y = x
    for norm, conv in (("bn", "conv1"), ("bn1", "conv2"), ("bn2", "conv3")):
        y = _conv2d(state, f"{name}.{conv}", _batch_norm(state, f"{name}.{norm}", y).relu())
    return y + (_conv2d(state, f"{name}.conv4", x) if f"{name}.conv4.weight" in state else x)


def _row(state: State, names: Sequence[str], x: Tensor) -> Tensor:
    for name in names:
        x = _residual_out(state, name, x)
    return x


def _hourglass(state: State, name: str, x: Tensor) -> Tensor:
    def two(row: str, y: Tensor) -> Tensor:
        return _row(state, [f"{name}.{row}.0", f"{name}.{row}.1"], y)

    low = two("low1_", F.max_pool2d(x, 2))
    deepest = f"{name}.low2_.0.bn.weight" in state
    low = two("low2_", low) if deepest else _hourglass(state, f"{name}.low2", low)
    low = two("low3_", low).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    return two("up1_", x) + low


def _heatmaps(state: State, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The last maps, what was handed on between the stacks, and the last features."""
    x = _batch_norm(state, "bn1", _conv2d(state, "conv1_", image, stride=2)).relu()
    x = _row(state, ["r4", "r5"], F.max_pool2d(_residual_out(state, "r1", x), 2))
    for stack in range(2):
        y = _hourglass(state, f"hourglass.{stack}", x)
        y = _row(state, [f"Residual.{2 * stack}", f"Residual.{2 * stack + 1}"], y)
        y = _batch_norm(state, f"lin_.{stack}.1", _conv2d(state, f"lin_.{stack}.0", y)).relu()
        maps = _conv2d(state, f"tmpOut.{stack}", y)
        if stack == 0:
            x = x + _conv2d(state, "ll_.0", y) + _conv2d(state, "tmpOut_.0", maps)
    return maps, x, y


def _latent(state: State, maps: Tensor, handed_on: Tensor, features: Tensor) -> Tensor:
    x = _conv2d(state, "feat_net.heatmap_conv", maps)
    x = x + _conv2d(state, "feat_net.encoding_conv", features) + handed_on
    for i in range(0, 8, 2):
        x = _row(state, [f"feat_net.reg_.{i}", f"feat_net.reg_.{i + 1}"], x)
        x = F.max_pool2d(x, 2)
    return _fc(state, "mesh_net.fc.fc_1.fc", x.reshape(len(x), -1)).relu()


def _fc(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _rescaled(laplacian: NDArray[np.generic]) -> Tensor:
    """Their scaling: by twice the largest eigenvalue, where the paper has half of it."""
    matrix = laplacian.astype(np.float64)
    largest = np.linalg.eigvalsh(matrix)[-1]
    return torch.from_numpy(matrix / (2 * largest) - np.eye(len(matrix)))


def _cheb(state: State, name: str, laplacian: Tensor, x: Tensor) -> Tensor:
    """(N, nodes, C): inputs of the linear map are ordered by feature, three terms each."""
    terms = [x, laplacian @ x, 2 * laplacian @ (laplacian @ x) - x]
    interleaved = torch.stack(terms, dim=-1).flatten(2)  # (N, nodes, C * 3)
    return _fc(state, name, interleaved)


def _mesh(state: State, latent: Tensor, laplacians: Mapping[int, Tensor]) -> Tensor:
    x = _fc(state, "mesh_net.fc.fc_2.fc", latent).view(len(latent), COARSE, -1)
    for i, count in enumerate((320, 320, 1280, 1280)):
        if i % 2 == 0:
            x = x.repeat_interleave(4, dim=1)
        x = _cheb(state, f"mesh_net.cl.{i}", laplacians[count], x)
        if i < 3:
            x = _batch_norm(state, f"mesh_net.bn.{i}", x.transpose(1, 2)).transpose(1, 2).relu()
    return x


def _depths(state: State, x: Tensor, laplacians: Mapping[int, Tensor]) -> Tensor:
    for i, count in enumerate((1280, 1280, 320, 320)):
        x = _cheb(state, f"cl.{i}", laplacians[count], x)
        if i % 2 == 1:
            x = x.unflatten(1, (-1, 4)).amax(dim=2)
    x = _fc(state, "fc.fc_1.fc", x.flatten(1))
    return _fc(state, "fc.fc_2.fc", x)
