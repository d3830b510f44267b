"""ONNX through torch's exporter: one file, its batch size open, simplified, checked, described."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence, Set
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from handmesh import __version__, backends
from handmesh.backends import NamedBackend
from handmesh.bundle import Bundle
from handmesh.errors import ExportError

from ..fold import INPUT, Twin
from ..opset import to_17
from ..request import Abilities, Job
from ..rounding import HALVED_FROM

REQUIRES = ("onnx", "onnxscript", "onnxsim", "onnxruntime")
EXTRA = "converters"
FILE = "model.onnx"
ABLE = Abilities(("sparse", "polynomials", "dense"), ("fp16", "fp32"))

# What the exporter writes itself, without converting between versions; and the version of the
# file's format that came with it, though the exporter writes a newer one. ONNX Runtime reads both
# since 1.14.
OPSET, IR_VERSION = 18, 8


def export(twin: Twin, path: Path, job: Job) -> dict[str, Any]:
    """See `handmesh_converters.formats.Format`. The same weights give the same bytes.

    With precision "fp16" large weights are stored in half the bytes, each with a Cast to
    float32 behind it. ONNX Runtime folds these when a session is made, so that it computes, holds
    and takes the time of float32.
    """
    model = convert(twin, twin.image_size, twin.outputs, job)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return {
        "opset": OPSET,
        "precision": "fp32",
        "weights": job.precision,
        "nodes": len(model.graph.node),
        "tools": {package: version(package) for package in ("torch", *REQUIRES)},
    }


def convert(
    module: nn.Module, image_size: int, outputs: Sequence[str], job: Job, opset: int = OPSET
) -> Any:
    """A module as an ONNX model, simplified, checked and described.

    Args:
        module: takes crops (N, S, S, 3) uint8. image_size: S.
        outputs: names of what it gives, a tuple of tensors.
        job: its precision is that in which large weights are stored, its metadata is written.
        opset: `OPSET`, or 17 for readers that know no newer one.

    Raises:
        ExportError: it does not convert.
    """
    import onnx

    try:
        model = _exported(module, image_size, outputs)
        if opset != OPSET:
            to_17(model)
        if job.precision == "fp16":
            _halve(model, {name for name, _ in module.named_parameters()})
        _describe(model, job.metadata)
        onnx.checker.check_model(model, full_check=True)
    except ExportError:
        raise
    except Exception as cause:  # torch, onnxsim and onnx share no base class of errors
        raise ExportError(
            f"the network does not convert to ONNX opset {opset} "
            f"({type(cause).__name__}: {cause}); install the versions of constraints.txt"
        ) from cause
    return model


def _exported(module: nn.Module, image_size: int, outputs: Sequence[str]) -> Any:
    """The module as torch's exporter gives it, simplified."""
    import onnxsim

    # Two crops, or the exporter would take the batch size for a constant.
    example = torch.zeros(2, image_size, image_size, 3, dtype=torch.uint8)
    with quiet():
        program = torch.onnx.export(
            module,
            (example,),
            input_names=[INPUT],
            output_names=list(outputs),
            opset_version=OPSET,
            dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise ExportError("torch's exporter returned nothing; install the pinned torch")
    model, _ = onnxsim.simplify(program.model_proto)
    return model


def open(bundle: Bundle) -> NamedBackend:
    """See `handmesh_converters.formats.Format`."""
    return backends.create("onnx", bundle, threads=1)


def _halve(model: Any, learned: Set[str]) -> None:
    """Store large learned weights as float16, with a Cast back to float32 under the old name.

    The constants of the mesh stay exact: errors of a Laplacian or of an average would be seen.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for constant in model.graph.initializer:
        if constant.name not in learned or constant.data_type != TensorProto.FLOAT:
            continue
        wide = numpy_helper.to_array(constant)
        with np.errstate(over="ignore"):
            half = wide.astype(np.float16)
        if wide.size < HALVED_FROM or not np.isfinite(half).all():
            continue
        name = constant.name
        constant.CopyFrom(numpy_helper.from_array(half, f"{name}.fp16"))
        casts.append(helper.make_node("Cast", [f"{name}.fp16"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _describe(model: Any, metadata: Mapping[str, str]) -> None:
    """Replace what the exporter says of itself, stack traces with local paths included."""
    graph = model.graph
    described = [*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for item in (model, graph, *described):
        item.doc_string = ""
        del item.metadata_props[:]
    graph.name = "handmesh"
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "handmesh", __version__
    for key, value in sorted(metadata.items()):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's warnings about packages of others and its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
