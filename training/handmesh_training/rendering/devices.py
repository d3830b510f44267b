"""Where pictures are drawn and their arrays live: the host's memory, or a GPU's."""

from __future__ import annotations

import ctypes
import math
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from handmesh.errors import BackendError, BackendUnavailable, InputError
from handmesh_training.rendering import native, native_cuda
from handmesh_training.rendering.arrays import checked

# Memory for pictures in the making: more would leave the GPU's second-level cache sooner, less
# would not fill its processors. A picture of 128 px takes about a megabyte.
WORKSPACE_BYTES = 1 << 28

Shape = tuple[int | None, ...]


class Device(Protocol):
    """What the renderer asks of a place; its arrays are NumPy's or torch's."""

    def put(self, array: npt.NDArray[Any]) -> Any:
        """The array there."""

    def checked(
        self, name: str, value: Any, dtype: npt.DTypeLike, shape: Shape, low: float, high: float
    ) -> Any:
        """A contiguous array there, of the dtype and shape, within [low, high]."""

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Any:
        """Room for results."""

    def address(self, array: Any) -> int:
        """Where its first element is."""

    def render(
        self,
        mesh: native.Mesh,
        skins: native.Textures,
        backgrounds: native.Textures,
        batch: native.Batch,
        output: native.Output,
    ) -> None:
        """Draws; what the structs point to is there."""


class HostDevice:
    """The CPU, some threads of it.

    Raises:
        BackendUnavailable: no C++ compiler is installed.
        BackendError: the compiled code cannot be built or loaded.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._library = native.load()

    def put(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.ascontiguousarray(array)

    def checked(
        self, name: str, value: Any, dtype: npt.DTypeLike, shape: Shape, low: float, high: float
    ) -> npt.NDArray[Any]:
        return checked(name, value, dtype, shape, low=low, high=high)

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        return np.empty(shape, dtype)

    def address(self, array: npt.NDArray[Any]) -> int:
        return array.ctypes.data

    def render(
        self,
        mesh: native.Mesh,
        skins: native.Textures,
        backgrounds: native.Textures,
        batch: native.Batch,
        output: native.Output,
    ) -> None:
        structs = (ctypes.byref(s) for s in (mesh, skins, backgrounds, batch, output))
        self._library.hm_render(*structs, ctypes.c_int32(min(self.threads, batch.count)))


class CudaDevice:
    """An NVIDIA GPU. Work is queued on torch's current stream; nothing here waits for it.

    Args:
        name: "cuda", or "cuda:N" for one of several.

    Raises:
        BackendUnavailable: no GPU, or no nvcc.
        BackendError: the compiled code cannot be built or loaded.
    """

    def __init__(self, name: str) -> None:
        if not torch.cuda.is_available():
            raise BackendUnavailable(
                f"device {name!r}: torch {torch.__version__} sees no CUDA GPU; use device='cpu'"
            )
        device = torch.device(name)
        number = torch.cuda.current_device() if device.index is None else device.index
        if number >= torch.cuda.device_count():
            raise BackendUnavailable(f"device {name!r}: there are {torch.cuda.device_count()} GPUs")
        self.device = torch.device("cuda", number)
        major, minor = torch.cuda.get_device_capability(self.device)
        self._library = native_cuda.load(f"{major}{minor}")

    def put(self, array: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def checked(
        self, name: str, value: Any, dtype: npt.DTypeLike, shape: Shape, low: float, high: float
    ) -> torch.Tensor:
        """NumPy arrays are checked like on the CPU, then copied. Tensors are checked in all but
        their values, which would have to be waited for; these are clamped to [low, high], so that
        no index leads outside.
        """
        if not isinstance(value, torch.Tensor):
            return self.put(checked(name, value, dtype, shape, low=low, high=high))
        there = value.to(self.device, non_blocking=True)
        return checked_tensor(name, there, dtype, shape, low, high).contiguous()

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> torch.Tensor:
        return torch.empty(shape, dtype=_torch_dtype(dtype), device=self.device)

    def address(self, array: torch.Tensor) -> int:
        return array.data_ptr()

    def render(
        self,
        mesh: native.Mesh,
        skins: native.Textures,
        backgrounds: native.Textures,
        batch: native.Batch,
        output: native.Output,
    ) -> None:
        stride = self._library.hm_device_stride(ctypes.byref(mesh), ctypes.byref(batch))
        room = stride * max(1, min(batch.count, WORKSPACE_BYTES // stride))
        # Freed on return, but torch hands it out again in the order of the stream only.
        memory = torch.empty(room, dtype=torch.uint8, device=self.device)
        structs = (ctypes.byref(s) for s in (mesh, skins, backgrounds, batch, output))
        status = self._library.hm_device_render(
            *structs,
            ctypes.c_void_p(memory.data_ptr()),
            ctypes.c_int64(room),
            ctypes.c_int32(self.device.index),
            ctypes.c_void_p(torch.cuda.current_stream(self.device).cuda_stream),
        )
        if status != 0:
            reason = self._library.hm_device_error(ctypes.c_int32(status)).decode()
            raise BackendError(f"CUDA could not draw {batch.count} pictures: {reason}")


def open_device(name: str, threads: int) -> Device:
    """The device of that name: "cpu", "cuda" or "cuda:N".

    Raises:
        InputError: another name.
        BackendUnavailable, BackendError: see the devices.
    """
    if name == "cpu":
        return HostDevice(threads)
    if name == "cuda" or (name.startswith("cuda:") and name[5:].isdecimal()):
        return CudaDevice(name)
    raise InputError(f"device: expected 'cpu', 'cuda' or 'cuda:N', got {name!r}")


def checked_tensor(
    name: str, value: torch.Tensor, dtype: npt.DTypeLike, shape: Shape, low: float, high: float
) -> torch.Tensor:
    """The tensor in the dtype, clamped to [low, high].

    Raises:
        InputError: wrong kind or shape.
    """
    wanted = _torch_dtype(dtype)
    if value.is_floating_point() != wanted.is_floating_point or value.dtype == torch.bool:
        raise InputError(f"{name}: expected dtype {wanted}, got {value.dtype}")
    fits = value.ndim == len(shape) and all(
        want is None or want == got for want, got in zip(shape, value.shape, strict=True)
    )
    if not fits:
        text = ", ".join("any" if want is None else str(want) for want in shape)
        raise InputError(f"{name}: expected shape ({text}), got {tuple(value.shape)}")
    if not wanted.is_floating_point:
        low, high = math.ceil(low), math.floor(high)
    return value.to(wanted).clamp(low, high)


def _torch_dtype(dtype: npt.DTypeLike) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype
