"""A saved Core ML package as operations with decoded constants, through coremltools' protos."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handmesh.errors import ExportError

from .blobs import BlobFile

__all__ = ["Constant", "Operation", "Program", "TensorType", "Value", "read_package"]

# What an operation is given: numbers as float32 or int64 tensors, text, or several of them.
Constant = Tensor | str
Value = Constant | list[Tensor]

_BLOB_PREFIX = "@model_path/"
# Names of the proto's DataType that programs use -> NumPy's.
_DTYPES: dict[str, np.dtype[Any]] = {
    "FLOAT16": np.dtype("float16"),
    "FLOAT32": np.dtype("float32"),
    "INT8": np.dtype("int8"),
    "INT16": np.dtype("int16"),
    "INT32": np.dtype("int32"),
    "UINT8": np.dtype("uint8"),
    "UINT16": np.dtype("uint16"),
    "UINT32": np.dtype("uint32"),
    "BOOL": np.dtype("bool"),
}
# Those whose immediate values are kept as raw bytes.
_IN_BYTES = {"FLOAT16", "INT8", "INT16", "UINT8", "UINT16", "UINT32"}


@dataclass(frozen=True)
class TensorType:
    """Type of a tensor in a program: the proto's name, as "FLOAT16", and its shape."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Operation:
    """One line of a program.

    Attributes:
        kind: as "conv".
        arguments: parameter -> names of the values that it takes; several where it takes a tuple.
        constants: parameter -> its value, where the line itself holds it.
        tuples: parameters that take a tuple, of however many values.
        outputs: name -> type.
    """

    kind: str
    arguments: Mapping[str, Sequence[str]]
    constants: Mapping[str, Value]
    tuples: frozenset[str]
    outputs: Mapping[str, TensorType]


@dataclass(frozen=True, eq=False)
class Program:
    """The main function of an ML program.

    Attributes:
        inputs: name -> type.
        operations: in an order in which they can run.
        outputs: names.
        spec: the whole model's proto, for what it says of itself.
    """

    inputs: Mapping[str, TensorType]
    operations: Sequence[Operation]
    outputs: Sequence[str]
    spec: Any


# Parameters that take tuples, by operation: one value looks the same in the proto.
_TUPLES = {"concat": frozenset({"values"}), "stack": frozenset({"values"})}


def read_package(folder: Path) -> Program:
    """Read a saved package.

    Raises:
        ExportError: it is not one, is no ML program, or holds something that this cannot read.
    """
    from coremltools.proto import Model_pb2

    path = _model_path(folder)
    spec = Model_pb2.Model()
    try:
        spec.ParseFromString(path.read_bytes())
    except Exception as cause:  # protobuf's DecodeError, from whichever of its implementations
        raise ExportError(f"{path} is not a Core ML model ({cause})") from cause
    if spec.WhichOneof("Type") != "mlProgram" or "main" not in spec.mlProgram.functions:
        raise ExportError(f"{path} holds no ML program with a function `main`")
    main = spec.mlProgram.functions["main"]
    block = main.block_specializations[main.opset]
    reader = _Reader(path.parent)
    return Program(
        {item.name: _type_of(item.type) for item in main.inputs},
        [reader.operation(item) for item in block.operations],
        list(block.outputs),
        spec,
    )


def _model_path(folder: Path) -> Path:
    try:
        manifest = json.loads((folder / "Manifest.json").read_text(encoding="utf-8"))
        entry = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]
        path = folder / "Data" / entry["path"]
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise ExportError(
            f"{folder} is not a Core ML package ({type(cause).__name__}: {cause})"
        ) from cause
    if not path.is_file():
        raise ExportError(f"{folder} names {path.name}, which is missing")
    return path


class _Reader:
    """Decodes the values of one model, whose weight files lie in or below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, BlobFile] = {}

    def operation(self, item: Any) -> Operation:
        arguments: dict[str, list[str]] = {}
        constants = {
            name: self._value(value) for name, value in item.attributes.items() if name != "name"
        }
        for parameter, bound in item.inputs.items():
            bindings = list(bound.arguments)
            if all(binding.WhichOneof("binding") == "name" for binding in bindings):
                arguments[parameter] = [binding.name for binding in bindings]
            elif len(bindings) == 1:
                constants[parameter] = self._value(bindings[0].value)
            else:
                raise ExportError(f"{item.type}: values and names are mixed in {parameter!r}")
        tuples = _TUPLES.get(item.type, frozenset())
        outputs = {output.name: _type_of(output.type) for output in item.outputs}
        return Operation(item.type, arguments, constants, tuples, outputs)

    def _value(self, value: Any) -> Constant:
        tensor_type = value.type.tensorType
        dtype = _dtype_name(tensor_type)
        where = value.WhichOneof("value")
        if where == "immediateValue" and dtype == "STRING":
            (text,) = value.immediateValue.tensor.strings.values
            return str(text)
        numpy_type = _DTYPES.get(dtype)
        if numpy_type is None:
            raise ExportError(f"constants of type {dtype} are not known here")
        if where == "blobFileValue":
            file = value.blobFileValue
            array = self._file(file.fileName).read(file.offset, numpy_type)
        else:
            array = _immediate(value.immediateValue.tensor, dtype, numpy_type)
        array = array.reshape(_shape(tensor_type))
        return torch.from_numpy(
            array.astype(np.float32 if np.issubdtype(numpy_type, np.floating) else np.int64)
        )

    def _file(self, name: str) -> BlobFile:
        if name not in self._files:
            self._files[name] = BlobFile(self._folder / name.removeprefix(_BLOB_PREFIX))
        return self._files[name]


def _immediate(tensor: Any, dtype: str, numpy_type: np.dtype) -> np.ndarray:
    kind = tensor.WhichOneof("value")
    if dtype in _IN_BYTES:
        return np.frombuffer(tensor.bytes.values, numpy_type.newbyteorder("<"))
    return np.array(getattr(tensor, kind).values if kind else [], numpy_type)


def _type_of(value_type: Any) -> TensorType:
    tensor_type = value_type.tensorType
    return TensorType(_dtype_name(tensor_type), _shape(tensor_type))


def _dtype_name(tensor_type: Any) -> str:
    field = tensor_type.DESCRIPTOR.fields_by_name["dataType"]
    return str(field.enum_type.values_by_number[tensor_type.dataType].name)


def _shape(tensor_type: Any) -> tuple[int, ...]:
    def sizes() -> Iterator[int]:
        for dimension in tensor_type.dimensions:
            if dimension.WhichOneof("dimension") != "constant":
                raise ExportError("shapes that are open are not known here")
            yield int(dimension.constant.size)

    return tuple(sizes())
