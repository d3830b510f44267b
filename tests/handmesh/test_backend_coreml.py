"""The Core ML backend against a stand-in for coremltools' model, and against itself on macOS."""

from __future__ import annotations

import re
import sys
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handmesh import backends
from handmesh.backends import coreml
from handmesh.bundle import Bundle, read_manifest, write_manifest
from handmesh.errors import BackendError, BackendUnavailable
from handmesh.graph import Topology

SIZE = 128
Image = pytest.importorskip("PIL.Image", reason="Core ML takes PIL images")


class Model:
    """Records what it is asked; every output is the mean of the picture's red channel."""

    made: list[Model] = []  # noqa: RUF012

    def __init__(self, path: str, compute_units: str) -> None:
        self.path, self.units = path, compute_units
        self.asked: list[dict[str, Any]] = []
        self.inside = self.most_inside = 0
        self.vertices = 0
        Model.made.append(self)

    def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        threading.Event().wait(0.01)
        self.asked.append(inputs)
        mean = np.asarray(inputs["image"])[..., 0].mean() / 255
        self.inside -= 1
        shapes = {"vertices": (1, self.vertices, 3), "joints": (1, 21, 3), "confidence": (1, 21)}
        shapes |= {"presence": (1,), "handedness": (1,)}
        return {name: np.full(shape, mean, np.float32) for name, shape in shapes.items()}


def _pretend(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    """To be on another system, for the backend alone: others decide by it what they import."""
    monkeypatch.setattr(coreml, "sys", types.SimpleNamespace(platform=platform))
    said = types.SimpleNamespace(
        mac_ver=lambda: ("15.1", ("", "", ""), "arm64"), system=lambda: platform
    )
    monkeypatch.setattr(coreml, "platform", said)


@pytest.fixture
def on_macos(monkeypatch: pytest.MonkeyPatch) -> type[Model]:
    """As if this were macOS with coremltools."""
    stand_in: Any = types.ModuleType("coremltools")
    stand_in.__spec__ = types.SimpleNamespace(name="coremltools")
    stand_in.models = types.SimpleNamespace(MLModel=Model)
    stand_in.ComputeUnit = {"ALL": "all of them", "CPU_ONLY": "the CPU"}
    monkeypatch.setitem(sys.modules, "coremltools", stand_in)
    _pretend(monkeypatch, "darwin")
    monkeypatch.setattr(Model, "made", [])
    return Model


@pytest.fixture
def with_coreml(bundle_folder: Path) -> Bundle:
    package = bundle_folder / "model.mlpackage"
    (package / "Data" / "com.apple.CoreML").mkdir(parents=True)
    (package / "Manifest.json").write_text("{}")
    (package / "Data" / "com.apple.CoreML" / "model.mlmodel").write_bytes(b"model")
    manifest = read_manifest(bundle_folder)
    manifest["artifacts"]["coreml"] = {"path": "model.mlpackage"}
    write_manifest(bundle_folder, manifest)
    return Bundle.load(bundle_folder)


def _crops(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def test_crops_go_in_one_by_one_as_pictures(
    on_macos: type[Model], with_coreml: Bundle, topology: Topology
) -> None:
    backend = backends.create("coreml", with_coreml)
    (model,) = on_macos.made
    model.vertices = topology.vertex_count
    images = _crops(3)

    output = backend.run(images)

    assert model.path == str(with_coreml.folder / "model.mlpackage")
    assert model.units == "all of them"
    assert [list(asked) for asked in model.asked] == [["image"]] * 3
    for asked, image in zip(model.asked, images, strict=True):
        assert asked["image"].mode == "RGB"
        np.testing.assert_array_equal(np.asarray(asked["image"]), image)
    means = images[..., 0].mean(axis=(1, 2)) / 255
    np.testing.assert_allclose(output.presence, means, rtol=1e-6)
    assert output.vertices.shape == (3, topology.vertex_count, 3)
    assert backend.description == "Core ML, macOS 15.1, compute units ALL"


def test_one_prediction_at_a_time(
    on_macos: type[Model], with_coreml: Bundle, topology: Topology
) -> None:
    backend = backends.create("coreml", with_coreml)
    (model,) = on_macos.made
    model.vertices = topology.vertex_count
    threads = [threading.Thread(target=backend.run, args=(_crops(2),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(model.asked) == 6
    assert model.most_inside == 1


def test_compute_units_are_chosen(on_macos: type[Model], with_coreml: Bundle) -> None:
    backend = backends.create("coreml", with_coreml, device="cpu")
    assert on_macos.made[0].units == "the CPU"
    assert backend.description.endswith("CPU_ONLY")
    with pytest.raises(BackendError, match="cannot load"):
        backends.create("coreml", with_coreml, device="gpu")  # none of the stand-in


def test_outputs_of_another_shape_are_refused(on_macos: type[Model], with_coreml: Bundle) -> None:
    with pytest.raises(BackendError, match="'vertices' must have shape"):
        backends.create("coreml", with_coreml).run(_crops(1))


def test_failures_of_core_ml_are_ours(on_macos: type[Model], with_coreml: Bundle) -> None:
    backend = backends.create("coreml", with_coreml)
    on_macos.made[0].predict = None  # type: ignore[assignment, method-assign]
    with pytest.raises(BackendError, match="failed on 2 crops") as caught:
        backend.run(_crops(2))
    assert caught.value.__cause__ is not None


def test_pillow_is_asked_for(
    on_macos: type[Model], with_coreml: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    asked = r"'PIL'.*pip install '\.\[coreml\]'"
    assert re.search(asked, backends.unavailable("coreml", with_coreml) or "")
    with pytest.raises(BackendUnavailable, match=asked):
        backends.create("coreml", with_coreml)


@pytest.mark.parametrize("platform", ["linux", "win32"])
def test_elsewhere_it_says_so(
    with_coreml: Bundle, platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend(monkeypatch, platform)
    reason = backends.unavailable("coreml", with_coreml)
    assert reason is not None
    assert "macOS only" in reason
    with pytest.raises(BackendUnavailable, match="macOS only"):
        backends.create("coreml", with_coreml)


def test_it_comes_last() -> None:
    assert backends.names()[-2:] == ["coreml", "cuda"]


@pytest.mark.darwin
@pytest.mark.skipif(sys.platform != "darwin", reason="Core ML runs on macOS only")
def test_a_real_export_runs(tmp_path: Path) -> None:
    export = pytest.importorskip("handmesh_converters.export", reason="needs the converters")
    pytest.importorskip("coremltools", reason="Core ML is reached through coremltools")
    written = export.add_formats(Bundle.load("light"), ["coreml"], tmp_path / "light")
    assert written.parity["coreml"].runtime.startswith("Core ML, macOS")
