"""Dead units of the latent layers begin anew, and the network stays the function it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from handmesh.errors import InputError
from handmesh.graph import Topology
from handmesh.nn import LightConfig, LightNetwork, build
from handmesh_training.checkpoint import describe_network, load_network, write_checkpoint
from handmesh_training.heads import build_network
from handmesh_training.revive import SPREAD, Living, living, main, read_features, revive

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


def counts(alive: Living) -> tuple[int, int]:
    return int(alive.encode.sum()), int(alive.reason.sum())


def test_the_network_is_the_same_function_with_more_living_units(
    tiny_config: LightConfig, images: Tensor
) -> None:
    network = half_dead(tiny_config)
    features = read_features(network, iter(images[:128].split(32)))
    assert features.shape == (128, network.encode.in_features)
    lived_encode, lived_reason = counts(living(network, features))
    assert 4 < lived_encode <= ENCODE
    assert 4 < lived_reason <= REASON
    with torch.no_grad():
        before = network(images)  # 32 of them not among the features
        revive(network, features)
        after = network(images)

    assert counts(living(network, features)) == (32 - lived_reason, 32)
    for name in ("vertices", "joints", "handedness_logit", "presence_logit", "confidence_logits"):
        was, now = getattr(before, name), getattr(after, name)
        assert torch.allclose(was, now, atol=2e-5 * float(was.abs().max())), name


def test_new_units_fire_on_half_of_the_pictures_and_learn(
    tiny_config: LightConfig, images: Tensor
) -> None:
    network = half_dead(tiny_config)
    features = read_features(network, iter([images]))
    old = living(network, features)
    revive(network, features)
    new = living(network, features).encode & ~old.encode
    with torch.no_grad():
        inputs = network.encode(features)
    assert torch.allclose(inputs[:, new].mean(0), torch.zeros(int(new.sum())), atol=1e-3)
    assert torch.allclose(inputs[:, new].std(0), torch.tensor(SPREAD), rtol=1e-3)
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
    features = read_features(network, iter([images]))
    alive = living(network, features)
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
        revive(network, read_features(network, iter([images])), seed)
        drawn.append(network.encode.weight.detach().clone())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.usefixtures("quick_surroundings")
def test_the_command_writes_a_checkpoint_and_tells_what_lives(
    tiny_config: LightConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("handmesh_training.revive.BATCH", 32)
    monkeypatch.setattr("handmesh_training.revive.BATCHES", 2)
    old, new = tmp_path / "old.pt", tmp_path / "folder" / "new.pt"
    average = half_dead(tiny_config).state_dict()
    state = {"average": average, "step": 7, "images_seen": 70}
    write_checkpoint(old, describe_network(tiny_config, "mesh") | state)

    assert main([str(old), str(new)]) == 0

    loaded = load_network(new)
    assert (loaded.step, loaded.images_seen) == (7, 70)
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2
    assert told[1].startswith("reason: of 32 units ")
    assert told[1].endswith(" were alive, 32 are now")
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
    assert not (tmp_path / "new.pt").exists()
