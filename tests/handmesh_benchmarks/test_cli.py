"""`handmesh bench` from its arguments to its report, on a network with random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from handmesh.cli import main
from handmesh.graph import Topology
from handmesh_benchmarks.random_weights import random_bundle

BOX = "140,80,410,560"
QUICK = ["--no-parts", "--no-memory", "--precisions", "none"]


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "light"
    return random_bundle(folder, Topology.default(), "light", export=()).folder


def test_measures_what_can_run_and_says_what_cannot(
    light: Path,
    tmp_path: Path,
    example_photos: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "bench.json"
    options = ["--no-paper", "--no-memory", "--precisions", "none", "--threads", "1"]
    options += ["--runs", "2", "--seconds", "0", "--backends", "onnx,torch"]

    code = main(
        ["bench", "--bundle", str(light), "--photo", str(example_photos["pointing"])]
        + ["--box", BOX, "--out", str(out), *options]
    )

    shown, written = capsys.readouterr().out, json.loads(out.read_text())
    assert code == 0
    assert "SMOKE RUN" in shown
    assert "not measured: light by onnx: backend 'onnx' has nothing to run" in shown
    assert [m["name"] for m in written["measurements"]] == [
        "yardstick",
        "predict light torch fp16 1",
        "network light torch fp16 1",
        "parts light torch 1",
    ]
    _, predict, network, parts = written["measurements"]
    assert set(parts["stages"]) == {"trunk", "mesh", "pose"}
    assert written["state"] == "complete"
    stages = predict["stages"]
    inside = sum(stages[name]["p50"] for name in ("crop", "network", "geometry"))
    assert 0 < inside <= predict["total"]["p99"]
    assert set(stages) == {"decode", "crop", "network", "geometry"}
    assert 1 <= predict["facts"]["crops_seen"] <= 3
    assert network["stages"] == {}
    assert network["facts"]["image_size"] == 128


def test_without_a_photo_a_crop_of_the_bundle_is_measured(
    light: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)  # where no examples lie
    options = ["bench", "--bundle", str(light), "--no-paper", "--backends", "torch"]
    options += ["--threads", "1", "--runs", "1", "--seconds", "0", *QUICK]

    assert main(options) == 0
    assert "reference crop of light, 128 x 128 pixels" in capsys.readouterr().out
    assert main([*options, "--box", BOX]) == 2
    assert "--photo" in capsys.readouterr().err


def test_nothing_to_run_is_an_error(
    light: Path, example_photos: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(
        ["bench", "--bundle", str(light), "--photo", str(example_photos["pointing"])]
        + ["--box", BOX, "--no-paper", "--backends", "onnx", *QUICK]
    )

    assert code == 3
    assert "nothing to run" in capsys.readouterr().err


def test_the_paper_s_network_is_made_on_the_same_graph(tmp_path: Path) -> None:
    topology = Topology.default()

    paper = random_bundle(tmp_path / "paper", topology, "paper", export=())

    assert paper.topology.sha256 == topology.sha256
    assert paper.image_size == 256
    assert paper.name == "paper"
    assert set(paper.artifacts) == {"torch"}
    assert "random" in paper.manifest["provenance"]["weights"]


def _written(made: Any, folder: Path, name: str, **options: Any) -> str:
    return str(made.results(made.row(**options)).write(folder / name))


def test_report_and_comparison_of_files(
    made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = _written(made, tmp_path, "old.json", p50=4.0)
    same = _written(made, tmp_path, "same.json", p50=4.05)
    slow = _written(made, tmp_path, "slow.json", p50=8.0)
    page = tmp_path / "report.html"

    assert main(["bench", "--report", old, slow, "--out", str(page)]) == 0
    assert page.read_text().startswith("<!doctype html>")
    assert main(["bench", "--compare", old, same]) == 0
    assert main(["bench", "--compare", old, slow]) == 1
    assert "slower" in capsys.readouterr().out


def test_bad_files_are_told_with_what_to_do(
    made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = _written(made, tmp_path, "good.json"), tmp_path / "bad.json"
    bad.write_text('{"schema": 2')
    page = tmp_path / "report.html"

    assert main(["bench", "--report", good, str(bad), "--out", str(page)]) == 2
    assert "bad.json is no JSON" in capsys.readouterr().err
    assert not page.exists()
    assert main(["bench", "--report", good]) == 2
    assert "--out" in capsys.readouterr().err
    assert main(["bench", "--device", "toaster"]) == 2
    assert "local, ssh, adb, coreml" in capsys.readouterr().err


def test_an_artifact_that_is_not_the_manifest_s_is_refused(
    light: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(light, copy)
    with (copy / "weights.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    options = ["bench", "--bundle", str(copy), "--no-paper", "--backends", "torch", *QUICK]

    assert main([*options, "--threads", "1", "--runs", "1", "--seconds", "0"]) == 2
    assert "sha256 differs" in capsys.readouterr().err
