"""CuPy: wheels for x86 and ARM, foreign streams, CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import KernelError, NoDevice
from ..plan import Launch

__all__ = ["CupyBinding", "open_device"]


class _Memory:
    def __init__(self, memory: Any) -> None:
        self._memory = memory
        self.pointer = int(memory.ptr)


class CupyBinding:
    """See `Binding`."""

    name = "cupy"

    def __init__(self, cupy: Any, device: int) -> None:
        self._cupy = cupy
        self._device = cupy.cuda.Device(device)
        self.architecture = int(self._device.compute_capability)
        named = cupy.cuda.runtime.getDeviceProperties(device)["name"].decode()
        self.description = f"{named}, sm_{self.architecture}, CuPy {cupy.__version__}"

    def load(self, code: bytes) -> Any:
        with self._device:
            module = self._cupy.cuda.function.Module()
            module.load(code)
            return module

    def function(self, module: Any, name: str) -> Any:
        with self._device:
            return module.get_function(name)

    def allocate(self, size: int) -> _Memory:
        with self._device:
            # Not of CuPy's pool: that hands on at once what was freed on the stream that is current
            # here, which is not ours, while kernels there may still use it.
            return _Memory(self._cupy.cuda.Memory(size))

    def new_stream(self) -> Any:
        with self._device:
            return self._cupy.cuda.Stream(non_blocking=True)

    def handle(self, stream: Any) -> int:
        return int(self._wrapped(stream).ptr)

    def copy_in(self, pointer: int, array: NDArray[Any], stream: Any) -> None:
        runtime = self._cupy.cuda.runtime
        with self._device:
            runtime.memcpyAsync(
                pointer, array.ctypes.data, array.nbytes, runtime.memcpyHostToDevice,
                self.handle(stream),
            )  # fmt: skip

    def copy_out(self, pointer: int, array: NDArray[Any], stream: Any) -> None:
        runtime = self._cupy.cuda.runtime
        with self._device:
            runtime.memcpyAsync(
                array.ctypes.data, pointer, array.nbytes, runtime.memcpyDeviceToHost,
                self.handle(stream),
            )  # fmt: skip
            self._wrapped(stream).synchronize()

    def launch(self, function: Any, launch: Launch, params: NDArray[np.void], stream: Any) -> None:
        with self._device:
            function(launch.grid, (launch.threads,), (params,), 0, self._wrapped(stream))

    def synchronize(self, stream: Any) -> None:
        with self._device:
            self._wrapped(stream).synchronize()

    def wait(self, handle: int) -> None:
        with self._device:
            self._cupy.cuda.runtime.streamSynchronize(handle)

    def capture(self, stream: Any, work: Callable[[], None]) -> Callable[[Any], None]:
        wrapped = self._wrapped(stream)
        with self._device, wrapped:
            wrapped.begin_capture()
            try:
                work()
            finally:
                graph = wrapped.end_capture()

        def launch(on: Any) -> None:
            with self._device:
                graph.launch(self._wrapped(on))

        return launch

    def _wrapped(self, stream: Any) -> Any:
        if isinstance(stream, int):
            return self._cupy.cuda.ExternalStream(stream)
        if hasattr(stream, "ptr"):
            return stream
        raise KernelError(
            f"a stream is one of CuPy's, or a cudaStream_t as an int; not {type(stream).__name__}"
        )


def open_device(device: int) -> CupyBinding:
    """A device by number.

    Raises:
        NoDevice: no driver, or no such GPU.
    """
    try:
        import cupy

        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as cause:  # CuPy's own errors exist only once it has been imported
        raise NoDevice(f"CuPy finds no GPU: {cause}") from cause
    if not 0 <= device < count:
        raise NoDevice(f"CuPy finds {count} GPUs, and no number {device}")
    return CupyBinding(cupy, device)
