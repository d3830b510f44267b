"""The document of a run: what is written is what the schema says, and what is read back."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from handmesh.errors import InputError
from handmesh_benchmarks import device, results
from handmesh_benchmarks.results import Results, load, parse


def test_what_is_written_fits_the_schema_and_comes_back(made: Any, tmp_path: Path) -> None:
    run = made.results(
        made.row("predict", crop=0.4, geometry=0.2), made.row(network="paper"), **device.describe()
    )
    run.missing.append("coreml: not on this system")

    path = run.write(tmp_path / "r.json")

    document = json.loads(path.read_text())
    jsonschema.Draft202012Validator.check_schema(results.schema())
    jsonschema.validate(document, results.schema())
    assert load(path).to_dict() == document
    assert document["kind"] == "headline"
    assert document["measurements"][0]["stages"]["crop"]["p90"] == 0.8


def _without(*path: Any) -> Any:
    def change(document: dict[str, Any]) -> None:
        inner: Any = document
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]

    return change


def _with(value: Any, *path: Any) -> Any:
    def change(document: dict[str, Any]) -> None:
        inner: Any = document
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value

    return change


ROW = ("measurements", 0)


def _refused(made: Any, change: Any, named: str) -> Any:
    """A changed document, of which the reader says what is wrong with it, and where."""
    document = copy.deepcopy(made.results(made.row()).to_dict())
    change(document)
    with pytest.raises(InputError, match=r"made\.json") as caught:
        parse(document, "made.json")
    assert named in str(caught.value)
    return document


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_with(1, "schema"), "schema"),
        (_without("device"), "device"),
        (_with([], "device"), "device"),
        (_with("done", "state"), "state"),
        (_without(*ROW, "total"), "total"),
        (_with("fast", *ROW, "total", "p50"), "p50"),
        (_with(-1.0, *ROW, "total", "p50"), "p50"),
        (_with(True, *ROW, "seconds"), "seconds"),
        (_without(*ROW, "facts", "backend"), "backend"),
        (_with([["x"]], "measurements"), "measurements[0]"),
        (_with({"total": ["x"]}, *ROW, "rounds"), "'total': '[0]'"),
        (_with({"total": 5}, *ROW, "rounds"), "'total'"),
        (_with({"min_runs": 3, "other": 1}, "protocol"), "protocol"),
        (_with("x", *ROW, "facts", "artifact"), "artifact"),
        (_without(*ROW, "facts", "artifact", "sha256"), "sha256"),
        (_with({"mm": 9.0}, *ROW, "facts", "artifact", "accuracy"), "crops"),
        (_with({"peak_mib": "much"}, *ROW, "facts", "memory"), "peak_mib"),
        (_with("scaling batch", *ROW, "facts", "task"), "'x'"),
        (_with("peer network", *ROW, "facts", "task"), "'inside'"),
    ],
)
def test_a_malformed_document_is_refused_by_reader_and_schema(
    made: Any, change: Any, named: str
) -> None:
    document = _refused(made, change, named)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, results.schema())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_with(0, *ROW, "total", "p90"), "p50, p90 and p99"),
        (_with({"min_runs": 0}, "protocol"), "protocol"),
        (_with("much", "device", "load_1min"), "load_1min"),
        (_with(math.inf, "context", "photo"), "photo"),
    ],
)
def test_what_a_schema_cannot_say_is_refused_by_the_reader(
    made: Any, change: Any, named: str
) -> None:
    _refused(made, change, named)


@pytest.mark.parametrize("lacking", ["stages", "rounds", "facts"])
def test_rows_of_peers_need_what_their_table_shows(made: Any, lacking: str) -> None:
    row = made.row("peer network", inside=3.0)
    row.facts.update(load_and_first_s=1.0, off_by=1e-6)
    document = copy.deepcopy(made.results(row).to_dict())
    assert parse(document, "made.json").measurements[0].stages["inside"].p50 == 3.0

    inner = document["measurements"][0][lacking]
    del inner["off_by" if lacking == "facts" else "inside"]
    with pytest.raises(InputError, match=r"made\.json: measurements\[0\]"):
        parse(document, "made.json")


@pytest.mark.parametrize("rounds", [[], [0.0, 1.0]])
def test_rounds_that_make_no_ratio_are_refused(made: Any, rounds: list[float]) -> None:
    row = made.row("peer network", inside=3.0)
    row.facts.update(load_and_first_s=1.0, off_by=1e-6)
    row.rounds["inside"] = rounds
    with pytest.raises(InputError, match="must be positive"):
        parse(made.results(row).to_dict(), "made.json")


def test_a_scaling_row_of_no_time_is_refused(made: Any) -> None:
    row = made.row("scaling batch", p50=0.0)
    row.facts["x"] = 2
    with pytest.raises(InputError, match="must be positive"):
        parse(made.results(row).to_dict(), "made.json")


def test_a_failed_write_leaves_what_was_there(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made.results(made.row(p50=4.0)).write(tmp_path / "r.json")
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(InputError, match=r"r\.json"):
        made.results(made.row(p50=5.0)).write(path)

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]  # nothing half written beside it


def test_what_is_no_number_is_never_written(made: Any, tmp_path: Path) -> None:
    row = made.row(p50=math.nan)
    with pytest.raises(ValueError, match="not JSON compliant"):
        made.results(row).write(tmp_path / "r.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", '{"a": 1}'])
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)

    with pytest.raises(InputError, match=r"other\.json"):
        load(path)
    with pytest.raises(InputError, match="cannot read"):
        load(tmp_path / "none.json")


def test_nothing_measured_is_no_headline() -> None:
    assert Results({"processor": "x"}).to_dict()["kind"] == "smoke"
