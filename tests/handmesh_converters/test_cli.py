"""The sub-command `handmesh export`, through argparse."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from handmesh.bundle import Bundle, shipped
from handmesh.errors import InputError, MissingExtra, ParityError
from handmesh.graph import Topology
from handmesh.nn import LightNetwork, to_dict
from handmesh_converters.cli import add_commands
from handmesh_converters.fold import ExportTwin
from handmesh_converters.formats import onnx as onnx_format
from handmesh_converters.request import Job

IMPORTED = ("heatmaps", "mesh", "pose", "graph", "reference", "out")


def _run(*arguments: object) -> int:
    return _command("export", *arguments)


def _command(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    args = parser.parse_args([str(argument) for argument in arguments])
    code: int = args.run(args)
    return code


@pytest.fixture
def _prepared(light_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = light_bundle.artifact("onnx")

    def export(twin: ExportTwin, path: Path, job: Job) -> dict[str, Any]:
        shutil.copyfile(artifact, path)
        return {"nodes": 156, "precision": "fp32", "weights": job.precision}

    monkeypatch.setattr(onnx_format, "export", export)


@pytest.fixture
def checkpoint(tmp_path: Path, light: LightNetwork, topology: Topology) -> Path:
    path = tmp_path / "checkpoint.pt"
    state = {
        "config": to_dict(light.config),
        "graph": topology.sha256,
        "step": 12,
        "images_seen": 345,
        "average": light.state_dict(),
    }
    torch.save(state, path)
    return path


@pytest.fixture
def reference(tmp_path: Path, random_crops: Callable[..., NDArray[np.uint8]]) -> Path:
    np.savez(tmp_path / "crops.npz", images=random_crops(5))
    return tmp_path / "crops.npz"


@pytest.mark.usefixtures("_prepared")
def test_export_of_a_bundle(
    light_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new"

    assert _run(light_bundle.folder, "--format", "onnx", "--out", out) == 0

    printed = capsys.readouterr().out
    assert f"{out / 'model.onnx'}: " in printed
    assert "156 nodes" in printed
    assert "6 crops, worst (p99)" in printed
    Bundle.load(out).check()


def test_explaining_exports_nothing(
    light_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (light_bundle.folder / "manifest.json").stat().st_mtime_ns

    assert _run(light_bundle.folder, "--explain") == 0

    printed = capsys.readouterr().out
    assert "graph: recurrence in L" in printed
    assert "M MAC" in printed
    assert not (tmp_path / "new").exists()
    assert (light_bundle.folder / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["light"], "--out DIR"),
        (["light", "--weights", "fp16", "--out", "x"], "--weights goes with --checkpoint"),
        (["light", "--format", ",", "--out", "x"], "names no format"),
        (["light", "--explain", "--out", "x"], "--out has no effect with --explain"),
        (["light", "--explain", "--reference", "x"], "--reference has no effect with --explain"),
        (["light", "--explain", "--card", "x"], "--card has no effect with --explain"),
        (["light", "--explain", "--weights", "fp16"], "--weights has no effect with --explain"),
        (
            ["light", "--precision", "int8", "--out", "x"],
            "it has fp16, fp32; coreml and tflite can",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: list[str], message: str) -> None:
    """The bundle inside the package is not written to, nor is an option passed over."""
    with pytest.raises(InputError, match=message):
        _run(*arguments)


def test_the_package_s_own_bundle_is_not_written_to_by_its_folder_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bundles" / "light"
    shutil.copytree(shipped()["light"], folder)
    monkeypatch.setattr("handmesh.bundle._SHIPPED", folder.parent)
    linked = tmp_path / "linked"
    linked.symlink_to(folder, target_is_directory=True)
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    for way in (folder, linked):
        with pytest.raises(InputError, match="is the bundle inside the package"):
            _run(str(way), "--format", "tflite")
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("package", ["torch", "safetensors"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "--list"],
        ["export", "light", "--format", "onnx", "--out", "new"],
        ["sensitivity"],
        ["import", *(f"--{option}=x" for option in IMPORTED)],
    ],
)
def test_what_every_command_needs_names_the_extra(
    arguments: list[str], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"'{package}'.*pip install '\.\[converters\]'"):
        _command(*arguments)


@pytest.mark.parametrize(("package", "becomes"), [("tqdm", MissingExtra), ("handmesh.no", None)])
def test_what_a_command_comes_to_need_names_the_extra(
    light_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    becomes: type[Exception] | None,
) -> None:
    """A module of ours that is missing is a mistake, and told as one."""

    def without(*_: object) -> None:
        raise ModuleNotFoundError(f"No module named '{package}'", name=package)

    monkeypatch.setattr("handmesh_converters.export.add_formats", without)
    with pytest.raises(becomes or ModuleNotFoundError, match=f"'{package}'"):
        _run(light_bundle.folder, "--out", tmp_path / "new")


@pytest.mark.usefixtures("_prepared")
def test_export_of_a_checkpoint(
    checkpoint: Path, reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = {"provenance": {"hardware": "a test"}, "licences": {"weights": "CC0-1.0"}}
    (tmp_path / "card.json").write_text(json.dumps(card))
    out = tmp_path / "light"

    code = _run(
        *("--checkpoint", checkpoint, "--reference", reference),
        *("--card", tmp_path / "card.json", "--out", out),
    )

    assert code == 0
    bundle = Bundle.load(out)
    bundle.check()
    assert bundle.manifest["provenance"] == {"step": 12, "images_seen": 345, "hardware": "a test"}
    assert bundle.manifest["licences"]["weights"] == "CC0-1.0"
    assert bundle.manifest["licences"]["code"] == "Apache-2.0"
    assert "5 crops" in capsys.readouterr().out


def test_a_failed_proof_is_exit_code_1(
    light_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def export(twin: ExportTwin, path: Path, job: Job) -> dict[str, Any]:
        raise ParityError("off by a mile")

    monkeypatch.setattr(onnx_format, "export", export)

    assert _run(light_bundle.folder, "--out", tmp_path / "new") == 1

    assert capsys.readouterr().err == "handmesh: off by a mile\n"
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments(
    light_bundle: Bundle, checkpoint: Path, reference: Path, tmp_path: Path
) -> None:
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "empty.npz", other=np.zeros(1))
    np.savez_compressed(tmp_path / "bytes.npz", images=np.load(reference)["images"])
    whole = (tmp_path / "bytes.npz").read_bytes()
    (tmp_path / "bytes.npz").write_bytes(whole[:80] + bytes(64) + whole[144:])
    start = ("--checkpoint", checkpoint, "--out", tmp_path / "b")
    cases: list[tuple[tuple[object, ...], str]] = [
        ((), "either a BUNDLE or --checkpoint"),
        ((light_bundle.folder, *start), "either a BUNDLE or --checkpoint"),
        ((light_bundle.folder, "--reference", reference), "--reference goes with --checkpoint"),
        (("--checkpoint", checkpoint), "--checkpoint needs --reference"),
        (("--checkpoint", checkpoint, "--reference", reference), "--checkpoint needs --out"),
        ((*start, "--reference", tmp_path / "text.npz"), "not an .npz file"),
        ((*start, "--reference", tmp_path / "empty.npz"), "not an .npz file"),
        ((*start, "--reference", tmp_path / "bytes.npz"), "not an .npz file"),
        ((*start, "--reference", tmp_path / "none.npz"), "not an .npz file"),
        ((*start, "--reference", reference, "--card", tmp_path / "list.json"), "must hold"),
        ((*start, "--reference", reference, "--card", tmp_path / "none.json"), "cannot read"),
        ((*start, "--reference", reference, "--format", "onx"), "did you mean 'onnx'"),
    ]
    for arguments, message in cases:
        with pytest.raises(InputError, match=message) as raised:
            _run(*arguments)
        assert "unsafely" not in str(raised.value), "NumPy's advice for a file that is no array"
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"images": np.array(5, np.uint8)}, r"\(N, 32, 32, 3\) uint8 RGB, not \(\) uint8"),
        ({"images": np.array(5, np.uint8), "labels": np.zeros((1, 21, 3))}, "reference crops must"),
        ({"labels": np.full((5, 21, 3), "a")}, r"and numbers, not \(5, 21, 3\) <U1"),
        ({"labels": np.zeros((5, 21, 3), bool)}, "and numbers, not .* bool"),
        ({"labels": np.array(0.0)}, r"labels must be \(5, 21, 3\) .*, not \(\) float64"),
    ],
)
def test_references_of_another_kind_are_refused(
    checkpoint: Path, reference: Path, tmp_path: Path, arrays: dict[str, Any], said: str
) -> None:
    with np.load(reference) as file:
        given = {"images": file["images"], **arrays}
    np.savez(tmp_path / "other.npz", **given)
    start = ("--checkpoint", checkpoint, "--reference", tmp_path / "other.npz")
    with pytest.raises(InputError, match=said):
        _run(*start, "--out", tmp_path / "b")
    assert not (tmp_path / "b").exists()
