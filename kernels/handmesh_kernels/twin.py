"""The head in NumPy, float64, to be read beside `src/decoder.cu` and to check it by."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .constants import JOINTS, Convolution, HeadConstants
from .errors import ConstantsError

__all__ = ["HeadOutput", "Layers", "run"]

Array = NDArray[np.float64]


class Layers(NamedTuple):
    """What lies in memory between the kernels, for B samples, all float64.

    Attributes:
        maps1: (B, nodes * K, C1), x theta_k of the first convolution on the coarse nodes.
        maps2, maps3: (B, N1 * K, C2), (B, N2 * K, C3).
        maps4: (B, N3 * K, 3).
    """

    maps1: Array
    maps2: Array
    maps3: Array
    maps4: Array


class HeadOutput(NamedTuple):
    """Vertices (B, V, 3) and joints (B, 21, 3), (u, v, d), and what came before them."""

    vertices: Array
    joints: Array
    layers: Layers


def run(
    constants: HeadConstants,
    latent: NDArray[np.floating],
    joints_uv: NDArray[np.floating] | None = None,
    rounded: bool = False,
) -> HeadOutput:
    """The head of B samples.

    Args:
        constants: of the head.
        latent: (B, F).
        joints_uv: (B, 21, 2), crop fractions; where the head has anchors, and only there.
        rounded: round what lies between the kernels to half where the head is stored in half.

    Raises:
        ConstantsError: inputs of another shape.
    """
    batch = check_inputs(constants, latent.shape, joints_uv)
    keep = _half if rounded and constants.storage == "fp16" else _exact
    x = latent.astype(np.float64) @ constants.expand_weight.T.astype(np.float64)
    x = (x + constants.expand_bias).reshape(batch, constants.node_count, -1)  # (B, 80, C0)
    maps = []
    for conv in constants.convolutions:
        theta = conv.theta.astype(np.float64)  # (K, C_in, C_out)
        z = np.einsum("bnc,kco->bnko", x, theta)  # (B, N_in, K, C_out)
        maps.append(keep(z.reshape(batch, -1, theta.shape[2])))  # (B, N_in * K, C_out)
        x = gather(conv, maps[-1]) + conv.bias  # (B, N, C_out)
        if len(maps) < len(constants.convolutions):
            x = np.maximum(x, 0.0)
    if joints_uv is not None and constants.blend is not None:
        x[..., :2] += constants.blend.astype(np.float64) @ joints_uv.astype(np.float64)
    pose = x.reshape(batch, -1) @ constants.pose_weight.T.astype(np.float64) + constants.pose_bias
    joints = pose[:, : 3 * JOINTS].reshape(batch, JOINTS, 3)
    return HeadOutput(x - pose[:, None, 3 * JOINTS :], joints, Layers(*maps))


def gather(conv: Convolution, maps: Array) -> Array:
    """sum_k T_k U z_k: maps (B, N_in * K, C) to (B, N, C)."""
    out = np.zeros((len(maps), conv.rows, maps.shape[2]))
    for column, value in zip(conv.columns.T, conv.values.T, strict=True):  # (N,) each
        out += value[:, None].astype(np.float64) * maps[:, column]
    return out


def check_inputs(
    constants: HeadConstants, latent: tuple[int, ...], joints_uv: NDArray[np.floating] | None
) -> int:
    """The batch size of inputs that fit the head.

    Raises:
        ConstantsError: they do not.
    """
    if len(latent) != 2 or latent[1] != constants.features or latent[0] < 1:
        raise ConstantsError(f"latent must be (B, {constants.features}), not {latent}")
    if (joints_uv is None) != (constants.blend is None):
        wanted = "needs" if joints_uv is None else "does not take"
        raise ConstantsError(f"this head {wanted} joints_uv, the anchors of its vertices")
    if joints_uv is not None and joints_uv.shape != (latent[0], JOINTS, 2):
        raise ConstantsError(f"joints_uv must be ({latent[0]}, {JOINTS}, 2), not {joints_uv.shape}")
    return int(latent[0])


def _half(x: Array) -> Array:
    return x.astype(np.float16).astype(np.float64)


def _exact(x: Array) -> Array:
    return x
