"""LiteRT as a backend: its outputs, its errors, and runs from several threads."""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handmesh import backends
from handmesh.backends import RawOutput
from handmesh.bundle import Bundle, read_manifest, write_manifest
from handmesh.errors import BackendError, BackendUnavailable, InputError
from handmesh.graph import Topology

litert = pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
from tflite_means import tflite_means  # noqa: E402  (needs LiteRT's schema)

SIZE = 128


def _with(folder: Path, data: bytes) -> Bundle:
    (folder / "model.tflite").write_bytes(data)
    manifest = read_manifest(folder)
    manifest["artifacts"]["tflite"] = {"path": "model.tflite"}
    write_manifest(folder, manifest)
    return Bundle.load(folder)


@pytest.fixture
def with_tflite(bundle_folder: Path, topology: Topology) -> Bundle:
    return _with(bundle_folder, tflite_means(SIZE, topology.vertex_count))


def _crops(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def test_a_batch_runs_crop_by_crop(with_tflite: Bundle, topology: Topology) -> None:
    images = _crops(3)[:, ::-1]  # not contiguous

    output = backends.create("tflite", with_tflite, threads=1).run(images)

    means = images.mean(axis=(1, 2, 3)) / 255
    assert output.vertices.shape == (3, topology.vertex_count, 3)
    for array in output:
        assert array.dtype == np.float32
        flat = array.reshape(3, -1)
        np.testing.assert_allclose(flat, np.repeat(means[:, None], flat.shape[1], 1), rtol=1e-5)


def test_what_runs_is_said(with_tflite: Bundle) -> None:
    one, two = (backends.create("tflite", with_tflite, threads=n) for n in (1, 2))
    assert one.description == f"ai_edge_litert {litert.__version__}, CPU, XNNPACK, 1 thread"
    assert two.description.endswith("2 threads")
    assert (one.name, one.threads, two.threads) == ("tflite", 1, 2)


def test_threads_get_their_own_results(with_tflite: Bundle) -> None:
    backend = backends.create("tflite", with_tflite, threads=1)
    images = _crops(8)
    wanted = [backend.run(image[None]) for image in images]
    found: dict[int, list[RawOutput]] = {n: [] for n in range(8)}

    def run(n: int) -> None:
        for _ in range(20):
            found[n].append(backend.run(images[n : n + 1]))

    threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    for n, outputs in found.items():
        assert len(outputs) == 20
        for output in outputs:
            for got, expected in zip(output, wanted[n], strict=True):
                np.testing.assert_array_equal(got, expected)


def test_one_run_at_a_time(with_tflite: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter has one set of tensors, and lets other threads go on while it computes."""
    backend = backends.create("tflite", with_tflite, threads=1)
    inside, most = [0], [0]
    original = backend._run  # type: ignore[attr-defined]

    def run(**named: Any) -> Any:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.02)
        inside[0] -= 1
        return original(**named)

    monkeypatch.setattr(backend, "_run", run)
    threads = [threading.Thread(target=backend.run, args=(crop[None],)) for crop in _crops(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1]


def test_results_outlive_the_next_run(with_tflite: Bundle) -> None:
    backend = backends.create("tflite", with_tflite, threads=1)
    first, second = _crops(2)
    output = backend.run(first[None])
    kept = output.vertices.copy()
    backend.run(second[None])
    np.testing.assert_array_equal(output.vertices, kept)


@pytest.mark.parametrize("data", [b"this is no TFLite file", b""])
def test_a_broken_file_is_refused(bundle_folder: Path, data: bytes) -> None:
    bundle = _with(bundle_folder, data)
    with pytest.raises(BackendError, match=r"cannot load .*model\.tflite"):
        backends.create("tflite", bundle)


def test_a_file_cut_short_is_refused(bundle_folder: Path, topology: Topology) -> None:
    bundle = _with(bundle_folder, tflite_means(SIZE, topology.vertex_count)[:5000])
    with pytest.raises(BackendError, match="cannot load"):
        backends.create("tflite", bundle)


def test_outputs_of_another_shape_are_refused(bundle_folder: Path, topology: Topology) -> None:
    bundle = _with(bundle_folder, tflite_means(SIZE, topology.vertex_count, points=20))
    backend = backends.create("tflite", bundle)
    with pytest.raises(BackendError, match=r"'joints' must have shape \(1, 21, 3\)"):
        backend.run(_crops(1))


def test_failures_of_the_runtime_are_ours(bundle_folder: Path, topology: Topology) -> None:
    other = tflite_means(SIZE // 2, topology.vertex_count)
    backend = backends.create("tflite", _with(bundle_folder, other))

    def fail(**_: Any) -> Any:
        raise RuntimeError("out of memory")

    backend._run = fail  # type: ignore[attr-defined]
    with pytest.raises(BackendError, match="failed on 1 crops: out of memory") as caught:
        backend.run(_crops(1))
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_other_crops_are_refused(with_tflite: Bundle) -> None:
    backend = backends.create("tflite", with_tflite)
    for images in (
        np.zeros((1, SIZE, SIZE, 3), np.float32),
        np.zeros((1, 64, 64, 3), np.uint8),
        np.zeros((0, SIZE, SIZE, 3), np.uint8),
    ):
        with pytest.raises(InputError):
            backend.run(images)


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make import machinery find none of some packages."""

    def names(*hidden: str) -> None:
        find = importlib.util.find_spec

        def finder(name: str, package: str | None = None) -> ModuleSpec | None:
            return None if name in hidden else find(name, package)

        monkeypatch.setattr(importlib.util, "find_spec", finder)

    return names


def test_missing_package_says_what_to_install(with_tflite: Bundle, hide: Any) -> None:
    hide("ai_edge_litert", "tflite_runtime")
    with pytest.raises(BackendUnavailable, match=r"'ai_edge_litert'.*pip install '\.\[tfl"):
        backends.create("tflite", with_tflite)


def test_its_predecessor_serves_too(
    with_tflite: Bundle, hide: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ai_edge_litert import interpreter

    older = types.ModuleType("tflite_runtime")
    older.__version__ = "2.14.0"  # type: ignore[attr-defined]
    older.__spec__ = ModuleSpec("tflite_runtime", None)
    monkeypatch.setitem(sys.modules, "tflite_runtime", older)
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", interpreter)
    hide("ai_edge_litert")

    backend = backends.create("tflite", with_tflite, threads=1)
    assert backend.description == "tflite_runtime 2.14.0, CPU, XNNPACK, 1 thread"
    backend.run(_crops(1))
