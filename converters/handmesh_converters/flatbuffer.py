"""A .tflite file taken apart: weights in fewer bytes, what it says of itself, bytes again.

The schema comes with ai-edge-litert; the file format is TensorFlow Lite's own, version 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from handmesh import __version__
from handmesh.errors import ExportError

from .rounding import HALVED_FROM

__all__ = [
    "METADATA",
    "ConvolutionOperator",
    "convolutions",
    "describe",
    "halve_weights",
    "operators",
    "pack",
    "round_weights",
    "unpack",
]

IDENTIFIER = b"TFL3"
# What the names of metadata entries begin with: other tools add their own.
METADATA = "handmesh."
# Where runtimes and delegates expect constants to begin. The schema asks for it, and the Python
# builder does not know.
_ALIGNMENT = 16

_Builtin = schema.BuiltinOperator
# Operators with learned weights as their second input -> the axis of the output's channels.
_CHANNELS = {_Builtin.CONV_2D: 0, _Builtin.DEPTHWISE_CONV_2D: 3, _Builtin.FULLY_CONNECTED: 0}


# Operators that slide over a picture, by the quantizer's names.
_CONVOLUTIONS = {_Builtin.CONV_2D: "CONV_2D", _Builtin.DEPTHWISE_CONV_2D: "DEPTHWISE_CONV_2D"}


@dataclass(frozen=True)
class ConvolutionOperator:
    """A convolution with constant weights.

    Attributes:
        kind: "CONV_2D" or "DEPTHWISE_CONV_2D". output: name of its output's tensor.
        weights: bytes, float32. macs: multiply-accumulates.
    """

    kind: str
    output: str
    weights: bytes
    macs: int


class _Builder(flatbuffers.Builder):
    """A builder that aligns the contents of buffers."""

    def StartVector(self, size: int, count: int, alignment: int) -> int:  # noqa: N802
        # Vectors of bytes are strings' or buffers' contents; a string is not built here.
        return int(super().StartVector(size, count, _ALIGNMENT if size == 1 else alignment))


def unpack(data: bytes) -> Any:
    """The model (`schema.ModelT`) of a file's bytes."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    for buffer in model.buffers:
        if buffer.offset > 1:  # contents behind the model, as in files of more than 2 GB
            buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def pack(model: Any) -> bytes:
    """The bytes of a model. The same model gives the same bytes."""
    builder = _Builder(1 << 20)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def operators(model: Any) -> int:
    """The number of operators."""
    return sum(len(graph.operators) for graph in model.subgraphs)


def convolutions(model: Any) -> list[ConvolutionOperator]:
    """Of a float32 model, in order of execution."""
    found = []
    for graph in model.subgraphs:
        for operator in graph.operators:
            kind = _kind(model, operator)
            if kind not in _CONVOLUTIONS:
                continue
            weight, output = graph.tensors[operator.inputs[1]], graph.tensors[operator.outputs[0]]
            data = model.buffers[weight.buffer].data
            if data is None:
                continue
            channels = int(weight.shape[_CHANNELS[kind]])
            macs = int(np.prod(output.shape)) * (int(np.prod(weight.shape)) // channels)
            found.append(
                ConvolutionOperator(_CONVOLUTIONS[kind], output.name.decode(), data.tobytes(), macs)
            )
    return found


def describe(model: Any, metadata: Mapping[str, str]) -> None:
    """Write metadata into a model, under the prefix `METADATA`."""
    model.description = f"handmesh {__version__}".encode()
    model.metadata = model.metadata or []
    for key, value in sorted(metadata.items()):
        entry = schema.MetadataT(name=f"{METADATA}{key}".encode(), buffer=len(model.buffers))
        model.metadata.append(entry)
        model.buffers.append(schema.BufferT(np.frombuffer(value.encode(), np.uint8).copy()))


def halve_weights(model: Any) -> None:
    """Store large learned weights as float16, with a DEQUANTIZE to float32 behind each.

    Runtimes widen them once, when a model is loaded. Laplacians and averages of the mesh stay
    exact: they are not learned, and errors in them would be seen.
    """
    for graph, index, _ in list(_weights(model)):
        tensor = graph.tensors[index]
        wide = _floats(model, tensor)
        with np.errstate(over="ignore"):
            half = wide.astype(np.float16)
        if wide.size >= HALVED_FROM and np.isfinite(half).all():
            _store(model, graph, index, half, schema.TensorType.FLOAT16, None)


def round_weights(model: Any, scales: Mapping[bytes, NDArray[np.float32]]) -> None:
    """Store weights as int8 that are multiples of a scale for each output channel.

    Args:
        scales: by the bytes of the weights, as the file holds them in float32: (O,).

    Raises:
        ExportError: the file does not hold some of these weights.
    """
    left = dict(scales)
    for graph, index, axis in list(_weights(model)):
        tensor = graph.tensors[index]
        scale = left.pop(model.buffers[tensor.buffer].data.tobytes(), None)
        if scale is None:
            continue
        wide = _floats(model, tensor).reshape(tensor.shape)
        steps = np.moveaxis(wide, axis, -1) / scale
        rounded = np.moveaxis(np.rint(steps).astype(np.int8), -1, axis)
        quantization = schema.QuantizationParametersT(
            scale=scale, zeroPoint=np.zeros(len(scale), np.int64), quantizedDimension=axis
        )
        _store(model, graph, index, rounded, schema.TensorType.INT8, quantization)
    if left:
        raise ExportError(f"the converter changed {len(left)} of {len(scales)} rounded weights")


def _weights(model: Any) -> Iterator[tuple[Any, int, int]]:
    """Subgraph, tensor index and channel axis of each constant of learned weights, once."""
    for graph in model.subgraphs:
        seen = set()
        for operator in graph.operators:
            kind = _kind(model, operator)
            if kind not in _CHANNELS:
                continue
            index = int(operator.inputs[1])
            tensor = graph.tensors[index]
            constant = model.buffers[tensor.buffer].data is not None
            if index in seen or not constant or tensor.type != schema.TensorType.FLOAT32:
                continue
            seen.add(index)
            yield graph, index, _CHANNELS[kind]


def _kind(model: Any, operator: Any) -> int:
    """Which builtin operator it is; large numbers are in a field that came later."""
    code = model.operatorCodes[operator.opcodeIndex]
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))


def _floats(model: Any, tensor: Any) -> NDArray[np.float32]:
    data: NDArray[np.uint8] = model.buffers[tensor.buffer].data
    return data.view(np.float32)


def _store(
    model: Any, graph: Any, index: int, values: NDArray[Any], kind: int, quantization: Any
) -> None:
    """Give a constant tensor as narrower values, from which an operator makes the tensor."""
    wide = graph.tensors[index]
    narrow = schema.TensorT(
        shape=wide.shape,
        type=kind,
        buffer=len(model.buffers),
        name=wide.name + b".stored",
        quantization=quantization,
    )
    model.buffers.append(schema.BufferT(np.frombuffer(values.tobytes(), np.uint8).copy()))
    model.buffers[wide.buffer].data = None
    wide.buffer = 0  # by convention the empty one
    graph.tensors.append(narrow)
    widen = schema.OperatorT(
        opcodeIndex=_opcode(model, _Builtin.DEQUANTIZE),
        inputs=[len(graph.tensors) - 1],
        outputs=[index],
        builtinOptionsType=schema.BuiltinOptions.DequantizeOptions,
        builtinOptions=schema.DequantizeOptionsT(),
    )
    graph.operators.insert(0, widen)


def _opcode(model: Any, kind: int) -> int:
    """The index of a builtin operator in the model's table, added where it is not there."""
    for index, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == kind:
            return index
    model.operatorCodes.append(
        # Per-channel int8 came with version 5.
        schema.OperatorCodeT(deprecatedBuiltinCode=kind, builtinCode=kind, version=5)
    )
    return len(model.operatorCodes) - 1
