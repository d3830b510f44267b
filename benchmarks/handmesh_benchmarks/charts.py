"""Charts as inline SVG, by hand: no library, no script, light and dark by the reader's setting.

Colours are CSS variables that `STYLE` defines, so that a chart follows the page that it stands in;
`standalone` puts the style inside, for files of their own. A colour never stands for something
alone: bars, points and lines are labelled, too, and where colours begin again marks have another
shape.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "STYLE", "Bar", "Line", "Point", "Spread", "bars", "lines", "scatter", "spreads", "standalone",
]  # fmt: skip

WIDTH = 860
LABEL, MOST_LABEL = 300, 430  # for the names of bars, left of them: at least, at most
POINT_LABEL = 34  # letters beside a point, at most
LETTER = 7.0  # pixels of one, at most nearly always
ROW, GAP = 20, 10
SERIES = 6  # colours; further series begin again
STYLE = """
:root{--paper:#fcfcfb;--ink:#1f1e1d;--muted:#6b6862;--grid:#dedcd6;
--s0:#2a6fc9;--s1:#d9601f;--s2:#12876a;--s3:#b07a00;--s4:#7a52c7;--s5:#c23d6b}
@media (prefers-color-scheme:dark){:root{--paper:#191918;--ink:#ecebe8;--muted:#a19e96;
--grid:#3a3936;--s0:#5b9bee;--s1:#f0854a;--s2:#3fb592;--s3:#d8a530;--s4:#a48af0;--s5:#ea7aa0}}
svg{font:13px system-ui,-apple-system,"Segoe UI",sans-serif;max-width:100%;height:auto}
svg text{fill:var(--ink)} svg .m{fill:var(--muted)} svg .g{stroke:var(--grid);stroke-width:1}
svg .e{text-anchor:end} svg .c{text-anchor:middle}
"""


@dataclass(frozen=True)
class Bar:
    """One bar: its name, parts in milliseconds by name, and the number written behind it.

    The median of a whole is not the sum of its parts' medians: ``total`` is what was measured of
    the whole.
    """

    name: str
    parts: Mapping[str, float]
    total: float


@dataclass(frozen=True)
class Spread:
    """Percentiles of one row, milliseconds; the later ones may be unknown."""

    name: str
    p50: float
    p90: float | None
    p99: float | None


@dataclass(frozen=True)
class Point:
    """A point with a label; ``series`` decides its colour."""

    x: float
    y: float
    label: str
    series: str


@dataclass(frozen=True)
class Line:
    """A curve of positive values."""

    name: str
    points: Sequence[tuple[float, float]]


def bars(rows: Sequence[Bar], unit: str = "ms") -> str:
    """Horizontal bars, each stacked of its parts, one colour a part; a legend above."""
    names = list(dict.fromkeys(name for row in rows for name in row.parts))
    most = max((sum(row.parts.values()) for row in rows), default=1.0) or 1.0
    left = _label_width([row.name for row in rows])
    scale = (WIDTH - left - 110) / most
    legend, y = _legend(names)
    out = [legend]
    for row in rows:
        out.append(_name(left - 8, y + 14, row.name, left))
        x = left
        for name, value in row.parts.items():
            width = value * scale
            title = f"<title>{_e(row.name)}: {_e(name)} {value:.3g} {unit}</title>"
            out.append(
                f'<rect x="{x:.1f}" y="{y}" width="{max(width - 1, 0.3):.1f}" height="{ROW}" '
                f'fill="{_colour(names.index(name))}">{title}</rect>'
            )
            x += width
        out.append(_text(x + 6, y + 14, f"{_number(row.total)} {unit}"))
        y += ROW + GAP
    return _svg(out, y)


def spreads(rows: Sequence[Spread]) -> str:
    """p50, p90 and p99 of each row on one logarithmic axis: a dot, a tick, and an end."""
    values = [v for r in rows for v in (r.p50, r.p90, r.p99) if v]
    low, high = _decades(values)
    left, right = _label_width([row.name for row in rows]), WIDTH - 70

    def at(value: float) -> float:
        return left + (math.log10(value) - low) / (high - low) * (right - left)

    bottom = 34 + len(rows) * (ROW + GAP)
    out = [
        _text(right, 14, "dot: p50, tick: p90, end: p99; milliseconds, logarithmic", "m e"),
        *_vertical(low, high, at, 24, bottom),
    ]
    for i, row in enumerate(rows):
        y = 34 + i * (ROW + GAP) + 10
        end = row.p99 or row.p90 or row.p50
        colour = _colour(0)
        out.append(_name(left - 8, y + 4, row.name, left))
        out.append(
            f'<line x1="{at(row.p50):.1f}" x2="{at(end):.1f}" y1="{y}" y2="{y}" '
            f'stroke="{colour}" stroke-width="2"/>'
        )
        out += [
            f'<line x1="{at(v):.1f}" x2="{at(v):.1f}" y1="{y - h}" y2="{y + h}" '
            f'stroke="{colour}" stroke-width="2"/>'
            for v, h in ((row.p90, 6), (row.p99, 3))
            if v
        ]
        out.append(f'<circle cx="{at(row.p50):.1f}" cy="{y}" r="5" fill="{colour}"/>')
        out.append(_text(at(end) + 8, y + 4, f"p50 {_number(row.p50)}", "m"))
    return _svg(out, bottom + 24)


def scatter(points: Sequence[Point], x_title: str, y_title: str) -> str:
    """Points on a logarithmic x and a linear y axis, each labelled."""
    names = list(dict.fromkeys(p.series for p in points))
    legend, below = _legend(names)
    left, top = 64, below + 26
    bottom = top + 300
    height = bottom + 46
    texts = [_clipped(p.label, POINT_LABEL) for p in points]
    right = WIDTH - max(150, 20 + LETTER * max(map(len, texts)))
    low, high = _decades([p.x for p in points])
    y_low, y_high, step = _linear([p.y for p in points])

    def at_x(value: float) -> float:
        return left + (math.log10(value) - low) / (high - low) * (right - left)

    def at_y(value: float) -> float:
        return bottom - (value - y_low) / (y_high - y_low) * (bottom - top)

    out = [legend, *_vertical(low, high, at_x, top, bottom)]
    for i in range(round((y_high - y_low) / step) + 1):
        value = y_low + i * step
        y = at_y(value)
        out.append(f'<line class="g" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(_text(left - 8, y + 4, f"{value:g}", "m e"))
    out.append(_text((left + right) / 2, height - 6, x_title, "m c"))
    out.append(_text(left, top - 8, y_title, "m"))
    places = [(at_x(p.x), at_y(p.y)) for p in points]
    labels = _apart(places, texts, top - 4, bottom)
    for point, text, (label_x, label_y) in zip(points, texts, labels, strict=True):
        x, y = at_x(point.x), at_y(point.y)
        series = names.index(point.series)
        colour = _colour(series)
        title = f"<title>{_e(point.label)}: {point.x:.3g} ms, {point.y:.3g}</title>"
        if abs(label_y - y) > 8:
            out.append(
                f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{label_x - 3:.1f}" y2="{label_y:.1f}" '
                f'stroke="{colour}" stroke-width="1" opacity="0.6"/>'
            )
        out.append(_mark(series, x, y, title))
        out.append(_text(label_x, label_y + 4, text))
    return _svg(out, height)


def lines(curves: Sequence[Line], x_title: str, y_title: str) -> str:
    """Curves on two logarithmic axes, each named at its end."""
    height, left, top = 320, 64, 40
    right, bottom = WIDTH - 200, height - 46
    x_low, x_high = _range([x for c in curves for x, _ in c.points])
    y_low, y_high = _decades([y for c in curves for _, y in c.points])

    def at_x(value: float) -> float:
        return left + (math.log10(value) - x_low) / (x_high - x_low) * (right - left)

    def at_y(value: float) -> float:
        return bottom - (math.log10(value) - y_low) / (y_high - y_low) * (bottom - top)

    out = []
    for exponent in range(math.ceil(y_low - 1e-9), math.floor(y_high + 1e-9) + 1):
        y = at_y(10.0**exponent)
        out.append(f'<line class="g" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(_text(left - 8, y + 4, f"{10.0**exponent:g}", "m e"))
    for x in sorted({x for c in curves for x, _ in c.points}):
        out.append(
            f'<line class="g" x1="{at_x(x):.1f}" x2="{at_x(x):.1f}" y1="{top}" y2="{bottom}"/>'
        )
        out.append(_text(at_x(x), bottom + 16, f"{x:,g}", "m c"))
    out.append(_text((left + right) / 2, height - 6, x_title, "m c"))
    out.append(_text(left, top - 12, y_title, "m"))
    ends = _apart(
        [(at_x(c.points[-1][0]), at_y(c.points[-1][1])) for c in curves],
        [c.name for c in curves], top, bottom,
    )  # fmt: skip
    for i, (curve, (end_x, end_y)) in enumerate(zip(curves, ends, strict=True)):
        path = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in curve.points)
        colour = _colour(i)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [
            f'<circle cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="3.5" fill="{colour}">'
            f"<title>{_e(curve.name)}: {x:g}, {y:.4g}</title></circle>"
            for x, y in curve.points
        ]
        out.append(_text(end_x, end_y + 4, curve.name))
    return _svg(out, height)


def standalone(svg: str) -> str:
    """A chart as a file of its own: the style inside, the paper painted."""
    opening, _, rest = svg.partition(">")
    paper = '<rect width="100%" height="100%" fill="var(--paper)"/>'
    style = STYLE.replace("svg{", "svg{max-width:none;")
    return f"{opening}><style>{style}</style>{paper}{rest}\n"


def _svg(parts: Sequence[str], height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
        f'width="{WIDTH}" height="{height:.0f}" role="img">' + "".join(parts) + "</svg>"
    )


def _legend(names: Sequence[str]) -> tuple[str, float]:
    """In as many lines as it takes, and where what stands below it begins."""
    out, x, y = [], 0.0, 0.0
    for i, name in enumerate(names):
        width = 40 + LETTER * len(name)
        if x > 0 and x + width > WIDTH:
            x, y = 0.0, y + ROW
        out.append(_mark(i, x + 6, y + 10))
        out.append(_text(x + 18, y + 14, name))
        x += width
    return "".join(out), y + ROW + GAP


def _mark(series: int, x: float, y: float, inside: str = "") -> str:
    """Six colours in each of three shapes: dots, squares, diamonds."""
    colour, shape = _colour(series), series // SERIES % 3
    if shape == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}">{inside}</circle>'
    if shape == 1:
        corners = [(-5, -5), (5, -5), (5, 5), (-5, 5)]
    else:
        corners = [(0, -7), (7, 0), (0, 7), (-7, 0)]
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon points="{points}" fill="{colour}">{inside}</polygon>'


def _label_width(names: Sequence[str]) -> float:
    """Room for names left of a chart."""
    longest = LETTER * max((len(name) for name in names), default=0) + 12
    return min(max(float(LABEL), longest), float(MOST_LABEL))


def _name(x: float, y: float, name: str, width: float) -> str:
    """To the left of x; what is longer than the room is whole in its title."""
    shown = _clipped(name, int((width - 12) / LETTER))
    title = "" if shown == name else f"<title>{_e(name)}</title>"
    return f'<text x="{x:.1f}" y="{y:.1f}" class="e">{_e(shown)}{title}</text>'


def _clipped(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _vertical(low: float, high: float, at: object, top: float, bottom: float) -> list[str]:
    """Grid lines and numbers at 1, 2 and 5 of each decade."""
    out = []
    for exponent in range(math.floor(low), math.ceil(high) + 1):
        for digit in (1, 2, 5):
            value = digit * 10.0**exponent
            if not low - 1e-9 <= math.log10(value) <= high + 1e-9:
                continue
            x = at(value)  # type: ignore[operator]
            out.append(f'<line class="g" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
            out.append(_text(x, bottom + 16, f"{value:g}", "m c"))
    return out


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """Logarithms that bound positive values, at 1, 2 or 5 of a decade."""
    low, high = math.log10(min(values)), math.log10(max(values))
    decades = range(math.floor(low) - 1, math.ceil(high) + 2)
    marks = [math.log10(d) + e for e in decades for d in (1, 2, 5)]
    return (
        max(mark for mark in marks if mark <= low + 1e-9),
        min(mark for mark in marks if mark > high),
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = math.log10(min(values)), math.log10(max(values))
    return (low, high) if high > low else (low, low + 1)


def _linear(values: Sequence[float]) -> tuple[float, float, float]:
    """Bounds and step of a linear axis, with some room around the values: at least a twentieth, so
    that values which hardly differ are seen to."""
    low, high = min(values), max(values)
    room = max((high - low) * 0.15, abs(high) * 0.05, 0.1)
    step = 10.0 ** math.floor(math.log10((high - low + 2 * room) / 2))
    while (high - low + 2 * room) / step > 8:
        step *= 2
    return math.floor((low - room) / step) * step, math.ceil((high + room) / step) * step, step


def _apart(
    places: Sequence[tuple[float, float]], texts: Sequence[str], top: float, bottom: float
) -> list[tuple[float, float]]:
    """Where labels to the right of points go, moved up or down where they would cover something."""
    # (left, right, y) of what must stay free: points, then the labels that have their place.
    taken = [(x - 7, x + 7, y) for x, y in places]
    found: dict[int, tuple[float, float]] = {}
    for i in sorted(range(len(places)), key=lambda i: (-places[i][1], places[i][0])):
        left, own = places[i][0] + 9, places[i][1]
        right = left + LETTER * len(texts[i])
        others = [t for j, t in enumerate(taken) if j != i]

        def free(
            y: float, left: float = left, right: float = right,
            others: Sequence[tuple[float, float, float]] = others,
        ) -> bool:  # fmt: skip
            return all(abs(y - oy) >= 15 or right < ol or left > r for ol, r, oy in others)

        moves = (own + sign * step for step in range(0, 400, 3) for sign in (-1, 1))
        y = next((y for y in moves if top <= y <= bottom and free(y)), own)
        taken.append((left, right, y))
        found[i] = (left, y)
    return [found[i] for i in range(len(places))]


def _text(x: float, y: float, text: str, classes: str = "") -> str:
    named = f' class="{classes}"' if classes else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{named}>{_e(text)}</text>'


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _colour(i: int) -> str:
    return f"var(--s{i % SERIES})"


def _e(text: str) -> str:
    return html.escape(text)
