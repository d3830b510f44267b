"""Two runs: equal within their spread, or what became slower is named."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from handmesh.errors import InputError
from handmesh_benchmarks.compare import compare, entries_of, read_any, to_table
from handmesh_benchmarks.protocol import Candidate, Protocol, measure


def _snapshots(old: Any, new: Any) -> tuple[Any, Any]:
    return entries_of(old, "old.json"), entries_of(new, "new.json")


def test_a_difference_within_the_spread_is_equal(made: Any) -> None:
    old, new = _snapshots(
        made.results(made.row("predict", p50=10.0, noise=0.1, geometry=0.5)),
        made.results(made.row("predict", p50=11.5, noise=0.1, geometry=0.6)),
    )

    found = compare(old, new)

    assert {row.verdict for row in found.rows} == {"equal"}
    assert "2 of 2 figures are equal" in to_table(found)


def test_the_same_difference_beyond_a_small_spread_is_named(made: Any) -> None:
    old, new = _snapshots(
        made.results(made.row("predict", p50=10.0, noise=0.001, crop=0.4, geometry=0.5)),
        made.results(made.row("predict", p50=11.5, noise=0.001, crop=0.4, geometry=2.0)),
    )

    found = compare(old, new)

    verdicts = {row.stage: row.verdict for row in found.rows}
    assert verdicts == {"total": "slower", "crop": "equal", "geometry": "slower"}
    worst = to_table(found).splitlines()[2]
    assert worst.split() == [
        "predict", "light", "onnx", "1", "geometry", "0.500", "2.000", "4.00", "1.10", "slower",
    ]  # fmt: skip
    assert {row.verdict for row in compare(new, old).rows} == {"faster", "equal"}


def test_a_slower_machine_widens_what_is_equal(made: Any) -> None:
    def run(factor: float) -> Any:
        yardstick = made.row("yardstick", p50=1.0 * factor, noise=0.001)
        object.__setattr__(yardstick, "name", "yardstick")
        return made.results(yardstick, made.row(p50=4.0 * factor, noise=0.001))

    found = compare(*_snapshots(run(1.0), run(1.4)))

    assert found.yardstick == pytest.approx(1.4)
    assert [row.verdict for row in found.rows] == ["equal"]
    assert "1.40 times as long" in to_table(found)


def test_times_too_short_for_a_clock_are_not_judged(made: Any) -> None:
    old, new = _snapshots(
        made.results(made.row("predict", crop=0.001)), made.results(made.row("predict", crop=0.015))
    )
    assert {row.verdict for row in compare(old, new).rows} == {"equal"}


def test_other_machines_partial_runs_and_other_rows_are_told(made: Any) -> None:
    old, new = _snapshots(
        made.results(made.row(), made.row(threads=2)),
        made.results(made.row(), made.row(threads=4), state="partial", processor="Abacus 4"),
    )

    text = to_table(compare(old, new))

    assert "DIFFERENT MACHINES: Abacus 3 and Abacus 4" in text
    assert "PARTIAL: new.json" in text
    assert "only in old.json: network light onnx 2" in text
    assert "only in new.json: network light onnx 4" in text
    with pytest.raises(InputError, match="no rows in common"):
        compare(*_snapshots(made.results(made.row()), made.results(made.row(threads=9))))


def test_runs_of_pytest_benchmark_compare_too(tmp_path: Path) -> None:
    def written(name: str, factor: float) -> Path:
        stats = {"median": 0.004 * factor, "q1": 0.0039 * factor, "q3": 0.0041 * factor}
        document = {
            "machine_info": {"cpu": {"brand_raw": "Abacus 3"}},
            "benchmarks": [{"fullname": "test_geometry.py::test_lift_mesh", "stats": stats}],
        }
        path = tmp_path / name
        path.write_text(json.dumps(document))
        return path

    old, same, slow = (written(f"{f}.json", f) for f in (1.0, 1.02, 1.5))

    assert [row.verdict for row in compare(read_any(old), read_any(same)).rows] == ["equal"]
    assert [row.verdict for row in compare(read_any(old), read_any(slow)).rows] == ["slower"]
    broken = tmp_path / "broken.json"
    broken.write_text('{"machine_info": {}, "benchmarks": [{}]}')
    with pytest.raises(InputError, match="pytest-benchmark"):
        read_any(broken)


def test_a_sleep_planted_in_geometry_is_named_there(
    made: Any, monkeypatch: pytest.MonkeyPatch, example_photos: dict[str, Path]
) -> None:
    """The whole way: predict() measured, a sleep planted in the geometry, measured again."""
    from handmesh import Box, Predictor, pipeline
    from handmesh.imaging import decode

    image, box = decode(example_photos["pointing"]), Box(270, 320, 400)
    protocol = Protocol(min_runs=18, min_seconds=0, warmup_runs=1, rounds=6, pause_s=0)

    with Predictor(None, "onnx", threads=1) as predictor:

        def run() -> Any:
            return predictor.predict(image, box=box, handedness="right")[0].timings_ms

        def measured() -> Any:
            results = made.results()
            candidate = Candidate("predict", lambda: run, made.row("predict").facts)
            results.measurements = measure([candidate], protocol)
            return results

        before = measured()
        lift = pipeline.lift

        def slow(*arguments: Any) -> Any:
            time.sleep(0.05)
            return lift(*arguments)

        monkeypatch.setattr(pipeline, "lift", slow)
        after = measured()

    verdicts = {r.stage: r.verdict for r in compare(*_snapshots(before, after)).rows}
    assert verdicts["geometry"] == "slower"
