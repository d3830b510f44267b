"""Which artifacts are measured, what they are called, and which exports are kept for it."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from handmesh import Bundle
from handmesh.errors import MissingExtra
from handmesh_benchmarks import network_peers, variants
from handmesh_benchmarks.variants import Variant


def _say(line: str) -> None:
    pass


def test_variant_names_tell_them_apart() -> None:
    bundle = Bundle.load()
    assert Variant(bundle, "tflite", "int8+static").name == "light tflite int8+static"


def test_all_tables_call_an_artifact_s_precision_the_same(tmp_path: Path) -> None:
    bundle = Bundle.load()

    found, _ = variants.find(bundle, ["onnx", "torch"], ["none"], tmp_path)

    for variant in found:
        assert variant.precision == variants.precision_of(bundle, variant.backend)
    facts = network_peers._facts(bundle, "network", "openvino", 1)
    assert facts["precision"] == variants.precision_of(bundle, "onnx") == "fp16"
    assert network_peers._facts(bundle, "decoder", "openvino", 1)["precision"] == "fp32"


LACKING = r".*'onnxscript'.*pip install '\.\[converters\]'"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ModuleNotFoundError("no", name="onnxscript"), LACKING),
        (ModuleNotFoundError("no", name="onnxscript.ir"), LACKING),
        (MissingExtra("onnxscript", "converters"), LACKING),
        # What is there and cannot be loaded is not missing.
        (ImportError("undefined symbol: x", name="torch"), r"undefined symbol: x$"),
        (ModuleNotFoundError("no own", name="handmesh_converters.gone"), r"no own$"),
    ],
)
def test_what_exports_lack_is_told_with_the_extra_that_brings_it(
    error: ImportError, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str) -> Any:
        raise error

    monkeypatch.setattr("handmesh_converters.formats.load", load)

    found, missing = variants.find(Bundle.load(), ["onnx"], ["fp16", "fp32"], tmp_path)

    assert [variant.precision for variant in found] == ["fp16"], "the shipped one needs no export"
    (line,) = missing
    assert re.search(rf"^exports for onnx: {said}", line)


def test_an_export_of_onnx_needs_less_than_all_formats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str) -> Any:
        raise ModuleNotFoundError("no", name="torch")

    monkeypatch.setattr("handmesh_converters.formats.load", load)
    missing: list[str] = []
    for name in ("onnx", "tflite"):
        variants._requests(name, ["fp32"], missing)

    assert missing[0].endswith("; for ONNX alone the extra 'bench' is enough")
    assert "'bench'" not in missing[1]


def _kept(monkeypatch: pytest.MonkeyPatch, code: str = "c" * 64) -> list[str]:
    """Names of the folders where exports are looked for; none are made."""
    asked: list[str] = []

    def look(place: Path) -> Any:
        asked.append(place.name)
        return SimpleNamespace(artifact=lambda name: None)

    monkeypatch.setattr(variants.Bundle, "load", look)
    monkeypatch.setattr(variants, "code_hash", lambda: code)
    return asked


def test_kept_exports_are_of_one_bundle_precision_and_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.load()
    other = Bundle(bundle.folder, {**bundle.manifest, "sha256": "f" * 64})
    asked = _kept(monkeypatch)
    arguments: tuple[Any, ...] = (tmp_path, True, _say)

    variants._made(bundle, "onnx", "fp32", (), *arguments)
    variants._made(bundle, "onnx", "fp16", (), *arguments)
    variants._made(bundle, "onnx", "fp16", ("palette",), *arguments)
    variants._made(bundle, "tflite", "fp16", (), *arguments)
    variants._made(other, "onnx", "fp32", (), *arguments)
    again = _kept(monkeypatch, code="d" * 64)
    variants._made(bundle, "onnx", "fp32", (), *arguments)

    assert len({*asked, *again}) == 6


def test_another_file_of_code_makes_another_hash(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("1")
    (tmp_path / "two.py").write_text("2")
    hashes = {
        variants.code_hash(),
        variants.code_hash(tmp_path / "one.py"),
        variants.code_hash(tmp_path / "two.py"),
    }
    assert len(hashes) == 3


@pytest.mark.parametrize("judge", [True, False])
def test_judging_is_the_export_s_own_tolerance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judge: bool
) -> None:
    from handmesh_converters import export

    given: list[Any] = []

    def add_formats(*arguments: Any) -> Any:
        given.append(arguments[4])
        return SimpleNamespace(bundle=Bundle.load())

    monkeypatch.setattr(export, "add_formats", add_formats)
    variants._made(Bundle.load(), "onnx", "fp32", (), tmp_path, judge, _say)
    assert (given[0] is None) == judge
