"""The tables of exports: what is tried, what is refused, what is said of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conversions import Remembering
from shallow import shallow_light

from handmesh import Bundle
from handmesh.cli import main
from handmesh.graph import Topology
from handmesh.nn import build
from handmesh_benchmarks import decoders, exports
from handmesh_benchmarks.protocol import Percentiles, Protocol
from handmesh_converters import formats
from handmesh_converters.explain import graph_constants
from handmesh_converters.export import add_formats, write_bundle
from handmesh_converters.fold import fold
from handmesh_converters.forms import Dense, Polynomials, Recurrence
from handmesh_converters.parity import TOLERANCES, Tolerance
from handmesh_converters.request import Abilities, Request

ABLE = Abilities(
    ("sparse", "dense"),
    ("fp16", "fp32"),
    {"palette": (("fp16",), ""), "zeros": (("fp32",), "")},
    {"zeros": "dense"},
)
SHORT = Protocol(min_runs=1, min_seconds=0, warmup_runs=0, rounds=1)


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    torch.manual_seed(0)
    network = build(shallow_light(), Topology.default()).eval()
    crops = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    folder = tmp_path_factory.mktemp("bundles") / "light"
    written = write_bundle(
        network, Topology.default(), folder, crops, provenance={"weights": "random"}, export=()
    )
    return written.bundle


@pytest.fixture(scope="module", autouse=True)
def _remembering() -> Iterator[None]:
    """Weights are rounded and files described after the conversion, which is the same for all."""
    onnx = formats.load("onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx, "_exported", Remembering[Any](onnx._exported))
        yield


def test_everything_is_tried_the_default_first() -> None:
    assert exports.requests(ABLE) == [
        Request("sparse", "fp16"),
        Request("sparse", "fp32"),
        Request("dense", "fp16"),
        Request("dense", "fp32"),
        Request("sparse", "fp16", ("palette",)),
        Request("dense", "fp32", ("zeros",)),
    ]
    assert exports.requests(ABLE, everything=False) == [
        Request("sparse", "fp16"),
        Request("sparse", "fp32"),
        Request("dense", "fp16"),
    ]


def test_rows_are_measured_and_marked(
    light: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats.load("onnx"), "ABLE", Abilities(("sparse",), ("fp16", "fp32")))
    # Random weights may be rounded by more than trained ones bear.
    monkeypatch.setitem(TOLERANCES, "fp16", exports.ANYTHING)

    rows, missing = exports.compare([light], tmp_path, SHORT, ["onnx"])

    assert missing == []
    halved, exact = rows
    assert (halved.default, exact.default) == (True, False)
    assert exact.kept
    assert exact.parity.mm.worst < 0.05
    assert halved.bytes < 0.6 * exact.bytes
    assert all(row.p50_ms is not None and row.p50_ms > 0 for row in rows)
    table = exports.to_markdown(rows).splitlines()
    assert len(table) == 4
    assert table[2].startswith("| light | **onnx** | sparse | fp16 |")
    assert table[2].endswith("| default |")
    assert table[3].startswith("| light | onnx | sparse | fp32 |")
    assert table[3].endswith("|  |")


def test_what_is_refused_or_optimized_is_marked_so(
    light: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past the tolerance of its precision a row stays, and says what `handmesh export` would do."""
    able = Abilities(("sparse",), ("fp16",), {"some": (("fp16",), ""), "other": (("fp16",), "")})
    monkeypatch.setattr(formats.load("onnx"), "ABLE", able)
    monkeypatch.setitem(TOLERANCES, "fp16", Tolerance(*[1e-12] * 6))

    rows, missing = exports.compare([light], tmp_path, SHORT, ["onnx"], ["other"])

    assert missing == []
    assert [(row.request.optimize, row.default, row.kept) for row in rows] == [
        ((), True, False),
        (("some",), False, False),
    ]
    plain, optimized = exports.to_markdown(rows).splitlines()[2:]
    assert plain.endswith("| default refused |")
    assert "| onnx | sparse | fp16 | some |" in optimized
    assert optimized.endswith("| refused |")


def test_the_command_prints_a_table_for_each_network(
    light: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    able = Abilities(("sparse",), ("fp32",))
    monkeypatch.setattr(formats.load("onnx"), "ABLE", able)
    written = add_formats(light, ["onnx"], tmp_path / "made", Request("sparse", "fp32"))
    parity = written.parity["onnx"]

    def compare(*arguments: object) -> tuple[list[exports.Row], list[str]]:
        request = Request("sparse", "fp32")
        rows = [
            exports.Row(name, "onnx", request, True, 1, parity, True, 1.5, "x")
            for name in ("light", "paper", "light")
        ]
        return rows, ["some format is missing"]

    made = decoders.Decoder("one", 2048, 1024, Percentiles(1.0, 2.0, 3.0))
    monkeypatch.setattr(exports, "compare", compare)
    monkeypatch.setattr(decoders, "compare_decoders", lambda *_: [made])
    out = tmp_path / "exports.md"

    options = ["--no-paper", "--runs", "1", "--seconds", "0", "--out", str(out)]
    assert main(["compare-exports", str(light.folder), *options]) == 0

    printed = capsys.readouterr().out
    text = out.read_text(encoding="utf-8")
    assert printed.startswith(text)
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    networks = [[line.split(" | ")[0] for line in table[2:]] for table in tables]
    assert networks == [["| light", "| light"], ["| paper"], ["| one"]]
    assert "machine: " in text
    assert "Not compared: some format is missing" in text


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--format", "onx"), "did you mean 'onnx'"),
        (("--without", "statik"), "did you mean 'static'"),
        (("--runs", "0"), "--runs must be at least 1, not 0"),
        (("--seconds", "-1"), "--seconds must be a number of seconds, 0 or more, not -1.0"),
        (("--out", "/nowhere/at/all.md"), "--out /nowhere/at/all.md cannot be written"),
    ],
)
def test_what_there_is_not_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: tuple[str, str],
    message: str,
) -> None:
    monkeypatch.setattr("handmesh_benchmarks.cli_exports.random_bundle", None)
    assert main(["compare-exports", *option]) == 2
    assert message in capsys.readouterr().err


def test_constants_are_counted_by_content(light: Bundle) -> None:
    from handmesh_converters.export import load_bundle

    network = load_bundle(light)
    nodes = (291, 1036)
    # Dense and merged: T_k U or T_k of four convolutions, K = 3 terms each.
    dense = 4 * 3 * (nodes[0] * 80 + nodes[0] ** 2 + nodes[1] * nodes[0] + nodes[1] ** 2)
    weights, indices = graph_constants(fold(network, Dense()).head)
    assert indices == 0
    assert weights == pytest.approx(dense, rel=0.05)

    sparse, _ = graph_constants(fold(network, Recurrence()).head)
    explicit, _ = graph_constants(fold(network, Polynomials()).head)
    assert sparse < 300 * 1024 < explicit < weights / 10


def test_ratios_are_to_the_first() -> None:
    made = [
        decoders.Decoder(name, 2048, 1024, Percentiles(p50, 2 * p50, 3 * p50))
        for name, p50 in (("one", 2.0), ("other", 5.0))
    ]
    assert decoders.to_markdown(made).splitlines()[-1] == "| other | 2 | 1 | 5.00 | 10.00 | 2.50 |"
