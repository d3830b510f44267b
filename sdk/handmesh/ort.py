"""Sessions of ONNX Runtime, alike in every program of ours that opens one.

It asks for `errors` alone and runs in Python 3.8: `handmesh_benchmarks` copies both, and what they
ask for, to other devices.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from .errors import BackendError, InputError

__all__ = [
    "CPU",
    "CUDA",
    "TENSORRT",
    "cuda_options",
    "engine_folder",
    "open_session",
    "session_options",
    "tensorrt_options",
]

# Official builds (1.32 is one) report to Microsoft, and keep a number of the device in the user's
# cache folder, unless this is set before they are imported. Who wants that sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

# In a bundle. Files that begin with a dot are none of its own.
_ENGINES = ".engines"


def session_options(runtime: Any, threads: int) -> Any:
    """A session's options.

    Args:
        runtime: the package `onnxruntime`. threads: of the CPU.
    """
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait for the next operator by spinning take CPU time from whatever else the
    # device does.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def cuda_options(exact: bool = True) -> dict[str, Any]:
    """Options of the CUDA provider. ONNX Runtime knows them from 1.18 on.

    Args:
        exact: products in float32; otherwise their factors are rounded to ten bits, as in half.
    """
    return {
        # The default tries every algorithm again for every new size of batch.
        "cudnn_conv_algo_search": "HEURISTIC",
        **({"use_tf32": 0} if exact else {}),
    }


def tensorrt_options(size: int, largest: int, engines: str | None = None) -> dict[str, Any]:
    """Options of the TensorRT provider: one engine for all batches.

    Args:
        size: side of the pictures. largest: batch. engines: folder where the engine is kept.
    """
    picture = f"{size}x{size}x3"
    options: dict[str, Any] = {
        "trt_profile_min_shapes": f"image:1x{picture}",
        "trt_profile_opt_shapes": f"image:1x{picture}",
        "trt_profile_max_shapes": f"image:{largest}x{picture}",
    }
    if engines is not None:
        options.update(trt_engine_cache_enable=True, trt_engine_cache_path=engines)
    return options


def engine_folder(
    bundle: str | os.PathLike[str], engine_cache: bool | str | os.PathLike[str]
) -> str | None:
    """The folder, made where there is none, in which engines of a bundle are kept.

    Args:
        bundle: its folder.
        engine_cache: True for one inside the bundle, False for none, or a folder.

    Raises:
        InputError: it is something else, or the folder cannot be made.
    """
    if engine_cache is False:
        return None
    if engine_cache is not True and not isinstance(engine_cache, (str, os.PathLike)):
        raise InputError(
            f"engine_cache is True, False or a folder, not {type(engine_cache).__name__}"
        )
    folder = os.path.join(bundle, _ENGINES) if engine_cache is True else os.fspath(engine_cache)
    try:
        os.makedirs(folder, exist_ok=True)
    except (OSError, ValueError) as cause:  # the latter of what no path can hold
        raise InputError(
            f"engine_cache: the folder {folder!r} cannot be made ({cause}); name another one"
        ) from cause
    return folder


def open_session(
    runtime: Any, path: str | os.PathLike[str], options: Any, providers: Sequence[Any]
) -> Any:
    """A session on those providers; ONNX Runtime chooses no others where they fail.

    Args:
        providers: names, or pairs of a name and its options, the preferred one first.

    Raises:
        BackendError: it refuses the file or a provider.
    """
    names = {each if isinstance(each, str) else each[0] for each in providers}
    if names & {CUDA, TENSORRT} and hasattr(runtime, "preload_dlls"):
        runtime.preload_dlls()  # CUDA and cuDNN of pip's packages, or torch's
    try:
        return runtime.InferenceSession(
            os.fspath(path), options, list(providers), enable_fallback=0
        )
    except Exception as cause:  # ONNX Runtime's own errors share no base class
        raise BackendError(f"ONNX Runtime cannot load {os.fspath(path)}: {cause}") from cause
