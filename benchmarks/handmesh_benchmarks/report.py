"""Measurements as a table to read and as JSON to keep, always with what they were measured on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .protocol import HEADLINE_RUNS, HEADLINE_SECONDS, Measurement

STAGES = ("crop", "network", "geometry")
COLUMNS = ("network", "backend", "threads", "runs", "load", "first", "p50", "p90", "p99")
# Processes that run or wait, for each usable core, above which the figures are not the machine's.
BUSY = 0.5
SCHEMA = 1


def to_dict(
    measurements: Sequence[Measurement], device: Mapping[str, str | int | float]
) -> dict[str, Any]:
    """Everything, ready for JSON. Times are milliseconds unless the name says otherwise."""
    return {
        "schema": SCHEMA,
        "kind": _kind(measurements),
        "device": dict(device),
        "measurements": [dataclasses.asdict(measurement) for measurement in measurements],
        "ratios": [
            {"backend": backend, "threads": threads, "paper_over_light_p50": ratio}
            for (backend, threads), ratio in ratios(measurements).items()
        ],
    }


def ratios(measurements: Iterable[Measurement]) -> dict[tuple[str, int], float]:
    """p50 of the network `paper` over that of `light`, by backend and threads.

    Only where both were measured with the same backend and threads.
    """
    p50: dict[tuple[str, str, int], float] = {}
    for measurement in measurements:
        facts = measurement.facts
        if facts["task"] == "network":
            key = (str(facts["network"]), str(facts["backend"]), int(facts["threads"]))
            p50[key] = measurement.total.p50
    return {
        (backend, threads): value / p50["light", backend, threads]
        for (network, backend, threads), value in p50.items()
        if network == "paper" and ("light", backend, threads) in p50
    }


def to_text(measurements: Sequence[Measurement], device: Mapping[str, str | int | float]) -> str:
    """Tables for a terminal: the device, predict() by stage, the networks, and their ratio."""
    lines = [*_headline(measurements), *_warning(device), "", *_device(device)]
    predict = [m for m in measurements if m.facts["task"] == "predict"]
    if predict:
        lines += ["", "predict(array, box=...): ms; stages as p50/p90; crops seen by the network"]
        lines += columns(
            [*COLUMNS, *STAGES, "crops"],
            [[*_common(m), *(_stage(m, stage) for stage in STAGES), _crops(m)] for m in predict],
        )
    network = [m for m in measurements if m.facts["task"] == "network"]
    if network:
        lines += ["", "network alone, one crop, batch 1: ms"]
        lines += columns(COLUMNS, [_common(m) for m in network])
    found = ratios(measurements)
    if found:
        lines += ["", "p50 of paper (random weights) over p50 of light, network alone"]
        lines += columns(
            ["backend", "threads", "ratio"],
            [
                [backend, str(threads), f"{ratio:.1f}"]
                for (backend, threads), ratio in found.items()
            ],
        )
    return "\n".join(lines)


def _kind(measurements: Sequence[Measurement]) -> str:
    return "headline" if all(m.kind == "headline" for m in measurements) else "smoke"


def _headline(measurements: Sequence[Measurement]) -> list[str]:
    fewest = min(measurement.runs for measurement in measurements)
    shortest = min(measurement.seconds for measurement in measurements)
    extent = f"at least {fewest} runs over {shortest:.1f} s each"
    if _kind(measurements) == "headline":
        return [f"HEADLINE RUN: {extent}"]
    return [
        f"SMOKE RUN: {extent}. Not to be quoted: a headline rests on "
        f"{HEADLINE_RUNS} runs and {HEADLINE_SECONDS:g} s (--headline)"
    ]


def _warning(device: Mapping[str, str | int | float]) -> list[str]:
    load, cores = float(device.get("load_1min", -1)), int(device.get("cores_usable", 1))
    if load <= BUSY * cores:
        return []
    return [
        f"BUSY MACHINE: the load was {load:g} on {cores} cores before this run; "
        "the figures are slower than the machine is"
    ]


def _device(device: Mapping[str, str | int | float]) -> list[str]:
    width = max(len(name) for name in device)
    return [f"{name.replace('_', ' '):<{width}}  {value}" for name, value in device.items()]


def _common(measurement: Measurement) -> list[str]:
    facts, total = measurement.facts, measurement.total
    times = (measurement.load_ms, measurement.first_ms, total.p50, total.p90, total.p99)
    return [
        str(facts["network"]),
        str(facts["backend"]),
        str(facts["threads"]),
        str(measurement.runs),
        *(f"{value:.2f}" for value in times),
    ]


def _stage(measurement: Measurement, stage: str) -> str:
    found = measurement.stages.get(stage)
    return f"{found.p50:.2f}/{found.p90:.2f}" if found else "-"


def _crops(measurement: Measurement) -> str:
    return str(measurement.facts.get("crops_seen", "-"))


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell; words to the left, numbers to the right."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]
    numeric = [any(character.isdigit() for character in column[-1]) for column in columns]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in (header, *rows)
    ]
