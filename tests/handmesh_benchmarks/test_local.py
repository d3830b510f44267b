"""A run on this machine: interrupted, failing in part, and what its rows say of artifacts."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import numpy as np
import pytest

from handmesh import Box, Bundle
from handmesh.errors import BackendError, InputError
from handmesh_benchmarks import candidates, local, results, variants
from handmesh_benchmarks.protocol import Candidate, Protocol
from handmesh_benchmarks.results import Results, load
from handmesh_benchmarks.runner import yardstick
from handmesh_benchmarks.variants import Variant

SHORT = Protocol(min_runs=6, min_seconds=0, warmup_runs=0, rounds=3, pause_s=0)


def _writer(path: Path) -> Any:
    return lambda found: found.write(path)


def _say(line: str) -> None:
    pass


def test_an_interrupted_run_is_kept_and_marked(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    facts = yardstick().facts | {"task": "network"}
    runs = iter(range(100))

    def interrupted() -> None:
        if next(runs) == 5:  # in the second round
            raise KeyboardInterrupt

    candidates = [yardstick(), Candidate("stops", lambda: interrupted, facts)]
    with pytest.raises(KeyboardInterrupt):
        local.run(candidates, SHORT, Results({"processor": "x"}), _writer(path), _say)

    kept = load(path)
    assert (kept.state, kept.stopped_by) == ("partial", "KeyboardInterrupt")
    assert [row.runs for row in kept.measurements] == [2, 2]
    jsonschema.validate(json.loads(path.read_text()), results.schema())


def test_what_cannot_run_is_told_and_the_rest_measured(tmp_path: Path) -> None:
    def broken() -> Any:
        raise BackendError("this runtime refuses it")

    candidates = [yardstick(), Candidate("broken", broken, yardstick().facts)]

    found = local.run(candidates, SHORT, Results({"processor": "x"}), lambda r: None, _say)

    assert found.state == "complete"
    assert [row.name for row in found.measurements] == ["yardstick"]
    assert found.missing == ["broken: this runtime refuses it"]


def test_artifacts_are_found_with_reasons_for_the_rest(tmp_path: Path) -> None:
    bundle = Bundle.load()

    found, missing = variants.find(bundle, ["onnx", "torch", "coreml"], ["none"], tmp_path)

    assert [(v.backend, v.precision) for v in found][:2] == [("onnx", "fp16"), ("torch", "fp16")]
    assert list(tmp_path.iterdir()) == []
    assert all(isinstance(reason, str) for reason in missing)
    with pytest.raises(InputError, match="backend must be one of"):
        variants.find(bundle, ["onix"], ["none"], tmp_path)


def test_facts_of_an_artifact_are_its_manifest_s() -> None:
    bundle = Bundle.load()
    parity = bundle.artifacts["onnx"]["parity"]

    onnx, torch = (variants.artifact_facts(bundle, name) for name in ("onnx", "torch"))

    assert onnx["sha256"] == bundle.manifest["files"]["model.onnx"]["sha256"]
    assert onnx["bytes"] == (bundle.folder / "model.onnx").stat().st_size
    assert onnx["accuracy"]["mm"] == parity["accuracy"]["artifact_mm"]
    assert onnx["parity"]["worst_mm"] == parity["mm"]["worst"]
    # The torch artifact is the network that the other one was compared with.
    assert torch["accuracy"]["mm"] == parity["accuracy"]["network_mm"]
    assert torch["parity"] is None


def test_random_weights_have_no_accuracy() -> None:
    shipped = Bundle.load()
    provenance = {"weights": "random, seed 0"}
    bundle = Bundle(shipped.folder, {**shipped.manifest, "provenance": provenance})

    assert variants.artifact_facts(bundle, "onnx")["accuracy"] is None
    assert variants.is_random(bundle)
    assert not variants.is_random(shipped)


def test_a_folder_s_hash_depends_on_every_file_in_it() -> None:
    def bundle(**changed: str) -> Bundle:
        files = {"m/a": "1", "m/b/c": "2", "other": "3"} | changed
        manifest = {
            "artifacts": {"coreml": {"path": "m"}},
            "files": {name: {"sha256": value, "bytes": 1} for name, value in files.items()},
        }
        return Bundle(Path(), manifest)

    same = variants.sha256_of(bundle(), "coreml")
    assert variants.sha256_of(bundle(other="9"), "coreml") == same
    assert variants.sha256_of(bundle(**{"m/b/c": "9"}), "coreml") != same
    assert len(same) == 64


def test_memory_of_an_artifact_is_that_of_a_process_of_its_own() -> None:
    from handmesh_benchmarks import footprint

    found = footprint.measure(Bundle.load().folder, "onnx", 1)

    assert found["peak_mib"] > found["before_mib"] + 8  # the weights at least


def test_a_headline_run_has_fewer_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.load()
    paper = Bundle(bundle.folder, {**bundle.manifest, "name": "paper"})
    own = [
        Variant(bundle, *words) for words in (("onnx", "fp16"), ("onnx", "fp32"), ("torch", "fp16"))
    ]
    others = [Variant(paper, "onnx", "fp32"), Variant(paper, "torch", "fp32")]
    monkeypatch.setattr(local, "artifacts", lambda wanted, say: ([*own, *others], {}, []))
    image = np.zeros((200, 200, 3), np.uint8)
    hand = SimpleNamespace(box=Box(100, 100, 90), handedness="right")
    monkeypatch.setattr(local, "locate", lambda *_: hand)

    def names(brief: bool) -> list[str]:
        wanted = local.Wanted(
            bundle, ["onnx", "torch"], [], [], [2], paper=True, parts=False, memory=False,
            artifacts=tmp_path, brief=brief,
        )  # fmt: skip
        return [c.name for c in local.prepare(wanted, image, None, None, _say).candidates]

    networks = [f"network {v.name} 2" for v in own]
    assert names(brief=True) == [
        "yardstick", "predict light onnx fp16 2", "predict light torch fp16 2", *networks,
        "network paper onnx fp32 2",
    ]  # fmt: skip
    assert set(names(brief=False)) - set(names(brief=True)) == {
        "predict light onnx fp32 2", "network paper torch fp32 2",
    }  # fmt: skip


def test_devices_are_those_that_a_backend_has() -> None:
    onnx, torch = (Variant(Bundle.load(), name, "fp16") for name in ("onnx", "torch"))

    found, missing = variants.on_devices([onnx, torch], ["cpu", "toaster"])

    assert [v.name for v in found] == ["light onnx fp16 cpu", "light torch fp16 cpu"]
    assert len(missing) == 2
    assert "light by onnx on toaster: backend 'onnx' knows no device 'toaster'" in missing[0]
    assert variants.on_devices([onnx], []) == ([onnx], [])


def test_what_is_measured_is_asked_to_run_there(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Loaded:
        description = "it"

        def __init__(self, *arguments: Any) -> None:
            asked.append(arguments[1:])
            self.backend = self

    monkeypatch.setattr(candidates, "Predictor", Loaded)
    monkeypatch.setattr(candidates.backends, "create", lambda *a: Loaded(a[1], a[0], *a[2:]))
    variant = Variant(Bundle.load(), "onnx", "fp16", "cuda:1")
    image, hand = np.zeros((200, 200, 3), np.uint8), SimpleNamespace(box=Box(100, 100, 90))

    for make in (candidates.predict_candidate, candidates.network_candidate):
        make(image, hand, variant, 2).load()  # type: ignore[arg-type]

    assert asked == [("onnx", 2, "cuda:1")] * 2


def test_variant_names_tell_them_apart() -> None:
    bundle = Bundle.load()
    assert Variant(bundle, "tflite", "int8+static").name == "light tflite int8+static"
