"""The numbers of a graph head as plain arrays: what the kernels and their NumPy twin are given.

    y_0 = W latent + b                                                 (80, C0)
    y_i = relu(sum_k T_k U y_(i-1) theta_i,k + bias_i), i = 1, 2, 3    (N_i, C_i)
    vertices = sum_k T_k y_3 theta_4,k + bias_4 + blend joints_uv      (V, 3), the mesh's order
    joints, wrist depth = pose vertices + pose bias
    vertices = vertices - (0, 0, wrist depth)

T_k U are constant and sparse: rows in ELL form over the maps (node j, term k), column j * K + k.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import ConstantsError

__all__ = ["JOINTS", "Convolution", "HeadConstants", "Storage"]

JOINTS = 21
CONVOLUTIONS = 4
_OUTPUTS = 3 * JOINTS + 3  # joints with the wrist's depth at 0, then (0, 0, wrist depth)

Storage = Literal["fp32", "fp16"]


@dataclass(frozen=True, eq=False)
class Convolution:
    """One Chebyshev convolution with everything constant folded in.

    Attributes:
        columns: (N, width) int32, j * K + k for term k on input node j.
        values: (N, width) float32, of T_k U; 0 in slots not in use.
        theta: (K, C_in, C_out) float32.
        bias: (C_out,) float32.
        inputs: number of input nodes.
    """

    columns: NDArray[np.int32]
    values: NDArray[np.float32]
    theta: NDArray[np.float32]
    bias: NDArray[np.float32]
    inputs: int

    @property
    def rows(self) -> int:
        return len(self.columns)

    @property
    def order(self) -> int:
        return len(self.theta)

    def matrix(self) -> NDArray[np.float64]:
        """(N, inputs * K) float64, dense."""
        dense = np.zeros((self.rows, self.inputs * self.order))
        rows = np.repeat(np.arange(self.rows), self.columns.shape[1])
        np.add.at(dense, (rows, self.columns.ravel()), self.values.ravel().astype(np.float64))
        return dense


@dataclass(frozen=True, eq=False)
class HeadConstants:
    """A whole head.

    Attributes:
        expand_weight: (nodes * C0, F) float32. expand_bias: (nodes * C0,).
        convolutions: four.
        blend: (V, 21) float32, shares of the joints in each vertex's anchor; None, no anchors.
        pose_weight: (66, 3 V) float32. pose_bias: (66,).
        storage: of weights, and of what lies in memory between kernels. The arrays are float32 in
            either case; with "fp16" the large ones are rounded to half.
    """

    expand_weight: NDArray[np.float32]
    expand_bias: NDArray[np.float32]
    convolutions: tuple[Convolution, ...]
    blend: NDArray[np.float32] | None
    pose_weight: NDArray[np.float32]
    pose_bias: NDArray[np.float32]
    storage: Storage

    @property
    def features(self) -> int:
        """F, width of the latent vector."""
        return int(self.expand_weight.shape[1])

    @property
    def vertex_count(self) -> int:
        return self.convolutions[-1].rows

    @property
    def node_count(self) -> int:
        """Coarse nodes."""
        return self.convolutions[0].inputs

    @property
    def order(self) -> int:
        return self.convolutions[0].order

    @property
    def widths(self) -> tuple[int, ...]:
        """C0, C1, C2, C3."""
        return tuple(int(conv.theta.shape[1]) for conv in self.convolutions)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> HeadConstants:
        """From named arrays, as `handmesh export --format cuda` writes them.

        Names: expand_weight, expand_bias, blend (may be missing), pose_weight, pose_bias, and for
        i in 1..4 conv{i}_columns, conv{i}_values, conv{i}_theta, conv{i}_bias and conv{i}_inputs.
        If expand_weight is float16, the head is stored as such.

        Raises:
            ConstantsError: one is missing, or they do not fit each other.
        """
        try:
            convolutions = tuple(
                Convolution(
                    np.ascontiguousarray(arrays[f"conv{i}_columns"], np.int32),
                    _float(arrays[f"conv{i}_values"]),
                    _float(arrays[f"conv{i}_theta"]),
                    _float(arrays[f"conv{i}_bias"]),
                    int(arrays[f"conv{i}_inputs"]),
                )
                for i in range(1, CONVOLUTIONS + 1)
            )
            made = cls(
                _float(arrays["expand_weight"]),
                _float(arrays["expand_bias"]),
                convolutions,
                _float(arrays["blend"]) if "blend" in arrays else None,
                _float(arrays["pose_weight"]),
                _float(arrays["pose_bias"]),
                "fp16" if arrays["expand_weight"].dtype == np.float16 else "fp32",
            )
        except KeyError as cause:
            raise ConstantsError(
                f"the head's constants have no array {cause}: export them again with "
                "`handmesh export BUNDLE --format cuda --out DIR`"
            ) from cause
        except (TypeError, ValueError) as cause:
            raise ConstantsError(
                f"the head's constants are not arrays of numbers: {cause}"
            ) from cause
        made._check()
        return made

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> HeadConstants:
        """From an .npz file.

        Raises:
            ConstantsError: it cannot be read, or see `from_arrays`.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except Exception as cause:  # damaged bytes make zipfile, zlib and NumPy raise a dozen types
            raise ConstantsError(
                f"cannot read the head's constants from {path}: {cause}; export them again"
            ) from cause
        return cls.from_arrays(arrays)

    def _check(self) -> None:
        first, order = self.convolutions[0], self.order
        width = self.widths[0]
        _expect("expand_weight", self.expand_weight, (first.inputs * width, self.features))
        _expect("expand_bias", self.expand_bias, (first.inputs * width,))
        nodes = first.inputs
        for i, conv in enumerate(self.convolutions, start=1):
            _expect(f"conv{i}_values", conv.values, conv.columns.shape)
            outputs = 3 if i == CONVOLUTIONS else self.widths[i]
            _expect(f"conv{i}_theta", conv.theta, (order, self.widths[i - 1], outputs))
            _expect(f"conv{i}_bias", conv.bias, (outputs,))
            if conv.inputs != nodes:
                raise ConstantsError(
                    f"conv{i}_inputs must be {nodes}, the nodes before it, not {conv.inputs}"
                )
            if conv.columns.min(initial=0) < 0 or conv.columns.max(initial=0) >= nodes * order:
                raise ConstantsError(f"conv{i}_columns must lie in 0..{nodes * order - 1}")
            nodes = conv.rows
        if self.blend is not None:
            _expect("blend", self.blend, (nodes, JOINTS))
        _expect("pose_weight", self.pose_weight, (_OUTPUTS, 3 * nodes))
        _expect("pose_bias", self.pose_bias, (_OUTPUTS,))
        if self.pose_weight[-3:-1].any() or self.pose_bias[-3:-1].any():
            raise ConstantsError(
                "rows 63 and 64 of the pose map must be 0: from the vertices only a depth is "
                "subtracted"
            )


def _float(array: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(array, np.float32)


def _expect(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ConstantsError(f"{name} must have shape {shape}, not {array.shape}")
    if not np.isfinite(array).all():
        raise ConstantsError(f"{name} holds NaN or infinity")
