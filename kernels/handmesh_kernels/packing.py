"""A head's constants in the layouts that the kernels read: see `src/params.h`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .constants import JOINTS, Convolution, HeadConstants
from .errors import ConstantsError
from .params import Shape

__all__ = ["ENTRY", "Packed", "pack"]

ENTRY = np.dtype([("column", "<i4"), ("value", "<f4")])
_POSE_ROWS = 3 * JOINTS + 1  # of the wrist's three rows only the depth is not 0


@dataclass(frozen=True, eq=False)
class Packed:
    """Arrays to copy to the device, by their names in `HeadParams`, and its numbers.

    Attributes:
        arrays: contiguous; those of convolution i are "conv{i}.entries", ".lengths" and ".bias".
        numbers: by name, "conv{i}.rows", ".width" and ".inputs" included.
        map_sizes: elements of maps1 to maps4 for one sample.
        stored: dtype of weights and maps.
    """

    arrays: dict[str, NDArray[Any]]
    numbers: dict[str, int]
    map_sizes: tuple[int, ...]
    stored: np.dtype[Any]


def pack(constants: HeadConstants, shape: Shape) -> Packed:
    """Constants in the kernels' layouts, filled up with zeros to the widths of `shape`.

    Raises:
        ConstantsError: the kernels were built for another head, or a weight is too large for half.
    """
    usual = Shape.of(constants)
    if (shape.order, shape.widths) != (usual.order, usual.widths):
        raise ConstantsError(
            f"the kernels are for order {shape.order} and widths {shape.widths}, the head has "
            f"{usual.order} and {usual.widths}: compile them for it"
        )
    features = -(-constants.features // 16) * 16
    if features > shape.latent or constants.vertex_count > shape.vertices:
        raise ConstantsError(
            f"the kernels take {shape.latent} latent features and {shape.vertices} vertices at "
            f"most, the head has {features} and {constants.vertex_count}: compile them for it"
        )
    stored = np.dtype(np.float16 if constants.storage == "fp16" else np.float32)
    nodes, vertices = constants.node_count, constants.vertex_count
    width, points = constants.widths[0], -(-3 * vertices // 4) * 4
    weight = np.zeros((nodes, features, shape.widths[0]), np.float32)
    by_node = constants.expand_weight.reshape(nodes, width, -1)
    weight[:, : constants.features, :width] = by_node.transpose(0, 2, 1)  # (nodes, F, C0)
    bias = np.zeros((nodes, shape.widths[0]), np.float32)
    bias[:, :width] = constants.expand_bias.reshape(nodes, width)
    rows = [*range(3 * JOINTS), 3 * JOINTS + 2]
    pose = np.zeros((_POSE_ROWS, points), np.float32)
    pose[:, : 3 * vertices] = constants.pose_weight[rows]
    arrays: dict[str, NDArray[Any]] = {
        "expand_weight": _stored("expand_weight", weight, stored),
        "expand_bias": bias,
        "pose_weight": _stored("pose_weight", pose, stored),
        "pose_bias": np.ascontiguousarray(constants.pose_bias[rows]),
    }
    if constants.blend is not None:
        arrays["blend"] = np.ascontiguousarray(constants.blend.T)
    numbers = {
        "given": constants.features, "features": features, "nodes": nodes, "points": points,
    }  # fmt: skip
    outputs = (*shape.widths[1:], 4)
    for i, conv in enumerate(constants.convolutions, start=1):
        theta = _theta(conv, shape.widths[i - 1], outputs[i - 1])
        arrays[f"theta{i}"] = _stored(f"theta{i}", theta, stored)
        filled = np.zeros(outputs[i - 1], np.float32)
        filled[: len(conv.bias)] = conv.bias
        entries, lengths = _entries(conv)
        # A thread takes a vertex in the last one: neighbouring threads read neighbouring entries.
        last = i == len(constants.convolutions)
        arrays[f"conv{i}.entries"] = np.ascontiguousarray(entries.T if last else entries)
        arrays[f"conv{i}.lengths"], arrays[f"conv{i}.bias"] = lengths, filled
        numbers[f"conv{i}.rows"] = conv.rows
        numbers[f"conv{i}.width"] = entries.shape[1]
        numbers[f"conv{i}.inputs"] = conv.inputs * conv.order
    sizes = tuple(
        conv.inputs * conv.order * out
        for conv, out in zip(constants.convolutions, outputs, strict=True)
    )
    return Packed(arrays, numbers, sizes, stored)


def _theta(conv: Convolution, width_in: int, width_out: int) -> NDArray[np.float32]:
    """(C_in, K * C_out), the terms side by side."""
    order, given_in, given_out = conv.theta.shape
    theta = np.zeros((width_in, order, width_out), np.float32)
    theta[:given_in, :, :given_out] = conv.theta.transpose(1, 0, 2)
    return theta.reshape(width_in, -1)


def _entries(conv: Convolution) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Rows with their entries in front, (N, width), and how many each has, (N,)."""
    used = conv.values != 0
    lengths = used.sum(axis=1).astype(np.int32)
    entries = np.zeros((conv.rows, max(1, int(lengths.max()))), ENTRY)
    for row, keep in enumerate(used):
        entries["column"][row, : lengths[row]] = conv.columns[row, keep]
        entries["value"][row, : lengths[row]] = conv.values[row, keep]
    return entries, lengths


def _stored(name: str, array: NDArray[np.float32], stored: np.dtype[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        rounded = array.astype(stored)
    if not np.isfinite(rounded).all():
        raise ConstantsError(f"{name} has values too large for half: export with fp32")
    return rounded
