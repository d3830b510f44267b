"""Trunk and head apart, and heat-maps given from outside."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from handmesh.backends import RawOutput
from handmesh.bundle import Bundle
from handmesh.errors import InputError
from handmesh.graph import Topology
from handmesh.nn import (
    HandNetwork,
    LightConfig,
    LightNetwork,
    NetworkConfig,
    PaperConfig,
    PaperNetwork,
    build,
    load_weights,
    read_config,
)
from handmesh.nn.blocks import soft_argmax
from handmesh.verification import read_reference

SMALL = PaperConfig(input_size=64, features=32, hourglass_depth=2, latent=64)
ONE_STACK = PaperConfig(input_size=64, features=32, hourglass_depth=2, latent=64, stacks=1)


@pytest.fixture(scope="module")
def reference() -> tuple[Tensor, RawOutput]:
    """Some crops of the shipped bundle as network input, and what it was found to say of all."""
    images, truth = read_reference(Bundle.load())
    return torch.from_numpy(images[:3]).permute(0, 3, 1, 2).float() / 255.0 - 0.5, truth


@pytest.fixture(scope="module")
def shipped(topology: Topology) -> LightNetwork:
    path = Bundle.load().folder / "weights.safetensors"
    config = read_config(path)
    network = build(config, topology)
    load_weights(network, path, config, topology)  # strict: the names of all weights are the same
    assert isinstance(network, LightNetwork)
    return network.eval()


def untrained(config: NetworkConfig, topology: Topology) -> HandNetwork:
    torch.manual_seed(0)
    return build(config, topology).eval()


def images(config: NetworkConfig) -> Tensor:
    size = config.input_size
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1)) - 0.5


def points_at(uv: Tensor, size: int) -> Tensor:
    """Maps (B, 21, H, H) whose cell nearest to each (u, v) is 1, the others 0."""
    column, row = (uv * size).long().clamp(0, size - 1).unbind(-1)
    return F.one_hot(row * size + column, size * size).float().unflatten(-1, (size, size))


@torch.no_grad()
def test_the_shipped_network_says_what_it_said(
    shipped: LightNetwork, reference: tuple[Tensor, RawOutput]
) -> None:
    crops, truth = reference
    out = shipped(crops)
    for found, expected in (
        (out.vertices, truth.vertices),
        (out.joints, truth.joints),
        (out.confidence_logits.sigmoid(), truth.confidence),
        (out.presence_logit.sigmoid(), truth.presence),
    ):
        np.testing.assert_allclose(found.numpy(), expected[: len(found)], atol=1e-4)


@torch.no_grad()
def test_its_own_maps_given_change_no_bit(
    shipped: LightNetwork, reference: tuple[Tensor, RawOutput], topology: Topology
) -> None:
    paper = untrained(ONE_STACK, topology)
    for network, image in ((shipped, reference[0]), (paper, images(ONE_STACK))):
        plain = network(image)
        given = network(image, plain.heatmaps[-1].clone())
        for a, b in zip(plain[:2] + plain[3:], given[:2] + given[3:], strict=True):
            assert (a is None and b is None) or torch.equal(a, b)


@torch.no_grad()
def test_forward_is_the_head_on_the_latent(
    shipped: LightNetwork, reference: tuple[Tensor, RawOutput], topology: Topology
) -> None:
    paper = untrained(SMALL, topology)
    for network, image in ((shipped, reference[0]), (paper, images(SMALL))):
        out, latent = network(image), network.latent(image)
        assert latent.features.dtype == torch.float32
        assert latent.features.shape == (len(image), network.head.decoder.expand.in_features)
        vertices, joints = network.head(latent.features, latent.anchors)
        assert torch.equal(out.vertices, vertices)
        assert torch.equal(out.joints, joints)
        assert torch.equal(out.confidence_logits, latent.confidence_logits)
    assert latent.uv is None
    assert shipped.latent(reference[0]).uv is not None


@torch.no_grad()
def test_light_follows_given_maps(
    shipped: LightNetwork, reference: tuple[Tensor, RawOutput]
) -> None:
    """A hand moved by a tenth of the crop in the maps moves in the mesh, not in its own maps."""
    image = reference[0]
    plain = shipped(image)
    moved = plain.heatmaps[0].roll(3, dims=3)  # 3 of 32 cells to the right
    out = shipped(image, moved)
    assert out.heatmap_uv is not None
    expected, _ = soft_argmax(moved, shipped.log_beta.exp())
    torch.testing.assert_close(out.heatmap_uv, expected)
    assert torch.equal(out.heatmaps[0], plain.heatmaps[0])
    assert (out.joints[..., 0] - plain.joints[..., 0]).mean() > 0.05
    # The features gathered at the joints come from other places, too.
    assert (out.joints[..., 2] - plain.joints[..., 2]).abs().max() > 1e-3


@torch.no_grad()
def test_paper_merges_given_maps_after_every_stack(topology: Topology) -> None:
    network = untrained(SMALL, topology)
    assert isinstance(network, PaperNetwork)
    image = images(SMALL)
    given = points_at(torch.rand(2, 21, 2, generator=torch.Generator().manual_seed(2)), 16)
    plain, out = network(image), network(image, given)

    x = network.stem(image)
    for stack in network.stacks:
        features = stack.features(stack.hourglass(x))
        x = x + stack.merge_features(features) + stack.merge_maps(given)
    expected = F.relu(network.encode(network.encoder(x)))
    torch.testing.assert_close(network.latent(image, given).features, expected)

    assert torch.equal(out.heatmaps[0], plain.heatmaps[0])  # made before any map is merged
    assert not torch.equal(out.heatmaps[1], plain.heatmaps[1])
    assert not torch.equal(out.heatmaps[1], given)
    assert (out.vertices - plain.vertices).abs().max() > 1e-5


@pytest.mark.parametrize("config", [LightConfig(input_size=64), SMALL], ids=["light", "paper"])
def test_given_maps_train_and_follow_autocast(topology: Topology, config: NetworkConfig) -> None:
    network = untrained(config, topology).train()
    given = torch.rand(2, 21, 16, 16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = network(images(config), given)
    assert out.vertices.dtype == out.heatmaps[-1].dtype == torch.float32
    out.vertices.square().sum().backward()
    assert given.grad is not None
    assert given.grad.abs().max() > 0


@pytest.mark.parametrize("config", [LightConfig(input_size=64), SMALL], ids=["light", "paper"])
@pytest.mark.parametrize("shape", [(2, 21, 32, 32), (1, 21, 16, 16), (2, 20, 16, 16), (21, 16)])
def test_other_maps_are_refused(
    topology: Topology, config: NetworkConfig, shape: tuple[int, ...]
) -> None:
    network = untrained(config, topology)
    with pytest.raises(InputError, match=r"expected heat-maps \(2, 21, 16, 16\)"):
        network(images(config), torch.zeros(shape))


@pytest.mark.parametrize("config", [LightConfig(input_size=64), SMALL], ids=["light", "paper"])
def test_every_parameter_is_the_trunks_or_the_heads(
    topology: Topology, config: NetworkConfig
) -> None:
    network = untrained(config, topology)
    assert network.head_name == "mesh"
    trunk, head = list(network.trunk_parameters()), list(network.head_parameters())
    assert {*map(id, trunk)} | {*map(id, head)} == {*map(id, network.parameters())}
    assert len(trunk) + len(head) == len(list(network.parameters()))
    # The features depend on no parameter of the head.
    reached = torch.autograd.grad(
        network.latent(images(config)).features.sum(), head, allow_unused=True
    )
    assert all(g is None for g in reached)
