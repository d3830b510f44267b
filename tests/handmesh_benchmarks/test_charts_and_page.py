"""The page: self-contained, complete, and right about what it shows."""

from __future__ import annotations

import html.parser
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
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
        made.row("predict", p50=9.0, decode=4.0, crop=0.4, stages={"network": 4.2}, geometry=0.4),
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
    assert "| - | paper | GTX 1080, as the paper states | - | 12.6 | 4.7 | 2.6 | 19.9 |" in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert all(len({line.count("|") for line in t.splitlines()}) == 1 for t in tables)


def test_nothing_to_report_is_refused(made: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing in these results"):
        page.write_page([made.results(state="partial")], tmp_path / "r.html")
    assert list(tmp_path.iterdir()) == []


def _rects(svg: str) -> list[float]:
    return [float(r.get("width", "0")) for r in ElementTree.fromstring(svg).iter(f"{SVG}rect")]


def test_bars_are_as_long_as_their_values() -> None:
    widths = _rects(charts.bars([Bar("a", {"x": 10.0, "y": 30.0}, 40), Bar("b", {"x": 20.0}, 20)]))

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
    _, a, b = (float(c.get("cy", "0")) for c in tree.iter(f"{SVG}circle"))  # after the legend's

    assert abs(a - b) < 2  # of some 300 pixels


def test_curves_of_a_power_are_straight() -> None:
    points = [(320.0, 1.0), (1280.0, 16.0), (5120.0, 256.0)]
    tree = ElementTree.fromstring(charts.lines([Line("square", points)], "n", "ms"))
    (path,) = [p.get("points", "") for p in tree.iter(f"{SVG}polyline")]
    (x0, y0), (x1, y1), (x2, y2) = (tuple(map(float, p.split(","))) for p in path.split())

    assert (y1 - y0) / (x1 - x0) == pytest.approx((y2 - y1) / (x2 - x1), rel=0.01)


def _labels(svg: str, names: Sequence[str]) -> dict[str, tuple[float, float]]:
    return {
        t.text: (float(t.get("x", "0")), float(t.get("y", "0")))
        for t in ElementTree.fromstring(svg).iter(f"{SVG}text")
        if t.text in names
    }


def test_labels_of_points_do_not_cover_each_other_nor_leave_the_picture() -> None:
    names = [f"onnx, a device of some name {i}" for i in range(12)]
    points = [Point(1.0 + i / 50, 5.0, name, "s") for i, name in enumerate(names)]
    svg = charts.scatter(points, "x", "y")
    height = float(ElementTree.fromstring(svg).get("height", "0"))

    places = list(_labels(svg, names).items())

    assert len(places) == 12
    for i, (name, (x, y)) in enumerate(places):
        assert 0 < y < height
        assert x + 6.5 * len(name) < charts.WIDTH
        for other, (ox, oy) in places[:i]:
            apart = x > ox + 6.5 * len(other) or ox > x + 6.5 * len(name)
            assert abs(y - oy) >= 14 or apart


def test_a_long_legend_takes_more_lines_and_its_marks_differ() -> None:
    names = [f"run {i}, a device of some name" for i in range(14)]
    points = [Point(1.0 + i, 5.0, f"p{i}", name) for i, name in enumerate(names)]
    svg = charts.scatter(points, "x", "y")
    tree = ElementTree.fromstring(svg)

    places = _labels(svg, names)
    marks = [
        (m.tag, m.get("fill"), _shape(m))
        for m in tree.iter()
        if m.tag in (f"{SVG}circle", f"{SVG}polygon")
    ]

    assert len(places) == 14
    assert all(x + 6.5 * len(name) < charts.WIDTH for name, (x, _) in places.items())
    assert len({y for _, y in places.values()}) > 3
    legend, drawn = marks[:14], marks[14:]
    assert legend == drawn  # a point looks as the legend says
    assert len(set(legend)) == 14  # and no two series look alike
    top = max(y for _, y in places.values())
    assert min(float(c.get("cy", "999")) for c in list(tree.iter(f"{SVG}circle"))[6:]) > top


def _shape(mark: ElementTree.Element) -> tuple[tuple[int, int], ...]:
    """Corners of a polygon, from its first one."""
    corners = [tuple(map(float, xy.split(","))) for xy in mark.get("points", "").split()]
    return tuple((round(x - corners[0][0]), round(y - corners[0][1])) for x, y in corners)


def test_names_that_are_too_long_are_whole_in_their_titles() -> None:
    name = "1: light onnx int8+dynamic, 2 thr, " + "NVIDIA TensorRT on a GPU of a long name " * 2
    for svg in (
        charts.bars([Bar(name, {"crop": 1.0}, 1.0)]),
        charts.spreads([Spread(name, 1.0, None, None)]),
    ):
        tree = ElementTree.fromstring(svg)
        (shown,) = [t for t in tree.iter(f"{SVG}text") if (t.text or "").startswith("1: light")]
        assert 6.5 * len(shown.text or "") < float(shown.get("x", "0"))
        assert (shown.text or "").endswith("…")
        assert shown.findtext(f"{SVG}title") == name
    svg = charts.scatter([Point(1.0, 5.0, name, "s"), Point(9.0, 5.0, "b", "s")], "x", "y")
    (label,) = [text for text in _texts(svg) if text.startswith("1: light")]
    assert len(label) <= 34
    assert label.endswith("…")
    assert f"{name}: 1 ms, 5" in _titles(svg)
    xs = [float(c.get("cx", "0")) for c in ElementTree.fromstring(svg).iter(f"{SVG}circle")]
    assert xs[-1] - xs[-2] > 300  # the plot keeps its room


def _texts(svg: str) -> list[str]:
    return [t.text or "" for t in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def _titles(svg: str) -> list[str]:
    return [t.text or "" for t in ElementTree.fromstring(svg).iter(f"{SVG}title")]


def _on(made: Any, provider: str, **of: Any) -> Any:
    row = made.row(**of)
    row.facts["provider"] = provider
    return row


def test_rows_of_one_name_are_told_apart_by_what_ran(made: Any) -> None:
    rows = [
        _on(made, "onnxruntime 1.0, CPU, 1 thread", p50=9.0),
        _on(made, "onnxruntime 1.0, CUDA, 80 of 90 operators", p50=2.0),
        _on(made, "onnxruntime 1.0, TensorRT, 90 of 90 operators", p50=1.0),
        _on(made, "torch 2.0, CPU, 1 thread", p50=20.0, backend="torch"),
    ]
    by_name = {s.name: s.chart for s in page.sections([made.results(*rows)])}

    names = [
        "light onnx fp32, 1 thr, CPU, 1 thread",
        "light onnx fp32, 1 thr, CUDA, 80 of 90 operators",
        "light onnx fp32, 1 thr, TensorRT, 90 of 90 operators",
        "light torch fp32, 1 thr",
    ]
    whole = _texts(by_name["networks"]) + _titles(by_name["networks"])
    assert all(name in whole for name in names)
    shown = _texts(by_name["accuracy"])
    for series in ("onnx, CPU, 1 thread", "onnx, CUDA, 80 of 90 operators", "torch"):
        assert series in shown
    labels = {t.split(": ")[0] for t in _titles(by_name["accuracy"])}
    assert {"onnx fp32, CPU, 1 thread", "torch fp32"} < labels
    assert len(labels) == 4


def test_the_same_row_twice_has_two_names(made: Any) -> None:
    charts_of = {s.name: s.chart for s in page.sections([made.results(made.row(), made.row())])}
    assert "light onnx fp32, 1 thr (2)" in _texts(charts_of["networks"])


def test_accuracy_shows_medians_and_each_artifact_s_own_error(made: Any) -> None:
    one, other = made.row(p50=4.0), made.row(backend="tflite", p50=3.0)
    other.facts["artifact"] |= {"sha256": "1" * 64}
    other.facts["artifact"]["accuracy"] = {"crops": 22, "mm": 12.5, "px": 8.0, "network_mm": 9.25}

    (chart, *_), tables = zip(
        *((s.chart, s.table) for s in page.sections([made.results(one, other)])), strict=True
    )

    # p90 and p99 are 5 and 6, 4 and 5 ms.
    assert _titles(chart) == ["onnx fp32: 4 ms, 9.5", "tflite fp32: 3 ms, 12.5"]
    network = tables[1]
    assert [row[-1] for row in network[1]] == ["9.50", "12.50"]


def test_stage_chart_shows_medians_and_the_median_of_the_whole(made: Any) -> None:
    stages = {"decode": 1.25, "crop": 0.5, "geometry": 0.4}
    row = made.row("predict", p50=3.95, **stages, stages={"network": 1.5})

    (section,) = (s for s in page.sections([made.results(row)]) if s.name == "stages")

    assert [t.split(": ")[1] for t in _titles(section.chart)] == [
        "decode 1.25 ms", "crop 0.5 ms", "network 1.5 ms", "geometry 0.4 ms",
    ]  # fmt: skip
    assert "3.95 ms" in _texts(section.chart)  # not their sum, 3.65
    assert section.table[1][0][4:9] == ["1.25", "0.50", "1.50", "0.40", "3.95"]


def test_parts_stand_in_their_own_columns_and_bars(made: Any) -> None:
    row = made.row("parts", network="paper", p50=171.2, trunk=140.0, mesh=30.0, pose=1.0)

    (section,) = page.sections([made.results(row)])

    header, (paper, ours) = section.table
    assert dict(zip(header, paper, strict=True)) == {
        "run": "-", "network": "paper", "what ran": "GTX 1080, as the paper states",
        "precision": "-", "trunk": "12.6", "mesh": "4.7", "pose": "2.6", "together": "19.9",
    }  # fmt: skip
    assert [ours[header.index(name)] for name in ("trunk", "mesh", "pose", "together")] == [
        "140.00", "30.00", "1.00", "171.20",
    ]  # fmt: skip
    assert [t.split(": ")[1] for t in _titles(section.chart)] == [
        "trunk 12.6 ms", "mesh 4.7 ms", "pose 2.6 ms", "trunk 140 ms", "mesh 30 ms", "pose 1 ms",
    ]  # fmt: skip
    assert "171 ms" in _texts(section.chart)
    assert "19.9 ms" in _texts(section.chart)


def test_what_is_missing_stands_under_its_own_run(made: Any) -> None:
    first, second = made.results(made.row()), made.results(made.row(p50=5.0))
    first.missing.append("coreml: no Mac")
    second.missing.append("a | b <c>\nd")

    text = page.to_html([first, second])

    assert "<td class=n>1</td><td>coreml: no Mac</td>" in text
    assert "<td class=n>2</td><td>a | b &lt;c&gt; d</td>" in text
    lines = page.to_markdown([first, second]).splitlines()
    assert "- run 1: coreml: no Mac" in lines
    assert "- run 2: a \\| b \\<c> d" in lines


def test_a_device_with_a_gpu_is_shown_with_both(made: Any) -> None:
    results = made.results(made.row(), gpu="NVIDIA H100, 570.86, 1980 MHz")
    results.context["measured_on"] = "ssh:lab"

    _, (row,) = page.device_table([results])

    assert row[1] == "Abacus 3; GPU: NVIDIA H100, 570.86, 1980 MHz (ssh:lab)"


def test_markdown_keeps_its_cells_whatever_a_device_calls_itself(made: Any) -> None:
    name = "Board <b>7</b> | two\nlines \\"
    text = page.to_markdown([made.results(made.row(), processor=name)])

    line = next(line for line in text.splitlines() if "Board" in line)
    assert "| Board \\<b>7\\</b> \\| two lines \\\\ |" in line
    assert len(re.findall(r"(?<!\\)\|", line)) == 11


def test_a_run_says_whose_errors_it_tells(made: Any) -> None:
    rows = [made.row() for _ in range(3)] + [made.row(network="paper")]
    for row, crops in zip(rows, (5, 5, 7, 9), strict=True):
        accuracy = None if crops == 9 else {"mm": 1.0}
        row.facts["artifact"] = {"weights": f"trained on {crops} crops", "accuracy": accuracy}
    nothing = made.row()
    nothing.facts["artifact"] = None

    header, cells = page.device_table([made.results(*rows), made.results(nothing)])

    assert header[-1] == "weights"
    assert [row[-1] for row in cells] == ["trained on 5 crops; trained on 7 crops", "-"]


def test_a_chart_of_its_own_carries_its_style() -> None:
    svg = charts.standalone(charts.bars([Bar("a & b", {"x": 1.0}, 1.0)]))
    tree = ElementTree.fromstring(svg)

    assert "prefers-color-scheme:dark" in svg
    assert any(t.text == "a & b" for t in tree.iter(f"{SVG}text"))
