"""Weights of one crop size, for a network of another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional

from handmesh.graph import Topology
from handmesh.nn import LightConfig, MeshConfig, PaperConfig, build
from handmesh_training.heads import build_network
from handmesh_training.input_size import differ_in_size_alone, fit_input_size

TINY_PAPER = PaperConfig(input_size=64, features=16, residuals_per_position=1, latent=32)


@pytest.fixture(params=["light", "paper"])
def config(request: pytest.FixtureRequest, tiny_config: LightConfig) -> MeshConfig:
    """At 64 px: `light` flattens two by two cells, `paper` one."""
    return tiny_config if request.param == "light" else TINY_PAPER


def weights_of(config: MeshConfig) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return build(config, Topology.default()).state_dict()


@pytest.mark.parametrize("size", [128, 192])
def test_only_the_layer_behind_the_flattened_map_changes(config: MeshConfig, size: int) -> None:
    before, wanted = weights_of(config), replace(config, input_size=size)
    after = fit_input_size(before, config, wanted)
    network = build(wanted, Topology.default())
    network.load_state_dict(after)
    assert {n for n in before if before[n] is not after[n]} == {"encode.weight"}


@pytest.mark.parametrize(("small", "large"), [(64, 128), (64, 192), (128, 192), (192, 128)])
def test_constant_features_are_answered_alike(config: MeshConfig, small: int, large: int) -> None:
    """What follows the flattened map sees no difference in size where there is nothing to see."""
    made_for, wanted = replace(config, input_size=small), replace(config, input_size=large)
    before = weights_of(made_for)["encode.weight"].double()
    after = fit_input_size({"encode.weight": before}, made_for, wanted)["encode.weight"]
    if isinstance(config, LightConfig):
        channels, cells, more = config.global_channels, (small // 32) ** 2, (large // 32) ** 2
    else:
        channels, cells, more = config.features, (small // 64) ** 2, (large // 64) ** 2
    constant = torch.randn(channels, dtype=torch.float64)
    rest = torch.randn(before.shape[1] - channels * cells, dtype=torch.float64)
    one = before @ torch.cat([constant.repeat_interleave(cells), rest])
    two = after @ torch.cat([constant.repeat_interleave(more), rest])
    assert torch.allclose(one, two, atol=1e-12)


def test_each_cell_keeps_its_place() -> None:
    """The layer answers as before to the averages over each quarter of a finer map."""
    config = replace(TINY_PAPER, input_size=128)  # two by two cells
    before = weights_of(config)["encode.weight"]
    wanted = replace(config, input_size=256)
    after = fit_input_size({"encode.weight": before}, config, wanted)["encode.weight"]
    fine = torch.randn(5, 16, 4, 4)
    coarse = functional.avg_pool2d(fine, 2)
    assert torch.allclose(fine.flatten(1) @ after.T, coarse.flatten(1) @ before.T, atol=1e-5)
    back = fit_input_size({"encode.weight": after}, wanted, config)["encode.weight"]
    enlarged = functional.interpolate(coarse, (4, 4), mode="bilinear", align_corners=False)
    assert torch.allclose(coarse.flatten(1) @ back.T, enlarged.flatten(1) @ after.T, atol=1e-5)


def test_other_heads_carry_the_same_layer(tiny_config: LightConfig) -> None:
    network = build_network(tiny_config, Topology.default(), "joints")
    wanted = replace(tiny_config, input_size=128)
    fitted = fit_input_size(network.state_dict(), tiny_config, wanted)
    build_network(wanted, Topology.default(), "joints").load_state_dict(fitted)


@pytest.mark.parametrize(
    "change", [{"latent": 40}, {"pyramid_depth": (2, 1, 1)}, {"latent": 40, "input_size": 128}]
)
def test_networks_that_differ_otherwise_are_left_alone(
    tiny_config: LightConfig, change: dict[str, Any]
) -> None:
    before, other = weights_of(tiny_config), replace(tiny_config, **change)
    assert not differ_in_size_alone(tiny_config, other)
    after = fit_input_size(before, tiny_config, other)
    assert all(after[name] is before[name] for name in before)


def test_one_network_is_not_another(tiny_config: LightConfig) -> None:
    assert not differ_in_size_alone(tiny_config, TINY_PAPER)
    assert not differ_in_size_alone(TINY_PAPER, tiny_config)
    assert differ_in_size_alone(tiny_config, tiny_config)
    before = weights_of(tiny_config)
    assert fit_input_size(before, tiny_config, tiny_config).keys() == before.keys()
