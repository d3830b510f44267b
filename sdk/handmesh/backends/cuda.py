"""NVIDIA GPUs: the trunk in ONNX Runtime, the graph head in kernels of our own, on one stream.

Crops go to the device, latent vectors and anchors stay there, vertices, joints and scores come
back: ONNX Runtime is given the stream that the head's kernels run on and writes into the memory
that they read, so nothing is copied and nobody waits in between. docs/jetson.md tells what to
install.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, BackendUnavailable, InputError
from ..installing import pip_install
from ..ort import (
    CPU,
    CUDA,
    TENSORRT,
    cuda_options,
    engine_folder,
    open_session,
    session_options,
    tensorrt_options,
)
from . import BundleBackend, Device, proven_anywhere

if TYPE_CHECKING:
    from handmesh_kernels.constants import HeadConstants

    from ..bundle import Bundle

REQUIRES = ("pycuda", "cupy")
EXTRA = "cuda"
# Last: a GPU is taken when it is asked for, not because some driver is there.
RANK = 300
# What runs the trunk: ONNX Runtime's own kernels, or TensorRT. "cuda:1" is the second GPU.
DEVICES = ("cuda", "tensorrt")
ARGUMENTS = DEVICES
ENGINES = ("tensorrt",)
EXPORTS = ("fp16", "fp32")
DETECTOR_EXPORTS = ()  # the kernels are of a graph head, which they do not have

# Files of the artifact, which is a folder.
TRUNK, HEAD = "trunk.onnx", "head.npz"

MAX_BATCH = 64
_PROVIDERS = {"cuda": CUDA, "tensorrt": TENSORRT}
_SCORES: dict[str, tuple[int, ...]] = {"confidence": (21,), "presence": (), "handedness": ()}


def unavailable(bundle: Bundle) -> str | None:
    """Why it cannot run on this system; None if it can."""
    if not _driver():
        return (
            "backend 'cuda' needs an NVIDIA GPU, and there is no NVIDIA driver on this system: "
            f"choose another backend{proven_anywhere('cuda', bundle)}"
        )
    if not any(importlib.util.find_spec(package) for package in REQUIRES):
        return (
            "backend 'cuda' launches its kernels through PyCUDA or CuPy, and neither is "
            f"installed: {pip_install(EXTRA)}, or see docs/jetson.md"
        )
    import onnxruntime

    if CUDA not in onnxruntime.get_available_providers():
        return (
            "backend 'cuda' runs the trunk in ONNX Runtime's CUDA provider, which the installed "
            f"onnxruntime {onnxruntime.__version__} has not: install onnxruntime-gpu in its place, "
            "on a Jetson NVIDIA's own build, see docs/jetson.md"
        )
    return None


def _driver() -> bool:
    """Whether NVIDIA's driver is there: its library opens, wherever the loader finds it."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def create(
    bundle: Bundle,
    threads: int,
    device: Device,
    engine_cache: bool | str | os.PathLike[str] = False,
) -> CudaBackend:
    return CudaBackend(bundle, threads, device, engine_cache)


class CudaBackend(BundleBackend):
    """The bundle's `cuda` artifact on a GPU. See `handmesh.backends.Backend`.

    One run at a time: other threads wait. Memory is taken for `MAX_BATCH` crops; more run in turn.

    Args:
        device: "cuda", or "tensorrt" for the trunk, which builds an engine whenever it is loaded,
            for minutes; with the number of the GPU as argument.
        engine_cache: of device "tensorrt", see `handmesh.backends.choose`.
    """

    name = "cuda"

    def __init__(
        self,
        bundle: Bundle,
        threads: int,
        device: Device = Device("cuda"),  # noqa: B008  (immutable)
        engine_cache: bool | str | os.PathLike[str] = False,
    ) -> None:
        provider, number = device.kind, device.number
        if provider not in _PROVIDERS:
            raise InputError(f"device must be one of {', '.join(_PROVIDERS)}; not {provider!r}")
        if engine_cache is not False and provider != "tensorrt":
            raise InputError(f"an engine cache is for device 'tensorrt', not {provider!r}")
        engines = engine_folder(bundle.folder, engine_cache)
        from handmesh_kernels.errors import KernelError, NoDevice
        from handmesh_kernels.launcher import GraphHead

        super().__init__(bundle, threads)
        self._device = number
        self._one_run = threading.Lock()
        folder = bundle.artifact(self.name)
        constants = _constants(folder)
        try:
            self._head = GraphHead(constants, MAX_BATCH, device=number)
        except NoDevice as cause:
            raise BackendUnavailable(f"backend 'cuda': {cause}") from cause
        except KernelError as cause:
            raise BackendError(f"the head's kernels cannot be used: {cause}") from cause
        self._binding, self._stream = self._head.binding, self._head.stream
        stream = str(self._binding.handle(self._stream))
        providers = _providers(provider, number, stream, constants.storage, self._size, engines)
        self._session, version = _session(folder / TRUNK, threads, providers)
        if self._session.get_providers()[0] != _PROVIDERS[provider]:
            raise BackendError(
                f"ONNX Runtime did not take {_PROVIDERS[provider]} but "
                f"{', '.join(self._session.get_providers())}: its libraries of CUDA, cuDNN or "
                "TensorRT are missing or of another version; it names them on standard error"
            )
        self.description = (
            f"onnxruntime {version}, {_PROVIDERS[provider]}; graph head in kernels, "
            f"{constants.storage}, {self._binding.description}"
        )
        self._outputs: dict[str, tuple[int, ...]] = {"latent": (constants.features,)}
        if constants.blend is not None:
            self._outputs["joints_uv"] = (constants.blend.shape[1], 2)
        self._outputs |= _SCORES
        self._memory = {
            name: self._binding.allocate(4 * MAX_BATCH * int(np.prod(shape, dtype=np.int64)))
            for name, shape in self._outputs.items()
        }
        self._memory["image"] = self._binding.allocate(MAX_BATCH * 3 * self._size**2)

    def _infer(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        with self._one_run:
            parts = [
                self._run(np.ascontiguousarray(images[start : start + MAX_BATCH]))
                for start in range(0, len(images), MAX_BATCH)
            ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """At most `MAX_BATCH` crops."""
        import onnxruntime

        batch, stream, binding = len(images), self._stream, self._binding
        binding.copy_in(self._memory["image"].pointer, images, stream)
        io = self._session.io_binding()
        io.bind_input(
            "image", "cuda", self._device, np.uint8, images.shape, self._memory["image"].pointer
        )
        for name, shape in self._outputs.items():
            io.bind_output(
                name, "cuda", self._device, np.float32, (batch, *shape), self._memory[name].pointer
            )
        # The head is behind the trunk on the same stream: there is nothing to wait for.
        run_options = onnxruntime.RunOptions()
        run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._session.run_with_iobinding(io, run_options)
        anchored = "joints_uv" in self._outputs
        vertices, joints = self._head.run(
            self._memory["latent"].pointer,
            self._memory["joints_uv"].pointer if anchored else None,
            batch,
            stream,
        )
        named = {
            "vertices": self._head.fetch(vertices, stream),
            "joints": self._head.fetch(joints, stream),
        }
        for name, shape in _SCORES.items():
            named[name] = np.empty((batch, *shape), np.float32)
            binding.copy_out(self._memory[name].pointer, named[name], stream)
        return named


def refused(folder: Path) -> str:
    """Why no GPU runs the head of an artifact, as too large a one; "" where one can.

    Raises:
        BackendError: the head cannot be read.
    """
    from handmesh_kernels.params import Shape

    return Shape.of(_constants(folder)).refused()


def open_twin(bundle: Bundle, threads: int) -> TwinBackend:
    """The artifact without a GPU: what proves it where it is made."""
    return TwinBackend(bundle, threads)


class TwinBackend(BundleBackend):
    """The bundle's `cuda` artifact on the CPU: the trunk in ONNX Runtime, the head in NumPy,
    float64, rounding to half what the kernels keep in half. See `handmesh.backends.Backend`.
    """

    name = "cuda"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        super().__init__(bundle, threads)
        folder = bundle.artifact(self.name)
        self._constants = _constants(folder)
        self._session, version = _session(folder / TRUNK, threads, [])
        self.description = (
            f"onnxruntime {version}, CPU, {threads} thread{'s' if threads > 1 else ''}; the "
            f"kernels' NumPy twin, {self._constants.storage}"
        )

    def _infer(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        from handmesh_kernels import twin

        names = [output.name for output in self._session.get_outputs()]
        values = self._session.run(names, {"image": images})
        trunk = dict(zip(names, values, strict=True))
        head = twin.run(self._constants, trunk["latent"], trunk.get("joints_uv"), rounded=True)
        return {
            "vertices": head.vertices.astype(np.float32),
            "joints": head.joints.astype(np.float32),
            **{name: trunk[name] for name in _SCORES},
        }


def _providers(
    kind: str, number: int, stream: str, storage: str, size: int, engines: str | None
) -> list[tuple[str, Any]]:
    """ONNX Runtime's providers for the trunk, with their options, all on one stream."""
    common = {"device_id": str(number), "user_compute_stream": stream}
    providers = [(CUDA, common | cuda_options(exact=storage == "fp32"))]
    if kind == "tensorrt":  # what it does not take is CUDA's, and stays on the stream
        providers.insert(0, (TENSORRT, common | tensorrt_options(size, MAX_BATCH, engines)))
    return providers


def _constants(folder: Path) -> HeadConstants:
    from handmesh_kernels.constants import HeadConstants
    from handmesh_kernels.errors import ConstantsError

    try:
        return HeadConstants.load(folder / HEAD)
    except ConstantsError as cause:
        raise BackendError(f"the head in {folder} cannot be used: {cause}") from cause


def _session(path: Path, threads: int, providers: list[tuple[str, Any]]) -> tuple[Any, str]:
    """ONNX Runtime's session, on the CPU what the providers do not take, and its version."""
    import onnxruntime

    options = session_options(onnxruntime, threads)
    session = open_session(onnxruntime, path, options, [*providers, CPU])
    return session, str(onnxruntime.__version__)
