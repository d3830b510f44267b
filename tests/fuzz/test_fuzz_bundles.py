"""Bundles whose manifest makes no sense, or whose files are damaged: with hashes that fit, as one
gets them of whoever wants to do harm, or whose writer was wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import ANY_NUMBER, changes, damaged, fuzz, only_our_errors
from hypothesis import given
from hypothesis import strategies as st

from handmesh import Bundle, Predictor, backends
from handmesh.graph import Topology
from handmesh.manifest import MANIFEST, _manifest_hash, io_specs, read_manifest, write_manifest
from handmesh.verification import read_reference, verify

SIZE = 64


def _manifest(topology: Topology) -> dict[str, Any]:
    return {
        "name": "fuzzed",
        "network": "test",
        "config": {"input_size": SIZE},
        **io_specs(SIZE, topology.vertex_count),
        "artifacts": {"onnx": {"path": "model.onnx", "tolerance": {"mm": 1.0}}},
        "licences": {"code": "Apache-2.0", "weights": "none", "data": "none"},
        "provenance": {"made": "in a test"},
        "graph_sha256": topology.sha256,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("fuzzed") / "bundle"
    folder.mkdir()
    topology = Topology.default()
    topology.save(folder / "topology.npz")
    (folder / "model.onnx").write_bytes(b"no network")
    np.savez(
        folder / "reference.npz",
        images=np.zeros((1, SIZE, SIZE, 3), np.uint8),
        vertices=np.zeros((1, topology.vertex_count, 3), np.float32),
        joints=np.zeros((1, 21, 3), np.float32),
        confidence=np.zeros((1, 21), np.float32),
        presence=np.zeros(1, np.float32),
        handedness=np.zeros(1, np.float32),
    )
    write_manifest(folder, _manifest(topology))
    return folder


@pytest.fixture(scope="module")
def manifest(folder: Path) -> dict[str, Any]:
    return read_manifest(folder)


def _use(folder: Path) -> None:
    """What a program does with a bundle, up to running it."""
    bundle = Bundle.load(folder)
    assert isinstance(bundle.name, str)
    assert bundle.image_size > 0
    for name in list(bundle.artifacts):
        bundle.size_of(name)
        backends.unavailable("onnx", bundle)
        bundle.artifact(name)
    bundle.check()
    read_reference(bundle)
    verify(bundle)


SEED: dict[str, Any] = json.loads(json.dumps(_manifest(Topology.default())))


@fuzz(3)
@given(st.data())
def test_changed_manifests(folder: Path, manifest: dict[str, Any], data: st.DataObject) -> None:
    changed = data.draw(changes(manifest))
    if isinstance(changed, dict) and data.draw(st.integers(0, 9)):
        try:
            changed = {**changed, "sha256": _manifest_hash(changed)}
        except (RecursionError, ValueError):
            return
    (folder / MANIFEST).write_text(json.dumps(changed), encoding="utf-8", errors="surrogatepass")
    with only_our_errors():
        _use(folder)


@fuzz()
@given(st.data())
def test_damaged_manifests(folder: Path, manifest: dict[str, Any], data: st.DataObject) -> None:
    text = data.draw(damaged([json.dumps(manifest, indent=1).encode()], header=3000))
    (folder / MANIFEST).write_bytes(text)
    with only_our_errors():
        _use(folder)


@fuzz(0.5)
@given(
    st.sampled_from(["[", '{"a":', "[[", '{"schema": 1, "name": [']),
    st.sampled_from([10, 500, 900, 1000, 3000, 100_000]),
    st.booleans(),
)
def test_deeply_nested_manifests(folder: Path, opening: str, depth: int, closed: bool) -> None:
    closing = "".join({"[": "]", "{": "}"}.get(c, "") for c in reversed(opening))
    text = opening * depth + "1" + (closing * depth if closed else "")
    (folder / MANIFEST).write_text(text)
    with only_our_errors():
        _use(folder)


NAMES = st.one_of(
    ANY_NUMBER.filter(lambda name: name is not None),
    st.text(max_size=9),
    st.sampled_from(["\0", "x" * 5000, "\ud800", ".", "/"]),
)


@fuzz(0.3)
@given(NAMES)
def test_names_that_are_no_bundle(name: Any) -> None:
    with only_our_errors():
        Predictor(name)
    with only_our_errors():
        Bundle.load(name)


TOPOLOGY = (Path(backends.__file__).parents[1] / "assets" / "topology.npz").read_bytes()


@fuzz()
@given(st.data())
def test_damaged_graphs(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.write_bytes(data.draw(damaged([TOPOLOGY], header=400)))
    with only_our_errors():
        Topology.load(path)


@pytest.fixture(scope="module")
def plain_arrays() -> dict[str, np.ndarray]:
    return Topology.default()._flat()


@fuzz()
@given(st.data())
def test_graphs_of_other_arrays(
    tmp_path_factory: pytest.TempPathFactory,
    plain_arrays: dict[str, np.ndarray],
    data: st.DataObject,
) -> None:
    arrays = dict(plain_arrays)
    for _ in range(data.draw(st.integers(1, 2))):
        name = data.draw(st.sampled_from(sorted(arrays)))
        arrays[name] = _other(arrays[name], data)
        if data.draw(st.integers(0, 9)) == 0:
            del arrays[name]
    path = tmp_path_factory.getbasetemp() / "other.npz"
    np.savez(path, **arrays)
    with only_our_errors():
        topology = Topology.load(path)
        assert topology.vertex_count > 0


def _other(array: np.ndarray, data: st.DataObject) -> np.ndarray:
    kind = data.draw(st.sampled_from(["value", "shape", "type", "cut", "empty", "scalar"]))
    if kind == "value" and array.size:
        array = array.copy()
        place = data.draw(st.integers(0, array.size - 1))
        values = [0, 1, 255, np.nan, np.inf, -1, 2**31 - 1, 1280]
        with np.errstate(all="ignore"):
            array.flat[place] = np.array(data.draw(st.sampled_from(values))).astype(array.dtype)
        return array
    if kind == "shape":
        return array.reshape(data.draw(st.sampled_from([(-1,), (1, -1), (-1, 1)])))
    if kind == "type":
        types = ["f8", "i8", "U5", "?", "c16", "M8[s]", "u1,f4", ">f4", "f2"]
        try:
            return array.astype(data.draw(st.sampled_from(types)))
        except (TypeError, ValueError):
            return array
    if kind == "cut" and array.ndim:
        return array[: len(array) // 2]
    return np.zeros(() if kind == "scalar" else (0, *array.shape[1:]), array.dtype)


@fuzz(0.5)
@given(st.data())
def test_damaged_reference(folder: Path, manifest: dict[str, Any], data: st.DataObject) -> None:
    apart = folder.parent / "reference"
    shutil.copytree(folder, apart, dirs_exist_ok=True)
    (apart / "reference.npz").write_bytes(
        data.draw(damaged([(folder / "reference.npz").read_bytes()], header=400))
    )
    entries = {k: v for k, v in manifest.items() if k not in ("schema", "files", "sha256")}
    write_manifest(apart, entries)
    with only_our_errors():
        read_reference(Bundle.load(apart))
    with only_our_errors():
        verify(Bundle.load(apart))


def test_the_seed_is_a_bundle(folder: Path, manifest: dict[str, Any]) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest))
    bundle = Bundle.load(folder)
    bundle.check()
    assert len(read_reference(bundle)[0]) == 1
    assert SEED.keys() <= manifest.keys()
