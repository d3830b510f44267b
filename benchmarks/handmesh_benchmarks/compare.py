"""Two runs side by side, by ratio, judged by the spread that each of them had within itself.

A row, or a stage of one, differs when the ratio of its medians is beyond ten per cent, beyond three
times the spread of both runs' rounds (robust deviation of their logarithms), and each median lies
outside all rounds of the other run. By as much as the yardstick, a fixed product of matrices that
every run measures, tells that the machine itself was faster or slower, the ratio has to go further.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handmesh.errors import InputError

from .protocol import TOTAL, Percentiles
from .report import columns
from .results import Results, parse

__all__ = [
    "Comparison",
    "Entry",
    "Row",
    "Snapshot",
    "compare",
    "entries_of",
    "read_any",
    "to_table",
]

LEAST_RATIO = 1.1
DEVIATIONS = 3.0
# Of a clock read around something this short more than a tenth is the clock and chance.
SHORTEST_MS = 0.02
YARDSTICK = "yardstick"
# A robust standard deviation: of a normal distribution 1.4826 times the median distance.
MAD_TO_DEVIATION = 1.4826
# p90 of a normal distribution lies so many standard deviations above p50.
P90_DEVIATIONS = 1.2816


@dataclass(frozen=True)
class Entry:
    """A median, milliseconds; the deviation of its logarithm from round to round; and the least and
    largest round."""

    p50: float
    spread: float
    least: float
    largest: float


@dataclass(frozen=True)
class Snapshot:
    """One run: entries by row and stage ("total" for the whole row), and what it ran on."""

    where: str
    machine: str
    entries: Mapping[tuple[str, str], Entry]
    partial: bool = False


@dataclass(frozen=True)
class Row:
    """One entry in both runs. `verdict` is "equal", "slower" or "faster"; `limit` what it took."""

    name: str
    stage: str
    old: Entry
    new: Entry
    limit: float
    verdict: str

    @property
    def ratio(self) -> float:
        """New over old."""
        return self.new.p50 / self.old.p50


@dataclass(frozen=True)
class Comparison:
    """All that is in both runs, and what is in one alone; `yardstick` new over old, 1 if none."""

    old: Snapshot
    new: Snapshot
    rows: Sequence[Row]
    only_old: Sequence[str]
    only_new: Sequence[str]
    yardstick: float


def compare(old: Snapshot, new: Snapshot) -> Comparison:
    """Judge every row and stage that both runs have.

    Raises:
        InputError: they have none in common.
    """
    common = [key for key in old.entries if key in new.entries]
    if not common:
        raise InputError(f"{old.where} and {new.where} have no rows in common")
    key = (YARDSTICK, TOTAL)
    yardstick = new.entries[key].p50 / old.entries[key].p50 if key in common else 1.0
    rows = [
        _judged(*key, old.entries[key], new.entries[key], abs(math.log(yardstick)))
        for key in common
        if key[0] != YARDSTICK
    ]
    names_old, names_new = ({name for name, _ in s.entries} for s in (old, new))
    return Comparison(
        old, new, rows, sorted(names_old - names_new), sorted(names_new - names_old), yardstick
    )


def _judged(name: str, stage: str, old: Entry, new: Entry, shift: float) -> Row:
    spread = math.hypot(old.spread, new.spread)
    limit = max(math.log(LEAST_RATIO), DEVIATIONS * spread) + shift
    if min(old.p50, new.p50) <= 0 or max(old.p50, new.p50) < SHORTEST_MS:
        return Row(name, stage, old, new, math.exp(limit), "equal")
    distance = math.log(new.p50 / old.p50)
    verdict = "equal"
    if distance > limit and new.p50 > old.largest and old.p50 < new.least:
        verdict = "slower"
    elif distance < -limit and new.p50 < old.least and old.p50 > new.largest:
        verdict = "faster"
    return Row(name, stage, old, new, math.exp(limit), verdict)


def to_table(comparison: Comparison) -> str:
    """What differs, by how much, and how much is equal."""
    old, new = comparison.old, comparison.new
    lines = []
    if old.machine != new.machine:
        lines.append(f"DIFFERENT MACHINES: {old.machine} and {new.machine}")
    lines += [f"PARTIAL: {s.where} was interrupted" for s in (old, new) if s.partial]
    if comparison.yardstick != 1.0:
        lines.append(
            f"yardstick: the machine itself took {comparison.yardstick:.2f} times as long as before"
        )
    different = [row for row in comparison.rows if row.verdict != "equal"]
    equal = len(comparison.rows) - len(different)
    lines.append(f"{equal} of {len(comparison.rows)} figures are equal within the runs' spread")
    if different:
        different.sort(key=lambda row: -abs(math.log(row.ratio)))
        lines += columns(
            ["what", "stage", "old ms", "new ms", "ratio", "limit", "verdict"],
            [
                [
                    row.name,
                    row.stage,
                    f"{row.old.p50:.3f}",
                    f"{row.new.p50:.3f}",
                    f"{row.ratio:.2f}",
                    f"{row.limit:.2f}",
                    row.verdict,
                ]
                for row in different
            ],
        )
    for words, names in (("only in", comparison.only_old), ("only in", comparison.only_new)):
        if names:
            where = old.where if names is comparison.only_old else new.where
            lines.append(f"{words} {where}: {', '.join(names)}")
    return "\n".join(lines)


def read_any(path: Path) -> Snapshot:
    """A run from a file that `handmesh bench --out` or pytest-benchmark wrote.

    Raises:
        InputError: it cannot be read, or is neither.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as cause:
        raise InputError(f"cannot read {path}: {cause.strerror or cause}") from cause
    except ValueError as cause:
        raise InputError(
            f"{path} is no JSON ({cause}): give a file that `handmesh bench --out` or "
            "pytest-benchmark wrote"
        ) from cause
    if isinstance(document, dict) and "benchmarks" in document and "machine_info" in document:
        return _of_pytest(document, str(path))
    return entries_of(parse(document, str(path)), str(path))


def entries_of(results: Results, where: str) -> Snapshot:
    """The figures of a run."""
    entries: dict[tuple[str, str], Entry] = {}
    for row in results.measurements:
        for stage, found in {TOTAL: row.total, **row.stages}.items():
            entries[row.name, stage] = _entry(found, row.rounds.get(stage, ()))
    machine = str(results.device.get("processor", "unknown"))
    return Snapshot(where, machine, entries, results.state == "partial")


def _entry(found: Percentiles, rounds: Sequence[float]) -> Entry:
    if len(rounds) >= 3 and min(rounds) > 0:
        logs = [math.log(value) for value in rounds]
        middle = statistics.median(logs)
        spread = MAD_TO_DEVIATION * statistics.median(abs(value - middle) for value in logs)
        return Entry(found.p50, spread, min(rounds), max(rounds))
    p90 = found.p50 if found.p90 is None else found.p90
    spread = math.log(p90 / found.p50) / P90_DEVIATIONS if found.p50 > 0 else 0.0
    return Entry(found.p50, spread, min([found.p50, *rounds]), max([found.p50, *rounds]))


def _of_pytest(document: dict[str, Any], where: str) -> Snapshot:
    entries: dict[tuple[str, str], Entry] = {}
    try:
        for benchmark in document["benchmarks"]:
            stats = benchmark["stats"]
            median, low, high = (float(stats[name]) * 1e3 for name in ("median", "q1", "q3"))
            # Half of the runs lie between the quartiles, 1.349 standard deviations apart.
            spread = math.log(high / low) / 1.349 if low > 0 else 0.0
            entries[benchmark["fullname"], TOTAL] = Entry(median, spread, low, high)
        machine = str(document["machine_info"]["cpu"].get("brand_raw", "unknown"))
    except (KeyError, TypeError, ValueError) as cause:
        raise InputError(f"{where} is not as pytest-benchmark writes it: {cause!r}") from cause
    return Snapshot(where, machine, entries)
