"""The export twin against the network that it was made from."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from handmesh.errors import ExportError
from handmesh.graph import Topology
from handmesh.nn import LightConfig, LightNetwork, NetworkConfig, PaperConfig, PaperNetwork
from handmesh_converters.explain import explain
from handmesh_converters.fold import FoldedHead, fold
from handmesh_converters.forms import FORMS, GraphForm, Recurrence

Network = LightNetwork | PaperNetwork
Crops = Callable[..., NDArray[np.uint8]]
MakeNetwork = Callable[[NetworkConfig], Network]


def _expected(network: Network, images: Tensor) -> tuple[Tensor, ...]:
    with torch.inference_mode():
        output = network(images.permute(0, 3, 1, 2).float() / 255 - 0.5)
    right = output.handedness_logit
    return (
        output.vertices,
        output.joints,
        output.confidence_logits.sigmoid(),
        output.presence_logit.sigmoid(),
        torch.ones(len(images)) if right is None else right.sigmoid(),
    )


@pytest.mark.parametrize("name", ["light", "paper"])
def test_twin_equals_network(
    name: str, request: pytest.FixtureRequest, random_crops: Crops
) -> None:
    network: Network = request.getfixturevalue(name)
    images = torch.from_numpy(random_crops(3, network.config.input_size))

    with torch.inference_mode():
        found = fold(network)(images)

    expected = _expected(network, images)
    assert expected[0].std(dim=1).min() > 1e-2, "a flat mesh would prove nothing"
    for got, wanted in zip(found, expected, strict=True):
        assert got.shape == wanted.shape
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)


def test_twin_without_anchors_equals_network(
    light_config: LightConfig, make_network: MakeNetwork, random_crops: Crops
) -> None:
    network = make_network(dataclasses.replace(light_config, anchor_to_heatmaps=False))
    images = torch.from_numpy(random_crops(2))

    with torch.inference_mode():
        found = fold(network)(images)

    torch.testing.assert_close(found[0], _expected(network, images)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 7])
def test_folded_head_in_float64(light: LightNetwork, rows: int) -> None:
    """The only difference left is that constants are stored in float32."""
    exact = copy.deepcopy(light.head).double()
    folded = FoldedHead(light.head, Recurrence(rows), anchored=True).double()
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(4, folded.expand.in_features, generator=generator, dtype=torch.float64)
    uv = torch.rand(4, 21, 2, generator=generator, dtype=torch.float64)

    with torch.no_grad():
        expected, found = exact(latent, uv), folded(latent, uv)

    for got, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("frozen", [False, True])
def test_one_affine_map_equals_the_pose_regressor(light: LightNetwork, frozen: bool) -> None:
    head = copy.deepcopy(light.head)
    vertices = torch.randn(5, 1036, 3, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        joints = copy.deepcopy(head.pose_regressor).double()(vertices)  # layer by layer
        if frozen:
            head.pose_regressor.freeze()

        mapped = FoldedHead(head, Recurrence(), anchored=True).joints.double()(vertices.flatten(1))

    mapped = mapped.view(5, 22, 3)
    wrist_depth = joints[:, :1, 2]
    torch.testing.assert_close(mapped[:, :21, :2], joints[..., :2], rtol=0, atol=1e-5)
    torch.testing.assert_close(mapped[:, :21, 2], joints[..., 2] - wrist_depth, rtol=0, atol=1e-5)
    torch.testing.assert_close(mapped[:, 21, 2:], wrist_depth, rtol=0, atol=1e-5)
    assert mapped[:, 21, :2].abs().max() == 0
    assert mapped[:, 0, 2].abs().max() == 0, "the wrist's depth must be 0 exactly"


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_twin_with_max_pooling_and_highest_points(
    form: GraphForm, paper: PaperNetwork, make_network: MakeNetwork, random_crops: Crops
) -> None:
    decoder = dataclasses.replace(
        paper.config.decoder, pose_pooling="max", pose_template_prior=False
    )
    config = dataclasses.replace(paper.config, decoder=decoder, uv_from_heatmaps=True)
    network = make_network(config)
    nn.init.normal_(network.pose_regressor.conv2.bias)
    nn.init.normal_(network.pose_regressor.conv4.bias)
    images = torch.from_numpy(random_crops(3))

    with torch.inference_mode():
        found = fold(network, form)(images)

    for got, wanted in zip(found, _expected(network, images), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
    assert found[1][:, 0, 2].abs().max() == 0


def test_no_padding_nodes_are_left(light: LightNetwork, topology: Topology) -> None:
    twin = fold(light)

    real = [int(level.mask.sum()) for level in topology.levels if level.node_count in (320, 1280)]
    most = max(real) + Recurrence().rows_per_block
    rows = [
        module.weights.shape[0] * module.weights.shape[1]
        for module in twin.modules()
        if isinstance(getattr(module, "weights", None), Tensor)
    ]
    assert len(rows) > 0
    assert max(rows) < most < 1280


def test_norms_after_convolutions_are_gone(light: LightNetwork, paper: PaperNetwork) -> None:
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    assert not any(isinstance(module, norms) for module in fold(light).modules())
    # The first norm of a residual comes before its convolution, and stays.
    left = sum(isinstance(module, norms) for module in fold(paper).modules())
    residuals = sum(type(module).__name__ == "Residual" for module in paper.modules())
    assert left == residuals


def test_the_network_is_left_alone(light_config: LightConfig, make_network: MakeNetwork) -> None:
    network = make_network(light_config).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    fold(network)

    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_what_cannot_be_folded_is_refused(
    light_config: LightConfig, make_network: MakeNetwork
) -> None:
    with pytest.raises(ExportError, match="LightNetwork or PaperNetwork, got Linear"):
        fold(nn.Linear(2, 2))  # type: ignore[arg-type]
    broken = make_network(light_config)
    with torch.no_grad():
        broken.head.decoder.out.weight[0, 0] = float("nan")
    with pytest.raises(ExportError, match=r"head\.decoder\.out\.weight.* not finite"):
        fold(broken)


def test_explanation_counts_what_runs(light: LightNetwork) -> None:
    found = explain(fold(light))

    parts = {part.name: part for part in found.parts}
    expand = parts["latent vector to coarse nodes"]
    width = light.config.latent + 42
    assert expand.macs == width * 80 * 8
    assert expand.constant_bytes == 4 * (width + 1) * 80 * 8
    joints = parts["vertices to joints"]
    assert joints.macs == 66 * 1036 * 3
    # By hand: the stem's 3x3 convolution alone, 8 channels at half resolution.
    assert parts["trunk"].macs > 16 * 16 * 8 * 3 * 9
    # The Laplacian's blocks are shared by both convolutions on a level.
    assert parts["graph convolution 4"].constant_bytes < 1024
    assert found.macs == sum(part.macs for part in found.parts)
    # Three maps and a bias each, two gathers and products, two sums, one unpooling of each map.
    assert parts["graph convolution 4"].ops < parts["graph convolution 3"].ops < 20
    assert parts["vertices to joints"].ops == 1
    assert found.ops == sum(part.ops for part in found.parts)
    text = found.render()
    assert "blocks of 7 rows" in text
    assert "total" in text


@pytest.mark.parametrize("config", [LightConfig(), PaperConfig()])
def test_sparse_constants_are_small_and_said(
    make_network: Callable[..., LightNetwork | PaperNetwork], config: NetworkConfig
) -> None:
    """The constants of all T_k of the networks as they are shipped, not of the tests' small ones:
    counted in the twin's buffers here, each content once."""
    twin = fold(make_network(config))

    found = explain(twin)

    contents = {
        (tuple(buffer.shape), buffer.numpy().tobytes())
        for convolution in twin.head.convolutions
        for buffer in convolution.buffers()
        if buffer.dtype == torch.float32
    }
    assert found.polynomial_bytes == sum(len(data) for _, data in contents)
    assert 50 * 1024 < found.polynomial_bytes < 300 * 1024
    assert f"constants of all T_k: {found.polynomial_bytes / 1024:.1f} KB fp32" in found.render()


def test_a_perturbed_form_is_noticed(light: LightNetwork, random_crops: Crops) -> None:
    """The comparison above must be able to fail: a weight of the products off by 1 %."""
    images = torch.from_numpy(random_crops(2))
    twin = fold(light)
    with torch.inference_mode():
        before = twin(images)[0]
        for name, buffer in twin.named_buffers():
            if name.endswith("convolutions.3.product.weights"):
                buffer[np.unravel_index(int(buffer.abs().argmax()), buffer.shape)] *= 1.01
        after = twin(images)[0]
    assert (after - before).abs().max() > 1e-4
