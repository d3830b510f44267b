"""Two runs: equal within their spread, or what became slower is named."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handmesh.errors import InputError
from handmesh_benchmarks.compare import compare, entries_of, read_any, to_table
from handmesh_benchmarks.protocol import Candidate, Percentiles, Protocol, measure


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


def test_rounds_too_far_apart_tell_nothing(made: Any) -> None:
    noisy = made.results(made.row(p50=10.0, noise=0.9))
    other = made.results(made.row(p50=10.0, noise=0.9))

    found = compare(*_snapshots(noisy, other))

    assert [row.verdict for row in found.rows] == ["inconclusive"]
    assert found.failed
    assert "0 of 1 figures are equal" in to_table(found)
    assert "too far apart to tell" in to_table(found)


def _beside_yardstick(made: Any, machine: float, p50: float, noise: float = 0.001) -> Any:
    yardstick = dataclasses.replace(
        made.row("yardstick", p50=1.0 * machine, noise=noise), name="yardstick"
    )
    return made.results(yardstick, made.row(p50=p50, noise=0.001))


@pytest.mark.parametrize(
    ("machine", "program", "verdict"),
    [
        (1.08, 1.08, "equal"),  # all that changed is the machine
        (1.08, 1.22, "slower"),  # 1.13 times as slow as the machine is
        (0.95, 1.06, "slower"),  # 1.12
        (1.08, 0.95, "faster"),
        (1.4, 1.4, "inconclusive"),
        (1.4, 1.0, "inconclusive"),
        (0.6, 0.9, "inconclusive"),  # a program 1.5 times as slow on a faster machine?
        (1.4, 1.8, "slower"),  # whatever the row follows
        (0.6, 0.4, "faster"),
    ],
)
def test_what_the_machine_changed_is_taken_off(
    made: Any, machine: float, program: float, verdict: str
) -> None:
    old, new = (_beside_yardstick(made, m, 4.0 * p) for m, p in ((1.0, 1.0), (machine, program)))

    found = compare(*_snapshots(old, new))

    assert found.yardstick == pytest.approx(machine)
    assert [row.verdict for row in found.rows] == [verdict]
    assert f"{machine:.2f} times as long" in to_table(found)
    assert found.failed == (verdict in ("slower", "inconclusive"))
    assert ("measure again" in to_table(found)) == (verdict == "inconclusive")


def test_a_yardstick_that_wobbles_widens_what_is_equal(made: Any) -> None:
    old = _beside_yardstick(made, 1.0, 4.0)
    calm, wobbling = (_beside_yardstick(made, 1.0, 4.8, noise) for noise in (0.001, 0.2))

    assert [row.verdict for row in compare(*_snapshots(old, calm)).rows] == ["slower"]
    assert [row.verdict for row in compare(*_snapshots(old, wobbling)).rows] == ["equal"]


def _of_rounds(made: Any, rounds: list[float]) -> Any:
    row = made.row(p50=float(np.median(rounds)))
    return made.results(dataclasses.replace(row, rounds={"total": rounds}))


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ([10.0] * 8, [20.0] * 8, "slower"),
        ([10.0] * 7 + [25.0], [20.0] * 8, "slower"),  # one odd round, whichever run it is in
        ([10.0] * 7 + [400.0], [20.0] * 8, "slower"),
        ([10.0] * 8, [9.0] + [20.0] * 7, "slower"),
        ([20.0] * 7 + [2.0], [10.0] * 8, "faster"),
        ([20.0] * 8, [10.0] * 7 + [25.0], "faster"),
        # A quarter of one run is like the other: each side has its say.
        ([10.0] * 6 + [25.0] * 2, [20.0] * 8, "equal"),
        ([10.0] * 8, [9.0] * 2 + [20.0] * 6, "equal"),
        # So much do the rounds of one run differ among themselves.
        ([10.0] * 8, [11.0, 11.5, 12.0, 12.5, 13.5, 14.0, 14.5, 15.0], "equal"),
        ([9.0, 10.0, 10.5, 12.5, 13.5, 14.5, 14.5, 15.0], [16.0] * 8, "equal"),
    ],
)
def test_odd_rounds_decide_nothing_and_the_spread_of_both_runs_counts(
    made: Any, before: list[float], after: list[float], verdict: str
) -> None:
    found = compare(*_snapshots(_of_rounds(made, before), _of_rounds(made, after)))

    assert [row.verdict for row in found.rows] == [verdict]


def test_without_rounds_the_spread_follows_from_p50_and_p90(made: Any) -> None:
    def run(p50: float) -> Any:
        # p90 of a normal distribution of logarithms whose deviation is 0.1.
        total = Percentiles(p50, p50 * math.exp(1.2816 * 0.1), None)
        return made.results(dataclasses.replace(made.row(), total=total, rounds={}))

    (row,) = compare(*_snapshots(run(10.0), run(10.0))).rows
    assert row.old.spread == pytest.approx(0.1, rel=1e-3)
    assert row.limit == pytest.approx(1.1 * math.exp(1.5 * 0.1 * math.sqrt(2)), rel=1e-3)


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (0.0, 50.0, "slower"),
        (0.015, 0.5, "slower"),
        (0.5, 0.0, "faster"),
        (0.0, 0.0, "equal"),
        (0.004, 0.019, "equal"),
    ],
)
def test_what_a_clock_cannot_tell_is_as_long_as_that(
    made: Any, before: float, after: float, verdict: str
) -> None:
    found = compare(
        *_snapshots(made.results(made.row(p50=before)), made.results(made.row(p50=after)))
    )

    assert [row.verdict for row in found.rows] == [verdict]
    assert math.isfinite(found.rows[0].ratio)
    assert to_table(found)


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
    assert "GONE, only in old.json: network light onnx 2" in text
    assert "only in new.json: network light onnx 4" in text
    with pytest.raises(InputError, match="no rows in common"):
        compare(*_snapshots(made.results(made.row()), made.results(made.row(threads=9))))


def test_rows_and_stages_that_are_gone_fail(made: Any) -> None:
    whole = made.results(made.row(), made.row("predict", crop=0.5, geometry=0.4))
    fewer = made.results(made.row())
    shorter = made.results(made.row(), made.row("predict", crop=0.5))

    assert compare(*_snapshots(whole, fewer)).failed
    assert compare(*_snapshots(whole, shorter)).only_old == ["predict light onnx 1, geometry"]
    assert compare(*_snapshots(whole, shorter)).failed
    assert not compare(*_snapshots(fewer, whole)).failed


def test_every_kind_of_other_machine_is_told(made: Any) -> None:
    def run(**device: Any) -> Any:
        return made.results(made.row(), **device)

    def text(old: Any, new: Any) -> str:
        return to_table(compare(*_snapshots(old, new)))

    clocks = "570.86, 1980 MHz, 1980 MHz, 700 W"
    same = text(run(gpu=f"H100, {clocks}"), run(gpu=f"H100, {clocks.replace('1980', '345')}"))
    assert "DIFFERENT" not in same  # its clock of the moment is no other machine
    assert "DIFFERENT MACHINES: Abacus 3, H100 and Abacus 3, GTX 1080" in text(
        run(gpu=f"H100, {clocks}"), run(gpu="GTX 1080, 570.86")
    )
    assert "DIFFERENT MACHINES: Abacus 3, H100 and Abacus 3" in text(run(gpu="H100"), run())
    phones = [run(processor="unknown", machine=name, maker="Abc") for name in ("One", "Two")]
    assert "DIFFERENT MACHINES: Abc, One and Abc, Two" in text(*phones)
    assert "UNKNOWN MACHINES" in text(run(processor="unknown"), run(processor="unknown"))
    assert "DIFFERENT gpu driver: 570.86 and 575.1" in text(
        run(gpu=f"H100, {clocks}"), run(gpu="H100, 575.1, 1980 MHz")
    )


def test_what_was_measured_differently_is_told_above_the_verdicts(made: Any) -> None:
    old = made.results(made.row(), made.row(threads=2), load_1min=0.1)
    new = made.results(made.row(), made.row(threads=2), load_1min=0.9)
    old.context["photo"], new.context["photo"] = "a.jpg", "b.jpg"
    new.protocol = Protocol(min_runs=1024)
    for row in new.measurements:
        row.facts["artifact"]["sha256"] = "1" * 64
    new.measurements[1].facts.update(provider="onnx 1.0, CUDA", precision="int8")

    found = compare(*_snapshots(old, new))

    lines = to_table(found).splitlines()
    both = "network light onnx 1, network light onnx 2"
    assert lines == [
        "DIFFERENT photo: a.jpg and b.jpg",
        "DIFFERENT protocol: min_runs: 64 and 1024",
        f"DIFFERENT artifact, 000000000000 and 111111111111: {both}",
        "DIFFERENT precision, fp32 and int8: network light onnx 2",
        "DIFFERENT what ran, onnx 1.0, CPU and onnx 1.0, CUDA: network light onnx 2",
        "2 of 2 figures are equal within the runs' spread, which is a factor of 1.12 at most",
    ]
    assert len(found.rows) == 2  # compared all the same


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
    text = same.read_text()
    for words in (
        '{"machine_info": {}, "benchmarks": [{}]}',
        text.replace('{"brand_raw": "Abacus 3"}', '"x"'),
        text.replace('"q3": ', '"q3": -'),
        text.replace('"q3": ', '"q3": NaN, "was": '),
    ):
        broken.write_text(words)
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
