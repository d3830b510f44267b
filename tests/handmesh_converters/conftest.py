"""Small networks with weights and batch statistics far from their initial ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conversions import Remembering
from numpy.typing import NDArray
from torch import nn

from handmesh.bundle import Bundle
from handmesh.graph import Topology
from handmesh.nn import (
    DecoderConfig,
    LightConfig,
    LightNetwork,
    NetworkConfig,
    PaperConfig,
    PaperNetwork,
    StageConfig,
    build,
)
from handmesh_converters.export import write_bundle
from handmesh_converters.formats import onnx as onnx_format
from handmesh_converters.request import Request

_DECODER = DecoderConfig(
    coarse_features=8,
    middle_channels=(8, 6),
    fine_channels=5,
    pose_fine_channels=(4, 4),
    pose_middle_channels=(4, 4),
    pose_hidden=64,
    pose_template_prior=True,
)
LIGHT = LightConfig(
    input_size=32,
    stem_channels=8,
    stages=tuple(
        StageConfig(block, 8, 1, expansion=2.0)
        for block in ("fused", "fused", "separable", "separable")
    ),
    pyramid_channels=(8, 8, 8),
    pyramid_depth=(1, 1, 1),
    joint_channels=4,
    global_channels=4,
    latent=16,
    decoder=_DECODER,
)
PAPER = PaperConfig(
    input_size=32,
    features=16,
    stacks=1,
    hourglass_depth=1,
    residuals_per_position=1,
    encoder_levels=2,
    latent=16,
    decoder=_DECODER,
)


def _randomised(config: NetworkConfig, topology: Topology) -> LightNetwork | PaperNetwork:
    """A network in which no parameter and no batch statistic is what initialisation made it."""
    torch.manual_seed(7)
    network = build(config, topology)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0.0, 0.3)
                module.running_var.uniform_(0.5, 2.0)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0.0, 0.3)
        # A hand's width of offsets, where initial ones are small.
        network.head.decoder.out.weight.normal_()
        network.pose_regressor.fc2.weight.normal_(0.0, 0.05)
        network.pose_regressor.fc2.bias.normal_(0.0, 0.1)
        if isinstance(network, LightNetwork):
            network.confidence.normal_()
            network.confidence_bias.normal_()
    return network.eval()


def _random_crops(count: int, size: int = LIGHT.input_size) -> NDArray[np.uint8]:
    rng = np.random.default_rng(count)
    return rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def topology() -> Topology:
    return Topology.default()


@pytest.fixture(scope="session")
def light_config() -> LightConfig:
    return LIGHT


@pytest.fixture(scope="session")
def make_network(topology: Topology) -> Callable[[NetworkConfig], LightNetwork | PaperNetwork]:
    return lambda config: _randomised(config, topology)


@pytest.fixture(scope="session")
def random_crops() -> Callable[..., NDArray[np.uint8]]:
    """(count, size=32) -> (count, size, size, 3) uint8."""
    return _random_crops


@pytest.fixture(scope="session")
def light(topology: Topology) -> LightNetwork | PaperNetwork:
    return _randomised(LIGHT, topology)


@pytest.fixture(scope="session")
def paper(topology: Topology) -> LightNetwork | PaperNetwork:
    return _randomised(PAPER, topology)


@pytest.fixture(scope="session")
def crops() -> NDArray[np.uint8]:
    """(6, 32, 32, 3), for the light network."""
    return _random_crops(6)


@pytest.fixture(scope="session")
def onnx_exports() -> Remembering[Any]:
    """In place of torch's exporter, for what comes after it."""
    return Remembering(onnx_format._exported)


@pytest.fixture(scope="session")
def light_bundle(
    tmp_path_factory: pytest.TempPathFactory,
    light: LightNetwork,
    topology: Topology,
    crops: NDArray[np.uint8],
    onnx_exports: Remembering[Any],
) -> Bundle:
    """A bundle of the light network with its ONNX artifact, exact. Not to be written to."""
    folder: Path = tmp_path_factory.mktemp("bundles") / "small"
    provenance = {"made": "in a test"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_format, "_exported", onnx_exports)
        written = write_bundle(
            light,
            topology,
            folder,
            crops,
            provenance=provenance,
            weights="fp32",
            request=Request(precision="fp32"),
        )
    return written.bundle
