"""ONNX Runtime: on the CPU, what the base install brings, or through an execution provider.

ONNX Runtime runs on the CPU where a provider that was asked for is missing or fails. Here that is
an error: what the session really got is compared with what was asked for.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendUnavailable, InputError
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
from . import BundleBackend, Device

if TYPE_CHECKING:
    from ..bundle import Bundle

REQUIRES = "onnxruntime"
EXTRA = "onnx"
RANK = 0


class _Provider(NamedTuple):
    """An execution provider: ONNX Runtime's name of it, ours, and the package that has it."""

    name: str
    says: str
    package: str


_PROVIDERS = {
    "cpu": _Provider(CPU, "CPU", "onnxruntime"),
    "cuda": _Provider(CUDA, "CUDA", "onnxruntime-gpu"),
    "tensorrt": _Provider(TENSORRT, "TensorRT", "onnxruntime-gpu, beside TensorRT itself"),
    "coreml": _Provider("CoreMLExecutionProvider", "Core ML", "onnxruntime for macOS"),
    "nnapi": _Provider("NnapiExecutionProvider", "NNAPI", "an onnxruntime built for Android"),
    "xnnpack": _Provider(
        "XnnpackExecutionProvider", "XNNPACK", "an onnxruntime built with --use_xnnpack"
    ),
    "openvino": _Provider("OpenVINOExecutionProvider", "OpenVINO", "onnxruntime-openvino"),
    "directml": _Provider("DmlExecutionProvider", "DirectML", "onnxruntime-directml"),
    "qnn": _Provider("QNNExecutionProvider", "QNN", "onnxruntime-qnn"),
}
DEVICES = tuple(_PROVIDERS)
ENGINES = ("tensorrt",)
EXPORTS = ("fp16", "fp32")

# Providers that take a graph only if they know all its shapes: a batch is run crop by crop.
_ONE_BY_ONE = {"coreml", "nnapi", "xnnpack", "qnn"}
# What a provider calls the number of a GPU.
_NUMBERED = {"cuda": "device_id", "tensorrt": "device_id", "directml": "device_id"}
ARGUMENTS = (*_NUMBERED, "openvino")
# TensorRT builds an engine for a range of batches, and builds again where a larger one comes.
_LARGEST_BATCH = 16


def refuses(device: Device) -> str | None:
    """Why this onnxruntime has no such provider; None if it has."""
    import onnxruntime

    provider, available = _PROVIDERS[device.kind], onnxruntime.get_available_providers()
    if provider.name in available:
        return None
    has = [kind for kind, other in _PROVIDERS.items() if other.name in available]
    return (
        f"device {device.kind!r} is none of this onnxruntime {onnxruntime.__version__}, which has "
        f"{', '.join(has) or 'none that is known'}: it comes with {provider.package}, in place of "
        "the onnxruntime that is installed"
    )


def create(
    bundle: Bundle,
    threads: int,
    device: Device,
    engine_cache: bool | str | os.PathLike[str] = False,
) -> OnnxBackend:
    return OnnxBackend(bundle, threads, device, engine_cache=engine_cache)


class OnnxBackend(BundleBackend):
    """The bundle's `onnx` artifact in ONNX Runtime. See `handmesh.backends.Backend`.

    Args:
        bundle: the trained model.
        threads: CPU threads, also of what a provider leaves to the CPU.
        device: which provider; its argument is the number of a GPU, or of OpenVINO its device, as
            "openvino:GPU".
        provider_options: passed on to the provider as they are, as ``{"trt_fp16_enable": True}``.
        engine_cache: of device "tensorrt", see `handmesh.backends.choose`.

    Raises:
        InputError: a cache for another device than "tensorrt", or one that cannot be made.
        BackendUnavailable: the session did not get the provider, or the provider takes no operator.
        BackendError: ONNX Runtime refuses the artifact.
    """

    name = "onnx"

    def __init__(
        self,
        bundle: Bundle,
        threads: int,
        device: Device = Device("cpu"),  # noqa: B008  (immutable)
        provider_options: Mapping[str, Any] | None = None,
        engine_cache: bool | str | os.PathLike[str] = False,
    ) -> None:
        import onnxruntime

        reason = refuses(device)
        if reason is not None:
            raise BackendUnavailable(reason)
        super().__init__(bundle, threads)
        self._one_by_one = device.kind in _ONE_BY_ONE
        # The CPU runs for several threads at once; of the other providers none promises to.
        self._turn = contextlib.nullcontext() if device.kind == "cpu" else threading.Lock()
        path = bundle.artifact(self.name)
        options = session_options(onnxruntime, threads)
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        if self._one_by_one:
            options.add_free_dimension_override_by_name("N", 1)
        if device.kind == "directml":  # it demands that
            options.enable_mem_pattern = False
        provider = _PROVIDERS[device.kind]
        details = _details(bundle, device, engine_cache) | dict(provider_options or {})
        wanted: list[Any] = [(provider.name, details)]
        if device.kind != "cpu":
            wanted.append(CPU)  # for the operators that the provider does not know
        self._session = open_session(onnxruntime, path, options, wanted)
        took = _check_got(self._session, provider, device)
        which = str(device.number) if device.kind in _NUMBERED else device.argument.upper()
        where = f"{provider.says} {which}".strip()
        self.description = (
            f"onnxruntime {onnxruntime.__version__}, {where}{took}, "
            f"{threads} thread{'s' if threads > 1 else ''}"
        )
        self._outputs = [output.name for output in self._session.get_outputs()]

    def _infer(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        batches = [image[None] for image in images] if self._one_by_one else [images]
        with self._turn:
            runs = [self._session.run(self._outputs, {"image": batch}) for batch in batches]
        values = runs[0] if len(runs) == 1 else [np.concatenate(v) for v in zip(*runs, strict=True)]
        return dict(zip(self._outputs, values, strict=True))


def _details(
    bundle: Bundle, device: Device, engine_cache: bool | str | os.PathLike[str]
) -> dict[str, Any]:
    """Options for the provider."""
    if engine_cache is not False and device.kind != "tensorrt":
        raise InputError(f"an engine cache is for device 'tensorrt', not {device.kind!r}")
    if device.argument and device.kind not in ARGUMENTS:
        raise InputError(f"device {device.kind!r} takes no argument, {device.argument!r} was given")
    details: dict[str, Any] = {}
    if device.kind in _NUMBERED:
        details[_NUMBERED[device.kind]] = device.number
    if device.kind == "openvino" and device.argument:
        details["device_type"] = device.argument.upper()  # its own name: CPU, GPU, NPU, AUTO
    if device.kind == "cuda":
        details |= cuda_options()
    if device.kind == "tensorrt":
        kept = engine_folder(bundle.folder, engine_cache)
        details |= tensorrt_options(bundle.image_size, _LARGEST_BATCH, kept)
    return details


def _check_got(session: Any, provider: _Provider, device: Device) -> str:
    """Raise `BackendUnavailable` unless a session runs on the provider.

    Returns:
        " for 12 of 34 operators" where the CPU has the others, "" where that is all or not known.
    """
    got = session.get_providers()
    if provider.name not in got:
        raise BackendUnavailable(
            f"ONNX Runtime did not start {provider.says}, though this build has it: the session "
            f"got {', '.join(got)} instead; see that the libraries and the driver that {device} "
            "needs are installed and match this onnxruntime"
        )
    tell = getattr(session, "get_provider_graph_assignment_info", None)
    if device.kind == "cpu" or tell is None:  # since onnxruntime 1.24
        return ""
    counts: dict[str, int] = {}
    for part in tell():
        counts[part.ep_name] = counts.get(part.ep_name, 0) + len(part.get_nodes())
    taken, total = counts.get(provider.name, 0), sum(counts.values())
    if not taken:
        raise BackendUnavailable(
            f"{provider.says} takes none of the network's {total} operators, so that the CPU would "
            "run all of them: choose another device"
        )
    return "" if taken == total else f" for {taken} of {total} operators"
