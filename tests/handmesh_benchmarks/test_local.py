"""A run on this machine: interrupted, failing in part, and what its rows say of artifacts."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import numpy as np
import pytest

from handmesh import Box, Bundle
from handmesh.errors import (
    BackendError,
    BackendUnavailable,
    InputError,
    MissingExtra,
    ParityError,
)
from handmesh_benchmarks import candidates, local, results, variants
from handmesh_benchmarks.keeping import kept
from handmesh_benchmarks.protocol import Candidate, Protocol
from handmesh_benchmarks.random_weights import check_installed
from handmesh_benchmarks.results import Results, load
from handmesh_benchmarks.runner import yardstick
from handmesh_benchmarks.variants import Variant

SHORT = Protocol(min_runs=6, min_seconds=0, warmup_runs=0, rounds=3, pause_s=0)


def _writer(path: Path) -> Any:
    return lambda found: found.write(path)


def _wanted(folder: Path, **changed: Any) -> local.Wanted:
    given: dict[str, Any] = {
        "bundle": Bundle.load(), "names": ["onnx", "torch"], "precisions": [],
        "paper_precisions": [], "threads": [2], "paper": False, "parts": False, "memory": False,
        "artifacts": folder,
    }  # fmt: skip
    return local.Wanted(**(given | changed))


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
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt), kept(path, said.append) as write:
        local.run(candidates, SHORT, Results({"processor": "x"}), write, _say)

    found = load(path)
    assert (found.state, found.stopped_by) == ("partial", "KeyboardInterrupt")
    assert [row.runs for row in found.measurements] == [2, 2]
    assert said == [f"stopped: {path} holds what was measured until then, 2 rows, as partial"]
    jsonschema.validate(json.loads(path.read_text()), results.schema())


def test_a_run_that_nothing_keeps_says_so_when_it_stops(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def stops(path: Path | None, *measured: Results) -> list[str]:
        said.clear()
        with contextlib.suppress(KeyboardInterrupt), kept(path, said.append) as write:
            for results in measured:
                write(results)
            raise KeyboardInterrupt
        return said

    two = made.results(made.row(), made.row())
    lost = "stopped: what was measured until then, 2 rows, is lost: give"
    assert stops(None, two) == [f"{lost} --out FILE"]
    assert stops(tmp_path / "r.json") == []  # nothing was measured yet

    # A disk that fills up ends no run.
    monkeypatch.setattr(Results, "write", _full)
    assert stops(tmp_path / "r.json", two) == ["no space left", f"{lost} another --out"]


def _full(results: Results, path: Path) -> Path:
    raise InputError("no space left")


def test_what_cannot_run_is_told_and_the_rest_measured(tmp_path: Path) -> None:
    def broken() -> Any:
        raise BackendError("this runtime refuses it")

    facts = yardstick().facts | {"task": "network"}
    works = Candidate("works", lambda: lambda: None, facts)
    refused = Candidate("broken", broken, facts)

    found = local.run(
        [yardstick(), works, refused], SHORT, Results({"processor": "x"}), lambda r: None, _say
    )

    assert found.state == "complete"
    assert [row.name for row in found.measurements] == ["yardstick", "works"]
    assert found.missing == ["broken: this runtime refuses it"]

    # The yardstick alone is no result.
    path = tmp_path / "r.json"
    with pytest.raises(BackendUnavailable, match="nothing could be measured: broken: this runtime"):
        local.run([yardstick(), refused], SHORT, Results({"processor": "x"}), _writer(path), _say)
    kept = load(path)
    assert (kept.state, kept.stopped_by) == ("partial", "nothing could be measured")


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
        wanted = _wanted(tmp_path, paper=True, brief=brief)
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


def test_only_what_can_run_there_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exports for LiteRT take minutes, and it has no such device."""
    bundle, asked = Bundle.load(), []

    def artifacts(wanted: local.Wanted, say: Any) -> Any:
        asked.append(wanted.names)
        return [Variant(bundle, "onnx", "fp16")], {}, []

    monkeypatch.setattr(local, "artifacts", artifacts)
    monkeypatch.setattr(variants.backends, "unavailable", _unavailable)
    monkeypatch.setattr(local, "locate", lambda *_: SimpleNamespace(box=Box(100, 100, 90)))
    wanted = _wanted(tmp_path, names=["onnx", "tflite", "gone"], devices=["cuda", "mps"])

    prepared = local.prepare(wanted, np.zeros((200, 200, 3), np.uint8), None, None, _say)

    assert asked == [["onnx", "gone"]]  # the one that is not installed is told by who looks for it
    assert prepared.missing == [
        "light by tflite on cuda: not there", "light by tflite on mps: not there",
        "light by onnx on mps: not there",
    ]  # fmt: skip


def _unavailable(name: str, bundle: Bundle, device: str | None = None) -> str | None:
    if name == "gone":
        return "not installed"
    return None if device is None or (name, device) == ("onnx", "cuda") else "not there"


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


def test_random_weights_are_not_judged_and_trained_ones_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = Bundle.load()
    paper = Bundle(trained.folder, {**trained.manifest, "name": "paper"})
    judged: dict[str, bool] = {}

    def find(bundle: Bundle, *_: Any, judge: bool = True, say: Any) -> Any:
        judged[bundle.name] = judge
        return [Variant(bundle, "onnx", "fp32")], []

    monkeypatch.setattr(local.variants, "find", find)
    monkeypatch.setattr(local, "paper_bundle", lambda wanted, say: paper)

    _, _, missing = local.artifacts(_wanted(tmp_path, paper=True, paper_precisions=["fp32"]), _say)

    assert judged == {"light": True, "paper": False}
    # The shipped bundle, in the place of paper's, has fp16 stored.
    assert missing == [
        "paper in int8: not asked for, as these exports take minutes; --paper-precisions "
        "fp32,fp16,int8 measures them"
    ]


def test_a_kept_network_that_was_damaged_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def random_bundle(folder: Path, *_: Any, **__: Any) -> Bundle:
        made.append(folder)
        shutil.copytree(Bundle.load().folder, folder, dirs_exist_ok=True)
        return Bundle.load(folder)

    monkeypatch.setattr(local, "random_bundle", random_bundle)
    wanted = _wanted(tmp_path, paper=True)

    first = local.paper_bundle(wanted, _say)
    assert local.paper_bundle(wanted, _say).folder == first.folder
    assert made == [first.folder]
    (first.folder / "weights.safetensors").write_bytes(b"")
    local.paper_bundle(wanted, _say).check()
    assert made == [first.folder] * 2


def test_the_paper_s_network_is_announced_only_where_it_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    said: list[str] = []

    with pytest.raises(MissingExtra, match=r"'torch' is not installed.* the extra 'bench'"):
        local.paper_bundle(_wanted(tmp_path, paper=True), said.append)
    assert said == []


def test_what_exports_of_onnx_lack_comes_with_the_smaller_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    for formats, extra in ((["onnx"], "bench"), (["onnx", "tflite"], "converters")):
        with pytest.raises(MissingExtra, match=f"'onnx' is not installed.* extra '{extra}'"):
            check_installed(formats)
    check_installed([])


def test_progress_is_told_once(made: Any) -> None:
    facts = yardstick().facts | {"task": "network"}
    slow = Protocol(min_runs=2, min_seconds=0.05, warmup_runs=0, rounds=1, pause_s=0)
    said: list[str] = []
    candidates = [
        Candidate("quick", lambda: lambda: None, facts),
        Candidate("slow", lambda: lambda: time.sleep(0.001), facts),
    ]
    rounds: list[int] = []

    def write(results: Results) -> None:
        rounds.append(max((row.runs for row in results.measurements), default=0))

    local.run(candidates, slow, Results({"processor": "x"}), write, said.append)

    assert said == [f"measured up to {n} runs of each of 2 rows" for n in sorted({*rounds} - {0})]


def test_memory_belongs_to_the_artifact_that_it_was_measured_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = Bundle.load()
    rows = [Variant(bundle, "onnx", "fp16"), Variant(bundle, "torch", "fp16")]
    image, hand = np.zeros((200, 200, 3), np.uint8), SimpleNamespace(box=Box(100, 100, 90))
    made: Any = [candidates.network_candidate(image, hand, row, 1) for row in rows]  # type: ignore[arg-type]
    on_gpu = Variant(bundle, "onnx", "fp16", "cuda")
    measured = {"onnx": {"peak_mib": 90.0}, "torch": {"peak_mib": 300.0}}
    asked: list[tuple[str, int]] = []

    def measure(folder: Path, backend: str, threads: int) -> dict[str, float]:
        asked.append((backend, threads))
        return measured[backend]

    monkeypatch.setattr(local.footprint, "measure", measure)
    local._add_memory([yardstick(), *made], [*rows, on_gpu], _say)

    assert [candidate.facts["memory"] for candidate in made] == list(measured.values())
    assert asked == [("onnx", 1), ("torch", 1)]  # of a GPU a process says nothing


def test_a_photo_s_file_is_decoded_on_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.load()
    own = [Variant(bundle, "onnx", "fp16")]
    monkeypatch.setattr(local, "artifacts", lambda wanted, say: (own, {}, []))
    given: list[Any] = []
    monkeypatch.setattr(
        local, "locate", lambda *_: SimpleNamespace(box=Box(100, 100, 90), handedness="right")
    )

    class Seen:
        backend = SimpleNamespace(description="it")

        def __init__(self, *_: Any) -> None: ...

        def predict(self, image: Any, looks: int, **_: Any) -> Any:
            assert looks == 1, "the row is of one crop"
            given.append(image)
            return [SimpleNamespace(crops_seen=1, timings_ms={"decode": 1.0})]

    monkeypatch.setattr(candidates, "Predictor", Seen)
    image = np.zeros((200, 200, 3), np.uint8)

    prepared = local.prepare(_wanted(tmp_path), image, None, b"the file", _say)

    _, predict, _ = prepared.candidates
    assert predict.load()() == {"decode": 1.0}
    assert given == [b"the file"]


def _parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: list[str], **able: str | None
) -> tuple[list[Any], list[str]]:
    """Candidates that are parts, and what is missing, where backends say so of themselves."""
    bundle = Bundle.load()
    cut = {part: tmp_path / f"{part}.onnx" for part in ("trunk", "mesh", "pose")}
    for path in cut.values():
        path.write_bytes(path.name.encode())
    monkeypatch.setattr(local.backends, "unavailable", lambda name, bundle, device: able.get(name))
    missing: list[str] = []
    wanted = _wanted(tmp_path, devices=devices, parts=True)
    networks = [Variant(bundle, "onnx", "fp16")]
    return local._parts(wanted, networks, {"light": cut}, missing), missing


def test_parts_are_those_of_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, missing = _parts(tmp_path, monkeypatch, ["cuda:1"])

    assert [c.name for c in found] == ["parts light onnx cuda:1 2", "parts light torch cuda:1 2"]
    assert missing == []
    onnx, torch = (c.facts for c in found)
    names = ("trunk.onnx", "mesh.onnx", "pose.onnx")
    assert onnx["artifact"]["sha256"] == hashlib.sha256("".join(names).encode()).hexdigest()
    assert (onnx["artifact"]["parity"], onnx["precision"]) == (None, "fp32")
    assert torch["artifact"]["sha256"] == variants.sha256_of(Bundle.load(), "torch")
    assert torch["precision"] == "fp16"

    found, missing = _parts(tmp_path, monkeypatch, [])
    assert [c.name for c in found] == ["parts light onnx 2", "parts light torch 2"]


def test_no_parts_of_the_cpu_stand_beside_another_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, missing = _parts(tmp_path, monkeypatch, ["mps", "tensorrt"], onnx="no TensorRT here")

    assert found == []
    assert missing == [
        "parts of light by onnx on mps: parts are timed on cpu, cuda, tensorrt only",
        "parts of light by torch on mps: parts are timed on cpu, cuda only",
        "parts of light by onnx on tensorrt: no TensorRT here",
        "parts of light by torch on tensorrt: parts are timed on cpu, cuda only",
    ]


def test_parts_that_were_not_proven_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from handmesh_benchmarks import parts

    def write_parts(bundle: Bundle, folder: Path) -> Any:
        (folder / "trunk.onnx").write_bytes(b"half")
        raise ParityError("off")

    monkeypatch.setattr(parts, "write_parts", write_parts)
    with pytest.raises(ParityError):
        local.parts_of(Bundle.load(), tmp_path, _say)
    assert list(tmp_path.iterdir()) == []

    monkeypatch.setattr(parts, "write_parts", lambda b, f: (f / "trunk.onnx").write_bytes(b"all"))
    files = local.parts_of(Bundle.load(), tmp_path, _say)
    assert files["trunk"].read_bytes() == b"all"
    assert len(list(tmp_path.iterdir())) == 1
