"""PyCUDA. It cannot wrap a foreign stream nor record graphs: make the stream here, hand it on."""

from __future__ import annotations

import atexit
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import KernelError, NoDevice
from ..plan import Launch

__all__ = ["PyCudaBinding", "open_device"]


# By number of the device.
_contexts: dict[int, Any] = {}


def _primary_context(chosen: Any, number: int) -> Any:
    """Kept until the program ends: without being told, PyCUDA would let go of it as of one that it
    made itself, and warn."""
    if number not in _contexts:
        _contexts[number] = chosen.retain_primary_context()
        atexit.register(_contexts[number].detach)
    return _contexts[number]


class _Owned:
    """One of PyCUDA's objects, let go of in its context: what another thread than the one that made
    the binding lets go of, PyCUDA would leak otherwise."""

    def __init__(self, binding: PyCudaBinding, thing: Any) -> None:
        self._binding, self.thing = binding, thing

    def __del__(self) -> None:
        if not sys.is_finalizing():
            with self._binding.current():
                del self.thing


class _Memory(_Owned):
    @property
    def pointer(self) -> int:
        return int(self.thing)


class PyCudaBinding:
    """See `Binding`. Works in the device's primary context, as ONNX Runtime and torch do."""

    name = "pycuda"

    def __init__(self, driver: Any, device: int) -> None:
        import pycuda

        self._driver = driver
        chosen = driver.Device(device)
        self._context = _primary_context(chosen, device)
        major, minor = chosen.compute_capability()
        self.architecture = 10 * major + minor
        self.description = f"{chosen.name()}, sm_{self.architecture}, PyCUDA {pycuda.VERSION_TEXT}"

    @contextmanager
    def current(self) -> Iterator[Any]:
        """Within it the device's context is this thread's: any thread may come."""
        self._context.push()
        try:
            yield self._context
        finally:
            self._context.pop()

    def load(self, code: bytes) -> Any:
        with self.current():
            return _Owned(self, self._driver.module_from_buffer(code))

    def function(self, module: Any, name: str) -> Any:
        with self.current():
            return _Owned(self, module.thing.get_function(name))

    def allocate(self, size: int) -> _Memory:
        with self.current():
            return _Memory(self, self._driver.mem_alloc(size))

    def new_stream(self) -> Any:
        with self.current():
            # 1 is CU_STREAM_NON_BLOCKING, which PyCUDA has no name for.
            return _Owned(self, self._driver.Stream(1))

    def handle(self, stream: Any) -> int:
        return int(self._own(stream).handle)

    def copy_in(self, pointer: int, array: NDArray[Any], stream: Any) -> None:
        with self.current():
            self._driver.memcpy_htod_async(pointer, _bytes(array), self._own(stream))

    def copy_out(self, pointer: int, array: NDArray[Any], stream: Any) -> None:
        with self.current():
            self._driver.memcpy_dtoh_async(_bytes(array), pointer, self._own(stream))
            self._own(stream).synchronize()

    def launch(self, function: Any, launch: Launch, params: NDArray[np.void], stream: Any) -> None:
        with self.current():
            # As bytes: a NumPy struct would be hashed by some versions, which may fail.
            prepared = function.thing.prepare([f"{params.nbytes}s"])
            prepared.prepared_async_call(
                launch.grid, (launch.threads, 1, 1), self._own(stream), params.tobytes()
            )

    def synchronize(self, stream: Any) -> None:
        with self.current():
            self._own(stream).synchronize()

    def wait(self, handle: int) -> None:
        with self.current() as context:  # it has no name for the stream, so all of them
            context.synchronize()

    def capture(self, stream: Any, work: Callable[[], None]) -> Callable[[Any], None]:
        raise KernelError("PyCUDA cannot record CUDA graphs: install CuPy for them")

    def _own(self, stream: Any) -> Any:
        own = stream.thing if isinstance(stream, _Owned) else stream
        if isinstance(own, self._driver.Stream):
            return own
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
