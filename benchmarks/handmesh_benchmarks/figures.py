"""What the page's charts show of results. Each is an SVG, or "" where there is nothing to show."""

from __future__ import annotations

import re
from collections.abc import Sequence

from . import charts
from .charts import Bar, Point, Spread
from .protocol import Measurement
from .report import PAPER_MS, PARTS, STAGES, ArtifactError, errors_mm
from .results import Results

__all__ = ["accuracy", "errors_of", "parts", "percentiles", "rows_of", "stages"]


def errors_of(results: Sequence[Results]) -> dict[str, ArtifactError]:
    """Error of each artifact in any of the runs, by its hash."""
    return errors_mm(m for r in results for m in r.measurements)


def rows_of(results: Sequence[Results], task: str) -> list[tuple[int, Measurement]]:
    """Rows of a task, each with the number of its run, from 0."""
    return [
        (i, m) for i, r in enumerate(results) for m in r.measurements if m.facts["task"] == task
    ]


def _names(found: Sequence[tuple[int, Measurement]], many: bool) -> list[str]:
    """Of rows in a chart; with what ran, where rows had the same name otherwise."""
    names = []
    for i, m in found:
        f = m.facts
        threads = f", {f['threads']} thr" if f["threads"] else ""
        extra = "" if f["task"] == "parts" else f" {f['precision']}"
        names.append(f"{_run(i, many)}{f['network']} {f['backend']}{extra}{threads}")
    return _told_apart(names, [str(m.facts["provider"]) for _, m in found])


def _run(i: int, many: bool) -> str:
    return f"{i + 1}: " if many else ""


def _told_apart(names: Sequence[str], providers: Sequence[str]) -> list[str]:
    """Names of which no two are the same: with what the provider has that its namesakes' lack."""
    told = list(names)
    for name in {name for name in names if names.count(name) > 1}:
        same = [i for i, other in enumerate(names) if other == name]
        pieces = {i: re.split(r"[,;] ", providers[i]) for i in same}
        common = set.intersection(*(set(words) for words in pieces.values()))
        for i in same:
            own = ", ".join(word for word in pieces[i] if word not in common)
            told[i] = f"{name}, {own}" if own else name
    # The same provider, too: two runs of one thing, or a row that was measured twice.
    seen: dict[str, int] = {}
    for i, name in enumerate(told):
        seen[name] = seen.get(name, 0) + 1
        told[i] = name if seen[name] == 1 else f"{name} ({seen[name]})"
    return told


def accuracy(results: Sequence[Results]) -> str:
    """Networks alone: latency at the fewest threads of each run against the artifact's error."""
    many, errors = len(results) > 1, errors_of(results)
    found = rows_of(results, "network")
    least = {i: min(m.facts["threads"] for j, m in found if j == i) for i, _ in found}
    shown = [
        (i, m, error)
        for i, m in found
        if m.facts["threads"] == least[i]
        and m.total.p50 > 0
        and (error := errors.get((m.facts.get("artifact") or {}).get("sha256", ""))) is not None
    ]
    # A point for each artifact, a series for each way to run artifacts.
    ways = [(f"{_run(i, many)}{m.facts['backend']}", m) for i, m, _ in shown]
    labels = _told_apart(
        [f"{way} {m.facts['precision']}" for way, m in ways],
        [str(m.facts["provider"]) for _, m in ways],
    )
    points = []
    for (way, m), (_, _, error), label in zip(ways, shown, labels, strict=True):
        series = way + label.removeprefix(f"{way} {m.facts['precision']}")
        points.append(
            Point(m.total.p50, error.mm, ("" if error.measured else "~ ") + label, series)
        )
    return charts.scatter(points, "p50, ms (logarithmic)", "error, mm") if points else ""


def stages(results: Sequence[Results]) -> str:
    """predict() by stage, p50."""
    return _bars(results, "predict", STAGES)


def percentiles(results: Sequence[Results]) -> str:
    """Networks alone: p50, p90, p99."""
    rows = [(i, m) for i, m in rows_of(results, "network") if m.total.p50 > 0]
    names = _names(rows, len(results) > 1)
    found = [
        Spread(name, m.total.p50, m.total.p90, m.total.p99)
        for name, (_, m) in zip(names, rows, strict=True)
    ]
    return charts.spreads(found) if found else ""


def parts(results: Sequence[Results]) -> str:
    """Networks in their parts, p50, beside the paper's."""
    paper = Bar("paper, GTX 1080, as published", PAPER_MS, sum(PAPER_MS.values()))
    return _bars(results, "parts", PARTS, paper)


def _bars(results: Sequence[Results], task: str, stages: Sequence[str], *first: Bar) -> str:
    rows = rows_of(results, task)
    found = [
        Bar(name, {s: m.stages[s].p50 for s in stages if s in m.stages}, m.total.p50)
        for name, (_, m) in zip(_names(rows, len(results) > 1), rows, strict=True)
    ]
    return charts.bars([*first, *found]) if found else ""
