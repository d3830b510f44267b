"""The tables say what was measured, on what, and whether it may be quoted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from handmesh_benchmarks import device
from handmesh_benchmarks.page import to_html, to_markdown
from handmesh_benchmarks.report import columns, errors_mm, ratios, short, to_text
from handmesh_benchmarks.results import load
from handmesh_benchmarks.scaling import to_text as scaling_text


def test_ratios_compare_the_same_backend_and_threads(made: Any) -> None:
    measured = [
        made.row(p50=4.0),
        made.row(network="paper", p50=60.0),
        made.row(backend="torch", threads=2, p50=10.0),
        made.row(network="paper", backend="torch", threads=2, p50=120.0),
        made.row(network="paper", backend="torch", threads=1, p50=200.0),  # no light beside it
        made.row(task="predict", p50=5.0),  # not the network alone
    ]

    assert {(way.backend, way.threads): ratio for way, ratio in ratios(measured).items()} == {
        ("onnx", 1): pytest.approx(15), ("torch", 2): pytest.approx(12)
    }  # fmt: skip


def test_ratios_compare_the_same_device_and_precision(made: Any) -> None:
    def row(network: str, provider: str, precision: str, p50: float) -> Any:
        made_row = made.row(network=network, p50=p50)
        made_row.facts.update(provider=f"onnxruntime 1.0, {provider}", precision=precision)
        return made_row

    found = ratios(
        [
            row("light", "TensorRT, 90 of 90 operators", "fp16", 1.0),
            row("light", "CUDA, 88 of 90 operators", "fp16", 2.0),
            row("light", "CPU", "fp32", 4.0),
            row("paper", "CUDA, 300 of 310 operators", "fp16", 30.0),
            row("paper", "CPU", "fp16", 160.0),  # no light of that precision there
        ]
    )

    assert list(found.values()) == [pytest.approx(15)]
    assert next(iter(found)).provider == "onnxruntime 1.0, CUDA"


LONG = "light by onnx, int8: " + "a line of a runtime's own trace\n" * 40


def test_reasons_are_short_in_tables_and_whole_in_json(made: Any, tmp_path: Path) -> None:
    results = made.results(made.row())
    results.missing += ["tflite: not\nthere", LONG]
    scaling = made.results(made.row("scaling batch"))
    scaling.measurements[0].facts["x"] = 4
    scaling.missing = results.missing
    path = results.write(tmp_path / "r.json")

    for text in (to_text(results), scaling_text(scaling)):
        first, second = [line for line in text.splitlines() if line.startswith("not measured: ")]
        assert first == "not measured: tflite: not there"
        assert second.startswith("not measured: light by onnx, int8: a line of a runtime's own")
        assert second.endswith(" ... (whole in the JSON)")
        assert len(second) <= 240 + len("not measured: ")
    for page in (to_markdown([results]), to_html([results])):
        assert page.count("of a runtime") < 10
        assert "tflite: not there" in page
        assert "(whole in the JSON)" in page
    assert load(path).missing == results.missing


def test_a_reason_that_just_fits_is_left_alone() -> None:
    assert short("x" * 240) == "x" * 240
    assert len(short("x" * 241)) == 240


def test_text_shows_device_stages_percentiles_and_accuracy(made: Any) -> None:
    text = to_text(made.results(made.row("predict", p50=5.0, crop=0.25)))

    assert "Abacus 3" in text
    row = next(line for line in text.splitlines() if line.startswith("light"))
    shown = "light onnx fp32 1 2000 50.00 9.00 5.00 6.00 7.00 - 0.25/0.50 - - 2 9.50 97"
    assert " ".join(row.split()) == shown


def test_an_artifact_tested_on_fewer_crops_is_compared_by_what_it_changes(made: Any) -> None:
    whole, calibrated, other = made.row(), made.row(backend="tflite"), made.row(backend="torch")
    facts = calibrated.facts["artifact"]
    # On easier crops the network itself is at 8.00 mm, and the artifact 0.10 mm worse.
    facts["accuracy"] = {"crops": 5, "mm": 8.1, "px": 7.0, "network_mm": 8.0}
    facts["sha256"] = "1" * 64
    other.facts["artifact"] |= {"weights": "of another training", "sha256": "2" * 64}

    errors = errors_mm([calibrated, whole, other])

    assert errors["0" * 64] == (pytest.approx(9.5), True)
    assert errors["1" * 64] == (pytest.approx(9.25 + 0.1), False)
    assert errors["2" * 64] == (pytest.approx(9.5), True)
    text = to_text(made.results(whole, calibrated))
    assert [line.split()[-5] for line in text.splitlines() if "CPU" in line] == ["9.50", "~9.35"]


def test_parts_stand_beside_the_paper_s(made: Any) -> None:
    row = made.row("parts", network="paper", p50=171.2, trunk=140.0, mesh=30.0, pose=1.2)

    lines = to_text(made.results(row)).splitlines()

    at = next(i for i, line in enumerate(lines) if "GTX 1080" in line)
    assert lines[at].split()[3:7] == ["12.6", "4.7", "2.6", "19.9"]
    assert lines[at + 1].split()[:7] == ["paper", "onnx", "1", "140.00", "30.00", "1.20", "171.20"]


def test_one_smoke_measurement_makes_the_whole_report_a_smoke_run(made: Any) -> None:
    headline = to_text(made.results(made.row()))
    smoke = to_text(made.results(made.row(), made.row(threads=2, kind="smoke")))

    assert headline.startswith("HEADLINE RUN")
    assert smoke.startswith("SMOKE RUN")
    assert "Not to be quoted" in smoke


def test_a_partial_run_says_so(made: Any) -> None:
    results = made.results(made.row(), state="partial")
    results.stopped_by = "KeyboardInterrupt"

    assert "PARTIAL: the run was stopped (KeyboardInterrupt)" in to_text(results)
    assert to_text(made.results(state="partial")).startswith("NOTHING MEASURED")


@pytest.mark.parametrize(
    ("device", "warned"),
    [
        ({"load_1min": -1.0}, False),
        ({"load_1min": 0.3}, False),
        ({"load_1min": 1.6}, True),
        ({"load_1min": 1.6, "cores_busy": 0.1}, False),  # what made that load has ended
        ({"load_1min": 0.1, "cores_busy": 1.3}, True),
        ({"load_1min": 0.1, "cores_busy": -1.0}, False),
    ],
)
def test_a_busy_machine_is_named(made: Any, device: dict[str, float], warned: bool) -> None:
    text = to_text(made.results(made.row(), cores_usable=2, **device))

    assert ("BUSY MACHINE" in text) == warned
    assert ("may be slower" in text) == warned
    if device.get("cores_busy", 0) > 1:
        assert "1.3 of 2 cores were busy" in text


def test_columns_put_words_left_and_numbers_right() -> None:
    assert columns(["a", "long"], [["word", "1"], ["w", "-"]]) == [
        "a     long",
        "word     1",
        "w        -",
    ]


def test_peak_memory_counts_what_is_allocated() -> None:
    before = device.peak_memory_mib()
    block = bytearray(64 * 2**20)
    block[::4096] = b"x" * len(block[::4096])  # touch every page

    after = device.peak_memory_mib()

    assert after == -1 or after >= max(before, 64)


LOADS_200_MIB = """
import json
from handmesh_benchmarks import device

kept = []

def load():
    kept.append(bytearray(b"x") * (200 * 2**20))
    return lambda: None

print(json.dumps(device.footprint(load)))
"""


def test_footprint_is_of_what_is_loaded() -> None:
    """In a process of its own, as footprints are: from one that has held gigabytes the system takes
    memory back while it runs."""
    done = subprocess.run(
        [sys.executable, "-c", LOADS_200_MIB], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)

    assert found["peak_mib"] == -1 or 180 < found["peak_mib"] - found["before_mib"] < 260


def test_the_error_says_what_it_is_of(made: Any) -> None:
    text = to_text(made.results(made.row("predict"), made.row()))

    assert text.count("error mm: mean distance of the joints") == 1
    assert "wrists aligned, in 22 reference crops of the bundle" in text
    unknown = made.row(network="paper")
    assert "error mm: " not in to_text(made.results(unknown))
