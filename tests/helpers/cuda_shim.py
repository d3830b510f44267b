"""The kernels' sources compiled for the CPU, behind the protocol that the launcher has for GPUs.

`cuda_fibers.h` runs a block's threads as fibers, so that barriers, shuffles and shared memory are
those of CUDA; device memory is the host's, filled with NaN.
"""

from __future__ import annotations

import ctypes
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from handmesh_kernels import sources
from handmesh_kernels.errors import KernelError
from handmesh_kernels.params import Shape
from handmesh_kernels.plan import Launch

SHIM = Path(__file__).parents[1] / "handmesh_kernels" / "shim"
# As much of optimisation and of names as their reports need.
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-O1", "-g1")
FORWARDS, BACKWARDS = 0, 1
_LIBC = ctypes.CDLL(None)


def compiled(folder: Path, storage: str, shape: Shape | None = None, *flags: str) -> Path:
    """A library of all kernels, for one way of storing numbers."""
    target = folder / f"kernels_{storage}.so"
    native = ("-mf16c",) if platform.machine() == "x86_64" else ()
    command = [
        *("g++", "-std=c++14", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror"),
        # Fortified, a jump from one fiber's stack to another's would be taken for an attack.
        *("-Wno-unknown-pragmas", "-U_FORTIFY_SOURCE", *native, *flags),
        *(Shape() if shape is None else shape).defines("fp16" if storage == "fp16" else "fp32"),
        *(f"-I{sources.FOLDER}", f"-I{SHIM}", str(SHIM / "kernels.cpp"), "-o", str(target)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


class Memory:
    """ "Device" memory of exactly so many bytes, so that AddressSanitizer sees the first one behind
    it; NaN as float and as half."""

    def __init__(self, size: int) -> None:
        address = ctypes.c_void_p()
        status = _LIBC.posix_memalign(ctypes.byref(address), 256, ctypes.c_size_t(size))
        assert status == 0
        self.pointer = int(address.value or 0)
        ctypes.memset(self.pointer, 0xFF, size)

    def __del__(self) -> None:
        _LIBC.free(ctypes.c_void_p(self.pointer))


class ShimBinding:
    """See `handmesh_kernels.bindings.Binding`. Streams are numbers.

    Attributes:
        order: of threads and blocks. launched: what ran, and on which stream. waited: for which
            stream, and how many launches there had been. copied_out: on which streams.
    """

    name = "shim"
    description = "the kernels on the CPU"

    def __init__(self, library: Path, architecture: int = 90) -> None:
        self.architecture = architecture
        self.order = FORWARDS
        self.launched: list[tuple[Launch, Any]] = []
        self.waited: list[tuple[Any, int]] = []
        self.copied_out: list[Any] = []
        self.library = ctypes.CDLL(str(library))
        self.library.hm_shim_launch.restype = ctypes.c_char_p
        self._streams = 0

    def skip(self, file: str = "", line: int = 0) -> None:
        """Leave out the barrier in that line; none by default."""
        self.library.hm_shim_skip(file.encode(), line)

    def load(self, code: bytes) -> None:
        return None

    def function(self, module: None, name: str) -> Any:
        return getattr(self.library, name.replace("hm_", "hm_run_", 1))

    def allocate(self, size: int) -> Memory:
        return Memory(size)

    def new_stream(self) -> int:
        self._streams += 1
        return 1000 + self._streams

    def handle(self, stream: int) -> int:
        return stream

    def copy_in(self, pointer: int, array: Any, stream: Any) -> None:
        ctypes.memmove(pointer, array.ctypes.data, array.nbytes)

    def copy_out(self, pointer: int, array: Any, stream: Any) -> None:
        self.copied_out.append(stream)
        ctypes.memmove(array.ctypes.data, pointer, array.nbytes)

    def launch(self, function: Any, launch: Launch, params: Any, stream: Any) -> None:
        self.launched.append((launch, stream))
        self.library.hm_shim_order(self.order)
        failure = self.library.hm_shim_launch(
            function, ctypes.c_void_p(params.ctypes.data), *launch.grid, launch.threads
        )
        if failure is not None:
            raise KernelError(failure.decode())

    def synchronize(self, stream: Any) -> None:
        self.waited.append((stream, len(self.launched)))

    def wait(self, handle: int) -> None:
        self.waited.append((handle, len(self.launched)))

    def capture(self, stream: Any, work: Callable[[], None]) -> Callable[[Any], None]:
        """A graph replays what was launched: the same structs, whatever changed since."""
        recorded: list[tuple[Any, Launch, Any]] = []
        original = self.launch

        def record(function: Any, launch: Launch, params: Any, stream: Any) -> None:
            recorded.append((function, launch, params.copy()))

        self.launch = record  # type: ignore[method-assign]
        try:
            work()
        finally:
            self.launch = original  # type: ignore[method-assign]

        def replay(on: Any) -> None:
            for function, launch, params in recorded:
                self.launch(function, launch, params, on)

        return replay


def error(found: Any, expected: Any) -> float:
    """Largest difference over the largest value: relative to the array, not to its zeros."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())
