"""The report says what was measured, on what, and whether it may be quoted."""

from __future__ import annotations

import json

import pytest

from handmesh_benchmarks import device
from handmesh_benchmarks.protocol import Kind, Measurement, Percentiles
from handmesh_benchmarks.report import ratios, to_dict, to_text


def measurement(
    task: str = "network",
    network: str = "light",
    backend: str = "onnx",
    threads: int = 1,
    p50: float = 4.0,
    kind: Kind = "headline",
) -> Measurement:
    stages = {"crop": Percentiles(0.25, 0.5, 1.0)}
    facts = {"task": task, "network": network, "backend": backend, "threads": threads}
    return Measurement(
        name=f"{task} {network} {backend} {threads}",
        facts=facts | ({"crops_seen": 2} if task == "predict" else {}),
        load_ms=50.0,
        first_ms=9.0,
        total=Percentiles(p50, p50 + 1, p50 + 2),
        stages=stages if task == "predict" else {},
        runs=2000,
        seconds=61.0,
        kind=kind,
    )


def test_ratios_compare_the_same_backend_and_threads() -> None:
    measured = [
        measurement(p50=4.0),
        measurement(network="paper", p50=60.0),
        measurement(backend="torch", threads=2, p50=10.0),
        measurement(network="paper", backend="torch", threads=2, p50=120.0),
        measurement(network="paper", backend="torch", threads=1, p50=200.0),  # no light beside it
        measurement(task="predict", p50=5.0),  # not the network alone
    ]

    assert ratios(measured) == {("onnx", 1): pytest.approx(15), ("torch", 2): pytest.approx(12)}


def test_text_shows_device_stages_and_percentiles() -> None:
    text = to_text([measurement("predict", p50=5.0)], {"processor": "Abacus 3", "cores_usable": 2})

    assert "Abacus 3" in text
    row = next(line for line in text.splitlines() if line.startswith("light"))
    shown = "light onnx 1 2000 50.00 9.00 5.00 6.00 7.00 0.25/0.50 - - 2"
    assert " ".join(row.split()) == shown


def test_one_smoke_measurement_makes_the_whole_report_a_smoke_run() -> None:
    headline = to_text([measurement()], {"processor": "x"})
    smoke = to_text([measurement(), measurement(threads=2, kind="smoke")], {"processor": "x"})

    assert headline.startswith("HEADLINE RUN")
    assert smoke.startswith("SMOKE RUN")
    assert "Not to be quoted" in smoke


@pytest.mark.parametrize(("load", "warned"), [(-1.0, False), (0.3, False), (1.6, True)])
def test_a_busy_machine_is_named(load: float, warned: bool) -> None:
    text = to_text([measurement()], {"load_1min": load, "cores_usable": 2})

    assert ("BUSY MACHINE" in text) == warned


def test_json_keeps_everything() -> None:
    measured = [measurement("predict"), measurement(), measurement(network="paper", p50=60.0)]

    again = json.loads(json.dumps(to_dict(measured, device.describe())))

    assert again["kind"] == "headline"
    assert again["measurements"][0]["stages"]["crop"]["p90"] == 0.5
    assert again["measurements"][1]["total"] == {"p50": 4.0, "p90": 5.0, "p99": 6.0}
    assert again["ratios"] == [{"backend": "onnx", "threads": 1, "paper_over_light_p50": 15.0}]
    assert again["device"]["cores_usable"] >= 1
    assert again["device"]["numpy version"].startswith("2")


def test_peak_memory_counts_what_is_allocated() -> None:
    before = device.peak_memory_mib()
    block = bytearray(64 * 2**20)
    block[::4096] = b"x" * len(block[::4096])  # touch every page

    after = device.peak_memory_mib()

    assert after == -1 or after >= max(before, 64)
