"""TFLite through litert-torch: one file for phones and boards, of one crop, with a signature.

`handmesh export light --format tflite --graph G --precision P --out DIR`, after 2,006,336 crops;
LiteRT 2.3.0 with XNNPACK, one thread of a shared AMD EPYC, median CPU time of a run. Millimetres
are those of `handmesh_converters.parity`, on the bundle's crops and on 143 crops with a hand that
took no part in the export, 99th percentile (worst):

    graph        precision      MB     ms   mm, bundle      mm, others
    sparse       fp32        15.03   3.55   0.003 (0.00)   0.002 (0.01)
    sparse       fp16         7.85   3.58   0.18  (0.45)   0.13  (0.36)
    sparse       int8         5.31   3.67   1.25  (1.82)   0.79  (1.32)
    polynomials  fp16         8.56   3.88   0.19  (0.46)   0.14  (0.36)
    dense        fp16        25.31   6.20   0.19  (0.46)   0.14  (0.36)

What makes files smaller or faster, but was measured to be another network (ai-edge-quantizer
0.10.0, scales by channel, ranges the least and greatest values on the bundle's crops):

    every weight rounded to int8     4.09   3.56   14.9  (29.3)   7.5  (13.6)
    the same, 8-bit products         4.34   3.10   11.5  (27.3)   8.7  (22.8)
    trunk in int8, the rest float   11.23   2.09   31.5  (50.4)  11.9  (35.0)

These are the errors of rounding after training: whoever wants 8-bit products has to train with
them. Of the weights, one layer at a time and each weight rounded by itself, most sensitive are the
vertices' map to joints (15.7 mm), the heat-maps' convolution (13.5), the first fully-connected
layer of the graph (11.4), the mixing of joints (8.2), a graph convolution (5.7) and the last one
(4.2), then the stem (3.8); all others stay below 2.6. Almost all of it is a wrong distance of the
hand, for which a mean error of the joints is enough: see `rounding` for what helps.
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
from handmesh.errors import ExportError

from ..fold import INPUT, OUTPUTS, ExportTwin
from ..request import Abilities, Job
from ..rounding import round_to_int8

REQUIRES = ("litert_torch", "ai_edge_litert")
EXTRA = "converters"
FILE = "model.tflite"
ABLE = Abilities(("sparse", "polynomials", "dense"), ("fp16", "fp32", "int8"))

# Layers of at least as many weights are rounded to int8. Smaller ones save little.
ROUNDED = 100_000
# The vertices' map to joints stays float16: the hand's distance is solved from the joints, so it
# costs as much as all other layers together.
KEPT = ("network.head.joints",)

_PACKAGES = ("torch", "litert-torch", "ai-edge-litert")


def export(twin: ExportTwin, path: Path, job: Job) -> dict[str, Any]:
    """See `handmesh_converters.formats.Format`. The same weights give the same bytes.

    All precisions compute in float32; they differ in how large weights are stored.
    """
    from .. import flatbuffer

    scales = {}
    if job.precision == "int8":
        twin = copy.deepcopy(twin)
        scales = _rounded(twin, job.crops)

    image = torch.zeros(1, twin.image_size, twin.image_size, 3, dtype=torch.uint8)
    try:
        model = flatbuffer.unpack(_convert(_Named(twin).eval(), image))
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
        "precision": "fp32",
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
        return dict(zip(OUTPUTS, self.twin(image), strict=True))


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
