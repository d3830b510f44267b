"""Every way in which a network can be exported, side by side: size, exactness, accuracy, latency.

Each combination of format, graph form, precision and optimisation is exported from the same
weights and proven on the same crops, and all that can run here are timed in one interleaved run.
What is off by more than its precision may be is listed as refused: `handmesh export` would not have
kept it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from tqdm import tqdm

from handmesh import Bundle, backends
from handmesh.errors import BackendError, ExportError, InputError, MissingExtra, ParityError
from handmesh.verification import read_reference
from handmesh_converters import formats
from handmesh_converters.export import add_formats
from handmesh_converters.parity import TOLERANCES, Parity, Tolerance
from handmesh_converters.request import Abilities, Request, one_of

from .protocol import Candidate, Protocol, Run, measure

__all__ = ["Row", "by_network", "check", "compare", "requests", "to_markdown"]

ANYTHING = Tolerance(*[1e9] * len(fields(Tolerance)))
Wanted = tuple[str, Request]


@dataclass(frozen=True)
class Row:
    """One export.

    Attributes:
        network, format: names. request: graph, precision and optimisations, all given.
        default: whether `handmesh export` does this unless told otherwise.
        bytes: of the artifact. parity: against the network, on the bundle's crops.
        kept: whether it is within the tolerance of its precision.
        p50_ms: of one crop at one thread; None where nothing runs it here.
        runtime: what gave the outputs that were compared.
    """

    network: str
    format: str
    request: Request
    default: bool
    bytes: int
    parity: Parity
    kept: bool
    p50_ms: float | None
    runtime: str


def requests(able: Abilities, everything: bool = True) -> list[Request]:
    """What a format can be asked for, its default first; without ``everything`` one of each graph
    and of each precision."""
    graph, precision = able.graphs[0], able.precisions[0]
    plain = [Request(g, p) for g in able.graphs for p in able.precisions]
    if not everything:
        return [r for r in plain if r.graph == graph or r.precision == precision]
    optimized = [
        Request(_graph_for(name, able), p, (name,))
        for name, (precisions, _) in able.optimizations.items()
        for p in precisions
    ]
    return sorted(plain, key=lambda r: (r.graph, r.precision) != (graph, precision)) + optimized


def _graph_for(optimization: str, able: Abilities) -> str:
    """The format's default, unless the optimisation is for another graph."""
    return able.optimized_graphs.get(optimization, able.graphs[0])


def check(only: Sequence[str] | None, without: Sequence[str]) -> None:
    """Raise `InputError` where a format or an optimisation is none, before any work."""
    able = formats.abilities()
    for name in only or ():
        one_of("format", name, tuple(able))
    known = dict.fromkeys(name for row in able.values() for name in row.optimizations)
    for name in without:
        one_of("an optimization", name, tuple(known))


def compare(
    bundles: Iterable[Bundle],
    folder: Path,
    protocol: Protocol,
    only: Sequence[str] | None = None,
    without: Sequence[str] = (),
) -> tuple[list[Row], list[str]]:
    """Export, prove and time.

    Args:
        bundles: whose networks; of all but the first fewer combinations are made.
        folder: empty, for what is exported; it can be deleted afterwards.
        protocol: how long to time. only: formats; by default all whose packages are installed.
        without: optimisations that are left out.

    Returns:
        Rows, and why formats or combinations are missing.

    Raises:
        InputError: an unknown format, or nothing to compare.
    """
    missing: list[str] = []
    made: list[tuple[Row, Bundle]] = []
    for number, bundle in enumerate(bundles):
        jobs: list[Wanted] = []
        for name in formats.names() if only is None else only:
            try:
                able = formats.load(name).ABLE
                wanted = requests(able, number == 0)
                jobs += [(name, r) for r in wanted if not set(r.optimize) & set(without)]
            except MissingExtra as error:
                missing.append(str(error))
        for name, request in tqdm(jobs, desc=bundle.name, unit="export"):
            place = folder / f"{number}-{len(made)}"
            try:
                made.append(_export(bundle, name, request, place))
            except (ExportError, BackendError) as error:
                missing.append(f"{bundle.name} as {name}, {_asked(request)}: {error}")
    if not made:
        raise InputError(f"nothing was exported: {'; '.join(dict.fromkeys(missing))}")
    return _timed(made, protocol), list(dict.fromkeys(missing))


def _export(bundle: Bundle, name: str, request: Request, place: Path) -> tuple[Row, Bundle]:
    able = formats.load(name).ABLE
    graph, precision = request.resolve(name, able)
    written = add_formats(bundle, [name], place, request, ANYTHING)
    parity = written.parity[name]
    kept = True
    try:
        parity.check(TOLERANCES[precision])
    except ParityError:
        kept = False
    default = not request.optimize and (graph, precision) == Request().resolve(name, able)
    size = written.bundle.size_of(name)
    row = Row(bundle.name, name, request, default, size, parity, kept, None, parity.runtime)
    return row, written.bundle


def _timed(made: Sequence[tuple[Row, Bundle]], protocol: Protocol) -> list[Row]:
    """The same rows, with latencies where a backend runs the artifact."""
    runnable = {
        str(i): (row, bundle)
        for i, (row, bundle) in enumerate(made)
        if backends.unavailable(row.format, bundle) is None
    }
    candidates = [Candidate(key, _loader(row, bundle)) for key, (row, bundle) in runnable.items()]
    measured = measure(candidates, protocol) if candidates else []
    p50 = {m.name: m.total.p50 for m in measured}
    return [Row(**{**vars(row), "p50_ms": p50.get(str(i))}) for i, (row, _) in enumerate(made)]


def _loader(row: Row, bundle: Bundle) -> Callable[[], Run]:
    def load() -> Run:
        backend = backends.create(row.format, bundle, threads=1)
        image = read_reference(bundle)[0][:1]  # (1, S, S, 3)

        def run() -> None:
            backend.run(image)

        return run

    return load


def by_network(rows: Sequence[Row]) -> list[list[Row]]:
    """The same rows, those of each network together, as they came."""
    networks = dict.fromkeys(row.network for row in rows)
    return [[row for row in rows if row.network == name] for name in networks]


def to_markdown(rows: Sequence[Row]) -> str:
    """A table, the defaults in bold."""
    lines = [
        "| network | format | graph | precision | optimised | MB | px, worst (p99) | "
        "mm, worst (p99) | change of error | p50 ms | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        parity, accuracy = row.parity, row.parity.accuracy
        change = "" if accuracy is None else f"{accuracy.artifact_mm - accuracy.network_mm:+.3f} mm"
        graph, precision = row.request.graph, row.request.precision
        note = "default" if row.default else ""
        if not row.kept:
            note = f"{note} refused".strip()
        name = f"**{row.format}**" if row.default else row.format
        lines.append(
            f"| {row.network} | {name} | {graph} | {precision} | "
            f"{', '.join(row.request.optimize)} | {row.bytes / 1e6:.2f} | "
            f"{parity.crop_px.worst:.4f} ({parity.crop_px.p99:.4f}) | "
            f"{parity.mm.worst:.4f} ({parity.mm.p99:.4f}) | {change} | "
            f"{'' if row.p50_ms is None else f'{row.p50_ms:.2f}'} | {note} |"
        )
    return "\n".join(lines) + "\n"


def _asked(request: Request) -> str:
    return " ".join(filter(None, [request.graph, request.precision, *request.optimize]))
