"""Two runs side by side, by ratio, judged by the spread that each of them had within itself.

Ratios are taken after what the yardstick, a fixed product of matrices that every run measures,
tells of the machine: how much faster or slower that was as a whole. A row, or a stage of one,
differs when its ratio is beyond ten per cent and, on top of that, 1.5 times the spread that the
rounds of both runs and of the yardstick have (robust deviations of their logarithms), and when each
median lies outside the rounds of the other run, the odd tenth of them at either end left out.

Not everything follows the yardstick. Where the machine moved by more than ten per cent, a figure
whose verdict depends on that correction is "inconclusive".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from handmesh.errors import InputError

from .protocol import TOTAL
from .report import columns
from .snapshots import SHORTEST_MS, Entry, Snapshot, entries_of, read_any

__all__ = [
    "Comparison", "Entry", "Row", "Snapshot", "compare", "entries_of", "read_any", "to_table",
]  # fmt: skip

LEAST_RATIO = 1.1
DEVIATIONS = 1.5
# Where the rounds ask for more room than this, nothing can be called equal.
WIDEST_LIMIT = 2.0
YARDSTICK = "yardstick"
_UNMOVED = Entry(1.0, 0.0, 1.0, 1.0)  # the yardstick of runs that do not both have one


@dataclass(frozen=True)
class Row:
    """One entry in both runs.

    Attributes:
        name, stage: of what. old, new: in either run.
        limit: ratio, after the machine's, that it takes to differ.
        verdict: "equal", "slower", "faster" or "inconclusive".
    """

    name: str
    stage: str
    old: Entry
    new: Entry
    limit: float
    verdict: str

    @property
    def ratio(self) -> float:
        """New over old; what is shorter than a clock can tell counts as that short."""
        return _ratio(self.old, self.new)


@dataclass(frozen=True)
class Comparison:
    """All that is in both runs, and what is in one alone; `yardstick` new over old, 1 if none."""

    old: Snapshot
    new: Snapshot
    rows: Sequence[Row]
    only_old: Sequence[str]
    only_new: Sequence[str]
    yardstick: float

    @property
    def failed(self) -> bool:
        """Whether something became slower, cannot be told, or is no longer there."""
        return bool(self.only_old) or any(
            row.verdict in ("slower", "inconclusive") for row in self.rows
        )


def compare(old: Snapshot, new: Snapshot) -> Comparison:
    """Judge every row and stage that both runs have.

    Raises:
        InputError: they have none in common.
    """
    common = [key for key in old.entries if key in new.entries and key[0] != YARDSTICK]
    if not common:
        raise InputError(f"{old.where} and {new.where} have no rows in common")
    key = (YARDSTICK, TOTAL)
    both = key in old.entries and key in new.entries
    before, after = (s.entries[key] if both else _UNMOVED for s in (old, new))
    machine, wobble = _ratio(before, after), math.hypot(before.spread, after.spread)
    rows = [_judged(*key, old.entries[key], new.entries[key], machine, wobble) for key in common]
    return Comparison(old, new, rows, _missing_in(new, old), _missing_in(old, new), machine)


def _missing_in(one: Snapshot, other: Snapshot) -> list[str]:
    """Rows of the other, and stages of rows that both have."""
    names = {name for name, _ in one.entries}
    missing = {
        f"{name}, {stage}" if name in names else name
        for name, stage in other.entries
        if (name, stage) not in one.entries
    }
    return sorted(missing)


def _ratio(old: Entry, new: Entry) -> float:
    return max(new.p50, SHORTEST_MS) / max(old.p50, SHORTEST_MS)


def _judged(name: str, stage: str, old: Entry, new: Entry, machine: float, wobble: float) -> Row:
    limit = LEAST_RATIO * math.exp(DEVIATIONS * math.hypot(old.spread, new.spread, wobble))
    verdict = _verdict(old, new, machine, limit)
    moved = abs(math.log(machine)) > math.log(LEAST_RATIO)
    if moved and verdict != _verdict(old, new, 1.0, limit):
        verdict = "inconclusive"
    if verdict == "equal" and limit > WIDEST_LIMIT:
        verdict = "inconclusive"
    return Row(name, stage, old, new, limit, verdict)


def _verdict(old: Entry, new: Entry, machine: float, limit: float) -> str:
    """With the old run's figures multiplied by what the machine takes now."""
    before, low, high = (
        max(value * machine, SHORTEST_MS) for value in (old.p50, old.low, old.high)
    )
    after = max(new.p50, SHORTEST_MS)
    if after / before > limit and after > high and before < max(new.low, SHORTEST_MS):
        return "slower"
    if before / after > limit and after < low and before > max(new.high, SHORTEST_MS):
        return "faster"
    return "equal"


def to_table(comparison: Comparison) -> str:
    """What differs, by how much, and how much is equal; above it what was measured differently."""
    old, new = comparison.old, comparison.new
    lines = [*_machines(old, new), *_conditions(old, new)]
    lines += [f"PARTIAL: {s.where} was interrupted" for s in (old, new) if s.partial]
    lines += [
        f"{words} {snapshot.where}: {', '.join(names)}"
        for words, snapshot, names in (
            ("GONE, only in", old, comparison.only_old),
            ("only in", new, comparison.only_new),
        )
        if names
    ]
    if comparison.yardstick != 1.0:
        lines.append(
            f"yardstick: the machine itself took {comparison.yardstick:.2f} times as long as before"
        )
    different = [row for row in comparison.rows if row.verdict != "equal"]
    equal = len(comparison.rows) - len(different)
    widest = max((row.limit for row in comparison.rows if row.verdict == "equal"), default=1.0)
    lines.append(
        f"{equal} of {len(comparison.rows)} figures are equal within the runs' spread, which is a "
        f"factor of {widest:.2f} at most"
    )
    if any(row.verdict == "inconclusive" for row in different):
        lines.append(
            "inconclusive: the rounds are too far apart to tell, or it depends on whether the row "
            "follows the machine; measure again, with less else to do or --seconds"
        )
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
    return "\n".join(lines)


def _machines(old: Snapshot, new: Snapshot) -> list[str]:
    if not old.machine and not new.machine:
        return ["UNKNOWN MACHINES: neither run says what it was measured on"]
    if old.machine == new.machine:
        return []
    one, other = (", ".join(s.machine.values()) or "unknown" for s in (old, new))
    return [f"DIFFERENT MACHINES: {one} and {other}"]


def _conditions(old: Snapshot, new: Snapshot) -> list[str]:
    """What of the runs, and of rows that both have, is not the same."""
    found = [
        f"{name}: {one} and {other}"
        for name, one, other in _unequal(old.conditions, new.conditions)
    ]
    # One line for all rows of which the same differs.
    rows: dict[str, list[str]] = {}
    for name, facts in old.facts.items():
        for what, one, other in _unequal(facts, new.facts.get(name, facts)):
            rows.setdefault(f"{what}, {one} and {other}", []).append(name)
    found += [f"{what}: {', '.join(names)}" for what, names in rows.items()]
    return [f"DIFFERENT {line}" for line in found]


def _unequal(old: Mapping[str, str], new: Mapping[str, str]) -> list[tuple[str, str, str]]:
    names = dict.fromkeys([*old, *new])
    pairs = [(name, old.get(name, "unknown"), new.get(name, "unknown")) for name in names]
    return [(name, one, other) for name, one, other in pairs if one != other]
