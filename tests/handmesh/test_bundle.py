from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import handmesh.bundle as bundle_module
import handmesh.manifest as manifest_module
from handmesh.bundle import Bundle, io_specs, read_manifest, write_manifest
from handmesh.cli import main
from handmesh.errors import BundleError, IntegrityError
from handmesh.graph import Topology


@pytest.fixture
def full_folder(bundle_folder: Path, manifest: dict[str, Any]) -> Path:
    """With a single file and a folder as artifacts, and files that are not part of it."""
    (bundle_folder / "model.onnx").write_bytes(b"an ONNX model")
    (bundle_folder / "model.mlpackage" / "Data").mkdir(parents=True)
    (bundle_folder / "model.mlpackage" / "Manifest.json").write_text("{}")
    (bundle_folder / "model.mlpackage" / "Data" / "weights.bin").write_bytes(bytes(100))
    (bundle_folder / ".cache").mkdir()
    (bundle_folder / ".cache" / "engine").write_text("built on this device")
    artifacts = {
        "onnx": {"path": "model.onnx", "precision": "float32"},
        "coreml": {"path": "model.mlpackage", "precision": "float16"},
    }
    write_manifest(bundle_folder, manifest | {"artifacts": artifacts})
    return bundle_folder


def test_what_is_written_is_read(full_folder: Path, topology: Topology) -> None:
    bundle = Bundle.load(full_folder)
    assert bundle.name == "test"
    assert bundle.image_size == 128
    assert bundle.topology.sha256 == topology.sha256
    assert set(bundle.artifacts) == {"onnx", "coreml"}
    assert bundle.artifact("onnx") == full_folder / "model.onnx"
    assert bundle.artifact("coreml") == full_folder / "model.mlpackage"
    assert sorted(bundle.manifest["files"]) == [
        "model.mlpackage/Data/weights.bin",
        "model.mlpackage/Manifest.json",
        "model.onnx",
        "topology.npz",
    ]
    bundle.check()


def test_manifest_is_readable_json_with_all_its_entries(full_folder: Path) -> None:
    manifest = json.loads((full_folder / "manifest.json").read_text(encoding="utf-8"))
    documented = (manifest_module.__doc__ or "").splitlines()
    for name in manifest:
        assert any(line.strip().startswith(name) for line in documented), name
    assert manifest["outputs"]["vertices"]["shape"] == ["N", 1036, 3]
    assert manifest["files"]["model.onnx"]["bytes"] == len(b"an ONNX model")


def test_manifest_can_be_extended_by_another_artifact(full_folder: Path) -> None:
    manifest = read_manifest(full_folder)
    (full_folder / "model.tflite").write_bytes(b"another")
    manifest["artifacts"]["tflite"] = {"path": "model.tflite"}
    write_manifest(full_folder, manifest)
    bundle = Bundle.load(full_folder)
    assert bundle.artifact("tflite").read_bytes() == b"another"
    assert bundle.artifact("onnx").exists()


def test_one_flipped_byte_is_found_in_every_file(full_folder: Path) -> None:
    files = list(Bundle.load(full_folder).manifest["files"])
    assert len(files) == 4
    for name in files:
        path = full_folder / name
        original = path.read_bytes()
        for position in (0, len(original) // 2, len(original) - 1):
            damaged = bytearray(original)
            damaged[position] ^= 0x10
            path.write_bytes(damaged)
            with pytest.raises(IntegrityError, match=path.name):
                Bundle.load(full_folder).check()
        path.write_bytes(original)
    Bundle.load(full_folder).check()


def test_one_flipped_byte_is_found_anywhere_in_the_manifest(full_folder: Path) -> None:
    path = full_folder / "manifest.json"
    original = path.read_bytes()
    meaning = json.loads(original)
    for position in range(0, len(original), 17):
        damaged = bytearray(original)
        damaged[position] ^= 0x01
        path.write_bytes(damaged)
        try:
            unchanged = json.loads(damaged) == meaning
        except ValueError:
            unchanged = False
        if not unchanged:
            with pytest.raises(BundleError):
                Bundle.load(full_folder)


def test_changed_files_of_folders_are_found(full_folder: Path) -> None:
    (full_folder / "model.mlpackage" / "Data" / "weights.bin").write_bytes(b"\1" + bytes(99))
    bundle = Bundle.load(full_folder)
    assert bundle.artifact("onnx").exists()  # what is not asked for is not checked
    with pytest.raises(IntegrityError, match=r"weights\.bin"):
        bundle.artifact("coreml")


def test_files_of_another_size_are_found_without_hashing(full_folder: Path) -> None:
    (full_folder / "model.onnx").write_bytes(b"short")
    with pytest.raises(IntegrityError, match="5 bytes, not the 13 of its manifest"):
        Bundle.load(full_folder).artifact("onnx")


def test_a_file_is_hashed_once(full_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    original = manifest_module._hash

    def counting(path: Path) -> str:
        hashed.append(path.name)
        return original(path)

    monkeypatch.setattr(manifest_module, "_hash", counting)
    bundle = Bundle.load(full_folder)
    assert hashed == []
    for _ in range(3):
        bundle.artifact("onnx")
    assert hashed == ["model.onnx"]


def test_missing_files_are_named(full_folder: Path) -> None:
    (full_folder / "model.onnx").unlink()
    with pytest.raises(BundleError, match=r"model\.onnx is missing"):
        Bundle.load(full_folder).artifact("onnx")


def test_missing_bundle_says_what_there_is(tmp_path: Path) -> None:
    for wanted in (tmp_path / "nothing", tmp_path, "no-such-network"):
        with pytest.raises(BundleError, match="no bundle at"):
            Bundle.load(wanted)


@pytest.fixture
def shipped_light(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path]:
    """A bundle inside the package, and a folder of the same name in the working directory."""
    inside, here = tmp_path / "package" / "light", tmp_path / "here" / "light"
    shutil.copytree(bundle_folder, inside)
    shutil.copytree(bundle_folder, here)
    monkeypatch.setattr(bundle_module, "_SHIPPED", inside.parent)
    monkeypatch.chdir(here.parent)
    return inside, here


def test_a_path_is_never_the_name_of_a_shipped_bundle(shipped_light: tuple[Path, Path]) -> None:
    _, here = shipped_light
    for wanted in (Path("light"), "./light", "light/", here, str(here)):
        assert Bundle.load(wanted).folder.resolve() == here


def test_a_name_that_is_a_folder_here_as_well_is_refused(shipped_light: tuple[Path, Path]) -> None:
    inside, here = shipped_light
    with pytest.raises(BundleError, match=r"ships with.*and a folder here: say '\./light'"):
        Bundle.load("light")
    assert Bundle.load().folder == inside, "the default is named by nobody"

    (here / "manifest.json").unlink()
    with pytest.raises(BundleError, match="a folder here"):
        Bundle.load("light")
    shutil.rmtree(here)
    assert Bundle.load("light").folder == inside


def test_export_in_place_does_not_reach_into_the_package(
    shipped_light: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    inside, _ = shipped_light
    before = {path: path.read_bytes() for path in inside.iterdir()}

    assert main(["export", "light", "--format", "onnx"]) == 2

    assert "say './light'" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in inside.iterdir()} == before


def test_artifact_that_a_bundle_lacks_can_be_made(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="handmesh export light --format tflite --out DIR"):
        Bundle.load().artifact("tflite")
    with pytest.raises(BundleError, match="give a bundle that has one"):  # no weights to begin with
        bundle.artifact("tflite")


def test_files_beside_the_manifest_are_not_of_the_bundle(full_folder: Path) -> None:
    bundle = Bundle.load(full_folder)
    for path in (".cache/engine", "manifest.json", "../secret"):
        with pytest.raises(BundleError, match="names no file"):
            bundle.file(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("not json", "cannot read"), ("[]", "schema None"), ('{"schema": 99}', "schema 99")],
)
def test_other_manifests_are_refused(bundle_folder: Path, text: str, message: str) -> None:
    (bundle_folder / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=message):
        Bundle.load(bundle_folder)


@pytest.mark.parametrize(
    "changes",
    [{"name": None}, {"artifacts": []}, {"artifacts": {"onnx": {"path": "missing.onnx"}}}],
)
def test_incomplete_manifests_are_not_written(
    bundle_folder: Path, manifest: dict[str, Any], changes: dict[str, Any]
) -> None:
    before = (bundle_folder / "manifest.json").read_bytes()
    with pytest.raises(BundleError):
        write_manifest(bundle_folder, manifest | changes)
    assert (bundle_folder / "manifest.json").read_bytes() == before


def test_specs_state_the_contract() -> None:
    specs = io_specs(128, 1036)
    assert specs["input"]["shape"] == ["N", 128, 128, 3]
    assert specs["input"]["dtype"] == "uint8"
    shapes = {name: spec["shape"] for name, spec in specs["outputs"].items()}
    assert shapes == {
        "vertices": ["N", 1036, 3],
        "joints": ["N", 21, 3],
        "confidence": ["N", 21],
        "presence": ["N"],
        "handedness": ["N"],
    }


def test_a_graph_that_is_not_one_is_refused(bundle_folder: Path, manifest: dict[str, Any]) -> None:
    np.savez(bundle_folder / "topology.npz", faces=np.zeros((1, 3)))
    write_manifest(bundle_folder, manifest)  # as it should be, by its hash
    with pytest.raises(BundleError, match="topology"):
        _ = Bundle.load(bundle_folder).topology


def _rehashed(folder: Path, entries: dict[str, Any]) -> None:
    """Write a manifest that is what its own hash says, whatever else it is."""
    entries = {name: value for name, value in entries.items() if name != "sha256"}
    entries["sha256"] = manifest_module._manifest_hash(entries)
    (folder / "manifest.json").write_text(json.dumps(entries))


OUTSIDE = ["/etc/passwd", "../secret", "a/../../secret", "a\\b", "C:/x", "c:x", "", ".", "a//b"]


@pytest.mark.parametrize("path", OUTSIDE)
def test_paths_that_leave_the_bundle_are_refused(full_folder: Path, path: str) -> None:
    (full_folder.parent / "secret").write_bytes(b"secret")
    described = {"sha256": manifest_module._hash(full_folder.parent / "secret"), "bytes": 6}
    original = read_manifest(full_folder)
    _rehashed(full_folder, original | {"files": original["files"] | {path: described}})
    with pytest.raises(BundleError, match="inside the bundle"):
        Bundle.load(full_folder)
    _rehashed(full_folder, original | {"artifacts": {"onnx": {"path": path}}})
    with pytest.raises(BundleError, match="inside the bundle"):
        Bundle.load(full_folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {"model.onnx": {}}},
        {"files": {"model.onnx": "ab12"}},
        {"files": {"model.onnx": {"sha256": "ab12", "bytes": "13"}}},
        {"files": {"model.onnx": {"sha256": "ab12", "bytes": -1}}},
        {"files": {"model.onnx": {"sha256": 12, "bytes": 13}}},
        {"artifacts": {"onnx": "model.onnx"}},
        {"artifacts": {"onnx": {}}},
        {"artifacts": {"onnx": {"path": ["model.onnx"]}}},
        {"input": {}},
        {"input": {"shape": "N128"}},
        {"input": {"shape": ["N"]}},
        {"input": {"shape": ["N", "128", "128", 3]}},
        {"input": {"shape": ["N", 128, 64, 3]}},
        {"input": {"shape": ["N", 0, 0, 3]}},
        {"input": {"shape": ["N", True, True, 3]}},
    ],
)
def test_manifests_of_another_form_are_refused(full_folder: Path, changes: dict[str, Any]) -> None:
    _rehashed(full_folder, read_manifest(full_folder) | changes)
    with pytest.raises(BundleError, match=next(iter(changes))):
        Bundle.load(full_folder)
