"""Dead units of the latent layers begin anew, and the network stays the function it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from handmesh.errors import InputError
from handmesh.graph import Topology
from handmesh.nn import LightConfig, LightNetwork, build
from handmesh_training import revive as module
from handmesh_training.checkpoint import describe_network, load_network, write_checkpoint
from handmesh_training.heads import build_network
from handmesh_training.revive import SPREAD, Active, active_units, main, read_features, revive
from handmesh_training.stream import CropStream
from handmesh_training.stream_settings import StreamSettings

# Of the tiny network's 32 units: so many of `encode` live, and of the hidden layer behind it.
ENCODE, REASON = 9, 11


def half_dead(config: LightConfig, encode: int = ENCODE, reason: int = REASON) -> LightNetwork:
    """A network with random weights everywhere of which so many units live."""
    torch.manual_seed(3)
    network = build(config, Topology.default())
    assert isinstance(network, LightNetwork)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=parameter.shape[1] ** -0.5)
        # Features of a network that was never trained hardly differ from picture to picture.
        network.encode.weight.mul_(30.0)
        network.encode.bias.normal_()
        if encode == config.latent:  # none is dead by chance
            network.encode.bias.add_(60.0)
        network.encode.bias[encode:] = -1e3
        network.reason.expand.bias.normal_()
        network.reason.expand.bias[: config.latent - reason] = -1e3
        network.reason.project.bias.normal_()
    return network.eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    generator = torch.Generator().manual_seed(4)
    coarse = torch.rand(160, 3, 8, 8, generator=generator) - 0.5
    return torch.nn.functional.interpolate(coarse, (64, 64), mode="bilinear")


def counts(active: Active) -> tuple[int, int]:
    return int(active.encode.sum()), int(active.reason.sum())


@pytest.mark.parametrize(("encode", "reason"), [(ENCODE, REASON), (32, REASON), (ENCODE, 32)])
def test_the_network_is_the_same_function_with_more_active_units(
    tiny_config: LightConfig, images: Tensor, encode: int, reason: int
) -> None:
    network = half_dead(tiny_config, encode, reason)
    features = read_features(network, images[:128].split(32))
    assert features.shape == (128, network.encode.in_features)
    was_encode, was_reason = counts(active_units(network, features))
    assert 4 < was_encode <= encode
    assert 4 < was_reason <= reason
    with torch.no_grad():
        before = network(images)  # 32 of them not among the features
        revive(network, features)
        after = network(images)

    # Each active unit of the hidden layer takes a channel, where there are that many.
    expected = max(was_encode, 32 - was_reason)
    assert counts(active_units(network, features)) == (expected, 32)
    for name in ("vertices", "joints", "handedness_logit", "presence_logit", "confidence_logits"):
        was, now = getattr(before, name), getattr(after, name)
        assert torch.allclose(was, now, rtol=0, atol=5e-6 * float(was.abs().max())), name


def test_weights_of_what_reads_the_latent_vector_are_of_one_size(
    tiny_config: LightConfig, images: Tensor
) -> None:
    """One hidden unit that handedness alone reads among those that the mesh reads."""
    network = half_dead(tiny_config)
    features = read_features(network, [images])
    encode, reason = active_units(network, features)
    (lonely, *_), (channel, *_) = reason.nonzero()[:, 0], (~encode).nonzero()[:, 0]
    with torch.no_grad():
        network.reason.project.weight[:, lonely] = 0
        network.reason.project.weight[channel, lonely] = 1
        network.head.decoder.expand.weight[:, channel] *= 1e-6
    revive(network, features)
    written = network.reason.project.weight.nonzero()[:, 0]
    readers = {
        network.head.decoder.expand: 0,
        network.handedness[0]: tiny_config.stages[-1].channels,
    }
    longest = torch.zeros(len(written))
    for layer, start in readers.items():
        lengths = layer.weight[:, start : start + 32].detach().norm(dim=0)
        usual = lengths[encode].median()
        longest = torch.maximum(longest, lengths[written] / usual)
    assert torch.allclose(longest, torch.ones(len(written)), rtol=1e-3)


def test_new_units_fire_on_half_of_the_pictures_and_learn(
    tiny_config: LightConfig, images: Tensor
) -> None:
    network = half_dead(tiny_config)
    features = read_features(network, [images])
    old = active_units(network, features)
    revive(network, features)
    new = active_units(network, features).encode & ~old.encode
    with torch.no_grad():
        inputs = network.encode(features)
    assert torch.allclose(inputs[:, new].mean(0), torch.zeros(int(new.sum())), atol=1e-3)
    assert torch.allclose(inputs[:, new].std(0), torch.tensor(SPREAD), rtol=1e-3)
    assert not network.encode._forward_hooks
    # Nothing reads them at first; one step, and something does.
    for _ in range(2):
        network.zero_grad()
        output = network(images)
        (output.vertices.square().mean() + output.handedness_logit.square().mean()).backward()
        torch.optim.SGD(network.parameters(), lr=1e-3).step()
    rows = network.encode.weight.grad
    assert rows is not None
    assert (rows[new].norm(dim=1) > 0).all()
    inner = network.reason.expand.weight.grad
    assert inner is not None
    assert (inner[~old.reason].norm(dim=1) > 0).all()


def test_units_that_live_stay_as_they_are(tiny_config: LightConfig, images: Tensor) -> None:
    network = half_dead(tiny_config, encode=32, reason=32)
    features = read_features(network, [images])
    alive = active_units(network, features)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    revive(network, features)
    now = network.state_dict()
    for name in ("encode.weight", "encode.bias"):  # the hidden layer needs all dead channels
        assert torch.equal(now[name], state[name]), name
    for name in ("reason.expand.weight", "reason.expand.bias"):
        assert torch.equal(now[name][alive.reason], state[name][alive.reason]), name


def test_new_units_are_drawn_from_the_seed(tiny_config: LightConfig, images: Tensor) -> None:
    drawn = []
    for seed in (0, 0, 1):
        network = half_dead(tiny_config)
        revive(network, read_features(network, [images]), seed)
        drawn.append(network.encode.weight.detach().clone())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_new_weights_favour_axes_that_vary_by_the_fourth_root_of_variance() -> None:
    layer = torch.nn.Linear(40, 400)
    generator = torch.Generator().manual_seed(0)
    spread = torch.ones(40)
    spread[:20] = 0.01
    turn = torch.linalg.qr(torch.randn(40, 40, generator=generator))[0]
    given = (torch.randn(4000, 40, generator=generator) * spread) @ turn.T + 5
    with torch.no_grad():
        module._begin(layer, torch.arange(400), given, generator)
    weight = layer.weight.detach() @ turn
    weak, strong = weight[:, :20].square().mean(), weight[:, 20:].square().mean()
    # Variances 1 to 10,000, fourth roots 1 to 10.
    assert float((strong / weak).sqrt()) == pytest.approx(10, rel=0.1)


def test_networks_stay_in_their_mode_and_norms_as_they_are(
    tiny_config: LightConfig, images: Tensor
) -> None:
    network = half_dead(tiny_config).train()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    read_features(network, [images[:8]])
    assert network.training
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_features_that_cannot_be_are_refused(tiny_config: LightConfig, images: Tensor) -> None:
    network = half_dead(tiny_config)
    with pytest.raises(InputError, match="got none"):
        read_features(network, [])
    features = read_features(network, [images[:4]])
    state = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InputError, match="two crops or more"):
        revive(network, features[:1])
    features[2, 3] = torch.nan
    with pytest.raises(InputError, match="1 values that are not"):
        revive(network, features)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@pytest.mark.usefixtures("quick_surroundings")
def test_the_command_writes_a_checkpoint_and_tells_what_lives(
    tiny_config: LightConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BATCH", 32)
    monkeypatch.setattr(module, "BATCHES", 2)
    seeds: list[int] = []
    streams: list[StreamSettings] = []

    def noting(network: LightNetwork, features: Tensor, seed: int) -> None:
        seeds.append(seed)
        revive(network, features, seed)

    def opening(settings: StreamSettings, seed: int) -> CropStream:
        seeds.append(seed)
        streams.append(settings)
        return CropStream(replace(settings, photos=()), seed)

    monkeypatch.setattr(module, "revive", noting)
    monkeypatch.setattr(module, "CropStream", opening)
    old, new = tmp_path / "old.pt", tmp_path / "folder" / "new.pt"
    average = half_dead(tiny_config).state_dict()
    state = {"average": average, "step": 7, "images_seen": 70}
    write_checkpoint(old, describe_network(tiny_config, "mesh") | state)

    assert main([str(old), str(new), "--seed", "5", "--photos", "some"]) == 0

    assert seeds == [5, 5]
    (settings,) = streams
    assert settings.photos == (Path("some"),)
    assert (settings.augment.input_size, settings.render.crop_px) == (64, 80)
    loaded = load_network(new)
    assert (loaded.step, loaded.images_seen) == (7, 70)
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2
    assert told[1].startswith("reason: of 32 units ")
    assert told[1].endswith(" were active, 32 are now")
    assert not torch.equal(loaded.network.state_dict()["encode.weight"], average["encode.weight"])


@pytest.mark.usefixtures("quick_surroundings")
def test_a_bundle_will_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handmesh_training.revive.BATCH", 16)
    monkeypatch.setattr("handmesh_training.revive.BATCHES", 1)
    assert main(["light", str(tmp_path / "new.pt")]) == 0
    loaded = load_network(tmp_path / "new.pt")
    assert (loaded.step, loaded.images_seen, loaded.input_size) == (0, 0, 128)
    assert capsys.readouterr().out.startswith("encode: of 256 units ")


def test_other_networks_are_refused(tiny_config: LightConfig, tmp_path: Path) -> None:
    other = tmp_path / "other.pt"
    network = build_network(tiny_config, Topology.default(), "joints")
    state = {"average": network.state_dict(), "step": 0, "images_seen": 0}
    write_checkpoint(other, describe_network(tiny_config, "joints") | state)
    with pytest.raises(InputError, match="with the head mesh"):
        main([str(other), str(tmp_path / "new.pt")])
    with pytest.raises(InputError, match="dead units are found in `light`"):
        main(["detector", str(tmp_path / "new.pt")])
    assert not (tmp_path / "new.pt").exists()


@pytest.mark.parametrize("name", ["new", "new.safetensors", "folder.pt"])
def test_other_names_are_refused_before_the_work(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(InputError, match=r"ends in \.pt"):
        main(["light", str(tmp_path / name)])
