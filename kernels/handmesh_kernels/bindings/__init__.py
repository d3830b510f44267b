"""The ways to reach a GPU from Python behind one small protocol. Importing this imports none.

PyCUDA comes first; CuPy is easier to install, and can besides launch on a stream that somebody else
made and record CUDA graphs.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import NoDevice
from ..plan import Launch

__all__ = ["NAMES", "Binding", "Buffer", "open_binding"]

NAMES = ("pycuda", "cupy")


class Buffer(Protocol):
    """Device memory, freed with the object."""

    @property
    def pointer(self) -> int:
        """Its address on the device."""


class Binding(Protocol):
    """One device. Streams are the binding's own objects, made by `new_stream`; where it can wrap a
    foreign one, also their handle (cudaStream_t) as an int."""

    @property
    def name(self) -> str:
        """Module of this package."""

    @property
    def description(self) -> str:
        """As "Orin, sm_87, CuPy 13.4.0"."""

    @property
    def architecture(self) -> int:
        """Compute capability, as 87."""

    def load(self, code: bytes) -> Any:
        """A module from machine code or PTX."""

    def function(self, module: Any, name: str) -> Any:
        """A kernel of it that takes one struct by value."""

    def allocate(self, size: int) -> Buffer:
        """Device memory of so many bytes, not initialised, aligned to 256."""

    def new_stream(self) -> Any:
        """A stream that does not wait for the default one."""

    def handle(self, stream: Any) -> int:
        """Its cudaStream_t, for ONNX Runtime's `user_compute_stream` and the like."""

    def copy_in(self, pointer: int, array: NDArray[Any], stream: Any) -> None:
        """A contiguous array to the device. It must stay as it is until the stream has come so far:
        from pinned memory, and on chips whose CPU shares its memory, the copy may still be under
        way when the call returns."""

    def copy_out(self, pointer: int, array: NDArray[Any], stream: Any) -> None:
        """From the device into a contiguous array, when the stream has come so far; waits."""

    def launch(self, function: Any, launch: Launch, params: NDArray[np.void], stream: Any) -> None:
        """Run a kernel; `params` is an array of one struct."""

    def synchronize(self, stream: Any) -> None:
        """Wait until everything on the stream is done."""

    def wait(self, handle: int) -> None:
        """The same of a stream that anybody made, by its cudaStream_t; 1 is the default stream, 2
        that of this thread."""

    def capture(self, stream: Any, work: Callable[[], None]) -> Callable[[Any], None]:
        """Record what `work` launches on the stream; the result launches it all on any stream.

        Raises:
            KernelError: this binding cannot.
        """


def open_binding(name: str | None = None, device: int = 0) -> Binding:
    """A device, through the binding of that name or the first that is installed.

    Raises:
        NoDevice: no such binding, none installed, no driver or no GPU.
    """
    if name is not None and name not in NAMES:
        raise NoDevice(f"binding must be one of {', '.join(NAMES)}; not {name!r}")
    wanted = NAMES if name is None else (name,)
    for each in wanted:
        if importlib.util.find_spec(each) is None:
            continue
        module = importlib.import_module(f"{__name__}.{each}")
        opened: Binding = module.open_device(device)
        return opened
    raise NoDevice(
        f"the kernels are launched through {' or '.join(wanted)}, which is not installed: "
        "pip install '.[cuda]' in a checkout of handmesh brings CuPy; docs/jetson.md tells how to "
        "build PyCUDA"
    )
