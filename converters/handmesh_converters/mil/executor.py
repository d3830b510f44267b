"""Running a program, one operation after the other."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from handmesh.errors import ExportError

from .ops import OPERATIONS
from .program import Operation, Program, TensorType, Value

__all__ = ["Executor"]


class Executor:
    """A program, ready to run: its constants are decoded and expanded once.

    Each operation computes in float32. Where the program says that its result is float16, it is
    rounded to that, so that an fp16 program loses what it would lose between two kernels.

    Args:
        program: as `read_package` gives it.
        rounding: whether results are rounded as the program says; without, only its weights are.

    Raises:
        ExportError: an operation is not known, and which.
    """

    def __init__(self, program: Program, rounding: bool = True) -> None:
        unknown = sorted({o.kind for o in program.operations} - OPERATIONS.keys() - {"const"})
        if unknown:
            raise ExportError(
                "the executor does not know these operations: "
                f"{', '.join(unknown)}; "
                "add them to handmesh_converters.mil.ops, with a test"
            )
        self.program = program
        self._rounding = rounding
        self._constants: dict[str, Value] = {}
        self._operations: list[Operation] = []
        for operation in program.operations:
            if operation.kind == "const":
                (name,) = operation.outputs
                self._constants[name] = operation.constants["val"]
            elif operation.kind.startswith("constexpr_"):
                self._constants |= self._compute(operation, self._constants)
            else:
                self._operations.append(operation)

    @torch.inference_mode()
    def run(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Outputs by name, for inputs by name in the program's shapes.

        Raises:
            ExportError: an input is missing or of another shape, or an operation does not give what
                the program says that it gives.
        """
        values: dict[str, Value] = dict(self._constants)
        for name, expected in self.program.inputs.items():
            found = tuple(inputs[name].shape) if name in inputs else None
            if found != expected.shape:
                raise ExportError(f"input {name!r} must have shape {expected.shape}, not {found}")
            values[name] = self._rounded(inputs[name].float(), expected)
        for operation in self._operations:
            values |= self._compute(operation, values)
        return {name: _tensor(values[name]) for name in self.program.outputs}

    def _compute(self, operation: Operation, values: Mapping[str, Value]) -> dict[str, Value]:
        arguments: dict[str, Value] = dict(operation.constants)
        for parameter, names in operation.arguments.items():
            if parameter in operation.tuples:
                arguments[parameter] = [_tensor(values[name]) for name in names]
            else:
                (name,) = names
                arguments[parameter] = values[name]
        what = f"operation {operation.kind} ({', '.join(operation.outputs)})"
        try:
            found = OPERATIONS[operation.kind](**arguments)
        except Exception as cause:  # of torch, whatever does not fit, and unknown parameters
            raise ExportError(f"{what} failed: {type(cause).__name__}: {cause}") from cause
        results = found if isinstance(found, tuple) else (found,)
        if len(results) != len(operation.outputs):
            raise ExportError(
                f"{what} gives {len(results)} values, and the program says {len(operation.outputs)}"
            )
        named: dict[str, Value] = {}
        for result, (name, expected) in zip(results, operation.outputs.items(), strict=True):
            if tuple(result.shape) != expected.shape:
                raise ExportError(
                    f"{what} gives shape {tuple(result.shape)}, and the program says "
                    f"{expected.shape}"
                )
            named[name] = self._rounded(result, expected)
        return named

    def _rounded(self, value: Tensor, expected: TensorType) -> Tensor:
        if self._rounding and expected.dtype == "FLOAT16":
            return value.half().float()
        return value


def _tensor(value: Value) -> Tensor:
    if not isinstance(value, Tensor):
        raise ExportError(f"expected a tensor, found {type(value).__name__}")
    return value
