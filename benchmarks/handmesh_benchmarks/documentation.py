"""docs/benchmarks.md, its charts and the README's figures, made from the committed results and from
nothing else::

    python -m handmesh_benchmarks.documentation            # in a checkout
    python -m handmesh_benchmarks.documentation --check    # fails where it would change something

Results are the JSON files in docs/benchmarks/: of `handmesh bench --out`, one a device, and of
`handmesh bench --scaling --out`.
"""

from __future__ import annotations

if __name__ == "__main__":
    from .command import run

    run(__spec__)

import sys
from collections.abc import Sequence
from pathlib import Path

from handmesh.atomic import write_atomic
from handmesh.errors import InputError

from . import charts, page
from .command import parse, parser_of
from .report import STAGES, busy_before, markdown, short
from .results import Results, kind_of, load
from .scaling import AXES, charts_of, curves, exponent

__all__ = ["PAGE", "main", "make"]

SOURCES = Path("docs/benchmarks")
PAGE = Path("docs/benchmarks.md")
IMAGES = Path("docs/images")
README = Path("README.md")
BEGIN, END = "<!-- figures: python -m handmesh_benchmarks.documentation -->\n", "<!-- end -->\n"

_HEAD = """# Benchmarks

Made by `python -m handmesh_benchmarks.documentation` from the results in
[docs/benchmarks](benchmarks); change those, not this page. [Benchmarking](benchmarking.md) says how
they are measured. A figure belongs to the device that it was measured on.
"""
_NONE = "Nothing has been measured for this page yet.\n"
_COMMANDS = """    handmesh bench --headline --out docs/benchmarks/DEVICE.json
    handmesh bench --headline --device ssh:HOST --out docs/benchmarks/HOST.json
    handmesh bench --scaling --out docs/benchmarks/scaling.json
    python -m handmesh_benchmarks.network_peers --headline --out docs/benchmarks/peers.json
"""


def make(root: Path) -> dict[Path, str]:
    """The page and its charts, by their paths in the checkout.

    Raises:
        InputError: a file of results cannot be read, or has no rows, or both of scaling and others.
    """
    scaling: dict[str, Results] = {}
    runs: list[Results] = []
    for path in sorted((root / SOURCES).glob("*.json")):
        results = load(path)
        kinds = set(_is_scaling(results))
        if len(kinds) != 1:
            what = "scaling and other rows" if kinds else "no row"
            raise InputError(
                f"{path} holds {what}: it must hold one kind of rows, and at least one"
            )
        if kinds == {True}:
            scaling[path.stem] = results
        else:
            runs.append(results)
    files: dict[Path, str] = {}
    parts = [_HEAD]
    if not runs and not scaling:
        parts.append(_NONE)
    if runs:
        parts += [page.markdown_table(*page.device_table(runs)), _COMMANDS]
    for section in page.sections(runs):
        parts += [f"## {section.title}\n", f"{section.note}\n"]
        if section.chart:
            parts.append(_image(files, f"bench_{section.name}", section.title, section.chart))
        if section.table[1]:
            parts.append(page.markdown_table(*section.table))
    for stem, results in scaling.items():
        parts += _scaling(results, files, "" if len(scaling) == 1 else stem)
    floors = page.known_floors()
    parts += ["## Floors from data sheets\n", f"{page.FLOORS}\n"]
    parts += ["    handmesh bench --floors\n", page.markdown_table(*page.floor_table(floors))]
    parts.append(page.markdown_table(*page.sheet_table()))
    missing = page.not_measured(runs)
    if missing:
        parts += ["## Not measured\n", "\n".join(missing) + "\n"]
    files[PAGE] = "\n".join(parts)
    readme = root / README
    headlines = [r for r in runs if kind_of(r.measurements) == "headline"]
    if readme.is_file() and headlines:
        files[README] = _with_figures(readme.read_text(encoding="utf-8"), headlines)
    return files


def _with_figures(text: str, runs: Sequence[Results]) -> str:
    """The README with the figures of runs that may be quoted between its two marks.

    Raises:
        InputError: the marks are not there, one after the other.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{README} must hold the lines {BEGIN.strip()} and {END.strip()}")
    parts = [before + begin]
    for results in runs:
        if any(m.facts["task"] == "predict" for m in results.measurements):
            parts += _figures(results)
    return "\n".join([*parts, end + after])


def _figures(results: Results) -> list[str]:
    device = results.device
    where = markdown(f"{device.get('processor')}, {device.get('cores_usable')} cores")
    predict = [
        [
            str(m.facts["provider"]), str(m.facts["precision"]), f"{m.total.p50:.1f}",
            "-" if m.total.p90 is None else f"{m.total.p90:.1f}",
            *(f"{m.stages[stage].p50:.2f}" if stage in m.stages else "-" for stage in STAGES),
        ]
        for m in results.measurements
        if m.facts["task"] == "predict"
    ]  # fmt: skip
    parts = [
        f"On {where} ({results.ended[:10]}), milliseconds of `predict(looks=1)` on "
        f"{markdown(str(results.context.get('photo', 'a photo')))}, box and side given as "
        f"they were found, for which the network saw {_crops(results)}, and of its stages:\n",
        page.markdown_table(["what ran", "weights", "p50", "p90", *STAGES], predict),
    ]
    header, cells = page.parts_table([results])
    if cells:
        parts += [
            "The networks in the stages that the paper times (hourglass, or `light`'s backbone; "
            "residual network and graph CNN; pose regressor), milliseconds:\n",
            page.markdown_table(header[1:], [row[1:] for row in cells]),
        ]
    return parts


def _crops(results: Results) -> str:
    """How many crops `predict()` showed to the network, in words."""
    rows = [m.facts for m in results.measurements if m.facts["task"] == "predict"]
    counts = sorted({int(str(facts.get("crops_seen", 1))) for facts in rows})
    return "one crop" if counts == [1] else f"{' or '.join(map(str, counts))} crops"


def _scaling(results: Results, files: dict[Path, str], stem: str) -> list[str]:
    """One run; `stem` of its file where there are several."""
    kind = kind_of(results.measurements)
    said = " It is not to be quoted." if kind == "smoke" else ""
    device = results.device
    parts = [
        f"## Scaling{stem and f': {markdown(stem)}'}\n",
        f"A {kind} run on {markdown(str(device.get('processor')))}, "
        f"{device.get('cores_usable')} cores, {busy_before(device)} before it, "
        f"{results.ended[:10]}.{said}\n",
        "    handmesh bench --scaling\n",
        *(f"Not measured: {markdown(short(reason))}\n" for reason in results.missing),
    ]
    for axis, chart in charts_of(results).items():
        name = "_".join(["scaling", *([stem] if stem else []), *axis.split()])
        parts += [f"### {axis.capitalize()}\n", _image(files, name, f"Cost by {axis}", chart)]
        lines = curves(results, axis)
        parts.append(f"What ran: {_ran(results, axis)}.\n")
        xs = sorted({x for line in lines for x, _ in line.points})
        header = [AXES[axis][0], *(f"{line.name}, {AXES[axis][1]}" for line in lines)]
        cells = [[f"{x:,g}", *(_cell(dict(line.points).get(x)) for line in lines)] for x in xs]
        if axis == "vertices":
            cells.append(["power in the end", *(f"{exponent(line.points):.2f}" for line in lines)])
        parts.append(page.markdown_table(header, cells))
    return parts


def _ran(results: Results, axis: str) -> str:
    """Providers and precisions of an axis's rows, one thread unless threads are what is varied."""
    rows = [m.facts for m in results.measurements if m.facts["task"] == f"scaling {axis}"]
    named = dict.fromkeys(f"{f['provider'].split(',')[0]}, {f['precision']}" for f in rows)
    threads = "" if axis == "threads" else ", one thread"
    return markdown("; ".join(named) + threads)


def _image(files: dict[Path, str], name: str, title: str, chart: str) -> str:
    files[IMAGES / f"{name}.svg"] = charts.standalone(chart)
    return f"![{title}](images/{name}.svg)\n"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _is_scaling(results: Results) -> list[bool]:
    return [str(m.facts["task"]).startswith("scaling") for m in results.measurements]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. With --check, 1 where a file is not what it makes."""
    parser = parser_of(__name__, __doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="of the checkout (default .)")
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parse(parser, arguments)
    if not (options.root / PAGE.parent).is_dir():
        raise InputError(
            f"expected a checkout of handmesh, and {options.root.absolute()} has no folder "
            f"{PAGE.parent}: run this in one, or give its folder with --root"
        )
    old: list[str] = []
    for path, text in make(options.root).items():
        target = options.root / path
        if options.check:
            same = target.is_file() and target.read_text(encoding="utf-8") == text
            old += [] if same else [str(path)]
        else:
            sys.stdout.write(f"written to {write_atomic(target, text.encode())}\n")
    for name in old:
        sys.stderr.write(f"{name} is not what the results make: run this without --check\n")
    return 1 if old else 0
