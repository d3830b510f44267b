"""Networks that studies train: small ones from nothing, or a head on a trained trunk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from handmesh import Bundle
from handmesh.errors import InputError
from handmesh.nn import (
    DetectorConfig,
    LightConfig,
    MeshConfig,
    NetworkConfig,
    PaperConfig,
    StageConfig,
    from_dict,
)

from ..checkpoint import load_network
from ..recipe import Recipe

# A tenth of the networks that are shipped: the comparison is between ways of training.
SMALL_LIGHT = LightConfig(
    input_size=64,
    stages=(
        StageConfig("fused", 24, 1, 2.0),
        StageConfig("fused", 32, 2, 2.0),
        StageConfig("separable", 64, 3, 3.0),
        StageConfig("separable", 96, 2, 3.0),
    ),
    pyramid_channels=(24, 32, 48),
    pyramid_depth=(1, 1, 1),
    latent=128,
)
SMALL_PAPER = PaperConfig(input_size=64, features=48, residuals_per_position=1, latent=128)
CONFIGS: dict[str, MeshConfig] = {"light": SMALL_LIGHT, "paper": SMALL_PAPER}
RECIPE = Recipe(batch=32, warmup=100, schedule="cosine", average=0.99)
# Of a trunk that is trained already, under a head that is not.
STARTED = replace(RECIPE, learning_rate=1e-3)


def trained_network(name: str) -> tuple[MeshConfig, Path]:
    """What a network is, and its weights: a checkpoint's (.pt) or a bundle's.

    Raises:
        BundleError, CheckpointError: there is none, or it cannot be read.
        InputError: it is a detector.
    """
    path = Path(name)
    if path.suffix == ".pt":
        return _of_meshes(load_network(path).config, name), path
    bundle = Bundle.load(name)
    config = _of_meshes(from_dict(bundle.manifest["config"]), name)
    return config, Path(bundle.artifact("torch"))


def _of_meshes(config: NetworkConfig, name: str) -> MeshConfig:
    if isinstance(config, DetectorConfig):
        raise InputError(f"{name} is a detector, which has no meshes: name another network")
    return config
