"""For NVIDIA GPUs: the trunk as ONNX up to what the head reads, the head's constants as arrays.

A folder with `trunk.onnx`, whose outputs are `latent`, `joints_uv` (where vertices are anchored to
joints), `confidence`, `presence` and `handedness`, and `head.npz`, which
`handmesh_kernels.constants` describes. `handmesh.backends.cuda` runs both on one stream.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from handmesh.archive import write_arrays
from handmesh.backends import NamedBackend, cuda
from handmesh.bundle import Bundle
from handmesh.errors import ExportError
from handmesh.nn.blocks import scores

from ..fold import ExportTwin, FoldedHead, Network, Twin
from ..forms.explicit import ExplicitConv
from ..forms.spec import ConvSpec, polynomials
from ..request import Abilities, Job
from . import onnx as onnx_format

REQUIRES = onnx_format.REQUIRES
EXTRA = "converters"
FILE = "cuda"
# The kernels have one form of the graph: T_k(L) U written out sparsely.
ABLE = Abilities(("polynomials",), ("fp16", "fp32"), detector_precisions=())

# What TensorRT 8.5 reads, and any later one.
OPSET = 17

_SCORES = ("confidence", "presence", "handedness")


def export(twin: Twin, path: Path, job: Job) -> dict[str, Any]:
    """See `handmesh_converters.formats.Format`. The same weights give the same bytes.

    With precision "fp16" the head's weights, and what lies in memory between its kernels, are half,
    all sums float32. The trunk's large weights are stored in half, as those of format "onnx".
    """
    if not isinstance(twin, ExportTwin):
        raise ExportError("the kernels compute a graph head, which this network does not have")
    arrays = head_arrays(twin.head, job.precision)
    trunk = _Trunk(twin.network)
    model = onnx_format.convert(trunk, twin.image_size, trunk.outputs, job, OPSET)
    path.mkdir()
    (path / cuda.TRUNK).write_bytes(model.SerializeToString(deterministic=True))
    write_arrays(path / cuda.HEAD, arrays)
    too_large = cuda.refused(path)
    if too_large:
        raise ExportError(f"{too_large}: export another format, which takes heads of any size")
    return {
        "opset": OPSET,
        "precision": "fp32",
        "head": job.precision,
        "weights": job.precision,
        "nodes": len(model.graph.node),
        "tools": {package: version(package) for package in ("torch", *REQUIRES)},
    }


def open(bundle: Bundle) -> NamedBackend:
    """See `handmesh_converters.formats.Format`: on the CPU, the head in the kernels' NumPy twin."""
    return cuda.open_twin(bundle, threads=1)


class _Trunk(nn.Module):
    """Crops (N, S, S, 3) uint8 to what `outputs` names, all float32.

    Attributes:
        outputs: latent (N, F), joints_uv (N, 21, 2) where vertices are anchored, confidence
            (N, 21), presence (N,) and handedness (N,) in 0..1.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        with torch.inference_mode():
            size = network.config.input_size
            anchored = network.latent(torch.zeros(1, 3, size, size)).anchors is not None
        self.outputs = ("latent", *(("joints_uv",) if anchored else ()), *_SCORES)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        # Cast first: TensorRT takes bytes as input of a cast alone.
        latent = self.network.latent(image.float().permute(0, 3, 1, 2) / 255.0 - 0.5)
        anchors = () if latent.anchors is None else (latent.anchors,)
        return latent.features, *anchors, *scores(latent)


def head_arrays(head: FoldedHead, precision: str) -> dict[str, NDArray[Any]]:
    """The constants of a head in form "polynomials", as `handmesh_kernels.constants` names them.

    Args:
        head: folded.
        precision: "fp16" rounds the large weights to half.

    Raises:
        ExportError: another form, a pose regressor that is not linear, weights too large for half.
    """
    if not isinstance(head.joints, nn.Linear):
        raise ExportError(
            "the kernels take a linear pose regressor, and this one pools by maximum: "
            "export another format"
        )
    arrays: dict[str, NDArray[Any]] = {
        "expand_weight": _halved("the fully connected layer", head.expand.weight, precision),
        "expand_bias": _numpy(head.expand.bias),
        "pose_weight": _halved("the pose regressor", head.joints.weight, precision),
        "pose_bias": _numpy(head.joints.bias),
    }
    if head.anchored:
        arrays["blend"] = _numpy(head.blend)
    for i, convolution in enumerate(head.convolutions, start=1):
        if not isinstance(convolution, ExplicitConv):
            raise ExportError("the kernels take the graph in the form 'polynomials' only")
        spec = convolution.spec
        last = i == len(head.convolutions)
        rows = _numpy(head.row_of_vertex) if last else np.arange(len(spec.laplacian))
        columns, values, inputs = sparse_rows(spec, rows)
        theta = torch.from_numpy(spec.theta)
        arrays |= {
            f"conv{i}_columns": columns,
            f"conv{i}_values": values,
            f"conv{i}_theta": _halved(f"graph convolution {i}", theta, precision),
            f"conv{i}_bias": spec.bias.astype(np.float32),
            f"conv{i}_inputs": np.array(inputs, np.int32),
        }
    return arrays


def sparse_rows(
    spec: ConvSpec, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.float32], int]:
    """T_k(L) U of all k side by side, as padded rows over (input node j, term k), j * K + k.

    Args:
        spec: of the convolution. rows: (R,) output nodes, in the wanted order.

    Returns:
        Columns (R, width), values (R, width) with 0 in slots not in use, number of input nodes.
    """
    terms = polynomials(spec)  # (K, N, N)
    if spec.unpooling is not None:
        terms = terms @ spec.unpooling  # (K, N, N_in)
    across = terms.transpose(1, 2, 0)  # (N, N_in, K)
    inputs = across.shape[1]
    # Where terms cancel but for rounding, there is nothing to gather.
    picked = np.where(np.abs(across) > 1e-12, across, 0.0).reshape(len(across), -1)[rows]
    used = picked != 0
    width = int(used.sum(axis=1).max())
    columns = np.zeros((len(rows), width), np.int32)
    values = np.zeros((len(rows), width), np.float32)
    for row, keep in enumerate(used):
        (found,) = np.nonzero(keep)
        columns[row, : len(found)], values[row, : len(found)] = found, picked[row, found]
    return columns, values, inputs


def _halved(name: str, tensor: Tensor, precision: str) -> NDArray[Any]:
    wide = _numpy(tensor).astype(np.float32)
    if precision != "fp16":
        return wide
    with np.errstate(over="ignore"):
        half = wide.astype(np.float16)
    if not np.isfinite(half).all():
        raise ExportError(f"weights of {name} are too large for half: give --precision fp32")
    return half


def _numpy(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array
