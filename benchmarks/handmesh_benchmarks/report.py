"""Results as tables for a terminal, always with what they were measured on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .protocol import HEADLINE_RUNS, HEADLINE_SECONDS, Measurement, Percentiles
from .results import Results, kind_of

__all__ = [
    "PAPER_MS",
    "PARTS",
    "STAGES",
    "ArtifactError",
    "Way",
    "busy_before",
    "columns",
    "error_cell",
    "errors_mm",
    "markdown",
    "not_measured",
    "ratios",
    "short",
    "to_text",
]

STAGES = ("decode", "crop", "network", "geometry")
COLUMNS = (
    "network",
    "backend",
    "precision",
    "threads",
    "runs",
    "load",
    "first",
    "p50",
    "p90",
    "p99",
)
# Of the usable cores: with more busy before a run, the figures may not be the machine's.
BUSY = 0.5
# Of a reason in a table: what runtimes raise may be pages long. What is cut ends like this.
LONGEST, CUT = 240, " ... (whole in the JSON)"
PARTS = ("trunk", "mesh", "pose")
# Ge et al., CVPR 2019, section 5.4: milliseconds on a GTX 1080.
PAPER_MS: Mapping[str, float] = {"trunk": 12.6, "mesh": 4.7, "pose": 2.6}


def to_text(results: Results) -> str:
    """The device, predict() by stage, the networks, their parts beside the paper's, their ratio."""
    rows, errors = results.measurements, errors_mm(results.measurements)
    lines = [*_headline(results), *_warning(results.device), "", *_device(results)]
    predict = [m for m in rows if m.facts["task"] == "predict"]
    if predict:
        lines += [
            "",
            "predict(photo, box=..., looks=1): ms; stages as p50/p90; crops seen by the network",
        ]
        header = [*COLUMNS, *STAGES, "crops", "error mm", "MiB"]
        lines += columns(
            header,
            [
                [
                    *_common(m),
                    *(_stage(m.stages.get(stage)) for stage in STAGES),
                    str(m.facts.get("crops_seen", "-")),
                    error_cell(m, errors),
                    _memory(m),
                ]
                for m in predict
            ],
        )
    network = [m for m in rows if m.facts["task"] == "network"]
    if network:
        lines += ["", "network alone, one crop, batch 1: ms"]
        cells = [
            [*_common(m), error_cell(m, errors), _memory(m), m.facts["provider"]] for m in network
        ]
        lines += columns([*COLUMNS, "error mm", "MiB", "what ran"], cells)
    lines += _what_errors_are([*predict, *network])
    lines += _parts([m for m in rows if m.facts["task"] == "parts"])
    found = ratios(rows)
    if found:
        lines += ["", "p50 of paper (random weights) over p50 of light, network alone"]
        lines += columns(
            ["backend", "precision", "threads", "ratio", "what ran"],
            [
                [key.backend, key.precision, str(key.threads), f"{ratio:.1f}", key.provider]
                for key, ratio in found.items()
            ],
        )
    return "\n".join([*lines, *not_measured(results)])


def not_measured(results: Results) -> list[str]:
    """A line for each thing that was not measured: what, and why."""
    return [f"not measured: {short(reason)}" for reason in results.missing]


def short(reason: str) -> str:
    """A reason for a table: one line of `LONGEST` characters at most. The JSON has it whole."""
    line = " ".join(reason.split())
    return line if len(line) <= LONGEST else line[: LONGEST - len(CUT)].rstrip() + CUT


def _parts(rows: Sequence[Measurement]) -> list[str]:
    if not rows:
        return []
    header = ["network", "backend", "threads", *PARTS, "together", "what ran"]
    paper = ["paper", "-", "-", *(f"{PAPER_MS[p]:.1f}" for p in PARTS)]
    cells = [[*paper, f"{sum(PAPER_MS.values()):.1f}", "GTX 1080, as the paper states"]]
    for m in rows:
        parts = [m.stages[part].p50 for part in PARTS if part in m.stages]
        facts = m.facts
        cells.append(
            [str(facts["network"]), str(facts["backend"]), str(facts["threads"])]
            + [f"{value:.2f}" for value in parts]
            + [f"{m.total.p50:.2f}", str(facts["provider"])]
        )
    return [
        "",
        "networks in their parts, p50, ms: hourglass (light: backbone, heat-maps, latent);",
        "residual network and graph CNN (light: graph CNN); pose regressor (onnx: an affine map)",
        *columns(header, cells),
    ]


def markdown(text: str) -> str:
    """Text that Markdown shows as it is, in one line: whatever a device calls itself."""
    # A backslash before < keeps it from opening a tag; one before | from ending a cell.
    return re.sub(r"([\\<|])", r"\\\1", " ".join(text.split()))


class Way(NamedTuple):
    """How a network ran; "provider" without how many of its operators that took."""

    backend: str
    precision: str
    threads: int
    provider: str


def ratios(measurements: Iterable[Measurement]) -> dict[Way, float]:
    """p50 of the network `paper` over that of `light`, where both ran in the same way."""
    p50: dict[tuple[str, Way], float] = {}
    for measurement in measurements:
        facts = measurement.facts
        if facts["task"] == "network" and facts["batch"] == 1 and measurement.total.p50 > 0:
            provider = re.sub(r",? *\d+ of \d+ operators", "", str(facts["provider"]))
            way = Way(
                str(facts["backend"]), str(facts["precision"]), int(facts["threads"]), provider
            )
            p50[str(facts["network"]), way] = measurement.total.p50
    return {
        way: value / p50["light", way]
        for (network, way), value in p50.items()
        if network == "paper" and ("light", way) in p50
    }


class ArtifactError(NamedTuple):
    """Millimetres; ``measured`` on as many crops as any artifact of the same weights."""

    mm: float
    measured: bool


def errors_mm(measurements: Iterable[Measurement]) -> dict[str, ArtifactError]:
    """Error of each artifact by its hash, without those of which none is known.

    An artifact that was calibrated on some of the bundle's crops is tested on the others, which may
    be easier. Of it, what it changes there is added to the network's error on all of them.
    """
    found = {}
    for measurement in measurements:
        artifact = measurement.facts.get("artifact") or {}
        if artifact.get("accuracy"):
            found[artifact["sha256"]] = (artifact["weights"], artifact["accuracy"])
    most: dict[str, dict[str, float]] = {}
    for weights, accuracy in found.values():
        if accuracy["crops"] >= most.get(weights, accuracy)["crops"]:
            most[weights] = accuracy
    return {
        sha256: ArtifactError(
            most[weights]["network_mm"] + accuracy["mm"] - accuracy["network_mm"],
            accuracy["crops"] == most[weights]["crops"],
        )
        for sha256, (weights, accuracy) in found.items()
    }


def error_cell(measurement: Measurement, errors: Mapping[str, ArtifactError]) -> str:
    """Of the very artifact that ran: "~" where it is composed, "-" where none is known."""
    found = errors.get((measurement.facts.get("artifact") or {}).get("sha256", ""))
    return "-" if found is None else f"{'' if found.measured else '~'}{found.mm:.2f}"


def _what_errors_are(rows: Sequence[Measurement]) -> list[str]:
    """Of the column "error mm": it is no figure of docs/models.md, though in the same unit."""
    stated = [(m.facts.get("artifact") or {}).get("accuracy") for m in rows]
    counts = [accuracy["crops"] for accuracy in stated if accuracy]
    if not counts:
        return []
    return [
        "",
        "error mm: mean distance of the joints from their labels, wrists aligned, in "
        f"{max(counts)} reference crops of the bundle, to tell artifacts apart (~: of one that",
        "was calibrated on some of them, what it changes in the others is added to the network's). "
        "How good `light` is, in many other pictures, says docs/models.md",
    ]


def _headline(results: Results) -> list[str]:
    rows = results.measurements
    if not rows:
        return ["NOTHING MEASURED"]
    fewest, shortest = min(m.runs for m in rows), min(m.seconds for m in rows)
    extent = f"at least {fewest} runs over {shortest:.1f} s each"
    lines = [f"HEADLINE RUN: {extent}"]
    if kind_of(rows) == "smoke":
        lines = [
            f"SMOKE RUN: {extent}. Not to be quoted: a headline rests on "
            f"{HEADLINE_RUNS} runs and {HEADLINE_SECONDS:g} s (--headline)"
        ]
    if results.state == "partial":
        lines.append(f"PARTIAL: the run was stopped ({results.stopped_by or 'unknown'})")
    return lines


def busy_before(device: Mapping[str, str | int | float]) -> str:
    """What else the machine was doing when a run began, in words; "" where nobody looked."""
    if float(device.get("cores_busy", -1)) >= 0:
        return f"{device['cores_busy']:g} cores busy"
    return f"load {device['load_1min']:g}" if "load_1min" in device else ""


def _warning(device: Mapping[str, str | int | float]) -> list[str]:
    cores = int(device.get("cores_usable", 1))
    # The load average holds what has just ended, too; the other is of half a second before the run.
    found = float(device.get("cores_busy", device.get("load_1min", -1)))
    if found <= BUSY * cores:
        return []
    what = (
        f"{found:g} of {cores} cores were busy right before this run"
        if "cores_busy" in device
        else f"the load was {found:g} on {cores} cores before this run"
    )
    return [f"BUSY MACHINE: {what}; the figures may be slower than the machine is"]


def _device(results: Results) -> list[str]:
    entries = {**results.device, **results.context}
    width = max(len(name) for name in entries)
    return [f"{name.replace('_', ' '):<{width}}  {value}" for name, value in entries.items()]


def _common(measurement: Measurement) -> list[str]:
    facts, total = measurement.facts, measurement.total
    times = (measurement.load_ms, measurement.first_ms, total.p50, total.p90, total.p99)
    return [
        *(str(facts[name]) for name in ("network", "backend", "precision", "threads")),
        str(measurement.runs),
        *("-" if value is None else f"{value:.2f}" for value in times),
    ]


def _stage(found: Percentiles | None) -> str:
    if found is None:
        return "-"
    return f"{found.p50:.2f}" if found.p90 is None else f"{found.p50:.2f}/{found.p90:.2f}"


def _memory(measurement: Measurement) -> str:
    found = measurement.facts.get("memory")
    return f"{found['peak_mib']:.0f}" if found else "-"


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell; words to the left, numbers to the right."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]
    numeric = [_is_number(column[-1]) for column in columns]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in (header, *rows)
    ]


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.lstrip("+-")[:1].isdigit()
