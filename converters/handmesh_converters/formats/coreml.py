"""Core ML through torch's exporter and coremltools: an ML program that takes a picture."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import shutil
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from handmesh import backends
from handmesh.backends import NamedBackend
from handmesh.bundle import Bundle
from handmesh.errors import ExportError

from ..fold import INPUT, Twin
from ..mil.compression import MANY, compress_layers, compress_zeros
from ..mil.exactness import computes_in_half
from ..mil.packages import describe, tidy
from ..request import Abilities, Job
from ..rounding import round_to_int8

REQUIRES = ("coremltools",)
EXTRA = "converters"
FILE = "model.mlpackage"
ABLE = Abilities(
    ("dense", "sparse", "polynomials"),
    ("fp16", "fp32", "int8"),
    {
        "sparse-constants": (
            ("fp16", "fp32", "int8"),
            "stores constants of the mesh without their zeros; exact, smaller, not faster",
        ),
        "palettes": (
            ("int8",),
            "stores large layers as 256 values each, not on an even grid by row",
        ),
    },
    # It needs zeros to leave out, and sparse graphs have few.
    optimized_graphs={"sparse-constants": "dense"},
    # In float16, cells of a detector's grid that are nearly as sure exchange their places, and
    # boxes are off by a fifth of a pixel, four times what is allowed.
    detector_precisions=("fp32",),
)

# And macOS 13. The first that keeps compressed constants.
_TARGET = "iOS16"
# Rewrites x * a + b as a batch norm with an epsilon of 1e-5, and so loses three digits.
_HARMFUL_PASS = "common::fuse_elementwise_to_batchnorm"


def export(twin: Twin, path: Path, job: Job) -> dict[str, Any]:
    """See `handmesh_converters.formats.Format`. The same weights give the same bytes.

    "dense" is the default graph: a gather is not for the Neural Engine, and leaves it and comes
    back for each; "sparse" has 13, "polynomials" 5, "dense" one at its end. The choice was made by
    reasoning, not by measurement.

    With precision "fp16" layers compute in float16, see `mil.exactness`. "int8" is the same with
    the weights of large layers in 8 bits, on an even grid for each row, rounded so that later
    weights make up for earlier ones.
    """
    temporary = path.with_name(f".{path.name}.tmp.mlpackage")
    palettes = "palettes" in job.optimize
    if job.precision == "int8" and not palettes:
        twin = copy.deepcopy(twin)
        # coremltools rounds them once more, to the same values but for a few channels.
        round_to_int8(twin, job.crops, MANY, kinds=(nn.Linear,))
    try:
        with _quiet():
            model = _convert(twin, job)
            if job.precision == "int8":
                model = compress_layers(model, palettes=palettes)
            if "sparse-constants" in job.optimize:
                model = compress_zeros(model)
            describe(model, job.metadata)
            model.save(str(temporary))
        tidy(temporary)
        temporary.rename(path)
    except (ExportError, OSError):
        raise
    except Exception as cause:  # torch and coremltools share no base class of errors
        raise ExportError(
            f"the network does not convert to Core ML ({type(cause).__name__}: {cause}); "
            "install the versions of constraints.txt"
        ) from cause
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return {
        "target": _TARGET,
        "precision": "fp32" if job.precision == "fp32" else "fp16",
        "weights": job.precision,
        "tools": {package: version(package) for package in ("torch", *REQUIRES)},
    }


def open(bundle: Bundle) -> NamedBackend:
    """See `handmesh_converters.formats.Format`. Core ML itself where it is, else an executor."""
    if sys.platform == "darwin":
        return backends.create("coreml", bundle, threads=1)
    from ..mil.backend import MilBackend

    return MilBackend(bundle)


class _Picture(nn.Module):
    """The twin for what Core ML makes of a picture: (1, 3, S, S) float32, RGB, 0..255.

    255 is no power of two: dividing by it in float16 would cost more than all that follows. 128 is
    one, and the rest goes into the weights of the first convolution.
    """

    def __init__(self, twin: Twin) -> None:
        super().__init__()
        self.twin = copy.deepcopy(twin)
        convolutions = (m for m in self.twin.network.modules() if isinstance(m, nn.Conv2d))
        first = next(conv for conv in convolutions if conv.in_channels == 3)
        first.weight.data = (first.weight.double() * (128 / 255)).float()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.twin.of_normalised((image - 127.5) * (1 / 128))


def _convert(twin: Twin, job: Job) -> Any:
    """The twin as coremltools' model."""
    import coremltools as ct

    size = twin.image_size
    program = torch.export.export(_Picture(twin).eval(), (torch.zeros(1, 3, size, size),))
    _adapt(program)
    program = program.run_decompositions({torch.ops.aten.matmul.default: _matrix_product})
    pipeline = ct.PassPipeline.DEFAULT
    pipeline.remove_passes({_HARMFUL_PASS})
    half = ct.transform.FP16ComputePrecision(op_selector=computes_in_half)
    return ct.convert(
        program,
        inputs=[
            ct.ImageType(INPUT, (1, 3, size, size), color_layout=ct.colorlayout.RGB),
        ],
        outputs=[ct.TensorType(name, dtype=np.float32) for name in twin.outputs],
        minimum_deployment_target=ct.target[_TARGET],
        compute_precision=ct.precision.FLOAT32 if job.precision == "fp32" else half,
        pass_pipeline=pipeline,
        skip_model_load=True,
    )


def _adapt(program: torch.export.ExportedProgram) -> None:
    """Write out what coremltools does not know in the form that torch gives it.

    The sigmoid of a logit is nothing, and float16 has no room for the logit of nearly 1; a pooling
    without a stride has that of its window.
    """
    for node in program.graph.nodes:
        if node.target is torch.ops.aten.sigmoid.default:
            (before,) = node.args
            if before.target is torch.ops.aten.logit.default:
                node.target, node.args = torch.ops.aten.clone.default, before.args[:1]
        elif node.target is torch.ops.aten.max_pool2d.default and len(node.args) == 2:
            node.args = (*node.args, node.args[1])
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()


def _matrix_product(x: Tensor, y: Tensor) -> Tensor:
    """Core ML multiplies matrices, not vectors."""
    if y.dim() != 1:
        return NotImplemented
    product = torch.ops.aten.mm.default(x.flatten(0, -2), y.unsqueeze(1))
    return product.reshape(x.shape[:-1])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without coremltools' progress bars and remarks about torch versions and missing runtimes."""
    loggers = [logging.getLogger(name) for name in ("coremltools", "torch")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
