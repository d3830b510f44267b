"""The Core ML artifact: its contract as Xcode sees it, its numbers, and its bytes."""

from __future__ import annotations

import errno
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from handmesh.bundle import Bundle, read_manifest, write_manifest
from handmesh.errors import BackendError, ExportError, InputError, MissingExtra
from handmesh.graph import Topology
from handmesh.nn import LightConfig, LightNetwork, PaperNetwork
from handmesh_converters import formats
from handmesh_converters.export import Written, add_formats, write_bundle
from handmesh_converters.fold import OUTPUTS, fold
from handmesh_converters.forms import form_named
from handmesh_converters.mil import Program, read_package
from handmesh_converters.mil.compression import MANY
from handmesh_converters.parity import measure, network_outputs
from handmesh_converters.request import Job, Precision, Request

pytest.importorskip("coremltools", reason="the Core ML format needs coremltools")
coreml = pytest.importorskip("handmesh_converters.formats.coreml")

BONE_RATIOS = np.ones(20, np.float32)
Crops = Callable[..., NDArray[np.uint8]]


def _job(precision: Precision = "fp32", *optimize: str) -> Job:
    crops = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    return Job({}, precision, frozenset(optimize), crops, BONE_RATIOS)


@pytest.fixture(scope="module")
def written(light_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Written:
    out = tmp_path_factory.mktemp("coreml") / "small"
    return add_formats(light_bundle, ["coreml"], out, Request(precision="fp32"))


@pytest.fixture(scope="module")
def package(written: Written) -> Path:
    return written.bundle.artifact("coreml")


@pytest.fixture(scope="module")
def converted(light: LightNetwork, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A package of the dense form, and coremltools' model of it, which takes seconds to make."""
    path = tmp_path_factory.mktemp("coreml") / "dense"
    convert, models = coreml._convert, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coreml, "_convert", lambda *job: models.append(convert(*job)) or models[0])
        coreml.export(fold(light, form_named("dense")), path, _job())
    return path, models[0]


@pytest.fixture
def remembered(converted: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what comes after the conversion: it gives the dense form, in float32."""
    monkeypatch.setattr(coreml, "_convert", lambda *_: converted[1])


@pytest.fixture(scope="module")
def spec(package: Path) -> Any:
    return read_package(package).spec


def _kinds(program: Program) -> set[str]:
    return {operation.kind for operation in program.operations}


def _constexprs(package: Path) -> set[str]:
    return {kind for kind in _kinds(read_package(package)) if kind.startswith("constexpr")}


def _sizes(package: Path, kind: str) -> list[int]:
    """Elements of what operations of a kind give."""
    found = (op for op in read_package(package).operations if op.kind == kind)
    return sorted(math.prod(t.shape) for op in found for t in op.outputs.values())


def test_equals_the_network(written: Written) -> None:
    assert written.parity["coreml"].tensor.worst < 1e-5
    assert written.parity["coreml"].mm.worst < 0.05


def test_inputs_and_outputs_are_what_an_app_expects(spec: Any, topology: Topology) -> None:
    from coremltools.proto import FeatureTypes_pb2

    (image,) = spec.description.input
    kind = image.type.imageType
    assert (image.name, kind.width, kind.height) == ("image", 32, 32)
    assert kind.colorSpace == FeatureTypes_pb2.ImageFeatureType.RGB
    shapes = {o.name: list(o.type.multiArrayType.shape) for o in spec.description.output}
    assert shapes == {
        "vertices": [1, topology.vertex_count, 3],
        "joints": [1, 21, 3],
        "confidence": [1, 21],
        "presence": [1],
        "handedness": [1],
    }
    assert tuple(shapes) == OUTPUTS
    float32 = FeatureTypes_pb2.ArrayFeatureType.FLOAT32
    assert {o.type.multiArrayType.dataType for o in spec.description.output} == {float32}
    assert spec.specificationVersion == 7  # iOS 16, macOS 13


def test_it_says_what_it_is(spec: Any, topology: Topology) -> None:
    said = spec.description.metadata
    assert said.author == "handmesh"
    assert "code: Apache-2.0" in said.license
    assert "light" in said.shortDescription
    assert said.versionString
    assert said.userDefined["graph_sha256"] == topology.sha256
    assert json.loads(said.userDefined["outputs"])["vertices"]["unit"].startswith("u, v")
    assert not any(key.startswith("com.github") for key in said.userDefined)
    features = [*spec.description.input, *spec.description.output]
    assert all(feature.shortDescription for feature in features)


def test_every_file_is_in_the_manifest(written: Written, package: Path) -> None:
    found = {p.relative_to(written.bundle.folder).as_posix() for p in package.rglob("*.*")}
    named = {name for name in written.bundle.manifest["files"] if "mlpackage" in name}
    assert named == {
        "model.mlpackage/Manifest.json",
        "model.mlpackage/Data/com.apple.CoreML/model.mlmodel",
        "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin",
    }
    assert named <= found
    assert all(p.stat().st_mode & 0o444 == 0o444 for p in package.rglob("*"))
    assert "executorch" not in " ".join(found)
    written.bundle.check()


def test_nothing_is_rewritten_as_a_batch_norm(package: Path) -> None:
    assert "batch_norm" not in _kinds(read_package(package))


def test_same_weights_give_the_same_bytes(
    converted: tuple[Path, Any],
    light: LightNetwork,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    one, other = converted[0], tmp_path / "other"
    coreml.export(fold(light, form_named("dense")), other, _job())
    assert [p.name for p in tmp_path.iterdir()] == ["other"]
    files = sorted(p.relative_to(one) for p in one.rglob("*.*"))
    for file in files:
        if (one / file).is_file():
            assert (one / file).read_bytes() == (other / file).read_bytes()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("graph", ["sparse", "polynomials"])
def test_other_forms_equal_the_network(light_bundle: Bundle, graph: str, tmp_path: Path) -> None:
    request = Request(graph, "fp32")
    made = add_formats(light_bundle, ["coreml"], tmp_path / "b", request)
    assert made.parity["coreml"].tensor.worst < 1e-5


@pytest.fixture(scope="module")
def off(light: LightNetwork, random_crops: Crops, topology: Topology) -> Callable[[Path], float]:
    """Worst error in (u, v, d) of a package, in the executor with rounding."""
    from handmesh_converters.mil import Executor

    images = random_crops(4)
    expected = network_outputs(light, images)

    def worst(package: Path) -> float:
        executor = Executor(read_package(package))

        def run(batch: NDArray[np.uint8]) -> Any:
            planes = torch.from_numpy(batch.transpose(0, 3, 1, 2).copy())
            each = [executor.run(image=plane[None]) for plane in planes]
            return type(expected)(*(torch.cat([o[n] for o in each]).numpy() for n in OUTPUTS))

        found = measure(run, "executor", images, expected, topology.bone_ratios)
        return found.tensor.worst

    return worst


def test_half_rounds_and_stays_near(
    light: LightNetwork, tmp_path: Path, off: Callable[[Path], float]
) -> None:
    coreml.export(fold(light, form_named("dense")), tmp_path / "m", _job("fp16"))
    program = read_package(tmp_path / "m")
    types = {t.dtype for operation in program.operations for t in operation.outputs.values()}
    assert {"FLOAT16", "FLOAT32"} <= types
    made = {name: t for o in program.operations for name, t in o.outputs.items()}
    assert {made[name].dtype for name in OUTPUTS} == {"FLOAT32"}
    softmax = [o for o in program.operations if o.kind == "softmax"]
    assert [next(iter(o.outputs.values())).dtype for o in softmax] == ["FLOAT32"]
    assert 1e-6 < off(tmp_path / "m") < 2e-2


@pytest.mark.usefixtures("remembered")
def test_constants_without_zeros_are_the_same(
    light: LightNetwork, tmp_path: Path, package: Path, off: Callable[[Path], float]
) -> None:
    coreml.export(
        fold(light, form_named("dense")), tmp_path / "m", _job("fp32", "sparse-constants")
    )
    assert _constexprs(tmp_path / "m") == {"constexpr_sparse_to_dense"}
    assert off(tmp_path / "m") == off(package)
    sizes = [sum(p.stat().st_size for p in f.rglob("*.bin")) for f in (tmp_path / "m", package)]
    assert sizes[0] < sizes[1] / 3


@pytest.mark.parametrize(
    ("optimize", "kind"),
    [
        ((), "constexpr_affine_dequantize"),
        pytest.param(("palettes",), "constexpr_lut_to_dense", marks=pytest.mark.slow),
    ],
)
def test_large_layers_in_8_bits(
    light: LightNetwork,
    tmp_path: Path,
    optimize: tuple[str, ...],
    kind: str,
    off: Callable[[Path], float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The small network has no layer as large as those of a real one.
    for module in ("mil.compression", "formats.coreml"):
        monkeypatch.setattr(f"handmesh_converters.{module}.MANY", 1024)
    coreml.export(fold(light, form_named("sparse")), tmp_path / "m", _job("int8", *optimize))
    assert _constexprs(tmp_path / "m") == {kind}
    assert 1e-6 < off(tmp_path / "m") < 0.2
    *smaller, largest = _sizes(tmp_path / "m", kind)
    assert smaller
    assert min(smaller) >= 1024
    # What is smaller stays in half.
    for module in ("mil.compression", "formats.coreml"):
        monkeypatch.setattr(f"handmesh_converters.{module}.MANY", largest)
    coreml.export(fold(light, form_named("sparse")), tmp_path / "few", _job("int8", *optimize))
    assert _sizes(tmp_path / "few", kind) == [largest]


def test_the_two_layers_with_most_weights_of_light_are_the_large_ones(topology: Topology) -> None:
    """Those of the latent block, between them, are not: rounding shows in all behind it."""
    weights = dict(LightNetwork(LightConfig(), topology).named_parameters())
    for name in ("encode", "head.decoder.expand"):
        assert weights[f"{name}.weight"].numel() >= MANY
    for name in ("reason.expand", "reason.project"):
        assert weights[f"{name}.weight"].numel() < MANY


@pytest.mark.slow
def test_paper_equals_the_network(
    paper: PaperNetwork, topology: Topology, random_crops: Crops, tmp_path: Path
) -> None:
    made = write_bundle(
        paper,
        topology,
        tmp_path / "paper",
        random_crops(3),
        provenance={},
        weights="fp32",
        export=["coreml"],
        request=Request(precision="fp32"),
    )
    assert made.parity["coreml"].tensor.worst < 1e-5
    # The sigmoid of a logit is nothing.
    assert "log" not in _kinds(read_package(made.bundle.artifact("coreml")))


@pytest.mark.parametrize("what", ["colour", "size", "type", "name"])
def test_an_interface_that_is_not_the_bundles_is_refused(
    written: Written, tmp_path: Path, what: str
) -> None:
    """The program is as it was, and would give the right numbers; an app would get others."""
    folder = tmp_path / "b"
    shutil.copytree(written.bundle.folder, folder)
    (path,) = folder.rglob("*.mlmodel")
    changed = read_package(folder / coreml.FILE).spec
    image = changed.description.input[0].type.imageType
    output = changed.description.output[3]
    if what == "colour":
        image.colorSpace = image.BGR
    elif what == "size":
        image.width = 2 * image.width
    elif what == "type":
        output.type.multiArrayType.dataType = output.type.multiArrayType.INT32
    else:
        output.name = "other"
    path.write_bytes(changed.SerializeToString())
    write_manifest(folder, read_manifest(folder))

    with pytest.raises(BackendError, match=r"describes .* to apps"):
        coreml.open(Bundle.load(folder))


@pytest.mark.usefixtures("remembered")
def test_a_full_disk_is_called_one(
    light_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("coremltools.models.MLModel.save", refuse)
    with pytest.raises(ExportError, match="No space left on device; what was there"):
        add_formats(light_bundle, ["coreml"], tmp_path / "new", Request(precision="fp32"))
    assert not list(tmp_path.iterdir())


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(InputError, match="goes with precision int8"):
        Request(precision="fp16", optimize=("palettes",)).resolve("coreml", coreml.ABLE)
    with pytest.raises(InputError, match="did you mean 'sparse-constants'"):
        Request(optimize=("sparse-constant",)).resolve("coreml", coreml.ABLE)
    assert Request().resolve("coreml", coreml.ABLE) == ("dense", "fp16")


def test_missing_coremltools_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"'\.\[converters\]'"):
        formats.load("coreml")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such operation")

    monkeypatch.setattr("handmesh_converters.formats.coreml.tidy", fail)


@pytest.mark.usefixtures("failing", "remembered")
def test_a_failure_leaves_nothing(light: LightNetwork, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"Core ML \(RuntimeError: no such operation\)"):
        coreml.export(fold(light), tmp_path / "m", _job())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif("sys.platform == 'darwin'", reason="there Core ML itself opens the artifact")
def test_an_unknown_operation_is_a_backend_error(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = coreml.open(written.bundle)
    assert backend.description == "MIL program in torch (not Apple's runtime)"
    with pytest.raises(InputError):
        backend.run(np.zeros((1, 16, 16, 3), np.uint8))
    monkeypatch.setattr("handmesh_converters.mil.executor.OPERATIONS", {})
    with pytest.raises(BackendError, match="conv"):
        coreml.open(written.bundle)
