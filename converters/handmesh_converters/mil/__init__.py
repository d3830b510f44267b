"""Core ML's programs outside Apple's systems: a saved `.mlpackage` read and run in torch.

It proves what was written: the graph, its attributes, every weight in the blob file, and where
values are float16. It is not Apple's runtime: kernels there may add up in another order, fuse
operations or keep more bits between them.

    blobs.py     the weight file
    program.py   the package as a list of operations with decoded constants
    ops/         what each operation computes
    executor.py  all of them, one after the other
"""

from __future__ import annotations

from .executor import Executor
from .program import Operation, Program, TensorType, read_package

__all__ = ["Executor", "Operation", "Program", "TensorType", "read_package"]
