"""The document of a run: what is written is what the schema says, and what is read back."""

from __future__ import annotations

import copy
import json
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
        (_with({"total": ["x"]}, *ROW, "rounds"), "median"),
        (_with({"min_runs": 3, "other": 1}, "protocol"), "protocol"),
    ],
)
def test_a_malformed_document_is_refused_by_reader_and_schema(
    made: Any, change: Any, named: str
) -> None:
    document = copy.deepcopy(made.results(made.row()).to_dict())
    change(document)

    with pytest.raises(InputError, match=r"made\.json") as caught:
        parse(document, "made.json")
    assert named in str(caught.value)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, results.schema())


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
