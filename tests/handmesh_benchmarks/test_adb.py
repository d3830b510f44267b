"""A phone, with an adb of our own that records what it is asked and answers as phones do."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from handmesh import Bundle
from handmesh.errors import BackendUnavailable, DeviceError, InputError
from handmesh_benchmarks import results
from handmesh_benchmarks.devices.adb import Phone, measure, parse
from handmesh_benchmarks.protocol import Protocol
from handmesh_benchmarks.variants import Variant

# ruff: noqa: E501  (as the program prints it)
OUTPUT = """INFO: STARTING!
INFO: Loaded model /data/local/tmp/handmesh/m.tflite
{applied}INFO: count=7 first=90000 curr=5100 min=5000 max=90000 avg=17000 std=30 p5=5000 median=5200 p95=9000
INFO: count=1200 first=5100 curr=5050 min=4900 max=9000 avg=5120.5 std=300 p5=4950 median=5075 p95=5600
INFO: Inference timings in us: Init: 21543, First inference: 90000, Warmup (avg): 17000, Inference (avg): 5120.5
INFO: Memory footprint delta from the start of the tool (MB): init=12.3 overall=25.5
"""
GPU = "INFO: Explicitly applied GPU delegate, and the model graph will be partially executed by the delegate w/ 2 delegate kernels.\n"
NOTHING = "INFO: Though GPU delegate is explicitly applied, the model graph will not be executed by the delegate.\n"
XNNPACK = "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"
OLD = """count=50 first=5100 curr=5050 min=4900 max=9000 avg=5120.5 std=300
Inference timings in us: Init: 21543, First inference: 90000, Warmup (avg): 17000, Inference (avg): 5120.5
"""
ADB = """#!{python}
import json, os, sys
with open({log!r}, "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
words = sys.argv[1:]
if words[0] == "-s":
    if words[1] != "PHONE7":
        sys.exit("error: device '%s' not found" % words[1])
    words = words[2:]
if words[:2] == ["shell", "getprop"]:
    print({{"ro.product.model": "Fake 7", "ro.build.version.release": "15"}}.get(words[2], ""))
elif words[:2] == ["shell", "cat"]:
    print("schedutil")
elif words[0] == "shell" and words[1].endswith("benchmark_model"):
    applied = [{xnnpack!r}, {gpu!r}]["--use_gpu=true" in words]
    print(open({output!r}).read().replace("{{applied}}", applied))
elif words[0] == "push":
    assert os.path.isfile(words[1])
"""


@pytest.fixture
def adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `calls`, what adb was asked, and `output`, what benchmark_model prints."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tmp_path / "output").write_text(OUTPUT)
    program = tools / "adb"
    program.write_text(
        ADB.format(
            python=sys.executable,
            log=str(tmp_path / "calls"),
            output=str(tmp_path / "output"),
            xnnpack=XNNPACK,
            gpu=GPU,
        )
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


@pytest.fixture
def variant(monkeypatch: pytest.MonkeyPatch) -> Variant:
    """The shipped ONNX file in the place of a .tflite one: the fake phone does not open it."""
    bundle = Bundle.load()
    artifacts = {"tflite": bundle.artifacts["onnx"], **bundle.artifacts}
    renamed = Bundle(bundle.folder, {**bundle.manifest, "artifacts": artifacts})
    return Variant(renamed, "tflite", "fp32")


def _calls(folder: Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


def _measure(folder: Path, variant: Variant, serial: str = "PHONE7", **options: Any) -> Any:
    program = folder / "benchmark_model"
    program.write_bytes(b"binary")
    return measure(
        Phone(serial), program, [variant], [1, 4], Protocol(min_runs=50, min_seconds=2.5),
        options.pop("write", lambda results: None), options.pop("say", lambda line: None),
        **options,
    )  # fmt: skip


def test_benchmark_model_is_driven_and_read(adb: Path, variant: Variant) -> None:
    found = _measure(adb, variant, delegates=("cpu", "gpu"))

    assert [row.name for row in found.measurements] == [
        "network light tflite fp32 cpu 1",
        "network light tflite fp32 cpu 4",
        "network light tflite fp32 gpu 1",
    ]
    row = found.measurements[0]
    assert (row.total.p50, row.total.p90, row.load_ms, row.first_ms) == (5.075, None, 21.543, 90.0)
    assert (row.runs, row.kind) == (1200, "smoke")  # 1,200 runs, but of 6 s together
    assert row.facts["provider"] == "benchmark_model, CPU"
    assert found.measurements[2].facts["provider"] == (
        "benchmark_model, GPU, Explicitly applied GPU delegate, and the model graph will be "
        "partially executed by the delegate w/ 2 delegate kernels."
    )
    # It tells what the tool grew by, and no peak: that is not the figure of other rows.
    assert "memory" not in row.facts
    assert row.facts["memory_grown_mib"] == 25.5
    assert found.device["machine"] == "Fake 7"
    assert found.device["system"] == "Android 15"
    jsonschema.validate(found.to_dict(), results.schema())
    assert all(call[:2] == ["-s", "PHONE7"] for call in _calls(adb))
    runs = [c for c in _calls(adb) if c[2] == "shell" and c[3].endswith("benchmark_model")]
    assert "--num_threads=4" in runs[1]
    assert {"--num_runs=50", "--min_secs=2.5"} <= set(runs[0])
    assert "--use_gpu=true" in runs[2]
    assert _calls(adb)[-1][2:] == ["shell", "rm", "-rf", "/data/local/tmp/handmesh"]


def test_an_older_program_gives_the_mean_and_says_so() -> None:
    facts: dict[str, Any] = {}
    row = parse(OLD, "x", facts)

    assert row.total.p50 == 5.1205
    assert facts["statistic"].startswith("p50 is the mean")


def test_a_mean_in_the_place_of_a_median_is_marked(adb: Path, variant: Variant) -> None:
    (adb / "output").write_text(OLD)
    rows = _measure(adb, variant).measurements
    assert {row.facts["provider"] for row in rows} == {
        "benchmark_model, CPU, p50 is the mean: it gives no median"
    }


@pytest.mark.parametrize("said", [NOTHING, ""])
def test_a_delegate_that_took_nothing_is_no_row(adb: Path, variant: Variant, said: str) -> None:
    (adb / "output").write_text(OUTPUT.replace("{applied}", said))

    found = _measure(adb, variant, delegates=("cpu", "gpu", "nnapi"), missing=["int8: refused"])

    assert [row.name[-5:] for row in found.measurements] == ["cpu 1", "cpu 4"]
    assert found.missing[0] == "int8: refused"
    assert "light tflite fp32, gpu, 1: benchmark_model does not say that" in found.missing[1]
    assert "NNAPI delegate" in found.missing[2]


def test_a_program_that_fails_is_told_with_its_last_line(adb: Path, variant: Variant) -> None:
    (adb / "output").write_text("INFO: STARTING!\nERROR: Failed to load the model\n")

    with pytest.raises(BackendUnavailable, match="Failed to load the model"):
        _measure(adb, variant)
    assert _calls(adb)[-1][3:5] == ["rm", "-rf"]


def _lose_the_phone(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the folder is to be removed."""
    run = Phone.run

    def lost(self: Phone, *arguments: str) -> str:
        if arguments[:2] == ("shell", "rm"):
            raise DeviceError("adb shell failed on PHONE7: device offline; see `adb devices`")
        return run(self, *arguments)

    monkeypatch.setattr(Phone, "run", lost)


def test_a_folder_that_cannot_be_removed_is_told_and_spoils_nothing(
    adb: Path, variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lose_the_phone(monkeypatch)
    kept: list[str] = []
    said: list[str] = []
    found = _measure(
        adb, variant, write=lambda results: kept.append(results.state), say=said.append
    )
    assert len(found.measurements) == 2
    assert kept[-1] == found.state == "complete"
    assert said[-1].startswith("the folder /data/local/tmp/handmesh stays on PHONE7: adb shell")


def test_an_interrupt_stays_one_where_the_phone_is_gone_too(
    adb: Path, variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lose_the_phone(monkeypatch)
    stopped: list[str | None] = []

    def interrupt(results: Any) -> None:
        stopped.append(results.stopped_by)
        if results.measurements and not results.stopped_by:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _measure(adb, variant, write=interrupt)
    assert stopped[-1] == "KeyboardInterrupt"


def test_no_such_phone_no_adb_no_program(
    adb: Path, variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DeviceError, match="'OTHER' not found"):
        _measure(adb, variant, "OTHER")
    with pytest.raises(InputError, match="--benchmark-model"):
        measure(Phone(), None, [variant], [1], Protocol(), lambda r: None, lambda s: None)
    with pytest.raises(InputError, match="delegates are"):
        _measure(adb, variant, delegates=("npu",))
    with pytest.raises(BackendUnavailable, match="handmesh export light --format tflite --out DIR"):
        _measure(adb, Variant(variant.bundle, "onnx", "fp32"))
    monkeypatch.setenv("PATH", str(adb / "nowhere"))
    with pytest.raises(DeviceError, match="platform tools"):
        _measure(adb, variant)
