"""TFLite through litert-torch: one file for phones and boards, of one crop, with a signature.

`docs/exporting.md` has what each way costs (`handmesh compare-exports`). int8 stores weights in 8
bits and computes in float32. 8-bit products are more than twice as fast, but they are of another
network: errors of rounding after training add up to centimetres, so whoever wants them has to train
with them. Almost all of it is a wrong distance of the hand, for which a mean error of the joints is
enough: see `rounding` for what helps where weights alone are rounded.

Sensitivity of the layers to rounded weights, one at a time and each weight by itself, on `light` as
of 2,006,336 crops, mm at the 99th percentile: the vertices' map to joints 15.7, the heat-maps'
convolution 13.5, the first fully-connected layer of the graph 11.4, the mixing of joints 8.2, a
graph convolution 5.7, the last one 4.2, the stem 3.8, all others below 2.6.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from handmesh import backends
from handmesh.backends import Backend
from handmesh.bundle import Bundle
from handmesh.errors import ExportError, InputError

from ..fold import INPUT, ExportTwin
from ..quantizer import quantize_convolutions
from ..request import Abilities, Job
from ..rounding import round_to_int8

REQUIRES = ("litert_torch", "ai_edge_litert", "ai_edge_quantizer")
EXTRA = "converters"
FILE = "model.tflite"
DYNAMIC, STATIC = "dynamic", "static"
ABLE = Abilities(
    ("sparse", "polynomials", "dense"),
    ("fp16", "fp32", "int8"),
    {
        DYNAMIC: (("int8",), "convolutions with 8-bit products, ranges measured in each run"),
        STATIC: (("int8",), "convolutions with 8-bit products, ranges fixed by the crops"),
    },
)

# Layers of at least as many weights are rounded to int8. Smaller ones save little.
ROUNDED = 100_000
# The vertices' map to joints stays float16: the hand's distance is solved from the joints, so it
# costs as much as all other layers together.
KEPT = ("network.head.joints",)

# Of the one signature, as litert-torch calls it.
_SIGNATURE = "serving_default"
_PACKAGES = ("torch", "litert-torch", "ai-edge-litert", "ai-edge-quantizer")


def export(twin: ExportTwin, path: Path, job: Job) -> dict[str, Any]:
    """See `handmesh_converters.formats.Format`. The same weights give the same bytes.

    All precisions compute in float32; they differ in how large weights are stored. Optimized
    "dynamic" or "static", convolutions compute in 8 bits, see `quantizer`.

    Raises:
        InputError: both of these.
    """
    from .. import flatbuffer

    products = job.optimize & {DYNAMIC, STATIC}
    if len(products) > 1:
        raise InputError(f"8-bit products are either {DYNAMIC} or {STATIC}; optimize for one")
    scales = {}
    if job.precision == "int8" and not products:
        twin = copy.deepcopy(twin)
        scales = _rounded(twin, job.crops)

    image = torch.zeros(1, twin.image_size, twin.image_size, 3, dtype=torch.uint8)
    try:
        data = _convert(_Named(twin).eval(), image)
        if products:
            data = quantize_convolutions(data, job.crops, _SIGNATURE, STATIC in products)
        model = flatbuffer.unpack(data)
        flatbuffer.round_weights(model, scales)
        if job.precision != "fp32":
            flatbuffer.halve_weights(model)
        flatbuffer.describe(model, job.metadata)
        data = flatbuffer.pack(model)
    except ExportError:
        raise
    except Exception as cause:  # torch, JAX and MLIR share no base class of errors
        raise ExportError(
            f"the network does not convert to TFLite ({type(cause).__name__}: {cause}); install "
            "the versions of constraints.txt"
        ) from cause
    path.write_bytes(data)
    return {
        "precision": "int8" if products else "fp32",
        "weights": job.precision,
        "nodes": flatbuffer.operators(model),
        "tools": {package: version(package) for package in _PACKAGES},
    }


def open(bundle: Bundle) -> Backend:
    """See `handmesh_converters.formats.Format`."""
    return backends.create("tflite", bundle, threads=1)


class _Named(nn.Module):
    """A twin whose outputs have names, which become those of the signature."""

    def __init__(self, twin: ExportTwin) -> None:
        super().__init__()
        self.twin = twin

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.twin.outputs, self.twin(image), strict=True))


def _rounded(twin: ExportTwin, crops: NDArray[np.uint8]) -> dict[bytes, NDArray[np.float32]]:
    """Round a twin's large weights in place; their scales by the bytes that the file will hold."""
    scales = round_to_int8(twin, crops, ROUNDED, KEPT)
    found = {}
    for name, scale in scales.items():
        weight = twin.get_parameter(f"{name}.weight").detach()
        if weight.ndim == 4:
            weight = weight.permute(0, 2, 3, 1)  # OIHW to OHWI
        found[weight.contiguous().numpy().tobytes()] = scale.numpy()
    return found


def _convert(module: nn.Module, image: Tensor) -> bytes:
    with _quiet():
        import litert_torch
        from litert_torch._config import config

        shown, config.show_progress = config.show_progress, False
        try:
            return bytes(litert_torch.convert(module, sample_kwargs={INPUT: image}).model_content())
        finally:
            config.show_progress = shown


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings of the many packages that the converter is made of."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
