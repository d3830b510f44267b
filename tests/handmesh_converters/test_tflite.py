"""The TFLite artifact: its contract, its numbers in each precision, and what it says of itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conversions import Remembering
from numpy.typing import NDArray
from torch import nn

from handmesh import backends
from handmesh.backends import RawOutput
from handmesh.bundle import Bundle
from handmesh.errors import ExportError, InputError
from handmesh.graph import Topology
from handmesh.nn import LightNetwork, PaperNetwork
from handmesh.verification import verify
from handmesh_converters.export import add_formats, write_bundle
from handmesh_converters.fold import fold
from handmesh_converters.formats import tflite
from handmesh_converters.forms import form_named
from handmesh_converters.parity import TOLERANCES, Tolerance, measure, network_outputs
from handmesh_converters.request import Job, Precision, Request

pytest.importorskip("litert_torch", reason="TFLite files are made by litert-torch")
flatbuffer = pytest.importorskip("handmesh_converters.flatbuffer")
quantizers = pytest.importorskip("handmesh_converters.quantizer")
sensitivity = pytest.importorskip("handmesh_converters.sensitivity")
interpreters = pytest.importorskip("ai_edge_litert.interpreter")

BONE_RATIOS = Topology.default().bone_ratios
Crops = Callable[..., NDArray[np.uint8]]
METADATA = {"network": "light", "licences": json.dumps({"code": "Apache-2.0"})}


def _run(data: bytes, images: NDArray[np.uint8]) -> RawOutput:
    run = interpreters.Interpreter(model_content=data, num_threads=1).get_signature_runner()
    outputs = [run(image=image[None]) for image in images]
    return RawOutput(*(np.concatenate([o[name] for o in outputs]) for name in RawOutput._fields))


@pytest.fixture(scope="module", autouse=True)
def remembering() -> Iterator[Remembering[bytes]]:
    """Instead of the converter."""
    with pytest.MonkeyPatch.context() as patch:
        stand_in = Remembering[bytes](tflite._convert)
        patch.setattr(tflite, "_convert", stand_in)
        yield stand_in


@pytest.fixture(scope="module")
def exported(
    light: LightNetwork, crops: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """(precision, graph) -> the file, made once."""
    made: dict[tuple[str, str], Path] = {}

    def file(precision: Precision, graph: str = "sparse") -> Path:
        if (precision, graph) not in made:
            path = tmp_path_factory.mktemp("tflite") / "model.tflite"
            job = Job(METADATA, precision, frozenset(), crops, BONE_RATIOS)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(tflite, "ROUNDED", 256)  # nothing of a small network is large
                tflite.export(fold(light, form_named(graph)), path, job)
            made[precision, graph] = path
        return made[precision, graph]

    return file


@pytest.mark.parametrize(
    "graph",
    [
        "sparse",
        pytest.param("polynomials", marks=pytest.mark.slow),
        pytest.param("dense", marks=pytest.mark.slow),
    ],
)
def test_equals_the_network(
    exported: Callable[..., Path], light: LightNetwork, random_crops: Crops, graph: str
) -> None:
    images = random_crops(3)

    found = _run(exported("fp32", graph).read_bytes(), images)

    for got, wanted in zip(found, network_outputs(light, images), strict=True):
        assert got.dtype == np.float32
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5)


def test_inputs_and_outputs_are_those_of_the_contract(exported: Callable[..., Path]) -> None:
    interpreter = interpreters.Interpreter(str(exported("fp32")))
    (signature,) = interpreter.get_signature_list().values()
    runner = interpreter.get_signature_runner()

    assert signature == {"inputs": ["image"], "outputs": sorted(RawOutput._fields)}
    image = runner.get_input_details()["image"]
    assert (image["dtype"], image["shape"].tolist()) == (np.uint8, [1, 32, 32, 3])
    shapes = {name: d["shape"].tolist() for name, d in runner.get_output_details().items()}
    assert shapes == {
        "vertices": [1, 1036, 3],
        "joints": [1, 21, 3],
        "confidence": [1, 21],
        "presence": [1],
        "handedness": [1],
    }
    assert {d["dtype"] for d in runner.get_output_details().values()} == {np.float32}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_metadata_says_what_it_is(exported: Callable[..., Path], precision: Precision) -> None:
    from handmesh_converters import flatbuffer

    data = exported(precision).read_bytes()
    model = flatbuffer.unpack(data)

    said = {
        entry.name.decode(): bytes(model.buffers[entry.buffer].data).decode()
        for entry in model.metadata
        if entry.name.startswith(b"handmesh.")
    }
    assert said == {f"handmesh.{key}": value for key, value in METADATA.items()}
    assert model.description.startswith(b"handmesh ")
    assert str(Path(tflite.__file__).parents[2]).encode() not in data


def test_constants_are_aligned(exported: Callable[..., Path]) -> None:
    from handmesh_converters import flatbuffer

    data = exported("int8").read_bytes()
    large = [b.data for b in flatbuffer.unpack(data).buffers if b.data is not None]
    starts = [data.index(values.tobytes()) for values in large if len(values) > 256]
    assert len(starts) > 10
    assert {start % 16 for start in starts} == {0}


@pytest.mark.slow
def test_same_weights_give_the_same_bytes(
    exported: Callable[..., Path],
    remembering: Remembering[bytes],
    light: LightNetwork,
    tmp_path: Path,
    crops: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tflite, "_convert", remembering.plain)  # converted anew
    tflite.export(
        fold(light),
        tmp_path / "again.tflite",
        Job(METADATA, "fp16", frozenset(), crops, BONE_RATIOS),
    )

    assert (tmp_path / "again.tflite").read_bytes() == exported("fp16").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.tflite"]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_narrow_weights_cost_little(
    exported: Callable[..., Path],
    light: LightNetwork,
    crops: NDArray[np.uint8],
    topology: Topology,
    precision: Precision,
) -> None:
    data = exported(precision).read_bytes()
    expected = network_outputs(light, crops)

    found = measure(lambda i: _run(data, i), precision, crops, expected, topology.bone_ratios)

    found.check(TOLERANCES[precision])
    assert found.tensor.worst > 1e-5  # or nothing was rounded
    assert len(data) < 0.8 * len(exported("fp32").read_bytes())


def test_int8_is_stored_by_channel(exported: Callable[..., Path]) -> None:
    from ai_edge_litert import schema_py_generated as schema

    from handmesh_converters import flatbuffer

    model = flatbuffer.unpack(exported("int8").read_bytes())
    rounded = [t for t in model.subgraphs[0].tensors if t.type == schema.TensorType.INT8]
    assert len(rounded) > 3
    for tensor in rounded:
        assert (
            len(tensor.quantization.scale) == tensor.shape[tensor.quantization.quantizedDimension]
        )
        assert len(model.buffers[tensor.buffer].data) == np.prod(tensor.shape)


@pytest.mark.parametrize(("optimize", "inputs"), [("dynamic", "FLOAT32"), ("static", "INT8")])
def test_convolutions_with_8_bit_products(
    light: LightNetwork,
    crops: NDArray[np.uint8],
    random_crops: Crops,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    optimize: str,
    inputs: str,
) -> None:
    """Weights of each output channel on a grid of their own, and a network that is near enough to
    have its weights at the right places."""
    schema = flatbuffer.schema
    path = tmp_path / "model.tflite"
    monkeypatch.setattr(sensitivity, "LIMIT", Tolerance(*[1e9] * 6))  # so that all are chosen
    job = Job(METADATA, "int8", frozenset({optimize}), crops, BONE_RATIOS)

    facts = tflite.export(fold(light), path, job)

    assert facts["precision"] == "int8"
    assert facts["int8_products"]["share_of_convolutions"] == 1.0
    own = {name for name, module in fold(light).named_modules() if isinstance(module, nn.Conv2d)}
    assert set(facts["int8_products"]["layers"]) == own
    model = flatbuffer.unpack(path.read_bytes())
    kinds = schema.TensorType
    for code, image, weight in _convolutions(model):
        channels = weight.shape[0 if code == schema.BuiltinOperator.CONV_2D else 3]
        assert weight.type == kinds.INT8
        assert image.type == getattr(kinds, inputs)
        assert len(weight.quantization.scale) == channels
    assert len(_convolutions(model)) > 5
    images = random_crops(4)
    found, expected = _run(path.read_bytes(), images), network_outputs(light, images)
    off = np.abs(found.joints - expected.joints)
    assert 1e-5 < off.max() < 0.5
    assert np.median(off) < 0.05


def test_only_what_bears_them_gets_8_bit_products(
    light: LightNetwork, crops: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit between the parts' own errors: those above it stay as they are, and the artifact is
    within it on the crops that the choice was made on, here measured by another path."""
    twin, path = fold(light), tmp_path / "model.tflite"
    job = Job(METADATA, "int8", frozenset({"static"}), crops, BONE_RATIOS)
    with monkeypatch.context() as patch:
        patch.setattr(
            sensitivity, "LIMIT", Tolerance(*[0.0] * 6)
        )  # nothing is joined, only measured
        errors = sorted(part.alone.mm.p99 for part in tflite.sensitivity(twin, job).parts)
    limit = errors[len(errors) // 2] * 1.01
    monkeypatch.setattr(sensitivity, "LIMIT", Tolerance(*[1e9] * 4, limit, 1e9))

    found = tflite.sensitivity(twin, job)
    facts = tflite.export(twin, path, job)

    assert 0 < found.share < 1
    for part in found.parts:
        assert part.alone.mm.p99 <= limit or not part.chosen
    assert found.together.mm.p99 <= limit < found.everything.mm.p99
    named = facts["int8_products"]["layers"]
    assert named == [each.layer for each in found.chosen]
    model = flatbuffer.unpack(path.read_bytes())
    narrow = [w for _, _, w in _convolutions(model) if w.type == flatbuffer.schema.TensorType.INT8]
    assert len(narrow) == len(named)
    expected = network_outputs(light, crops)
    again = measure(lambda i: _run(path.read_bytes(), i), "", crops, expected, BONE_RATIOS)
    assert again.mm.p99 == pytest.approx(found.together.mm.p99, rel=0.2)  # halved weights differ
    table = found.render().splitlines()
    assert len(table) == len(found.parts) + 5
    assert sum(line.endswith("| yes |") for line in table) == sum(p.chosen for p in found.parts)


def test_nothing_that_bears_them_is_an_error(
    light: LightNetwork, crops: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensitivity, "LIMIT", Tolerance(*[0.0] * 6))
    job = Job(METADATA, "int8", frozenset({"static"}), crops, BONE_RATIOS)
    with pytest.raises(ExportError, match="no convolution bears"):
        tflite.export(fold(light), tmp_path / "model.tflite", job)
    assert list(tmp_path.iterdir()) == []


def test_ranges_hold_every_value_that_occurs(light: LightNetwork) -> None:
    """Of pixels, -0.5 to 0.5, though only one crop has them all: no average over crops."""
    crops = np.full((8, 32, 32, 3), 128, np.uint8)
    crops[5, 0, 0], crops[5, 1, 1] = 0, 255
    twin = fold(light)
    image = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    data = tflite._convert(tflite._Named(twin).eval(), image)

    quantizer = quantizers.Quantizer(data, "serving_default", {}, crops, static=True)
    model = flatbuffer.unpack(quantizer.quantize(quantizer.convolutions[:1]))

    ((_, first, _), *_) = _convolutions(model)
    scale, zero = first.quantization.scale[0], first.quantization.zeroPoint[0]
    assert (-128 - zero) * scale == pytest.approx(-0.5, abs=0.005)
    assert (127 - zero) * scale == pytest.approx(0.5, abs=0.005)


def _convolutions(model: Any) -> list[tuple[int, Any, Any]]:
    """Builtin code, and tensors of input and weights."""
    schema = flatbuffer.schema
    kinds = (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.DEPTHWISE_CONV_2D)
    return [
        (code, *(graph.tensors[i] for i in operator.inputs[:2]))
        for graph in model.subgraphs
        for operator in graph.operators
        if (code := model.operatorCodes[operator.opcodeIndex].builtinCode) in kinds
    ]


def test_8_bit_products_of_one_kind(light: LightNetwork, tmp_path: Path) -> None:
    crop = np.zeros((1, 32, 32, 3), np.uint8)
    job = Job({}, "int8", frozenset({"dynamic", "static"}), crop, BONE_RATIOS)
    with pytest.raises(InputError, match="either dynamic or static"):
        tflite.export(fold(light), tmp_path / "model.tflite", job)


def test_int8_needs_crops(light: LightNetwork, tmp_path: Path) -> None:
    job = Job({}, "int8", frozenset(), np.zeros((0, 32, 32, 3), np.uint8), BONE_RATIOS)
    with pytest.raises(ExportError, match="calibrated"):
        tflite.export(fold(light), tmp_path / "model.tflite", job)
    assert list(tmp_path.iterdir()) == []


def test_failures_of_the_converter_are_ours(
    light: LightNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> bytes:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(tflite, "_convert", fail)
    job = Job({}, "fp32", frozenset(), np.zeros((0, 32, 32, 3), np.uint8), BONE_RATIOS)
    with pytest.raises(ExportError, match=r"to TFLite \(RuntimeError: no such operator\)"):
        tflite.export(fold(light), tmp_path / "model.tflite", job)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_the_file_lacks_are_an_error(exported: Callable[..., Path]) -> None:
    from handmesh_converters import flatbuffer

    model = flatbuffer.unpack(exported("fp32").read_bytes())
    with pytest.raises(ExportError, match="changed 1 of 1"):
        flatbuffer.round_weights(model, {b"other": np.ones(3, np.float32)})


def test_what_it_cannot_do_is_refused() -> None:
    for request in (Request(optimize=("static",)), Request(graph="dens")):
        with pytest.raises(InputError):
            request.resolve("tflite", tflite.ABLE)


def test_a_bundle_with_it_verifies(light_bundle: Bundle, tmp_path: Path) -> None:
    written = add_formats(light_bundle, ["tflite"], tmp_path / "new", Request(precision="fp32"))

    (difference,) = verify(written.bundle, ["tflite"])
    assert difference.passed
    assert difference.backend.startswith("ai_edge_litert ")
    entry = written.bundle.artifacts["tflite"]
    assert (entry["precision"], entry["weights"]) == ("fp32", "fp32")
    assert backends.create("tflite", written.bundle, threads=1).name == "tflite"


@pytest.mark.slow
def test_paper_equals_the_network(
    paper: PaperNetwork, topology: Topology, random_crops: Crops, tmp_path: Path
) -> None:
    written = write_bundle(
        paper,
        topology,
        tmp_path / "paper",
        random_crops(3),
        provenance={},
        weights="fp32",
        export=("tflite",),
        request=Request(precision="fp32"),
    )
    assert written.parity["tflite"].tensor.worst < 1e-5
