"""The graph head on a GPU: constants loaded once, latent vectors in, vertices and joints out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import cache
from .bindings import Binding, open_binding
from .constants import JOINTS, HeadConstants
from .errors import ConstantsError
from .packing import pack
from .params import HEAD_PARAMS, SHARED_BYTES, Shape
from .plan import Launch, plan
from .twin import check_inputs

__all__ = ["DeviceArray", "GraphHead"]

_GRID, _INT = 65535, 2**31 - 1  # most blocks in y, and what kernels count elements in
_DEFAULT_STREAM = 1  # of `__cuda_array_interface__`; 2 is that of each thread


@dataclass(frozen=True)
class DeviceArray:
    """A float32 array on the device, for whatever reads `__cuda_array_interface__` (CuPy, torch,
    Numba); work on it belongs on the stream of the run that filled it, or behind it.

    Attributes:
        pointer: its address. shape: of float32 elements, C order. owner: keeps the memory.
        stream: of the run that filled it, as it was given.
    """

    pointer: int
    shape: tuple[int, ...]
    owner: GraphHead
    stream: Any

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        handle = self.owner.binding.handle(self.stream)
        return {
            "shape": self.shape,
            "typestr": "<f4",
            "data": (self.pointer, False),
            "version": 3,
            "stream": handle or _DEFAULT_STREAM,  # the protocol has no 0
        }


class GraphHead:
    """One head on one device, for one run at a time: `run` returns before the device is done, and
    the next run overwrites its results.

    Args:
        constants: of the head.
        max_batch: samples that memory is taken for.
        binding: "pycuda", "cupy", or None, the first that is installed; or an open one.
        device: number of the GPU.
        tensor_cores: use them; None, where head and device have them (half, and sm_70 or newer).
        code: of the kernels, for this head and device; None, see `cache`.

    Attributes:
        stream: made here, for whoever has none: everything is on it unless `run` is told otherwise.
        device_bytes: device memory held.

    Raises:
        NoDevice: there is no GPU, or no way to reach it.
        CompileError: the kernels do not compile.
        ConstantsError: the head cannot be packed, or asks for tensor cores it cannot use.
    """

    def __init__(
        self,
        constants: HeadConstants,
        max_batch: int = 64,
        binding: str | Binding | None = None,
        device: int = 0,
        tensor_cores: bool | None = None,
        code: bytes | None = None,
    ) -> None:
        if binding is None or isinstance(binding, str):
            binding = open_binding(binding, device)
        self.constants, self.max_batch, self.binding = constants, max_batch, binding
        shape = Shape.of(constants)
        self._packed = pack(constants, shape)
        most = min(_GRID, _INT // max(*self._packed.map_sizes, 3 * constants.vertex_count))
        if not 1 <= max_batch <= most:
            raise ConstantsError(f"max_batch must be in 1..{most} for this head, not {max_batch}")
        able = constants.storage == "fp16" and shape.tensor_cores and binding.architecture >= 70
        if tensor_cores and not able:
            raise ConstantsError(
                "tensor cores take a head stored as fp16 whose widths are multiples of 16, with "
                f"tiles that fit {SHARED_BYTES:,} bytes of shared memory, and a device of sm_70 "
                f"or newer; this is {constants.storage}, {shape.widths}, "
                f"sm_{binding.architecture}"
            )
        self.tensor_cores = able if tensor_cores is None else tensor_cores
        if code is None:
            code = cache.kernel_code(binding.architecture, constants.storage, shape)
        self._module = binding.load(code)
        self._functions: dict[str, Any] = {}
        self.stream = self._filled_on = binding.new_stream()
        self._params = np.zeros(1, HEAD_PARAMS)
        self._reserve()

    def _reserve(self) -> None:
        """Memory for constants, which are copied, and all else; addresses go into the struct."""
        c, b = self.constants, self.max_batch
        parts: dict[str, NDArray[Any] | int] = dict(self._packed.arrays)  # or bytes
        for i, size in enumerate(self._packed.map_sizes, start=1):
            parts[f"maps{i}"] = b * size * self._packed.stored.itemsize
        parts["vertices"] = b * c.vertex_count * 3 * 4
        parts["joints"] = b * JOINTS * 3 * 4
        parts["own_latent"] = b * c.features * 4
        parts["own_uv"] = b * JOINTS * 2 * 4
        sizes = {name: p if isinstance(p, int) else p.nbytes for name, p in parts.items()}
        self.device_bytes = sum(sizes.values())
        self._buffers = {name: self.binding.allocate(size) for name, size in sizes.items()}
        self._pointers = {name: buffer.pointer for name, buffer in self._buffers.items()}
        for name, part in parts.items():
            if not isinstance(part, int):
                self.binding.copy_in(self._pointers[name], part, self.stream)
        self.binding.synchronize(self.stream)
        for name, value in {**self._pointers, **self._packed.numbers}.items():
            outer, _, inner = name.partition(".")
            if inner:
                self._params[outer][inner] = value
            elif outer in (HEAD_PARAMS.names or ()):
                self._params[outer] = value

    def run(
        self,
        latent: Any,
        joints_uv: Any = None,
        batch: int | None = None,
        stream: Any = None,
    ) -> tuple[DeviceArray, DeviceArray]:
        """Launch the head. Returns at once; the results are there when the stream has come so far.

        Args:
            latent: (B, F) float32: an address on the device, anything with
                `__cuda_array_interface__`, or a NumPy array, which is copied and waited for.
                Where the interface names another stream, that is waited for; what is given by its
                address has to be there when `stream` comes to it.
            joints_uv: (B, 21, 2) float32, the same; only where the head has anchors.
            batch: B, where addresses are given.
            stream: a stream of the binding, or with CuPy the handle of any; None, `self.stream`.

        Returns:
            Vertices (B, V, 3) and joints (B, 21, 3), (u, v, d), until the next run.

        Raises:
            ConstantsError: inputs of another shape or type, or more than `max_batch` of them.
            KernelError: the binding cannot use that stream.
        """
        stream = self.stream if stream is None else stream
        count = self._batch(latent, joints_uv, batch)
        self._params["batch"] = count
        self._params["latent"] = self._address("own_latent", latent, stream)
        anchored = joints_uv is not None
        self._params["joints_uv"] = self._address("own_uv", joints_uv, stream) if anchored else 0
        if not (_on_device(latent) and _on_device(joints_uv)):
            self.binding.synchronize(stream)  # from here on the arrays are the caller's again
        for launch in self.launches(count):
            self.binding.launch(self._function(launch.kernel), launch, self._params, stream)
        self._filled_on = stream
        vertices = (count, self.constants.vertex_count, 3)
        return (
            DeviceArray(self._pointers["vertices"], vertices, self, stream),
            DeviceArray(self._pointers["joints"], (count, JOINTS, 3), self, stream),
        )

    def capture(
        self, latent: int, joints_uv: int | None, batch: int
    ) -> Callable[[Any], tuple[DeviceArray, DeviceArray]]:
        """Record a run as a CUDA graph: addresses and batch are those of every replay.

        Returns:
            Takes a stream (None, `self.stream`), replays on it, and returns what `run` returns.

        Raises:
            ConstantsError: as `run`.
            KernelError: the binding cannot record.
        """
        vertices, joints = self.run(latent, joints_uv, batch)  # loads all before recording
        self.binding.synchronize(self.stream)

        def work() -> None:
            self.run(latent, joints_uv, batch)

        replay = self.binding.capture(self.stream, work)

        def launch(stream: Any = None) -> tuple[DeviceArray, DeviceArray]:
            stream = self.stream if stream is None else stream
            replay(stream)
            self._filled_on = stream
            return replace(vertices, stream=stream), replace(joints, stream=stream)

        return launch

    def fetch(self, array: DeviceArray, stream: Any = None) -> NDArray[np.float32]:
        """A copy of a result on the host; waits for it.

        Args:
            stream: that the copy is made on; None, that of the run that filled the array.
        """
        host = np.empty(array.shape, np.float32)
        self.binding.copy_out(array.pointer, host, array.stream if stream is None else stream)
        return host

    def fetch_maps(self, batch: int) -> list[NDArray[Any]]:
        """What the last run left between its kernels: maps1 to maps4, each (B, rows, C)."""
        inputs = [self._packed.numbers[f"conv{i}.inputs"] for i in range(1, 5)]
        found = []
        for i, (size, rows) in enumerate(zip(self._packed.map_sizes, inputs, strict=True), start=1):
            host = np.empty((batch, rows, size // rows), self._packed.stored)
            self.binding.copy_out(self._pointers[f"maps{i}"], host, self._filled_on)
            found.append(host)
        return found

    def launches(self, batch: int) -> list[Launch]:
        """What a run of that many samples launches."""
        return plan(self._packed, batch, self.tensor_cores)

    def _function(self, name: str) -> Any:
        if name not in self._functions:
            self._functions[name] = self.binding.function(self._module, name)
        return self._functions[name]

    def _batch(self, latent: Any, joints_uv: Any, batch: int | None) -> int:
        shape = _shape(latent)
        if shape is None and batch is None:
            raise ConstantsError("with an address of the latent vectors, say how many: batch=")
        shape = (int(batch or 0), self.constants.features) if shape is None else shape
        anchors = joints_uv
        if joints_uv is not None:
            uv_shape = _shape(joints_uv) or (shape[0], JOINTS, 2)
            anchors = np.broadcast_to(np.float32(0), uv_shape)
        count = check_inputs(self.constants, shape, anchors)
        if batch is not None and count != batch:
            raise ConstantsError(f"batch is {batch}, and latent has {count} rows")
        if count > self.max_batch:
            raise ConstantsError(f"at most {self.max_batch} samples (max_batch), not {count}")
        return count

    def _address(self, own: str, given: Any, stream: Any) -> int:
        if isinstance(given, int):
            return given
        interface = getattr(given, "__cuda_array_interface__", None)
        if interface is not None:
            if interface["typestr"] != "<f4" or interface.get("strides") is not None:
                raise ConstantsError("inputs on the device must be float32 in C order")
            producer = interface.get("stream")
            if producer is not None and producer != self.binding.handle(stream):
                self.binding.wait(int(producer))
            return int(interface["data"][0])
        array = np.ascontiguousarray(given, np.float32)
        self.binding.copy_in(self._pointers[own], array, stream)
        return self._pointers[own]


def _on_device(given: Any) -> bool:
    """Whether there is nothing to copy."""
    return given is None or isinstance(given, int) or hasattr(given, "__cuda_array_interface__")


def _shape(given: Any) -> tuple[int, ...] | None:
    """Of an array on the host or the device; None of an address."""
    if isinstance(given, int):
        return None
    interface = getattr(given, "__cuda_array_interface__", None)
    shape = interface["shape"] if interface is not None else np.shape(given)
    return tuple(int(side) for side in shape)
