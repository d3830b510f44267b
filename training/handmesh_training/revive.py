"""Begin anew with dead units of `light`'s latent layers (python -m handmesh_training.revive).

A ReLU unit whose pre-activation is below 0 on every picture gives 0, gets no gradient and stays so.
Where training begins, the layer that reads the gathered features is nearly blind to them (they are
small), and Adam's steps, all of one size, push unit after unit below 0. What is left of the layer
is a bottleneck that no more training widens.

Here a dead unit gets random incoming weights, and outgoing ones of 0, so that the network gives
what it gave before wherever the unit was dead. So do Sokar et al. (The Dormant Neuron Phenomenon,
ICML 2023) time and again during training; here it is done once, of units that no crop activates.
The hidden layer behind the first also writes to the channels of dead units. What it writes is
gathered on one channel for each of its active units, and those channels' own units stay dead.
"""

from __future__ import annotations

if __name__ == "__main__":
    from handmesh.cli_shared import run_module

    run_module(__spec__, "training")

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from handmesh.errors import InputError
from handmesh.graph import Topology
from handmesh.nn import LightConfig, LightNetwork, build, load_weights, read_config

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

# Batches of so many crops tell which units are active.
BATCH, BATCHES = 128, 20
# Standard deviation of a new unit's pre-activation over the crops; its mean is 0.
SPREAD = 1.0
# No outgoing weight grows by more than the inverse of it: large weights are stored in float16.
LEAST_SCALE = 1e-2


class Active(NamedTuple):
    """Which units some crop activates.

    Attributes:
        encode: (latent,) bool, of the layer that reads the features.
        reason: (latent,) bool, of the hidden layer behind it.
    """

    encode: Tensor
    reason: Tensor


def read_features(network: LightNetwork, batches: Iterable[Tensor]) -> Tensor:
    """What `encode` reads of images: (N, F) float32, for `active_units` and `revive`.

    Args:
        network: left in the mode it was in. batches: (B, 3, S, S) float32 each, as it takes them.

    Raises:
        InputError: no batch.
    """
    found: list[Tensor] = []
    hook = network.encode.register_forward_hook(lambda _, given, __: found.append(given[0]))
    training = network.training
    network.eval()  # norms keep their statistics
    try:
        with torch.no_grad():
            for images in batches:
                network.latent(images)
    finally:
        hook.remove()
        network.train(training)
    if not found:
        raise InputError("expected a batch of images or more, got none")
    return torch.cat(found)


@torch.no_grad()
def active_units(network: LightNetwork, features: Tensor) -> Active:
    """Which units are active on one at least of the features (N, F) float32."""
    pre_activation = network.encode(features)
    hidden = network.reason.expand(pre_activation.relu())
    return Active((pre_activation > 0).any(dim=0), (hidden > 0).any(dim=0))


@torch.no_grad()
def revive(network: LightNetwork, features: Tensor, seed: int = 0) -> None:
    """Let dead units begin anew, in place; on these features the network's outputs stay.

    All dead units of the hidden layer begin anew. Of `encode`'s, D in number, D - A do, if that is
    above 0, where A units of the hidden layer are active: those take a channel each.

    Args:
        network: float32, on the CPU. features: (N, F) float32, see `read_features`.
        seed: of the new weights. They also hang on this machine's eigenvectors.

    Raises:
        InputError: fewer than two rows of features, or some that are not finite.
    """
    if len(features) < 2 or not features.isfinite().all():
        raise InputError(
            f"expected features of two crops or more, all finite, got {len(features)} with "
            f"{int((~features.isfinite()).sum())} values that are not"
        )
    generator = torch.Generator().manual_seed(seed)
    active = active_units(network, features)
    encode, reason = network.encode, network.reason
    dead, writing = (~active.encode).nonzero()[:, 0], active.reason.nonzero()[:, 0]
    if len(dead) > len(writing):
        _gather(network, active.encode, dead, writing)
        _begin(encode, dead[len(writing) :], features, generator)
    _begin(reason.expand, (~active.reason).nonzero()[:, 0], encode(features).relu(), generator)
    reason.project.weight[:, ~active.reason] = 0


def _gather(network: LightNetwork, active: Tensor, dead: Tensor, writing: Tensor) -> None:
    """Let unit i of the hidden layer's ``writing`` write to channel ``dead[i]`` and to no other.

    The latent vector is x + P r + b, of `encode`'s units x, the hidden layer's r and the bias b of
    its projection P. A layer with weight W reads W x + (W P) r + W b: P r moves into W.
    """
    project, width = network.reason.project, len(active)
    own, rest = dead[: len(writing)], dead[len(writing) :]
    projection, bias = project.weight[:, writing].double(), project.bias.double()
    # The latent vector comes first in what the decoder reads, and last in what handedness is of.
    handedness: Any = network.handedness[0]
    readers = [(network.head.decoder.expand, 0), (handedness, handedness.in_features - width)]
    weights = [layer.weight[:, start : start + width].double() for layer, start in readers]
    # Afterwards columns are as long as the usual ones, for Adam's steps are all of one size.
    lengths = []
    for weight in weights:
        usual = weight[:, active].norm(dim=0).median() if active.any() else weight.norm()
        lengths.append((weight @ projection).norm(dim=0) / usual.clamp(min=1e-6))
    scale = torch.stack(lengths).amax(dim=0).clamp(min=LEAST_SCALE)
    for (layer, start), weight in zip(readers, weights, strict=True):
        layer.bias += (weight @ bias).float()
        layer.weight[:, start + own] = (weight @ projection / scale).float()
        layer.weight[:, start + rest] = 0
    project.weight.zero_()
    project.bias.zero_()
    project.weight[own, writing] = scale.float()
    network.reason.expand.weight[:, dead] = 0
    network.encode.weight[own] = 0
    network.encode.bias[own] = -1  # for good: the channel is taken


def _begin(layer: nn.Linear, units: Tensor, given: Tensor, generator: torch.Generator) -> None:
    """Random incoming weights for these units of a layer that reads ``given`` (N, F).

    Along a principal axis of ``given`` they are as large as the fourth root of its variance. With
    all axes alike a unit would see little but those that hardly vary, as most do; in proportion to
    the standard deviation, little but the first few.
    """
    variance, axes = torch.linalg.eigh(torch.cov(given.T.double()))
    drawn = torch.randn(len(units), len(axes), generator=generator, dtype=torch.float64)
    weight = (drawn * variance.clamp(min=0) ** 0.25) @ axes.T  # (units, F)
    pre_activation = given.double() @ weight.T  # (N, units)
    scale = SPREAD / pre_activation.std(dim=0).clamp(min=1e-6)
    layer.weight[units] = (weight * scale[:, None]).float()
    layer.bias[units] = (-pre_activation.mean(dim=0) * scale).float()


def _images(options: argparse.Namespace, side: int) -> Iterator[Tensor]:
    """Batches of rendered hands, and of photos where they are given, augmented as in training."""
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


def _load(text: str) -> tuple[LightNetwork, LoadedNetwork]:
    """Of a checkpoint or a bundle."""
    path = weights_file(text)
    if path.suffix == ".pt":
        loaded = load_network(path)
    elif isinstance(config := read_config(path), LightConfig):
        topology = Topology.default()
        whole = build(config, topology)
        load_weights(whole, path, config, topology)
        loaded = LoadedNetwork(whole.eval(), config, "mesh", step=0, images_seen=0)
    else:
        raise InputError(f"{text} is of {config.name}: dead units are found in `light`")
    if not isinstance(loaded.network, LightNetwork):
        raise InputError(
            f"{text} is of {loaded.config.name} with the head {loaded.head}: dead units are found "
            "in `light` with the head mesh"
        )
    return loaded.network, loaded


def main(arguments: list[str] | None = None) -> int:
    """Revive, write the checkpoint, and tell how many units are active."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("weights", metavar="WEIGHTS", help="of `light`: a checkpoint or a bundle")
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="checkpoint to write, NAME.pt; it cannot be resumed"
    )
    parser.add_argument("--seed", type=int, default=0, help="of crops and new weights (default 0)")
    add_surroundings(parser)
    add_photos(parser)
    options = parser.parse_args(arguments)
    if options.out.suffix != ".pt" or options.out.is_dir():
        raise InputError(f"a checkpoint's name ends in .pt, and {options.out} is none")
    network, loaded = _load(options.weights)
    options.out.parent.mkdir(parents=True, exist_ok=True)  # before work that takes a minute
    features = read_features(network, _images(options, loaded.input_size))
    before = active_units(network, features)
    revive(network, features, options.seed)
    after = active_units(network, features)
    for name, was, now in zip(Active._fields, before, after, strict=True):
        print(f"{name}: of {len(was)} units {int(was.sum())} were active, {int(now.sum())} are now")
    state = {
        "average": network.state_dict(), "step": loaded.step, "images_seen": loaded.images_seen,
    }  # fmt: skip
    write_checkpoint(options.out, describe_network(loaded.config, loaded.head) | state)
    return 0
