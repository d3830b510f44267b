"""Results of one or many devices as one page: self-contained HTML, or Markdown."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from handmesh.atomic import write_atomic
from handmesh.errors import InputError, MissingExtra

from . import charts, figures
from .figures import errors_of, rows_of
from .floors import SHEETS, Floor, floors, rows
from .network_peers import table as peers_table
from .protocol import HEADLINE_RUNS, HEADLINE_SECONDS, Measurement
from .report import PAPER_MS, PARTS, STAGES, busy_before, error_cell, markdown, short
from .results import Results, kind_of

__all__ = [
    "FLOORS", "Section", "device_table", "floor_table", "known_floors", "markdown",
    "markdown_table", "not_measured", "sections", "sheet_table", "to_html", "to_markdown",
    "write_page",
]  # fmt: skip

Table = tuple[list[str], list[list[str]]]
_NONE: Table = ([], [])


class Section(NamedTuple):
    """A heading with what stands below it; "" for no chart, an empty table for none."""

    name: str
    title: str
    note: str
    chart: str
    table: Table


_STYLE = """
body{background:var(--paper);color:var(--ink);margin:2rem auto;max-width:60rem;padding:0 1rem;
font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
h1{font-size:1.6rem} h2{font-size:1.2rem;margin-top:2.5rem} p.m,td.m{color:var(--muted)}
.wide{overflow-x:auto} table{border-collapse:collapse;font-variant-numeric:tabular-nums;
font-size:13px;margin:.5rem 0 1rem} th,td{padding:.25rem .7rem;border-bottom:1px solid var(--grid);
text-align:left;vertical-align:top} th{font-weight:600}
td.n,th.n{text-align:right;white-space:nowrap}
"""


def write_page(results: Sequence[Results], path: Path) -> Path:
    """Write a page; a name that ends in .md gets Markdown, any other HTML.

    Raises:
        InputError: nothing was measured in any of them, or the file cannot be written.
    """
    if not any(r.measurements for r in results):
        raise InputError("there is nothing in these results to report: no row was measured")
    text = to_markdown(results) if path.suffix == ".md" else to_html(results)
    return write_atomic(path, text.encode())


def to_html(results: Sequence[Results]) -> str:
    """One self-contained page: tables, and charts as inline SVG; no script, nothing loaded."""
    body = ["<h1>handmesh: latency by device</h1>", _html_table(*device_table(results))]
    for section in sections(results):
        body.append(f"<h2>{section.title}</h2><p class=m>{html.escape(section.note)}</p>")
        if section.chart:
            body.append(f'<div class="wide">{section.chart}</div>')
        if section.table[1]:
            body.append(_html_table(*section.table))
    found = known_floors()
    if found:
        body.append(f"<h2>Floors from data sheets</h2><p class=m>{html.escape(FLOORS)}</p>")
        body.append(_html_table(*floor_table(found)))
        body.append(_html_table(*sheet_table()))
    cells = [[str(i + 1), short(reason)] for i, r in enumerate(results) for reason in r.missing]
    if cells:
        body.append("<h2>Not measured</h2>" + _html_table(["run", "why"], cells))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>handmesh bench</title><style>{charts.STYLE}{_STYLE}</style></head><body>"
        + "\n".join(body)
        + "</body></html>\n"
    )


def to_markdown(results: Sequence[Results]) -> str:
    """The same tables, without charts."""
    parts = ["# handmesh: latency by device\n", markdown_table(*device_table(results))]
    for section in sections(results):
        if section.table[1]:
            parts += [f"## {section.title}\n", f"{section.note}\n", markdown_table(*section.table)]
    found = known_floors()
    if found:
        parts += ["## Floors from data sheets\n", f"{FLOORS}\n"]
        parts += [markdown_table(*floor_table(found)), markdown_table(*sheet_table())]
    missing = not_measured(results)
    if missing:
        parts += ["## Not measured\n", *missing, ""]
    return "\n".join(parts)


def not_measured(results: Sequence[Results]) -> list[str]:
    """What is missing in each run, and why, as a list in Markdown."""
    return [
        f"- run {i + 1}: {markdown(short(reason))}"
        for i, r in enumerate(results)
        for reason in r.missing
    ]


def sections(results: Sequence[Results]) -> list[Section]:
    """Whatever of the page these results have figures for."""
    every = (
        Section("accuracy", "Latency against accuracy", _ACCURACY, figures.accuracy(results),
                _NONE),
        Section("stages", "predict(), by stage", _PREDICT, figures.stages(results),
                predict_table(results)),
        Section("networks", "Networks alone", _NETWORK, figures.percentiles(results),
                network_table(results)),
        Section("parts", "Networks in their parts, beside the paper", _PARTS,
                figures.parts(results), parts_table(results)),
        Section("peers", "In other hands", _PEERS, "", peers_table(results)),
    )  # fmt: skip
    return [section for section in every if section.chart or section.table[1]]


_ACCURACY = (
    "Networks alone, one crop, p50, at the fewest threads measured. The error is the mean distance "
    "of the joints, wrists aligned, of the very artifact from the labels of its bundle's reference "
    "crops, some two dozen, with the weights that the run's row names. Other weights have other "
    "errors, and often other crops. Artifacts of the same weights hardly differ. One that was "
    "calibrated on some of them is marked ~: its error is the network's, and what the artifact "
    "changes on the other crops. Networks with random weights have none and are not shown."
)
_PREDICT = (
    "Milliseconds of Predictor.predict with box and side given and one look, on the run's photo: "
    "decoding the file, cropping, the network, and geometry; stages as p50. By default it shows "
    "the network a second crop, and of a doubtful box two more."
)
_NETWORK = "Milliseconds of one crop through the network, pixels to arrays."
_PARTS = (
    "Milliseconds, p50: the hourglass (of light: backbone, heat-maps and latent vector), the "
    "residual network with the graph CNN (of light: the graph CNN), and the pose regressor. As "
    "exported, the network is three files, and the regressor the affine map that it amounts to."
)
_PEERS = (
    "Milliseconds of one crop through the network, and of one latent vector through its graph "
    "decoder, each way in a process of its own that measures itself: ours is onnxruntime. And "
    "milliseconds a photo, the hand to be found in it, mean over all photos, some of which are "
    "looked at many times by us. The ratio is that of the medians of each round; more than 1 is "
    "slower than ours."
)
FLOORS = (
    "Nothing here was measured. Float32 without tensor cores at the stated clocks, batch 1, "
    "milliseconds: counted multiply-accumulates at the device's peak, or its weights read from "
    "memory once a crop at its bandwidth, whichever takes longer; of the pose regressor the affine "
    "map that it amounts to. A program that convolves with fewer products, as Winograd's scheme "
    "does, or whose weights stay in a cache from one crop to the next, may lie below."
)


def device_table(results: Sequence[Results]) -> Table:
    """What each run was measured on."""
    header = [
        "run",
        "processor",
        "system",
        "cores",
        "power, clock",
        "before it",
        "photo",
        "what",
        "when",
        "weights",
    ]
    cells = []
    for i, r in enumerate(results):
        d = r.device
        kind = kind_of(r.measurements)
        marks = [f"{kind} run"] + (["PARTIAL: interrupted"] if r.state == "partial" else [])
        if kind == "smoke":
            marks.append(
                f"not to be quoted (below {HEADLINE_RUNS:,} runs or {HEADLINE_SECONDS:g} s)"
            )
        name = str(d.get("processor", "unknown"))
        if d.get("gpu"):
            name += f"; GPU: {d['gpu']}"
        where = str(r.context.get("measured_on", ""))
        cells.append(
            [
                str(i + 1),
                f"{name} ({where})" if where else name,
                f"{d.get('system', '')}, handmesh {r.handmesh}",
                str(d.get("cores_usable", "")),
                f"{d.get('power_mode', 'unknown')}, {d.get('clock_mhz', 'unknown')} MHz",
                busy_before(d),
                str(r.context.get("photo", r.context.get("photos", "-"))),
                "; ".join(marks),
                r.ended[:10],
                "; ".join(_weights(r)) or "-",
            ]
        )
    return header, cells


def _weights(results: Results) -> list[str]:
    """Whose errors the run tells; of a network's speed weights say nothing."""
    artifacts = [m.facts["artifact"] for m in results.measurements if m.facts.get("artifact")]
    told = [a for a in artifacts if a.get("accuracy") and a.get("weights")]
    return list(dict.fromkeys(str(a["weights"]) for a in told))


def predict_table(results: Sequence[Results]) -> Table:
    """predict() by stage."""
    header = ["run", "network", "what ran", "precision", *STAGES, "p50", "p90", "p99", "error mm"]
    errors = errors_of(results)
    return header, [
        [
            str(i + 1),
            str(m.facts["network"]),
            str(m.facts["provider"]),
            str(m.facts["precision"]),
            *(_ms(m.stages[s].p50 if s in m.stages else None) for s in STAGES),
            *_percentile_cells(m),
            error_cell(m, errors),
        ]
        for i, m in rows_of(results, "predict")
    ]


def network_table(results: Sequence[Results]) -> Table:
    """Networks alone."""
    header = [
        "run", "network", "what ran", "precision", "load", "first", "p50", "p90", "p99", "MB",
        "peak MiB", "error mm",
    ]  # fmt: skip
    cells, errors = [], errors_of(results)
    for i, m in rows_of(results, "network"):
        artifact, memory = m.facts.get("artifact"), m.facts.get("memory")
        cells.append(
            [
                str(i + 1),
                str(m.facts["network"]),
                str(m.facts["provider"]),
                str(m.facts["precision"]),
                _ms(m.load_ms),
                _ms(m.first_ms),
                *_percentile_cells(m),
                f"{artifact['bytes'] / 1e6:.1f}" if artifact else "-",
                f"{memory['peak_mib']:.0f}" if memory else "-",
                error_cell(m, errors),
            ]
        )
    return header, cells


def parts_table(results: Sequence[Results]) -> Table:
    """Networks in their parts; the paper's own figures first. Empty without such rows."""
    header = ["run", "network", "what ran", "precision", *PARTS, "together"]
    cells = [
        [
            str(i + 1),
            str(m.facts["network"]),
            str(m.facts["provider"]),
            str(m.facts["precision"]),
            *(_ms(m.stages[part].p50 if part in m.stages else None) for part in PARTS),
            _ms(m.total.p50),
        ]
        for i, m in rows_of(results, "parts")
    ]
    paper = ["-", "paper", "GTX 1080, as the paper states", "-"]
    paper += [f"{PAPER_MS[part]:.1f}" for part in PARTS] + [f"{sum(PAPER_MS.values()):.1f}"]
    return header, [paper, *cells] if cells else []


def floor_table(found: Sequence[Floor]) -> Table:
    """Floors of both networks by device."""
    return ["network", "device", *(f"{part}, floor" for part in PARTS), "together, floor"], rows(
        found
    )


def sheet_table() -> Table:
    """The data sheets' figures and where they stand."""
    header = ["device", "TFLOP/s", "how", "GB/s", "source"]
    return header, [
        [s.device, f"{s.gflops / 1e3:.2f}", s.how, f"{s.gbytes_s:g}", s.source] for s in SHEETS
    ]


def known_floors() -> list[Floor]:
    """Empty where torch is missing, which counts operations."""
    try:
        return floors()
    except MissingExtra:
        return []


def _percentile_cells(m: Measurement) -> list[str]:
    return [_ms(value) for value in (m.total.p50, m.total.p90, m.total.p99)]


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.replace(",", "").replace(".", "", 1).isdigit()


def _html_table(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    numeric = [all(_is_number(row[i]) for row in cells) for i in range(len(header))]

    def cell(tag: str, text: str, number: bool) -> str:
        named = " class=n" if number else ""
        return f"<{tag}{named}>{html.escape(text)}</{tag}>"

    lines = ["".join(cell("th", h, n) for h, n in zip(header, numeric, strict=True))]
    lines += ["".join(cell("td", c, n) for c, n in zip(row, numeric, strict=True)) for row in cells]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table>{body}</table></div>'


def markdown_table(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """As GitHub reads it."""
    lines = [[markdown(text) for text in line] for line in (header, *cells)]
    lines.insert(1, ["---"] * len(header))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
