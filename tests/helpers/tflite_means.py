"""A small .tflite file: each output is the mean of the crop, in 0..1, in the contract's shape."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_OP, _TYPE, _OPTIONS = schema.BuiltinOperator, schema.TensorType, schema.BuiltinOptions


def tflite_means(size: int, vertex_count: int, points: int = 21) -> bytes:
    """The file's bytes, for crops (1, size, size, 3) uint8 named `image`."""
    shapes = {
        "vertices": [1, vertex_count, 3],
        "joints": [1, points, 3],
        "confidence": [1, points],
        "presence": [1],
        "handedness": [1],
    }
    graph = _Graph()
    image = graph.tensor("image", [1, size, size, 3], _TYPE.UINT8)
    floats = graph.tensor("floats", [1, size, size, 3])
    mean, share = graph.tensor("mean", [1]), graph.tensor("share", [1])
    axes = graph.constant("axes", np.array([1, 2, 3], np.int32), _TYPE.INT32)
    scale = graph.constant("scale", np.array([1 / 255], np.float32))
    graph.add(_OP.CAST, [image], floats, _OPTIONS.CastOptions, schema.CastOptionsT())
    graph.add(_OP.MEAN, [floats, axes], mean, _OPTIONS.ReducerOptions, schema.ReducerOptionsT())
    graph.add(_OP.MUL, [mean, scale], share, _OPTIONS.MulOptions, schema.MulOptionsT())
    outputs = {}
    for name, shape in shapes.items():
        zeros = graph.constant(f"{name} zeros", np.zeros(shape, np.float32))
        outputs[name] = graph.tensor(name, shape)
        graph.add(_OP.ADD, [share, zeros], outputs[name], _OPTIONS.AddOptions, schema.AddOptionsT())
    return graph.pack({"image": image}, outputs)


class _Graph:
    """A subgraph in the making."""

    def __init__(self) -> None:
        self.buffers = [schema.BufferT()]
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: list[Any] = []

    def tensor(
        self, name: str, shape: list[int], kind: int = _TYPE.FLOAT32, buffer: int = 0
    ) -> int:
        self.tensors.append(schema.TensorT(shape=shape, type=kind, buffer=buffer, name=name))
        return len(self.tensors) - 1

    def constant(self, name: str, value: np.ndarray, kind: int = _TYPE.FLOAT32) -> int:
        self.buffers.append(schema.BufferT(np.frombuffer(value.tobytes(), np.uint8)))
        return self.tensor(name, list(value.shape), kind, len(self.buffers) - 1)

    def add(self, code: int, inputs: list[int], output: int, kind: int, options: Any) -> None:
        self.codes.append(schema.OperatorCodeT(deprecatedBuiltinCode=code, builtinCode=code))
        self.operators.append(
            schema.OperatorT(
                opcodeIndex=len(self.codes) - 1,
                inputs=inputs,
                outputs=[output],
                builtinOptionsType=kind,
                builtinOptions=options,
            )
        )

    def pack(self, inputs: dict[str, int], outputs: dict[str, int]) -> bytes:
        def named(tensors: dict[str, int]) -> list[Any]:
            return [schema.TensorMapT(name=name, tensorIndex=i) for name, i in tensors.items()]

        graph = schema.SubGraphT(
            tensors=self.tensors,
            inputs=list(inputs.values()),
            outputs=list(outputs.values()),
            operators=self.operators,
        )
        model = schema.ModelT(
            version=3,
            operatorCodes=self.codes,
            subgraphs=[graph],
            buffers=self.buffers,
            signatureDefs=[
                schema.SignatureDefT(
                    inputs=named(inputs), outputs=named(outputs), signatureKey="serving_default"
                )
            ],
        )
        builder = flatbuffers.Builder()
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())
