"""A run as `handmesh bench --compare` sees it: medians, their spread, what they were measured on.

Read from a file that `handmesh bench --out` or pytest-benchmark wrote.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from handmesh.errors import InputError

from .protocol import TOTAL, Percentiles
from .results import Results, parse, read_document

__all__ = ["SHORTEST_MS", "Entry", "Snapshot", "entries_of", "read_any"]

# Of a clock read around something this short more than a tenth is the clock and chance.
SHORTEST_MS = 0.02
# A robust standard deviation: of a normal distribution 1.4826 times the median distance.
MAD_TO_DEVIATION = 1.4826
# p90 of a normal distribution lies so many standard deviations above p50.
P90_DEVIATIONS = 1.2816
# Its quartiles lie so many apart.
QUARTILE_DEVIATIONS = 1.349
# Rounds beyond these percentiles are odd ones, which decide nothing.
INNER = (10, 90)
# What says which machine it was, and what of a machine says nothing of it from run to run.
MACHINE = ("maker", "machine", "processor")
PASSING = ("gpu", "load_1min", "cores_busy", "clock_mhz", "process_peak_memory_mib")


@dataclass(frozen=True)
class Entry:
    """A median, milliseconds; the deviation of its logarithm from round to round; and between which
    milliseconds the rounds lie, the odd tenth at either end left out."""

    p50: float
    spread: float
    low: float
    high: float


@dataclass(frozen=True)
class Snapshot:
    """One run.

    Attributes:
        where: what messages call it.
        entries: by row and stage ("total" for the whole row).
        machine: what it ran on: processor, GPU, model; only what is known.
        conditions: what else the figures depend on, by name: photo, protocol, system, versions.
        facts: of each row, by name: artifact (its hash), precision, what ran.
        partial: whether the run was interrupted.
    """

    where: str
    entries: Mapping[tuple[str, str], Entry]
    machine: Mapping[str, str] = field(default_factory=dict)
    conditions: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    partial: bool = False


def read_any(path: Path) -> Snapshot:
    """A run from a file that `handmesh bench --out` or pytest-benchmark wrote.

    Raises:
        InputError: it cannot be read, or is neither.
    """
    document = read_document(path, "`handmesh bench --out` or pytest-benchmark")
    if isinstance(document, dict) and "benchmarks" in document and "machine_info" in document:
        return _of_pytest(document, str(path))
    return entries_of(parse(document, str(path)), str(path))


def entries_of(results: Results, where: str) -> Snapshot:
    """The figures of a run."""
    entries: dict[tuple[str, str], Entry] = {}
    facts: dict[str, dict[str, str]] = {}
    for row in results.measurements:
        for stage, found in {TOTAL: row.total, **row.stages}.items():
            entries[row.name, stage] = _entry(found, row.rounds.get(stage, ()))
        artifact = row.facts.get("artifact") or {}
        facts[row.name] = {
            "artifact": str(artifact.get("sha256", "none"))[:12],
            "precision": str(row.facts["precision"]),
            "what ran": str(row.facts["provider"]),
        }
    protocol = {} if results.protocol is None else dataclasses.asdict(results.protocol)
    known = {
        **results.device,
        **results.context,
        **{f"protocol: {name}": value for name, value in protocol.items()},
        "handmesh version": results.handmesh,
    }
    device = {name: str(value) for name, value in results.device.items()}
    gpu, _, rest = device.get("gpu", "").partition(",")
    machine = {name: device[name] for name in MACHINE if device.get(name, "unknown") != "unknown"}
    conditions = {
        name: str(value) for name, value in known.items() if name not in (*MACHINE, *PASSING)
    }
    if gpu:
        machine["gpu"] = gpu.strip()
        # Name, driver, and clocks that change from minute to minute.
        conditions["gpu driver"] = rest.split(",")[0].strip()
    return Snapshot(where, entries, machine, conditions, facts, results.state == "partial")


def _entry(found: Percentiles, rounds: Sequence[float]) -> Entry:
    if len(rounds) >= 3:
        logs = [math.log(max(value, SHORTEST_MS)) for value in rounds]
        middle = statistics.median(logs)
        spread = MAD_TO_DEVIATION * statistics.median(abs(value - middle) for value in logs)
        # Whole rounds on the inner side: between two rounds an odd one would still have its say.
        low = float(np.percentile(rounds, INNER[0], method="higher"))
        high = float(np.percentile(rounds, INNER[1], method="lower"))
        return Entry(found.p50, spread, low, high)
    p90 = found.p50 if found.p90 is None else found.p90
    spread = math.log(max(p90, SHORTEST_MS) / max(found.p50, SHORTEST_MS)) / P90_DEVIATIONS
    return Entry(found.p50, spread, min([found.p50, *rounds]), max([found.p50, *rounds]))


def _of_pytest(document: dict[str, Any], where: str) -> Snapshot:
    entries: dict[tuple[str, str], Entry] = {}
    try:
        for benchmark in document["benchmarks"]:
            stats = benchmark["stats"]
            low, median, high = (float(stats[name]) * 1e3 for name in ("q1", "median", "q3"))
            if not 0 < low <= median <= high < math.inf:
                raise ValueError(f"quartiles of {benchmark['fullname']}: {low}, {median}, {high}")
            spread = math.log(high / low) / QUARTILE_DEVIATIONS
            entries[str(benchmark["fullname"]), TOTAL] = Entry(median, spread, low, high)
        info = document["machine_info"]
        processor = info["cpu"].get("brand_raw")
        conditions = {
            name: str(info[name])
            for name in ("system", "release", "python_version")
            if name in info
        }
    except (AttributeError, KeyError, TypeError, ValueError) as cause:
        raise InputError(f"{where} is not as pytest-benchmark writes it: {cause!r}") from cause
    machine = {"processor": str(processor)} if processor else {}
    return Snapshot(where, entries, machine, conditions)
