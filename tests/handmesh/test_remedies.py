"""Commands that errors tell to type do what they are told for, from where they are told."""

from __future__ import annotations

import re
import shlex
import shutil
import types
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import handmesh_converters.detector as detector_export
import handmesh_converters.export as export
from handmesh import backends, cli
from handmesh.backends import coreml, cuda, onnx
from handmesh.bundle import Bundle, read_manifest, shipped, write_manifest
from handmesh.errors import BundleError
from handmesh_converters import formats

PRECISIONS = (None, *backends.PRECISIONS)


class Asked(Exception):
    """An export that would begin now: everything that was asked for had been looked at."""

    def __init__(self, bundle: Bundle, chosen: list[str], out: Path | None, request: Any) -> None:
        self.folder, self.formats, self.out = bundle.folder.resolve(), chosen, out
        self.precision: str | None = request.precision


class Remedy(NamedTuple):
    """What a command would export."""

    formats: list[str]
    precision: str | None
    out: Path | None


@pytest.fixture(autouse=True)
def _exports_stop_at_their_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(bundle: Bundle, chosen: list[str], out: Path | None, request: Any) -> None:
        raise Asked(bundle, chosen, out, request)

    monkeypatch.setattr(export, "add_formats", begin)
    monkeypatch.setattr(
        detector_export,
        "export_detector",
        lambda bundle, out, chosen, request: begin(bundle, chosen, out, request),
    )
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def every_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if each backend had its packages and its system: what the bundle lacks is left."""
    for module in (coreml, cuda):
        monkeypatch.setattr(module, "unavailable", lambda bundle: None)
    for name in backends.names():
        monkeypatch.setattr(backends._module(name), "REQUIRES", "numpy")


def _remedies(told: str, bundle: Bundle) -> list[Remedy]:
    """Every command in a text, typed."""
    found = []
    for command in re.findall(r"`(handmesh [^`]*)`", told):
        with pytest.raises(Asked) as asked:
            cli.main(shlex.split(command)[1:])
        assert asked.value.folder == bundle.folder.resolve(), command
        if asked.value.out is None:
            assert bundle.folder.resolve() not in [f.resolve() for f in shipped().values()]
        found.append(Remedy(asked.value.formats, asked.value.precision, asked.value.out))
    return found


def _opened(name: str, way: str, tmp_path: Path) -> Bundle:
    """The bundle of that name as it ships, or a copy of it that is the user's own."""
    if way == name:
        return Bundle.load(name)
    shutil.copytree(shipped()[name], tmp_path / way)
    return Bundle.load(Path(way))


@pytest.mark.usefixtures("every_runtime")
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("backend", backends.names())
@pytest.mark.parametrize(
    ("name", "way"), [("light", "light"), ("light", "my_bundle"), ("detector", "detector")]
)
def test_what_is_told_can_be_typed(
    tmp_path: Path, name: str, way: str, backend: str, precision: str | None
) -> None:
    bundle = _opened(name, way, tmp_path)
    told = backends.unavailable(backend, bundle, precision=precision)
    there = backend in bundle.artifacts
    if there and precision in (None, bundle.precision_of(backend)):
        assert told is None
        return
    assert told is not None
    able = formats.abilities().get(backend)
    made = () if able is None else able.precisions_of(bundle.is_detector)
    if made and precision in (None, *made):
        (remedy,) = _remedies(told, bundle)
        assert remedy.formats == [backend]
        assert remedy.precision == precision
        # What would be lost otherwise is left as it is.
        assert (remedy.out is None) == (way == "my_bundle" and not there)
    else:
        assert _remedies(told, bundle) == []
        assert "choose another backend" in told


@pytest.mark.parametrize("name", ["light", "detector"])
@pytest.mark.parametrize("backend", ["coreml", "cuda"])
def test_what_another_system_has_is_proven_here(
    monkeypatch: pytest.MonkeyPatch, backend: str, name: str
) -> None:
    monkeypatch.setattr(coreml, "sys", types.SimpleNamespace(platform="linux"))
    monkeypatch.setattr(cuda, "_driver", lambda: False)
    bundle = Bundle.load(name)
    told = backends.unavailable(backend, bundle)
    assert told is not None
    assert "choose another backend" in told
    proven = [remedy.formats for remedy in _remedies(told, bundle)]
    assert proven == ([] if (backend, name) == ("cuda", "detector") else [[backend]])


@pytest.mark.parametrize("way", ["my bundle", "light", "-o", "a;b", "sub/../its'"])
def test_the_way_to_a_bundle_is_that_of_the_user(tmp_path: Path, way: str) -> None:
    """The manifest's name is another bundle's, or none."""
    (tmp_path / "sub").mkdir()
    shutil.copytree(shipped()["light"], tmp_path / way)
    bundle = Bundle.load(Path(way))  # of a folder that has a shipped one's name, too
    with pytest.raises(BundleError) as raised:
        bundle.artifact("tflite")
    assert _remedies(str(raised.value), bundle) == [Remedy(["tflite"], None, None)]


def test_a_shipped_bundle_beside_a_folder_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "light").mkdir()
    bundle = Bundle.load()
    with pytest.raises(BundleError) as raised:
        bundle.artifact("tflite")
    assert _remedies(str(raised.value), bundle) == [Remedy(["tflite"], None, Path("DIR"))]


@pytest.mark.parametrize("missing", ["torch", "reference.npz"])
def test_a_bundle_that_cannot_be_exported_is_told_no_export(tmp_path: Path, missing: str) -> None:
    bundle = _opened("light", "own", tmp_path)
    manifest = read_manifest(bundle.folder)
    manifest["artifacts"].pop(missing, None)
    if missing == "reference.npz":
        (bundle.folder / missing).unlink()
    write_manifest(bundle.folder, manifest)
    bundle = Bundle.load(bundle.folder)
    told = backends.unavailable("onnx", bundle, precision="fp32")
    assert told is not None
    assert "`" not in told
    with pytest.raises(BundleError, match="give a bundle that has one"):
        bundle.artifact("tflite")


def test_what_is_no_format_is_told_no_export() -> None:
    bundle = Bundle.load()
    for name in ("torch", "nothing", "_running"):
        assert backends.export_command(name, bundle) is None
    assert onnx.EXPORTS, "or else this would prove nothing"


def test_backends_know_what_exports_make() -> None:
    for name in {*backends.names(), *formats.names()}:
        module: Any = backends._module(name)
        able = formats.abilities().get(name)
        for detector in (False, True):
            made = () if able is None else tuple(able.precisions_of(detector))
            said = getattr(module, "EXPORTS", ())
            if detector:
                said = getattr(module, "DETECTOR_EXPORTS", said)
            assert said == made, name
