"""The ONNX artifact: its contract, its numbers, and what it says of itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from conversions import Remembering
from numpy.typing import NDArray

from handmesh.backends import RawOutput
from handmesh.bundle import Bundle
from handmesh.graph import Topology
from handmesh.nn import LightNetwork, NetworkConfig, PaperNetwork
from handmesh_converters.export import write_bundle
from handmesh_converters.fold import fold
from handmesh_converters.formats import onnx as onnx_format
from handmesh_converters.parity import TOLERANCES, measure, network_outputs
from handmesh_converters.request import Job, Precision, Request

BONE_RATIOS = np.ones(20, np.float32)
Crops = Callable[..., NDArray[np.uint8]]
MakeNetwork = Callable[[NetworkConfig], LightNetwork | PaperNetwork]
FP32 = Request(precision="fp32")


def _job(precision: Precision, metadata: Mapping[str, str] | None = None) -> Job:
    return Job(
        metadata or {}, precision, frozenset(), np.zeros((0, 32, 32, 3), np.uint8), BONE_RATIOS
    )


@pytest.fixture(scope="module")
def model(light_bundle: Bundle) -> onnx.ModelProto:
    return onnx.load(light_bundle.artifact("onnx"))


def _run(path: Path, images: NDArray[np.uint8]) -> RawOutput:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return RawOutput(*session.run(list(RawOutput._fields), {"image": images}))


@pytest.mark.parametrize("batch", [1, 3])
def test_equals_the_network(
    light_bundle: Bundle, light: LightNetwork, random_crops: Crops, batch: int
) -> None:
    images = random_crops(batch)

    found = _run(light_bundle.artifact("onnx"), images)

    for got, wanted in zip(found, network_outputs(light, images), strict=True):
        assert got.dtype == np.float32
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_max_pooling_and_highest_points(
    paper: PaperNetwork, make_network: MakeNetwork, random_crops: Crops, tmp_path: Path
) -> None:
    decoder = replace(paper.config.decoder, pose_pooling="max", pose_template_prior=False)
    network = make_network(replace(paper.config, decoder=decoder, uv_from_heatmaps=True))
    images = random_crops(3)

    onnx_format.export(fold(network), tmp_path / "model.onnx", _job("fp32"))

    found = _run(tmp_path / "model.onnx", images)
    for got, wanted in zip(found, network_outputs(network, images), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5)


def test_old_runtimes_can_read_it(model: onnx.ModelProto) -> None:
    """ONNX Runtime 1.14, of early 2023, takes files of version 8 and operators of version 18."""
    assert model.ir_version == 8
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 18)]


def test_inputs_and_outputs_are_those_of_the_contract(model: onnx.ModelProto) -> None:
    def shapes(values: list[onnx.ValueInfoProto]) -> dict[str, tuple[int, list[str | int]]]:
        return {
            value.name: (
                value.type.tensor_type.elem_type,
                [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim],
            )
            for value in values
        }

    float32 = onnx.TensorProto.FLOAT
    assert shapes(model.graph.input) == {"image": (onnx.TensorProto.UINT8, ["N", 32, 32, 3])}
    assert list(shapes(model.graph.output).items()) == [
        ("vertices", (float32, ["N", 1036, 3])),
        ("joints", (float32, ["N", 21, 3])),
        ("confidence", (float32, ["N", 21])),
        ("presence", (float32, ["N"])),
        ("handedness", (float32, ["N"])),
    ]
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]


@pytest.mark.parametrize("name", ["light", "detector"])
def test_bytes_feed_casts_alone(name: str) -> None:
    """TensorRT refuses any other operator on uint8, and with it the whole of the shipped file."""
    graph = onnx.load(Bundle.load(name).artifact("onnx")).graph

    assert [node.op_type for node in graph.node if "image" in node.input] == ["Cast"]


def test_metadata_says_what_it_is(
    model: onnx.ModelProto, light_bundle: Bundle, topology: Topology
) -> None:
    said = {entry.key: entry.value for entry in model.metadata_props}

    assert said["network"] == "light"
    assert said["graph_sha256"] == topology.sha256
    assert json.loads(said["outputs"])["vertices"]["unit"].startswith("u, v: fraction")
    assert json.loads(said["input"])["color"] == "RGB"
    assert json.loads(said["licences"])["code"] == "Apache-2.0"
    assert model.producer_name == "handmesh"
    # The exporter's stack traces would tell where this machine keeps its files.
    assert str(Path(onnx_format.__file__).parents[2]).encode() not in model.SerializeToString()


def test_shapes_are_constants_and_products_are_shared(model: onnx.ModelProto) -> None:
    kinds = {node.op_type for node in model.graph.node}

    assert kinds.isdisjoint({"Shape", "ConstantOfShape", "Expand", "BatchNormalization", "Loop"})
    blocks = [i for i in model.graph.initializer if len(i.dims) == 3 and i.dims[1] == 7]
    # Two levels, each with its Laplacian and its Laplacian after unpooling.
    assert len(blocks) == 4


@pytest.mark.slow
def test_same_weights_give_the_same_bytes(
    light_bundle: Bundle, light: LightNetwork, tmp_path: Path, model: onnx.ModelProto
) -> None:
    metadata = {entry.key: entry.value for entry in model.metadata_props}

    onnx_format.export(fold(light), tmp_path / "again.onnx", _job("fp32", metadata))

    again = (tmp_path / "again.onnx").read_bytes()
    assert again == light_bundle.artifact("onnx").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.onnx"]


@pytest.fixture(scope="module")
def halved(
    light: LightNetwork,
    tmp_path_factory: pytest.TempPathFactory,
    onnx_exports: Remembering[Any],
    light_bundle: Bundle,
) -> Path:
    """Of the network as it was exported for the bundle."""
    path: Path = tmp_path_factory.mktemp("halved") / "model.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_format, "_exported", onnx_exports)
        onnx_format.export(fold(light), path, _job("fp16"))
    return path


def test_halved_weights_are_the_rounded_ones(
    halved: Path, model: onnx.ModelProto, light: LightNetwork
) -> None:
    exact = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    half = {
        i.name: onnx.numpy_helper.to_array(i)
        for i in onnx.load(halved).graph.initializer
        if i.data_type == onnx.TensorProto.FLOAT16
    }
    for name, values in half.items():
        np.testing.assert_array_equal(values, exact[name.removesuffix(".fp16")].astype(np.float16))
    # Every large learned weight; averages and Laplacians of the mesh stay as they are.
    learned = {n for n, w in fold(light).named_parameters() if w.numel() >= onnx_format.HALVED_FROM}
    assert half.keys() == {f"{name}.fp16" for name in learned & exact.keys()}
    assert len(half) > 1


def test_onnx_runtime_widens_halved_weights_once(halved: Path, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "as_run.onnx")
    onnxruntime.InferenceSession(str(halved), options, providers=["CPUExecutionProvider"])

    as_run = onnx.load(tmp_path / "as_run.onnx").graph
    constants = {i.name: i.data_type for i in as_run.initializer}
    assert onnx.TensorProto.FLOAT16 not in constants.values()
    casts = [node.input[0] for node in as_run.node if node.op_type == "Cast"]
    assert constants.keys().isdisjoint(casts)
    assert len(casts) == 1  # of the picture


def test_halved_weights_cost_little(
    halved: Path, light: LightNetwork, random_crops: Crops, topology: Topology
) -> None:
    images = random_crops(4)
    expected = network_outputs(light, images)
    found = measure(lambda i: _run(halved, i), "halved", images, expected, topology.bone_ratios)

    found.check(TOLERANCES["fp16"])
    assert found.tensor.worst > 1e-6  # or nothing was rounded


def test_paper_equals_the_network(
    paper: PaperNetwork, topology: Topology, random_crops: Crops, tmp_path: Path
) -> None:
    images = random_crops(3)
    written = write_bundle(
        paper, topology, tmp_path / "paper", images, provenance={}, weights="fp32", request=FP32
    )

    assert written.parity["onnx"].tensor.worst < 1e-5
    found = _run(written.bundle.artifact("onnx"), images)
    np.testing.assert_array_equal(found.handedness, np.ones(3))
