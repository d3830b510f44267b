"""Writing a bundle replaces a folder: only ever a bundle's."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from handmesh.bundle import Bundle, write_manifest
from handmesh.errors import InputError
from handmesh_converters import export
from handmesh_converters.replacing import replacing_folder


def _bundle(folder: Path) -> Path:
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"old")
    (folder / "manifest.json").write_text(json.dumps({"files": {"model.onnx": {}}}))
    return folder


def _replace(target: Path) -> None:
    with replacing_folder(target) as temporary:
        (temporary / "model.onnx").write_bytes(b"new")


def test_a_bundle_is_replaced_whole(tmp_path: Path) -> None:
    target = _bundle(tmp_path / "bundle")
    _replace(target)
    assert [path.name for path in target.iterdir()] == ["model.onnx"]
    assert (target / "model.onnx").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("with_manifest", [True, False])
def test_other_peoples_folders_are_refused(tmp_path: Path, with_manifest: bool) -> None:
    target = _bundle(tmp_path / "bundle")
    if not with_manifest:
        (target / "manifest.json").unlink()
    (target / "notes").mkdir()
    (target / "notes" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="choose a new one"):
        _replace(target)
    assert (target / "notes" / "thesis.txt").read_text() == "years of work"
    assert (target / "model.onnx").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_kept_engines_go_with_the_artifact_that_they_were_built_of(tmp_path: Path) -> None:
    target = _bundle(tmp_path / "bundle")
    (target / ".engines").mkdir()
    (target / ".engines" / "a.engine").write_bytes(b"of the old artifact")
    (target / ".DS_Store").write_bytes(b"")
    _replace(target)
    assert [path.name for path in target.iterdir()] == ["model.onnx"]
    (target / "mine" / ".engines").mkdir(parents=True)
    (target / "mine" / ".engines" / "x").write_text("somebody's")
    with pytest.raises(InputError, match=r"mine/\.engines/x"):
        _replace(target)
    shutil.rmtree(target / "mine")
    (target / ".git").mkdir()
    (target / ".git" / "HEAD").write_text("ref: refs/heads/main")
    with pytest.raises(InputError, match=r"\.git/HEAD"):
        _replace(target)


@pytest.mark.parametrize("where", ["model.mlpackage", "model.mlpackage/Data/weights", "cuda"])
def test_what_macos_leaves_in_folders_is_nobodys(tmp_path: Path, where: str) -> None:
    target = _bundle(tmp_path / "bundle")
    (target / where).mkdir(parents=True)
    (target / where / ".DS_Store").write_bytes(b"")
    _replace(target)
    assert [path.name for path in target.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize(
    ("formats_", "elsewhere", "kept"),
    [
        (["coreml"], False, True),
        (["onnx"], False, False),
        (["cuda"], False, False),
        (["coreml", "onnx"], False, False),
        (["coreml"], True, False),
    ],
)
def test_engines_stay_where_their_artifacts_do(
    light_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    formats_: list[str],
    elsewhere: bool,
    kept: bool,
) -> None:
    def add(folder: Path, manifest: dict[str, Any], *_: Any) -> dict[str, Any]:
        write_manifest(folder, manifest)
        return {}

    monkeypatch.setattr(export, "_add", add)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    shutil.copytree(light_bundle.folder, tmp_path / "bundle")
    (tmp_path / "bundle" / ".engines" / "sm87").mkdir(parents=True)
    (tmp_path / "bundle" / ".engines" / "sm87" / "a.engine").write_bytes(b"built for minutes")
    bundle, out = Bundle.load(tmp_path / "bundle"), tmp_path / "other" if elsewhere else None

    made = export.add_formats(bundle, formats_, out).bundle

    found = made.folder / ".engines" / "sm87" / "a.engine"
    assert found.is_file() == kept
    assert not kept or found.read_bytes() == b"built for minutes"
    made.check()


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    _replace(tmp_path / "bundle")
    assert (tmp_path / "bundle" / "model.onnx").read_bytes() == b"new"


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("done", [False, True])
def test_an_interrupt_at_any_moment_leaves_one_whole_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, done: bool
) -> None:
    """Before or right after each of the renames; nothing is left beside the bundle."""
    target = _bundle(tmp_path / "bundle")
    rename, calls = os.rename, 0

    def interrupted(source: Path, place: Path) -> None:
        nonlocal calls
        calls += 1
        if calls != number or done:
            rename(source, place)
        if calls == number:
            raise KeyboardInterrupt

    monkeypatch.setattr("handmesh_converters.replacing.os.rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _replace(target)

    swapped = number == 3 or (number == 2 and done)
    assert (target / "model.onnx").read_bytes() == (b"new" if swapped else b"old")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
