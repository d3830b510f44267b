"""The artifact for NVIDIA GPUs, proven without one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from handmesh import backends
from handmesh.bundle import Bundle
from handmesh.errors import BackendError, BackendUnavailable, ExportError, ParityError
from handmesh.nn import LightNetwork, NetworkConfig, PaperNetwork
from handmesh_converters import formats
from handmesh_converters.export import add_formats
from handmesh_converters.fold import fold
from handmesh_converters.formats import cuda
from handmesh_converters.forms import form_named
from handmesh_converters.parity import TOLERANCES, network_outputs
from handmesh_converters.request import Request
from handmesh_kernels import twin as kernels_twin
from handmesh_kernels.constants import HeadConstants

Crops = Callable[..., NDArray[np.uint8]]
MakeNetwork = Callable[[NetworkConfig], LightNetwork | PaperNetwork]


@pytest.fixture(scope="module")
def bundle(light_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """With the artifact, exact."""
    out = tmp_path_factory.mktemp("cuda") / "bundle"
    return add_formats(light_bundle, ["cuda"], out, Request(precision="fp32")).bundle


def test_the_artifact_computes_the_network(
    bundle: Bundle, light: LightNetwork, random_crops: Crops
) -> None:
    images = random_crops(5)
    found = formats.load("cuda").open(bundle).run(images)
    for got, wanted in zip(found, network_outputs(light, images), strict=True):
        assert got.shape == wanted.shape
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-5)


def test_what_is_written(bundle: Bundle) -> None:
    entry = bundle.artifacts["cuda"]
    assert (entry["path"], entry["graph_form"], entry["head"]) == ("cuda", "polynomials", "fp32")
    assert entry["parity"]["runtime"].endswith("the kernels' NumPy twin, fp32")
    assert entry["parity"]["tensor"]["worst"] <= TOLERANCES["fp32"].tensor
    folder = bundle.artifact("cuda")
    assert sorted(path.name for path in folder.iterdir()) == ["head.npz", "trunk.onnx"]
    trunk = onnx.load(folder / "trunk.onnx")
    assert [output.name for output in trunk.graph.output] == [
        "latent", "joints_uv", "confidence", "presence", "handedness"
    ]  # fmt: skip
    head = HeadConstants.load(folder / "head.npz")
    assert (head.widths, head.features, head.vertex_count) == ((8, 8, 6, 5), 58, 1036)
    assert head.blend is not None


def test_tensorrt_of_jetpack_5_reads_the_trunk(bundle: Bundle) -> None:
    """8.5 reads to opset 17, takes bytes as input of a cast alone, and axes that are no input."""
    trunk = onnx.load(bundle.artifact("cuda") / "trunk.onnx")

    assert bundle.artifacts["cuda"]["opset"] == 17
    assert [(each.domain, each.version) for each in trunk.opset_import] == [("", 17)]
    assert [node.op_type for node in trunk.graph.node if "image" in node.input] == ["Cast"]
    reductions = {
        node.op_type: len(node.input)
        for node in trunk.graph.node
        if node.op_type.startswith("Reduce") and node.op_type != "ReduceSum"
    }
    assert set(reductions.values()) == {1}, reductions


def test_the_twin_for_proof_is_no_silent_fallback(bundle: Bundle) -> None:
    """Asked for by name, the backend wants a GPU."""
    if backends.unavailable("cuda", bundle) is None:
        pytest.skip("there is a GPU")
    with pytest.raises(BackendUnavailable, match="'cuda'"):
        backends.create("cuda", bundle)


@pytest.fixture
def same_trunk(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporting the trunk takes seconds: take the one that is there."""
    model = onnx.load(bundle.artifact("cuda") / "trunk.onnx")
    monkeypatch.setattr(cuda.onnx_format, "convert", lambda *_: model)


@pytest.mark.usefixtures("same_trunk")
def test_a_half_head_is_within_its_tolerance(light_bundle: Bundle, tmp_path: Path) -> None:
    written = add_formats(light_bundle, ["cuda"], tmp_path / "half", Request(precision="fp16"))
    entry = written.bundle.artifacts["cuda"]
    assert entry["head"] == "fp16"
    assert 1e-5 < entry["parity"]["tensor"]["worst"] <= TOLERANCES["fp16"].tensor
    head = HeadConstants.load(written.bundle.artifact("cuda") / "head.npz")
    assert head.storage == "fp16"


@pytest.mark.usefixtures("same_trunk")
def test_a_wrong_head_is_refused(
    light_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = cuda.head_arrays

    def spoiled(*arguments: object) -> dict[str, NDArray[np.generic]]:
        arrays = original(*arguments)  # type: ignore[arg-type]
        return {**arrays, "conv3_bias": arrays["conv3_bias"] + np.float32(0.05)}

    monkeypatch.setattr(cuda, "head_arrays", spoiled)
    with pytest.raises(ParityError):
        add_formats(light_bundle, ["cuda"], tmp_path / "out", Request(precision="fp32"))
    assert not (tmp_path / "out").exists()


def test_without_anchors(light: LightNetwork, make_network: MakeNetwork) -> None:
    network = make_network(replace(light.config, anchor_to_heatmaps=False))
    twin = fold(network, form_named("polynomials"))
    trunk = cuda._Trunk(twin.network)
    assert trunk.outputs == ("latent", "confidence", "presence", "handedness")
    image = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    head = HeadConstants.from_arrays(cuda.head_arrays(twin.head, "fp32"))
    assert head.blend is None
    with torch.inference_mode():
        named = dict(zip(trunk.outputs, trunk(image), strict=True))
        vertices = twin(image)[0]
    found = kernels_twin.run(head, named["latent"].numpy())
    np.testing.assert_allclose(found.vertices, vertices.numpy(), rtol=0, atol=2e-5)


def test_heads_that_the_kernels_do_not_have(
    light: LightNetwork, paper: PaperNetwork, make_network: MakeNetwork
) -> None:
    with pytest.raises(ExportError, match="'polynomials'"):
        cuda.head_arrays(fold(light, form_named("sparse")).head, "fp32")
    decoder = replace(paper.config.decoder, pose_pooling="max", pose_template_prior=False)
    network = make_network(replace(paper.config, decoder=decoder))
    with pytest.raises(ExportError, match="linear pose regressor"):
        cuda.head_arrays(fold(network, form_named("polynomials")).head, "fp32")


@pytest.mark.usefixtures("same_trunk")
def test_a_head_that_no_gpu_would_take_is_refused(
    light_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = cuda.head_arrays

    def long(*arguments: object) -> dict[str, NDArray[np.generic]]:
        arrays = original(*arguments)  # type: ignore[arg-type]
        weight = arrays["expand_weight"]
        wide = np.pad(weight, ((0, 0), (0, 2048 - weight.shape[1])))
        return {**arrays, "expand_weight": wide}

    monkeypatch.setattr(cuda, "head_arrays", long)
    said = r"kernel hm_expand_8 would take 65,792 bytes .* export another format"
    with pytest.raises(ExportError, match=said):
        add_formats(light_bundle, ["cuda"], tmp_path / "out", Request(precision="fp32"))
    assert not (tmp_path / "out").exists()


def test_damaged_constants_are_an_error_of_the_backend(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "head.npz").write_bytes(b"no archive")
    with pytest.raises(BackendError, match="cannot be used"):
        backends.cuda._constants(tmp_path)  # type: ignore[attr-defined]
