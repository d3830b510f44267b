"""Bundles: what is in them, and that nothing half-made ever takes the place of a whole one."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conversions import Remembering
from numpy.typing import NDArray

from handmesh.backends import Backend
from handmesh.bundle import Bundle, read_manifest, write_manifest
from handmesh.errors import (
    CheckpointError,
    ExportError,
    GraphMismatchError,
    InputError,
    IntegrityError,
    MissingExtra,
    ParityError,
)
from handmesh.graph import Topology
from handmesh.nn import LightNetwork, read_config, to_dict
from handmesh.verification import read_reference, verify
from handmesh_converters import export as export_module
from handmesh_converters import formats
from handmesh_converters.export import add_formats, load_bundle, load_checkpoint, write_bundle
from handmesh_converters.fold import ExportTwin
from handmesh_converters.formats import onnx as onnx_format
from handmesh_converters.parity import TOLERANCES, Parity, Tolerance, network_outputs
from handmesh_converters.request import Abilities, Job, Request

FP32 = Request(precision="fp32")

Crops = NDArray[np.uint8]


@dataclasses.dataclass
class _PreparedFormat:
    """Stands for the ONNX exporter, which takes seconds: copies what it once made, or fails."""

    artifact: Path
    change: Callable[[Path], None] | None = None
    REQUIRES: tuple[str, ...] = ()
    EXTRA: str = "converters"
    FILE: str = "model.onnx"

    ABLE: Abilities = onnx_format.ABLE

    def open(self, bundle: Bundle) -> Backend:
        return onnx_format.open(bundle)

    def export(self, twin: ExportTwin, path: Path, job: Job) -> dict[str, Any]:
        shutil.copyfile(self.artifact, path)
        if self.change is not None:
            self.change(path)
        return {"nodes": 1, "precision": "fp32", "weights": job.precision}


@pytest.fixture
def prepared(light_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> _PreparedFormat:
    stand_in = _PreparedFormat(light_bundle.artifact("onnx"))
    monkeypatch.setattr(formats, "load", lambda name: stand_in)
    return stand_in


def _contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _perturb(path: Path) -> None:
    """Move the middle fingertip's u by a thousandth of the crop."""
    model = onnx.load(path)
    bias = next(i for i in model.graph.initializer if i.name.endswith("joints.bias"))
    values = onnx.numpy_helper.to_array(bias).copy()
    values[12 * 3] += 1e-3
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    onnx.save(model, path)


def _interrupt(path: Path) -> None:
    raise KeyboardInterrupt


def _fill_the_disk(path: Path) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_bundle_is_whole_and_verifies(
    light_bundle: Bundle, light: LightNetwork, topology: Topology, crops: Crops
) -> None:
    names = {"manifest.json", "topology.npz", "weights.safetensors", "reference.npz", "model.onnx"}
    assert {path.name for path in light_bundle.folder.iterdir()} == names
    assert light_bundle.name == "small"
    assert light_bundle.topology.sha256 == topology.sha256
    assert read_config(light_bundle.file("weights.safetensors")) == light.config
    assert light_bundle.manifest["provenance"] == {"made": "in a test"}
    with np.load(light_bundle.file("reference.npz")) as reference:
        np.testing.assert_array_equal(reference["images"], crops)
    entry = light_bundle.artifacts["onnx"]
    assert entry["graph_form"] == "recurrence"
    assert entry["tolerance"] == dataclasses.asdict(TOLERANCES["fp32"])
    assert entry["parity"]["tensor"]["worst"] < entry["tolerance"]["tensor"]
    assert light_bundle.artifacts["torch"]["rounding"]["tensor"]["worst"] == 0.0
    assert entry["tools"]["onnx"] == onnx.__version__

    differences = verify(light_bundle)

    assert sorted(d.backend.split()[0] for d in differences) == ["onnxruntime", "torch"]
    assert all(difference.passed for difference in differences)


def test_a_full_disk_is_called_one(
    light_bundle: Bundle,
    onnx_exports: Remembering[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the format itself, not as a network that does not convert, nor as a missing folder."""
    write = Path.write_bytes

    def refuse(self: Path, data: bytes) -> int:
        if self.name == onnx_format.FILE:
            _fill_the_disk(self)
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", refuse)
    monkeypatch.setattr(onnx_format, "_exported", onnx_exports)
    with pytest.raises(ExportError, match=r"cannot write .*/new: No space left on device; what"):
        add_formats(light_bundle, ["onnx"], tmp_path / "new", FP32)
    assert not list(tmp_path.iterdir())


def test_another_graph_is_found_without_the_weights(light_bundle: Bundle, tmp_path: Path) -> None:
    """A topology with other numbers, and a manifest that was made anew around it."""
    folder = tmp_path / "b"
    shutil.copytree(light_bundle.folder, folder)
    topology = Topology.load(folder / "topology.npz")
    ratios = topology.bone_ratios * np.float32(1.01)
    dataclasses.replace(topology, bone_ratios=ratios).save(folder / "topology.npz")
    write_manifest(folder, read_manifest(folder))

    with pytest.raises(GraphMismatchError):
        verify(Bundle.load(folder), ["onnx"])


def test_int8_is_proven_on_crops_it_was_not_calibrated_on(
    prepared: _PreparedFormat,
    light_bundle: Bundle,
    crops: Crops,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Calibrated on every other crop, judged on those in between: which ones, not how many."""
    prepared.ABLE = Abilities(("sparse",), ("int8", "fp16"))
    calibrated, judged = [], []
    convert, measured = prepared.export, export_module.measure

    def export(twin: ExportTwin, path: Path, job: Job) -> dict[str, Any]:
        calibrated.append(job.crops)
        return convert(twin, path, job)

    def measure(run: Any, runtime: str, images: Crops, *rest: Any) -> Parity:
        judged.append(images)
        return measured(run, runtime, images, *rest)

    monkeypatch.setattr(prepared, "export", export)
    monkeypatch.setattr(export_module, "measure", measure)
    made = add_formats(light_bundle, ["onnx"], tmp_path / "b", Request(precision="int8"))
    add_formats(light_bundle, ["onnx"], tmp_path / "c", Request(precision="fp16"))

    np.testing.assert_array_equal(calibrated[0], crops[::2])
    np.testing.assert_array_equal(judged[0], crops[1::2])
    np.testing.assert_array_equal(judged[1], crops)
    assert made.parity["onnx"].crops == len(crops[1::2])
    # Against what the network says of those crops.
    assert made.parity["onnx"].tensor.worst < TOLERANCES["fp32"].tensor


def test_same_network_gives_the_same_bundle(
    prepared: _PreparedFormat,
    light: LightNetwork,
    topology: Topology,
    crops: Crops,
    tmp_path: Path,
) -> None:
    for parent in ("one", "other"):
        (tmp_path / parent).mkdir()
        write_bundle(
            light,
            topology,
            tmp_path / parent / "b",
            crops,
            provenance={},
            weights="fp32",
            request=FP32,
        )

    one, other = (_contents(tmp_path / parent) for parent in ("one", "other"))
    assert one == other


def test_labels_travel_with_the_crops(
    prepared: _PreparedFormat, light: LightNetwork, topology: Topology, crops: Crops, tmp_path: Path
) -> None:
    labels = network_outputs(light, crops).joints
    labels[0] = np.nan
    options: dict[str, Any] = {"provenance": {}, "weights": "fp32", "request": FP32}

    made = write_bundle(light, topology, tmp_path / "b", crops, labels=labels, **options)
    again = add_formats(made.bundle, ["onnx"], request=FP32)

    for written in (made, again):
        accuracy = written.bundle.artifacts["onnx"]["parity"]["accuracy"]
        assert accuracy["crops"] == len(crops) - 1
        assert accuracy["network_mm"] == 0
        assert accuracy["artifact_mm"] < 0.05
    with pytest.raises(InputError, match=r"labels must be \(6, 21, 3\)"):
        write_bundle(light, topology, tmp_path / "c", crops, labels=labels[:2], **options)


def test_few_dozen_crops_are_kept(
    prepared: _PreparedFormat,
    light: LightNetwork,
    topology: Topology,
    random_crops: Callable[..., Crops],
    tmp_path: Path,
) -> None:
    images = random_crops(120)
    written = write_bundle(
        light, topology, tmp_path / "b", images, provenance={}, weights="fp32", request=FP32
    )

    assert written.parity["onnx"].crops == 120
    with np.load(written.bundle.file("reference.npz")) as reference:
        kept = reference["images"]
    assert len(kept) == 48
    np.testing.assert_array_equal(kept[[0, -1]], images[[0, -1]])


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (_perturb, ParityError),
        (_interrupt, KeyboardInterrupt),
        (_fill_the_disk, ExportError),
    ],
)
def test_a_failed_export_leaves_nothing_behind(
    prepared: _PreparedFormat,
    light: LightNetwork,
    topology: Topology,
    crops: Crops,
    light_bundle: Bundle,
    tmp_path: Path,
    change: Callable[[Path], None],
    error: type[BaseException],
) -> None:
    old = tmp_path / "old"
    shutil.copytree(light_bundle.folder, old)
    before = _contents(tmp_path)
    prepared.change = change

    with pytest.raises(error):
        write_bundle(
            light, topology, tmp_path / "new", crops, provenance={}, weights="fp32", request=FP32
        )
    with pytest.raises(error):
        write_bundle(
            light, topology, old, crops, provenance={"made": "again"}, weights="fp32", request=FP32
        )
    with pytest.raises(error):
        add_formats(Bundle.load(old), ["onnx"], request=FP32)

    assert _contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_failed_swap_puts_the_old_bundle_back(
    prepared: _PreparedFormat,
    light: LightNetwork,
    topology: Topology,
    crops: Crops,
    light_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = tmp_path / "b"
    shutil.copytree(light_bundle.folder, old)
    before = _contents(tmp_path)
    import os

    rename, calls = os.rename, []

    def second_fails(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr("handmesh_converters.replacing.os.rename", second_fails)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(
            light, topology, old, crops, provenance={"made": "again"}, weights="fp32", request=FP32
        )

    assert _contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_new_bundle_replaces_the_old_one_whole(
    prepared: _PreparedFormat,
    light: LightNetwork,
    topology: Topology,
    crops: Crops,
    light_bundle: Bundle,
    tmp_path: Path,
) -> None:
    target = tmp_path / "b"
    shutil.copytree(light_bundle.folder, target)
    (target / "stale.bin").write_bytes(b"of the older bundle")
    write_manifest(target, light_bundle.manifest)

    written = write_bundle(
        light, topology, target, crops, provenance={}, weights="fp32", request=FP32
    )

    assert not (target / "stale.bin").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    written.bundle.check()
    assert target.stat().st_mode & 0o777 == 0o755


def test_adding_a_format_keeps_the_others(
    prepared: _PreparedFormat, light_bundle: Bundle, tmp_path: Path
) -> None:
    written = add_formats(light_bundle, ["onnx"], tmp_path / "copy", request=FP32)

    assert set(written.bundle.artifacts) == {"torch", "onnx"}
    assert written.bundle.manifest["provenance"] == light_bundle.manifest["provenance"]
    old, new = _contents(light_bundle.folder), _contents(tmp_path / "copy")
    assert {name for name in old if old[name] != new.get(name)} == {"manifest.json"}
    written.bundle.check()


def test_a_damaged_bundle_is_not_exported(light_bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    shutil.copytree(light_bundle.folder, folder)
    weights = folder / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)

    with pytest.raises(IntegrityError):
        add_formats(Bundle.load(folder), ["onnx"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_graph_is_refused(
    light: LightNetwork, topology: Topology, crops: Crops, tmp_path: Path
) -> None:
    finest = topology.levels[0]
    weights = finest.weights * np.float32(0.5)
    levels = (dataclasses.replace(finest, weights=weights), *topology.levels[1:])
    other = dataclasses.replace(topology, levels=levels)

    with pytest.raises(GraphMismatchError, match="built on another graph"):
        write_bundle(
            light, other, tmp_path / "b", crops, provenance={}, weights="fp32", request=FP32
        )
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments_are_named_before_any_work(
    light: LightNetwork,
    topology: Topology,
    crops: Crops,
    light_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def write(folder: Path, images: Crops = crops, export: tuple[str, ...] = ("onnx",)) -> None:
        write_bundle(
            light,
            topology,
            folder,
            images,
            provenance={},
            weights="fp32",
            request=FP32,
            export=export,
        )

    with pytest.raises(InputError, match="did you mean 'onnx'"):
        write(tmp_path / "b", export=("onxx",))
    with pytest.raises(ExportError, match="got none"):
        write(tmp_path / "b", images=crops[:0])
    with pytest.raises(InputError, match="does not exist"):
        write(tmp_path / "missing" / "b")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="it is a file"):
        write(tmp_path / "file")
    shutil.copytree(light_bundle.folder, tmp_path / "home")
    (tmp_path / "home" / "diary.txt").write_text("dear diary")
    with pytest.raises(InputError, match=r"holds diary\.txt, which is not of a bundle"):
        write(tmp_path / "home")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"'\.\[converters\]'"):
        write(tmp_path / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "home"]
    assert (tmp_path / "home" / "diary.txt").exists()


def _save_checkpoint(path: Path, network: LightNetwork, topology: Topology, **changes: Any) -> Path:
    state = {
        "config": to_dict(network.config),
        "graph": topology.sha256,
        "step": 12,
        "images_seen": 345,
        "network": {},
        "average": network.state_dict(),
        "optimizer": {},
    }
    torch.save({**state, **changes}, path)
    return path


def test_a_checkpoint_gives_its_averaged_weights(
    light: LightNetwork, topology: Topology, tmp_path: Path
) -> None:
    path = _save_checkpoint(tmp_path / "c.pt", light, topology)

    network, run = load_checkpoint(path, topology)

    assert run == {"step": 12, "images_seen": 345}
    assert network.config == light.config
    expected = light.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())


def test_bad_checkpoints(light: LightNetwork, topology: Topology, tmp_path: Path) -> None:
    other = _save_checkpoint(tmp_path / "other.pt", light, topology, graph="0" * 64)
    with pytest.raises(GraphMismatchError, match=r"other\.pt was made for graph 000000000000"):
        load_checkpoint(other, topology)
    with pytest.raises(CheckpointError, match="do not fit"):
        load_checkpoint(_save_checkpoint(other, light, topology, average={}), topology)
    for wrong in ({"graph": 3}, {"average": 3}, {"step": "x"}):
        with pytest.raises(CheckpointError, match="not a checkpoint of a training run"):
            load_checkpoint(_save_checkpoint(other, light, topology, **wrong), topology)
    other.write_text(json.dumps({"step": 1}))
    with pytest.raises(CheckpointError, match=r"not a checkpoint .*give the checkpoint\.pt"):
        load_checkpoint(other, topology)
    with pytest.raises(CheckpointError, match=r"there is no file .*missing\.pt: give the"):
        load_checkpoint(tmp_path / "missing.pt", topology)


def test_rounded_weights_are_stated_and_bounded(
    prepared: _PreparedFormat,
    light: LightNetwork,
    topology: Topology,
    crops: Crops,
    tmp_path: Path,
) -> None:
    written = write_bundle(light, topology, tmp_path / "b", crops, provenance={})

    entry = written.bundle.artifacts["torch"]
    assert entry["weights"] == written.bundle.artifacts["onnx"]["weights"] == "fp16"
    stored = network_outputs(load_bundle(written.bundle), crops)
    trained = network_outputs(light, crops)
    off = max(abs(a - b).max() for a, b in zip(stored[:2], trained[:2], strict=True))
    assert entry["rounding"]["tensor"]["worst"] == pytest.approx(off)
    assert 0 < off < 5e-3
    # What the bundle holds is what it is proven by.
    _, reference = read_reference(written.bundle)
    np.testing.assert_array_equal(reference.vertices, stored.vertices)

    with pytest.raises(ParityError, match="the rounded network"):
        write_bundle(
            light,
            topology,
            tmp_path / "c",
            crops,
            provenance={},
            tolerance=Tolerance(off / 2, 1, 1, 1, 1, 1),
        )
    assert not (tmp_path / "c").exists()
