"""Units of `light`'s latent layers that have died, brought back:
``python -m handmesh_training.revive WEIGHTS OUT``.

A unit whose input is below 0 on every picture gives 0, gets no gradient and stays so. At first the
layer that reads the gathered features is nearly blind to them (they are small), and Adam's steps,
all of one size, push a unit below 0 within a few dozen batches. What is left of the layer is a
bottleneck that no more training widens.

Dead units begin anew with random weights, and nothing reads them at first (Sokar et al., The
Dormant Neuron Phenomenon, ICML 2023), so that the network is the same function as before. With one
difference: here other layers write to the channels of dead units as well. These are gathered on a
few channels first, which stay theirs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from handmesh.cli_shared import exit_code
from handmesh.errors import InputError
from handmesh.graph import Topology
from handmesh.nn import LightNetwork, build, load_weights, read_config

from .augment import Augmentation
from .checkpoint import (
    LoadedNetwork,
    describe_network,
    load_network,
    weights_file,
    write_checkpoint,
)
from .cli_options import add_photos, add_surroundings
from .rendered import RenderSettings
from .sources import to_input
from .stream import CropStream
from .stream_settings import StreamSettings

# Batches of so many crops tell which units live.
BATCH, BATCHES = 128, 20
# Standard deviation of a new unit's input over the crops; its mean is 0.
SPREAD = 1.0


class Living(NamedTuple):
    """Which units some crop makes positive.

    Attributes:
        encode: (latent,) bool, of the layer that reads the features.
        reason: (latent,) bool, of the hidden layer behind it.
    """

    encode: Tensor
    reason: Tensor


def read_features(network: LightNetwork, batches: Iterator[Tensor]) -> Tensor:
    """(N, F) float32 what `encode` reads of all images (B, 3, S, S) of the batches."""
    found: list[Tensor] = []
    hook = network.encode.register_forward_hook(lambda _, given, __: found.append(given[0]))
    try:
        with torch.no_grad():
            for images in batches:
                network.latent(images)
    finally:
        hook.remove()
    return torch.cat(found)


@torch.no_grad()
def living(network: LightNetwork, features: Tensor) -> Living:
    """Which units live on these features (N, F)."""
    before = network.encode(features)
    inside = network.reason.expand(before.relu())
    return Living((before > 0).any(dim=0), (inside > 0).any(dim=0))


@torch.no_grad()
def revive(network: LightNetwork, features: Tensor, seed: int = 0) -> None:
    """Let dead units begin anew, in place; on these features (N, F) the network's outputs stay.

    All dead units of the hidden layer begin anew, and of `encode` as many as there are more dead
    ones than the hidden layer has living ones: those need a channel each.
    """
    generator = torch.Generator().manual_seed(seed)
    before, inside = living(network, features)
    encode, reason = network.encode, network.reason
    dead, writing = (~before).nonzero()[:, 0], inside.nonzero()[:, 0]
    if len(dead) > len(writing):
        _gather(network, before, dead, writing)
        free = dead[len(writing) :]
        _begin(encode, free, features, generator)
    _begin(reason.expand, (~inside).nonzero()[:, 0], encode(features).relu(), generator)
    reason.project.weight[:, ~inside] = 0


def _gather(network: LightNetwork, before: Tensor, dead: Tensor, writing: Tensor) -> None:
    """Let unit i of those ``writing`` write to channel ``dead[i]`` alone, and nothing to others.

    What read the channels reads the same from there: hidden = x + P r + b, with r the hidden
    layer's units, is read as W hidden = W x + (W P) r + W b.
    """
    project, width = network.reason.project, len(before)
    own, rest = dead[: len(writing)], dead[len(writing) :]
    written, shift = project.weight[:, writing].double(), project.bias.double()
    # The hidden vector comes first in what the decoder reads, and last in what tells the side.
    side: Any = network.handedness[0]
    readers = [(network.head.decoder.expand, 0), (side, side.in_features - width)]
    through = [(layer, layer.weight[:, start : start + width].double()) for layer, start in readers]
    mesh = through[0][1]
    # A reader's weights are all of one size then, as Adam's steps are.
    usual = mesh[:, before].norm(dim=0).median() if before.any() else mesh.new_ones(())
    scale = ((mesh @ written).norm(dim=0) / usual).clamp(min=1e-6)
    for (layer, weight), (_, start) in zip(through, readers, strict=True):
        layer.bias += (weight @ shift).float()
        layer.weight[:, start + own] = (weight @ written / scale).float()
        layer.weight[:, start + rest] = 0
    project.weight.zero_()
    project.bias.zero_()
    project.weight[own, writing] = scale.float()
    network.reason.expand.weight[:, dead] = 0
    network.encode.weight[own] = 0
    network.encode.bias[own] = -1  # dead for good: the channel is taken


def _begin(layer: nn.Linear, units: Tensor, given: Tensor, generator: torch.Generator) -> None:
    """Random weights for these units: over ``given`` (N, F) their inputs have mean 0.

    Directions in which features vary more are likelier, by the fourth root of the variance: with
    all of them alike a unit sees mostly noise, drawn from the features themselves a few dozen.
    """
    variance, axes = torch.linalg.eigh(torch.cov(given.T.double()))
    drawn = torch.randn(len(units), len(axes), generator=generator, dtype=torch.float64)
    weight = (drawn * variance.clamp(min=0) ** 0.25) @ axes.T  # (units, F)
    inputs = given.double() @ weight.T  # (N, units)
    scale = SPREAD / inputs.std(dim=0).clamp(min=1e-6)
    layer.weight[units] = (weight * scale[:, None]).float()
    layer.bias[units] = (-inputs.mean(dim=0) * scale).float()


def _images(options: argparse.Namespace, side: int) -> Iterator[Tensor]:
    """Batches of crops as a training draws them."""
    render = RenderSettings(
        options.skins, options.environments, options.backgrounds, crop_px=side * 5 // 4
    )
    settings = StreamSettings(
        batch=BATCH,
        photos=tuple(options.photos),
        reuse=1.0,
        pool=8 * BATCH,
        chunk=2 * BATCH,
        render=render,
        augment=Augmentation(input_size=side, stored_margin=render.margin),
    )
    lane = CropStream(settings, options.seed).lane(0, 1, 0)
    for _ in range(BATCHES):
        yield to_input(next(lane)["images"])


def _load(text: str) -> LoadedNetwork:
    """Of a checkpoint or a bundle."""
    path = weights_file(text)
    if path.suffix == ".pt":
        return load_network(path)
    config, topology = read_config(path), Topology.default()
    network = build(config, topology)
    load_weights(network, path, config, topology)
    network.pose_regressor.freeze()
    return LoadedNetwork(network.eval(), config, "mesh", step=0, images_seen=0)


def main(arguments: list[str] | None = None) -> int:
    """Revive, write the checkpoint, and tell how many units live."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("weights", metavar="WEIGHTS", help="of `light`: a checkpoint or a bundle")
    parser.add_argument("out", type=Path, metavar="OUT", help="checkpoint to write")
    parser.add_argument("--seed", type=int, default=0)
    add_surroundings(parser)
    add_photos(parser)
    options = parser.parse_args(arguments)
    loaded = _load(options.weights)
    network = loaded.network
    if not isinstance(network, LightNetwork):
        raise InputError(
            f"{options.weights} is of {loaded.config.name} with the head {loaded.head}: "
            "dead units are found in `light` with the head mesh"
        )
    features = read_features(network, _images(options, loaded.input_size))
    before = living(network, features)
    revive(network, features, options.seed)
    after = living(network, features)
    for name in Living._fields:
        was, now = getattr(before, name), getattr(after, name)
        print(f"{name}: of {len(was)} units {int(was.sum())} were alive, {int(now.sum())} are now")
    state = {
        "average": network.state_dict(), "step": loaded.step, "images_seen": loaded.images_seen,
    }  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(options.out, describe_network(loaded.config, loaded.head) | state)
    return 0


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
