"""Artifacts in a runtime, measured where nothing of ours is installed.

This module, `protocol`, `device` and the error tree make one file, `runner.pyz`, that a device with
Python 3.8, NumPy and a runtime can run::

    python3 runner.pyz job.json results.json

The job names artifacts, their hashes, threads and the protocol; see `remote`, which writes it. The
results are replaced whole after every round, so that an interrupted run leaves what it had.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Sequence  # noqa: UP035

import numpy as np

from handmesh.errors import BackendError, BackendUnavailable, HandMeshError, IntegrityError

from . import device
from .protocol import Candidate, Measurement, Protocol, Run, measure

__all__ = ["chain", "main", "onnx_file", "placement", "tflite_file"]

Arrays = Dict[str, Any]  # noqa: UP006  (evaluated: Python 3.8)
# Inputs by name to outputs by name.
Step = Callable[[Arrays], Arrays]

CPU = "CPUExecutionProvider"
# What "auto" measures of the providers that a build of ONNX Runtime has.
PROVIDERS = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CoreMLExecutionProvider", CPU)
TFLITE = ("ai_edge_litert", "tflite_runtime")
_TYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}
_FOOTPRINT_S = 120.0
SEED = 0


def onnx_file(path: Path, threads: int, provider: str = CPU) -> tuple[Step, str, Arrays]:
    """An ONNX file in ONNX Runtime on one provider.

    Returns:
        What runs it, what it is in words, and made-up inputs of one crop.

    Raises:
        BackendUnavailable: no ONNX Runtime, or one without that provider.
        BackendError: it refuses the file.
    """
    runtime = _imported(("onnxruntime",))
    if provider not in runtime.get_available_providers():
        raise BackendUnavailable(
            f"this onnxruntime {runtime.__version__} has no {provider}; it has "
            f"{', '.join(runtime.get_available_providers())}: install the build for this device"
        )
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = runtime.InferenceSession(str(path), options, providers=[provider])
    except Exception as cause:  # ONNX Runtime's own errors share no base class
        raise BackendError(f"ONNX Runtime cannot load {path.name}: {cause}") from cause
    if provider not in session.get_providers():
        raise BackendUnavailable(
            f"{provider} could not start and ONNX Runtime chose {session.get_providers()[0]} "
            "instead: see what it printed"
        )
    outputs = [output.name for output in session.get_outputs()]

    def run(inputs: Arrays) -> Arrays:
        try:
            return dict(zip(outputs, session.run(outputs, inputs)))  # noqa: B905  (Python 3.8)
        except Exception as cause:
            raise BackendError(f"ONNX Runtime failed on {path.name}: {cause}") from cause

    words = f"onnxruntime {runtime.__version__}, {_short(provider)}, {_threads(threads)}"
    return run, words, {i.name: _made_up(i.shape, _TYPES[i.type]) for i in session.get_inputs()}


def placement(path: Path, provider: str) -> dict[str, int]:
    """Operators that each provider really ran, by one run under ONNX Runtime's profiler.

    A session on a GPU leaves to the CPU what the GPU's provider cannot do, and does not say so.
    """
    runtime = _imported(("onnxruntime",))
    options = runtime.SessionOptions()
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = runtime.InferenceSession(str(path), options, providers=[provider])
        session.run(None, {i.name: _made_up(i.shape, _TYPES[i.type]) for i in session.get_inputs()})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    found: dict[str, int] = {}
    for event in events:
        name = event.get("args", {}).get("provider")
        if name and event.get("name", "").endswith("_kernel_time"):
            found[_short(name)] = found.get(_short(name), 0) + 1
    return found


def tflite_file(path: Path, threads: int) -> tuple[Step, str, Arrays]:
    """A TFLite file in LiteRT or its predecessor, on the CPU. As `onnx_file`."""
    runtime = _imported(TFLITE)
    interpreters = importlib.import_module(f"{runtime.__name__}.interpreter")
    try:
        interpreter = interpreters.Interpreter(model_path=str(path), num_threads=threads)
        interpreter.allocate_tensors()
        signature = interpreter.get_signature_runner()
    except Exception as cause:
        raise BackendError(f"{runtime.__name__} cannot load {path.name}: {cause}") from cause

    def run(inputs: Arrays) -> Arrays:
        outputs: Arrays = signature(**inputs)
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


def candidate(row: Mapping[str, Any], folder: Path) -> Candidate:
    """What a row of a job asks to measure. Its facts tell, once loaded, what ran."""
    facts = dict(row["facts"])

    def load() -> Run:
        opened, first = [], None
        for file in row["files"]:
            path = _verified(folder / file["path"], file["sha256"])
            if row["runtime"] == "tflite":
                step, facts["provider"], inputs = tflite_file(path, row["threads"])
            else:
                step, facts["provider"], inputs = onnx_file(path, row["threads"], row["provider"])
            opened.append((file["stage"], step, tuple(inputs)))
            first = inputs if first is None else first
        return chain(opened, first or {})

    return Candidate(row["name"], load, facts)


def expand(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows for ONNX Runtime that ask for "auto", once for each provider that it has here."""
    expanded: List[Dict[str, Any]] = []  # noqa: UP006
    for row in rows:
        if row["runtime"] != "onnx" or row["provider"] != "auto":
            expanded.append(dict(row))
            continue
        try:
            available = _imported(("onnxruntime",)).get_available_providers()
        except BackendUnavailable:
            available = [CPU]  # the row itself will say what is missing
        for provider in [name for name in PROVIDERS if name in available]:
            name = row["name"] if provider == CPU else f"{row['name']} {_short(provider)}"
            expanded.append({**row, "provider": provider, "name": name})
    return expanded


def main(arguments: Sequence[str]) -> int:
    """Run a job; returns 0, or 3 where nothing of it could run."""
    if arguments[:1] == ["--footprint"]:
        return _footprint(Path(arguments[1]), arguments[2])
    job_path, out = Path(arguments[0]), Path(arguments[1])
    job = json.loads(job_path.read_text(encoding="utf-8"))
    folder = job_path.resolve().parent
    rows = expand(job["rows"])
    missing: list[str] = []
    described = device.describe()
    done: list[Measurement] = []

    def keep(state: str, stopped_by: str = "") -> None:
        _write(out, {
            "state": state,
            "stopped_by": stopped_by,
            "device": {**described, "python_bits": 8 * np.dtype(np.intp).itemsize},
            "measurements": [dataclasses.asdict(row) for row in done],
            "missing": missing,
        })  # fmt: skip

    def failed(what: Candidate, error: HandMeshError) -> None:
        missing.append(f"{what.name}: {error}")

    def after_round(measured: list[Measurement]) -> None:
        done[:] = measured
        keep("partial")
        most = max((row.runs for row in measured), default=0)
        sys.stderr.write(f"measured {most} runs of {len(measured)} rows\n")
        sys.stderr.flush()

    keep("partial")
    candidates = [candidate(row, folder) for row in rows]
    try:
        for row, what in zip(rows, candidates):  # noqa: B905  (Python 3.8)
            _add_facts(row, what, folder, job_path)
        done[:] = measure(
            candidates, Protocol(**job["protocol"]), after_round=after_round, on_failure=failed
        )
    except BaseException as error:
        keep("partial", type(error).__name__)
        raise
    keep("complete")
    return 0 if done else 3


def _add_facts(row: Mapping[str, Any], what: Candidate, folder: Path, job: Path) -> None:
    """Memory, and which providers ran a GPU's operators; nothing where that fails."""
    facts: Any = what.facts
    command = [sys.executable, *_self(), "--footprint", str(job), row["name"]]
    try:
        text = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            timeout=_FOOTPRINT_S, check=True,
        ).stdout  # fmt: skip
        facts["memory"] = json.loads(text)
        if row["runtime"] == "onnx" and row["provider"] != CPU:
            facts["nodes_by_provider"] = placement(
                folder / row["files"][0]["path"], row["provider"]
            )
    except Exception:  # what cannot run is told of when it is measured
        return


def _footprint(job: Path, name: str) -> int:
    rows = expand(json.loads(job.read_text(encoding="utf-8"))["rows"])
    row = next(row for row in rows if row["name"] == name)
    _imported(TFLITE if row["runtime"] == "tflite" else ("onnxruntime",))
    found = device.footprint(candidate(row, job.resolve().parent).load)
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


def _self() -> list[str]:
    """How this program is started: as a zip, or as a module."""
    return [sys.argv[0]] if sys.argv[0].endswith(".pyz") else ["-m", "handmesh_benchmarks.runner"]


def _verified(path: Path, sha256: str) -> Path:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != sha256:
        raise IntegrityError(
            f"{path.name} is not the file that was sent (sha256 {digest[:12]}..., not "
            f"{sha256[:12]}...): run the command again"
        )
    return path


def _imported(packages: Sequence[str]) -> Any:
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


def _short(provider: str) -> str:
    return provider.replace("ExecutionProvider", "")


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _write(path: Path, document: Mapping[str, Any]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(document), encoding="utf-8")
    os.replace(temporary, path)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
