"""`handmesh bench` from its arguments to its report, on a network with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from handmesh.cli import main
from handmesh.graph import Topology
from handmesh_benchmarks.random_weights import random_bundle

BOX = "140,80,410,560"


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
    options = ["--no-paper", "--threads", "1", "--runs", "2", "--seconds", "0"]

    code = main(
        ["bench", "--bundle", str(light), "--photo", str(example_photos["pointing"])]
        + ["--box", BOX, "--out", str(out), *options]
    )

    shown, written = capsys.readouterr().out, json.loads(out.read_text())
    assert code == 0
    assert "SMOKE RUN" in shown
    assert "not measured: backend 'onnx' has nothing to run in bundle 'light'" in shown
    assert [m["name"] for m in written["measurements"]] == [
        "predict light torch 1",
        "network light torch 1",
    ]
    predict, network = written["measurements"]
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
    options += ["--threads", "1", "--runs", "1", "--seconds", "0"]

    assert main(options) == 0
    assert "reference crop of light, 128 x 128 pixels" in capsys.readouterr().out
    assert main([*options, "--box", BOX]) == 2
    assert "--photo" in capsys.readouterr().err


def test_nothing_to_run_is_an_error(
    light: Path, example_photos: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(
        ["bench", "--bundle", str(light), "--photo", str(example_photos["pointing"])]
        + ["--box", BOX, "--no-paper", "--backends", "onnx"]
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
