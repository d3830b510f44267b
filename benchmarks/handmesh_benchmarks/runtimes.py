"""Files in ONNX Runtime or LiteRT, without anything else of ours: see `runner`, which is copied to
other devices together with this.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Mapping, Sequence  # noqa: UP035

import numpy as np

from handmesh.errors import BackendError, BackendUnavailable, HandMeshError
from handmesh.ort import CPU, CUDA, TENSORRT, cuda_options, open_session, session_options

from .protocol import Run

__all__ = [
    "CPU",
    "PROVIDERS",
    "TFLITE",
    "chain",
    "imported",
    "onnx_file",
    "operators",
    "placement",
    "short",
    "tflite_file",
]

Arrays = Dict[str, Any]  # noqa: UP006  (evaluated: Python 3.8)
# Inputs by name to outputs by name.
Step = Callable[[Arrays], Arrays]

# What "auto" measures of the providers that a build of ONNX Runtime has.
PROVIDERS = (TENSORRT, CUDA, "CoreMLExecutionProvider", CPU)
TFLITE = ("ai_edge_litert", "tflite_runtime")
_TYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}
SEED = 0
# The first ONNX Runtime that can be told not to round factors of float32 products.
_KNOWS_TF32 = (1, 18)


def onnx_file(
    path: Path, threads: int, provider: str = CPU, details: Mapping[str, Any] | None = None
) -> tuple[Step, str, Arrays]:
    """An ONNX file in ONNX Runtime on one provider.

    Args:
        path: the file. threads: of the CPU. provider: as ONNX Runtime names it.
        details: options of the provider, as {"device_id": 1}.

    Returns:
        What runs it, what it is in words, and made-up inputs of one crop.

    Raises:
        BackendUnavailable: no ONNX Runtime, or one without that provider.
        BackendError: it refuses the file.
    """
    runtime = _with_provider(provider)
    options = session_options(runtime, threads)
    session = _session(runtime, path, options, provider, details)
    outputs = [output.name for output in session.get_outputs()]
    inputs = _inputs(session, path)

    def run(given: Arrays) -> Arrays:
        try:
            return dict(zip(outputs, session.run(outputs, given)))  # noqa: B905  (Python 3.8)
        except Exception as cause:
            raise BackendError(f"ONNX Runtime failed on {path.name}: {cause}") from cause

    number = (details or {}).get("device_id", 0)
    where = short(provider) + (f" {number}" if number else "")
    return run, f"onnxruntime {runtime.__version__}, {where}, {_threads(threads)}", inputs


def placement(
    path: Path, provider: str, details: Mapping[str, Any] | None = None
) -> dict[str, int]:
    """Operators that each provider really ran, by one run under ONNX Runtime's profiler.

    A session on a GPU leaves to the CPU what the GPU's provider cannot do, and does not say so.

    Raises:
        BackendUnavailable, BackendError: as `onnx_file`, or the profile cannot be read.
    """
    runtime = _with_provider(provider)
    options = runtime.SessionOptions()
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = _session(runtime, path, options, provider, details)
        try:
            session.run(None, _inputs(session, path))
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        except HandMeshError:
            raise
        except Exception as cause:
            raise BackendError(
                f"which operators of {path.name} {short(provider)} ran cannot be told: {cause}"
            ) from cause
    found: dict[str, int] = {}
    for event in events:
        name = event.get("args", {}).get("provider")
        if name and event.get("name", "").endswith("_kernel_time"):
            found[short(name)] = found.get(short(name), 0) + 1
    return found


def operators(
    paths: Iterable[Path], provider: str, details: Mapping[str, Any] | None = None
) -> tuple[dict[str, int], str]:
    """Of files together, the operators by provider, and "12 of 34 operators" of this provider.

    Raises:
        BackendUnavailable: the provider took none, so that the figure would be another's.
    """
    counts: dict[str, int] = {}
    for path in paths:
        for name, count in placement(path, provider, details).items():
            counts[name] = counts.get(name, 0) + count
    took, total = counts.get(short(provider), 0), sum(counts.values())
    if not took:
        raise BackendUnavailable(
            f"{short(provider)} ran none of {total} operators, the CPU would run all: see what "
            "ONNX Runtime printed, and that the driver and libraries match it"
        )
    return counts, f"{took} of {total} operators"


def _with_provider(provider: str) -> Any:
    runtime = imported(("onnxruntime",))
    if provider not in runtime.get_available_providers():
        raise BackendUnavailable(
            f"this onnxruntime {runtime.__version__} has no {provider}; it has "
            f"{', '.join(runtime.get_available_providers())}: install the build for this device"
        )
    return runtime


def _session(
    runtime: Any, path: Path, options: Any, provider: str, details: Mapping[str, Any] | None
) -> Any:
    """A session that has the provider, with the options that the SDK gives it.

    ONNX Runtime runs on the CPU where the provider fails.
    """
    own = cuda_options(exact=_version(runtime) >= _KNOWS_TF32) if provider == CUDA else {}
    session = open_session(runtime, path, options, [(provider, {**own, **(details or {})})])
    if provider not in session.get_providers():
        raise BackendUnavailable(
            f"{provider} could not start and ONNX Runtime chose {session.get_providers()[0]} "
            "instead: see what it printed"
        )
    return session


def _version(runtime: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in runtime.__version__.split(".")[:2])


def _inputs(session: Any, path: Path) -> Arrays:
    inputs: Arrays = {}
    for entry in session.get_inputs():
        if entry.type not in _TYPES:
            raise BackendError(
                f"input {entry.name!r} of {path.name} is {entry.type}; this measures files that "
                f"take {' or '.join(_TYPES)}"
            )
        inputs[entry.name] = _made_up(entry.shape, _TYPES[entry.type])
    return inputs


def tflite_file(path: Path, threads: int) -> tuple[Step, str, Arrays]:
    """A TFLite file in LiteRT or its predecessor, on the CPU. As `onnx_file`."""
    runtime = imported(TFLITE)
    interpreters = importlib.import_module(f"{runtime.__name__}.interpreter")
    try:
        interpreter = interpreters.Interpreter(model_path=str(path), num_threads=threads)
        interpreter.allocate_tensors()
        signature = interpreter.get_signature_runner()
    except Exception as cause:
        raise BackendError(f"{runtime.__name__} cannot load {path.name}: {cause}") from cause

    def run(given: Arrays) -> Arrays:
        try:
            outputs: Arrays = signature(**given)
        except Exception as cause:
            raise BackendError(f"{runtime.__name__} failed on {path.name}: {cause}") from cause
        return outputs

    details = interpreter.get_input_details()
    names = sorted(signature.get_input_details())
    pairs = zip(names, details)  # noqa: B905  (Python 3.8)
    inputs = {name: _made_up(d["shape"], d["dtype"]) for name, d in pairs}
    return run, f"{runtime.__name__} {runtime.__version__}, CPU, {_threads(threads)}", inputs


def chain(steps: Sequence[tuple[str, Step, Sequence[str]]], inputs: Arrays) -> Run:
    """A run of several files, each given what those before it made; its stages are the files'.

    Args:
        steps: (stage, what runs it, names of its inputs). inputs: of the first.
    """

    def run() -> Mapping[str, float]:
        known, stages = dict(inputs), {}
        for stage, step, names in steps:
            start = time.perf_counter()
            known.update(step({name: known[name] for name in names}))
            stages[stage] = (time.perf_counter() - start) * 1e3
        return stages if len(steps) > 1 else {}

    return run


def imported(packages: Sequence[str]) -> Any:
    found = [name for name in packages if importlib.util.find_spec(name) is not None]
    if not found:
        raise BackendUnavailable(
            f"the package {packages[0]!r} is not installed for {sys.executable}: "
            f"pip install {packages[0].replace('_', '-')}"
        )
    return importlib.import_module(found[0])


def _made_up(shape: Sequence[Any], dtype: Any) -> Any:
    sizes = [side if isinstance(side, (int, np.integer)) and side > 0 else 1 for side in shape]
    random = np.random.default_rng(SEED)
    if np.dtype(dtype) == np.uint8:
        return random.integers(0, 256, sizes, dtype=np.uint8)
    return random.random(sizes, dtype=np.float32)


def short(provider: str) -> str:
    return provider.replace("ExecutionProvider", "")


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"
