"""PyCUDA. It cannot wrap a foreign stream nor record graphs: make the stream here, hand it on."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import KernelError, NoDevice
from ..plan import Launch

__all__ = ["PyCudaBinding", "open_device"]


class _Memory:
    def __init__(self, allocation: Any) -> None:
        self._allocation = allocation
        self.pointer = int(allocation)


class PyCudaBinding:
    """See `Binding`. Works in the device's primary context, as ONNX Runtime and torch do."""

    name = "pycuda"

    def __init__(self, driver: Any, device: int) -> None:
        import pycuda

        self._driver = driver
        chosen = driver.Device(device)
        self._context = chosen.retain_primary_context()
        major, minor = chosen.compute_capability()
        self.architecture = 10 * major + minor
        self.description = f"{chosen.name()}, sm_{self.architecture}, PyCUDA {pycuda.VERSION_TEXT}"

    @contextmanager
    def _current(self) -> Iterator[None]:
        """The context is a thread's: any thread may come."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def load(self, code: bytes) -> Any:
        with self._current():
            return self._driver.module_from_buffer(code)

    def function(self, module: Any, name: str) -> Any:
        with self._current():
            return module.get_function(name)

    def allocate(self, size: int) -> _Memory:
        with self._current():
            return _Memory(self._driver.mem_alloc(size))

    def new_stream(self) -> Any:
        with self._current():
            # 1 is CU_STREAM_NON_BLOCKING, which PyCUDA has no name for.
            return self._driver.Stream(1)

    def handle(self, stream: Any) -> int:
        return int(stream.handle)

    def copy_in(self, pointer: int, array: NDArray[Any], stream: Any) -> None:
        with self._current():
            self._driver.memcpy_htod_async(pointer, _bytes(array), self._own(stream))
            # Memory that is not pinned was copied away when the call returned.

    def copy_out(self, pointer: int, array: NDArray[Any], stream: Any) -> None:
        with self._current():
            self._driver.memcpy_dtoh_async(_bytes(array), pointer, self._own(stream))
            stream.synchronize()

    def launch(self, function: Any, launch: Launch, params: NDArray[np.void], stream: Any) -> None:
        with self._current():
            # As bytes: a NumPy struct would be hashed by some versions, which may fail.
            prepared = function.prepare([f"{params.nbytes}s"])
            prepared.prepared_async_call(
                launch.grid, (launch.threads, 1, 1), self._own(stream), params.tobytes()
            )

    def synchronize(self, stream: Any) -> None:
        with self._current():
            self._own(stream).synchronize()

    def capture(self, stream: Any, work: Callable[[], None]) -> Callable[[Any], None]:
        raise KernelError("PyCUDA cannot record CUDA graphs: install CuPy for them")

    def _own(self, stream: Any) -> Any:
        if isinstance(stream, self._driver.Stream):
            return stream
        raise KernelError(
            "PyCUDA launches on streams of its own only: make one with new_stream() and hand its "
            f"handle on, or install CuPy. Got {type(stream).__name__}"
        )


def _bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """The same memory: not every structured type passes as a plain buffer."""
    return array.reshape(-1).view(np.uint8)


def open_device(device: int) -> PyCudaBinding:
    """A device by number.

    Raises:
        NoDevice: no driver, or no such GPU.
    """
    try:
        driver = importlib.import_module("pycuda.driver")
    except ImportError as cause:  # it is linked against the driver's library
        raise NoDevice(
            f"PyCUDA does not import, so there is no NVIDIA driver here, or not the one it was "
            f"built for: {cause}"
        ) from cause
    try:
        driver.init()
        return PyCudaBinding(driver, device)
    except driver.Error as cause:
        raise NoDevice(f"PyCUDA finds no GPU {device}: {cause}") from cause
