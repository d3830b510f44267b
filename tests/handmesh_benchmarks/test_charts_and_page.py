"""The page: self-contained, complete, and right about what it shows."""

from __future__ import annotations

import html.parser
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from handmesh.errors import InputError
from handmesh_benchmarks import charts, page
from handmesh_benchmarks.charts import Bar, Line, Point, Spread

SVG = "{http://www.w3.org/2000/svg}"


class Checker(html.parser.HTMLParser):
    """Tags that are opened and closed in order; addresses that are loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.loaded += [v for k, v in attrs if k in ("src", "href") and v]
        if tag in ("script", "link", "img", "iframe"):
            self.loaded.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def _results(made: Any) -> list[Any]:
    rows = [
        made.row("predict", p50=9.0, decode=4.0, crop=0.4, network=4.2, geometry=0.4),
        made.row(p50=4.0),
        made.row(backend="tflite", p50=3.0, kind="smoke"),
        made.row(network="paper", p50=170.0),
        made.row("parts", network="paper", p50=171.0, trunk=140.0, mesh=30.0, pose=1.0),
    ]
    other = made.results(made.row(p50=8.0), state="partial", processor="Board <7> & more")
    other.missing.append("tflite: not there")
    return [made.results(*rows), other]


def test_page_loads_nothing_and_is_well_formed(made: Any) -> None:
    checker = Checker()
    text = page.to_html(_results(made))
    checker.feed(text)

    assert checker.loaded == []
    assert checker.wrong == []
    assert checker.open == []
    assert "prefers-color-scheme:dark" in text
    assert "url(" not in text


def test_page_says_what_it_shows(made: Any) -> None:
    text = page.to_html(_results(made))

    assert "Board &lt;7&gt; &amp; more" in text
    assert "PARTIAL" in text
    assert "smoke run" in text
    assert "tflite: not there" in text
    assert "GTX 1080, as the paper states" in text
    assert "Nothing here was measured" in text
    assert text.count("<svg") == 4


def test_every_device_is_in_every_table_and_chart(made: Any) -> None:
    first = _results(made)[0]
    second = made.results(*first.measurements, processor="Abacus 4")

    sections = page.sections([first, second])

    assert [row[0] for row in page.device_table([first, second])[1]] == ["1", "2"]
    assert [section.name for section in sections] == ["accuracy", "stages", "networks", "parts"]
    for section in sections:
        runs = [row[0] for row in section.table[1]]
        assert runs.count("1") == runs.count("2") > 0 or section.name == "accuracy"
        assert "2: " in section.chart or "run 2 " in section.chart


def test_markdown_has_the_same_figures(made: Any) -> None:
    text = page.to_markdown(_results(made))

    assert "| 1 | light | onnx 1.0, CPU | fp32 | 50.00 | 9.00 | 4.00 | 5.00 | 6.00 |" in text
    assert "| - | paper | GTX 1080, as the paper states | 12.6 | 4.7 | 2.6 | 19.9 |" in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert all(len({line.count("|") for line in t.splitlines()}) == 1 for t in tables)


def test_nothing_to_report_is_refused(made: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing in these results"):
        page.write_page([made.results(state="partial")], tmp_path / "r.html")
    assert list(tmp_path.iterdir()) == []


def _rects(svg: str) -> list[float]:
    return [float(r.get("width", "0")) for r in ElementTree.fromstring(svg).iter(f"{SVG}rect")]


def test_bars_are_as_long_as_their_values() -> None:
    widths = _rects(charts.bars([Bar("a", {"x": 10.0, "y": 30.0}), Bar("b", {"x": 20.0})]))[2:]

    # One pixel of each is the gap to the next.
    assert [(w + 1) / (widths[0] + 1) for w in widths] == pytest.approx([1, 3, 2], rel=0.01)


def test_places_on_a_logarithmic_axis_keep_ratios() -> None:
    spreads = [Spread("a", 1.0, 10.0, 100.0), Spread("b", 10.0, None, None)]
    tree = ElementTree.fromstring(charts.spreads(spreads))
    dots = [float(c.get("cx", "0")) for c in tree.iter(f"{SVG}circle")]
    ends = [float(x.get("x2", "0")) for x in tree.iter(f"{SVG}line") if x.get("stroke-width")]

    line = max(ends) - dots[0]  # two decades
    assert dots[1] - dots[0] == pytest.approx(line / 2, rel=0.01)


def test_values_that_hardly_differ_are_not_drawn_far_apart() -> None:
    points = [Point(1.0, 24.925, "a", "s"), Point(9.0, 24.928, "b", "s")]
    tree = ElementTree.fromstring(charts.scatter(points, "x", "y"))
    a, b = (float(c.get("cy", "0")) for c in tree.iter(f"{SVG}circle"))

    assert abs(a - b) < 2  # of some 300 pixels


def test_curves_of_a_power_are_straight() -> None:
    points = [(320.0, 1.0), (1280.0, 16.0), (5120.0, 256.0)]
    tree = ElementTree.fromstring(charts.lines([Line("square", points)], "n", "ms"))
    (path,) = [p.get("points", "") for p in tree.iter(f"{SVG}polyline")]
    (x0, y0), (x1, y1), (x2, y2) = (tuple(map(float, p.split(","))) for p in path.split())

    assert (y1 - y0) / (x1 - x0) == pytest.approx((y2 - y1) / (x2 - x1), rel=0.01)


def test_labels_of_points_do_not_cover_each_other() -> None:
    points = [Point(1.0 + i / 50, 5.0, f"p{i}", "s") for i in range(6)]
    tree = ElementTree.fromstring(charts.scatter(points, "x", "y"))
    places = [
        (float(t.get("x", "0")), float(t.get("y", "0")))
        for t in tree.iter(f"{SVG}text")
        if (t.text or "").startswith("p") and (t.text or "")[1:].isdigit()
    ]

    assert len(places) == 6
    for i, (x, y) in enumerate(places):
        assert all(abs(y - oy) >= 14 or abs(x - ox) >= 120 for ox, oy in places[:i])


def test_a_chart_of_its_own_carries_its_style() -> None:
    svg = charts.standalone(charts.bars([Bar("a & b", {"x": 1.0})]))
    tree = ElementTree.fromstring(svg)

    assert "prefers-color-scheme:dark" in svg
    assert any(t.text == "a & b" for t in tree.iter(f"{SVG}text"))
