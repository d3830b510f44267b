"""Artifacts in a runtime, measured where nothing of ours is installed.

This module, `runtimes`, `protocol`, `device`, the error tree and `handmesh.ort` make one file,
`runner.pyz`, that a device with Python 3.8, NumPy and a runtime can run::

    python3 runner.pyz job.json results.json

The job names artifacts, their hashes, threads and the protocol; see `devices.ssh`, which writes it.
The results are replaced whole after every round, so that an interrupted run leaves what it had, and
printed as one line behind `MARK`, so that whoever listens has them though the connection ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Sequence  # noqa: UP035

import numpy as np

from handmesh.errors import BackendUnavailable, HandMeshError, IntegrityError

from . import device
from .protocol import Candidate, Measurement, Protocol, Run, measure
from .runtimes import (
    CPU,
    PROVIDERS,
    TFLITE,
    chain,
    imported,
    onnx_file,
    operators,
    short,
    tflite_file,
)

__all__ = ["MARK", "YARDSTICK", "main", "sha256", "yardstick"]

# Begins a printed line that holds all results so far, as JSON.
MARK = "handmesh-results "
NOTHING_RAN = 3
YARDSTICK = "yardstick"
_FOOTPRINT_S = 120.0
SEED = 0


def sha256(paths: Iterable[Path]) -> str:
    """Of files, one behind the other."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def yardstick() -> Candidate:
    """A matrix product of NumPy on one or more threads of its own: the same work in every run.

    Where it takes longer than in another run the machine was slower, not the program.
    """
    matrix = np.random.default_rng(SEED).random((256, 256), dtype=np.float32)
    facts = {
        "task": YARDSTICK,
        "network": "none",
        "backend": "numpy",
        "threads": 0,
        "batch": 1,
        "precision": "fp32",
        "provider": f"numpy {np.__version__}",
    }

    def load() -> Run:
        def run() -> None:
            product = matrix
            for _ in range(8):
                product = product @ matrix
                product /= product.max()

        return run

    return Candidate(YARDSTICK, load, facts)


def candidate(row: Mapping[str, Any], folder: Path) -> Candidate:
    """What a row of a job asks to measure. Its facts tell, once loaded, what ran.

    Raises:
        BackendUnavailable: the row's provider ran none of its operators.
    """
    facts, took = dict(row["facts"]), ""
    if _elsewhere(row):
        paths = [_verified(folder / file["path"], file["sha256"]) for file in row["files"]]
        facts["nodes_by_provider"], words = operators(paths, row["provider"])
        took = f", {words}"

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
        facts["provider"] += took
        return chain(opened, first or {})

    return Candidate(row["name"], load, facts)


def expand(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows for ONNX Runtime that ask for "auto", once for each provider that it has here.

    The name of a row that is not the CPU's ends with its provider, whoever chose it.
    """
    expanded: List[Dict[str, Any]] = []  # noqa: UP006
    for row in rows:
        if row["runtime"] != "onnx":
            expanded.append(dict(row))
            continue
        providers = [row["provider"]]
        if row["provider"] == "auto":
            try:
                available = imported(("onnxruntime",)).get_available_providers()
            except BackendUnavailable:
                available = [CPU]  # the row itself will say what is missing
            providers = [name for name in PROVIDERS if name in available]
        for provider in providers:
            name = row["name"] if provider == CPU else f"{row['name']} {short(provider)}"
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
    told: list[str] = []

    def keep(state: str, stopped_by: str = "") -> None:
        document = {
            "state": state,
            "stopped_by": stopped_by,
            "device": {**described, "python_bits": 8 * np.dtype(np.intp).itemsize},
            "measurements": [dataclasses.asdict(row) for row in done],
            "missing": missing,
        }
        _write(out, document)
        with contextlib.suppress(OSError):  # nobody listens any more: the file is there
            sys.stdout.write(MARK + json.dumps(document) + "\n")
            sys.stdout.flush()

    def failed(what: Candidate, error: HandMeshError) -> None:
        missing.append(f"{what.name}: {error}")

    def after_round(measured: list[Measurement]) -> None:
        done[:] = measured
        keep("partial")
        most = max((row.runs for row in measured), default=0)
        line = f"measured {most} runs of {len(measured)} rows\n"
        if told[-1:] != [line]:  # rounds in which slow rows alone are left would repeat it
            told.append(line)
            with contextlib.suppress(OSError):
                sys.stderr.write(line)
                sys.stderr.flush()

    keep("partial")
    candidates = [yardstick()]
    try:
        for row in rows:
            try:
                what = candidate(row, folder)
            except HandMeshError as error:
                missing.append(f"{row['name']}: {error}")
                continue
            _add_memory(row, what, job_path)
            candidates.append(what)
        done[:] = measure(
            candidates, Protocol(**job["protocol"]), after_round=after_round, on_failure=failed
        )
    except BaseException as error:
        keep("partial", type(error).__name__)
        raise
    keep("complete")
    return 0 if any(row.facts["task"] != YARDSTICK for row in done) else NOTHING_RAN


def _add_memory(row: Mapping[str, Any], what: Candidate, job: Path) -> None:
    """Memory of a process of its own; nothing where that fails, or of a GPU, whose it is not."""
    facts: Any = what.facts
    if _elsewhere(row):
        return
    command = [sys.executable, *_self(), "--footprint", str(job), row["name"]]
    try:
        text = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            timeout=_FOOTPRINT_S, check=True,
        ).stdout  # fmt: skip
        facts["memory"] = json.loads(text)
    except (OSError, subprocess.SubprocessError, ValueError):
        return  # what cannot run is told of when it is measured


def _elsewhere(row: Mapping[str, Any]) -> bool:
    """Whether it is to run on another provider than the CPU's."""
    return bool(row["runtime"] == "onnx" and row["provider"] != CPU)


def _footprint(job: Path, name: str) -> int:
    rows = expand(json.loads(job.read_text(encoding="utf-8"))["rows"])
    row = next(row for row in rows if row["name"] == name)
    imported(TFLITE if row["runtime"] == "tflite" else ("onnxruntime",))
    found = device.footprint(candidate(row, job.resolve().parent).load)
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


def _self() -> list[str]:
    """How this program is started: as a zip, or as a module."""
    return [sys.argv[0]] if sys.argv[0].endswith(".pyz") else ["-m", "handmesh_benchmarks.runner"]


def _verified(path: Path, wanted: str) -> Path:
    digest = sha256([path])
    if digest != wanted:
        raise IntegrityError(
            f"{path.name} is not the file that was sent (sha256 {digest[:12]}..., not "
            f"{wanted[:12]}...): run the command again"
        )
    return path


def _write(path: Path, document: Mapping[str, Any]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(document), encoding="utf-8")
    os.replace(temporary, path)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
