"""The choice of heads: what each gives, what of it learns, and a trunk carried over."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from handmesh.errors import ExportError, InputError
from handmesh.graph import Topology
from handmesh.nn import HandNetwork, LightConfig, LightNetwork, NetworkConfig, PaperConfig, build
from handmesh_converters.fold import fold
from handmesh_training.heads import HeadName, HeadNetwork, JointsHead, build_network, load_trunk

PAPER = PaperConfig(input_size=64, features=16, hourglass_depth=2, latent=32)
HEADS: list[HeadName] = ["mesh", "joints", "transfer", "lbs", "parametric"]
MESHES = {"mesh", "parametric"}


@pytest.fixture(scope="module")
def topology() -> Topology:
    return Topology.default()


@pytest.fixture(params=["light", "paper"])
def config(request: pytest.FixtureRequest, tiny_config: LightConfig) -> NetworkConfig:
    return tiny_config if request.param == "light" else PAPER


def crops(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(0)) - 0.5


def seeded(config: NetworkConfig, topology: Topology, head: HeadName) -> HeadNetwork:
    torch.manual_seed(0)
    network = build_network(config, topology, head)
    assert isinstance(network, HeadNetwork)
    return network


@pytest.mark.parametrize("head", HEADS)
def test_every_head_gives_a_hand(config: NetworkConfig, topology: Topology, head: HeadName) -> None:
    network = build_network(config, topology, head)
    given = torch.rand(2, 21, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        out, other = network(crops()), network(crops(), given)
    assert out.joints.shape == (2, 21, 3)
    assert out.vertices.shape == (2, topology.vertex_count if head in MESHES else 0, 3)
    assert out.joints.dtype == out.vertices.dtype == torch.float32
    assert torch.all(out.joints[:, 0, 2] == 0)
    assert other.heatmaps[-1].shape == given.shape
    assert not torch.equal(other.heatmaps[-1], given)
    assert (network.config, network.head_name) == (config, head)
    assert (network.pose_regressor is None) == (head != "mesh")


@pytest.mark.parametrize("head", HEADS)
def test_trunk_and_head_share_out_all_parameters(
    config: NetworkConfig, topology: Topology, head: HeadName
) -> None:
    network = build_network(config, topology, head)
    trunk, own = [*network.trunk_parameters()], [*network.head_parameters()]
    assert len(trunk) > 10
    assert {*map(id, trunk)} | {*map(id, own)} == {*map(id, network.parameters())}
    assert not {*map(id, trunk)} & {*map(id, own)}
    assert all(p.requires_grad == (head != "transfer") for p in trunk)
    assert all(p.requires_grad for p in own)


def test_seeded_alike_trunks_are_alike(config: NetworkConfig, topology: Topology) -> None:
    torch.manual_seed(0)
    mesh = build_network(config, topology, "mesh")
    for head in HEADS[1:]:
        other = seeded(config, topology, head)
        for a, b in zip(mesh.trunk_parameters(), other.trunk_parameters(), strict=True):
            assert torch.equal(a, b)


def test_mesh_is_the_plain_network(tiny_config: LightConfig, topology: Topology) -> None:
    network = build_network(tiny_config, topology, "mesh")
    assert type(network) is LightNetwork
    assert isinstance(network, HandNetwork)


def test_joints_start_at_their_heatmaps(tiny_config: LightConfig, topology: Topology) -> None:
    network = seeded(tiny_config, topology, "joints")
    with torch.no_grad():
        network.head.layers[-1].weight.zero_()
        out = network(crops())
        assert out.heatmap_uv is not None
        torch.testing.assert_close(out.joints[..., :2], out.heatmap_uv)
        # The paper's network has no such points: the middle of the crop.
        head = JointsHead(7)
        head.layers[-1].weight.zero_()
        _, joints = head(torch.randn(3, 7))
    torch.testing.assert_close(joints, torch.tensor([0.5, 0.5, 0.0]).expand(3, 21, 3))


def test_joints_are_learnt_down_to_the_image(config: NetworkConfig, topology: Topology) -> None:
    network = seeded(config, topology, "joints")
    network(crops()).joints.square().sum().backward()
    first = next(iter(network.trunk_parameters()))
    assert first.grad is not None
    assert first.grad.abs().max() > 0


def test_transfer_trains_the_head_alone(config: NetworkConfig, topology: Topology) -> None:
    torch.manual_seed(1)
    full = build(config, topology).train()
    with torch.no_grad():
        full(crops(4))  # statistics of the norms that are not those of a fresh network
    network = seeded(config, topology, "transfer")
    load_trunk(network, full.state_dict())
    network.train()
    assert not any(module.training for module in network.trunk.modules())
    assert network.head.training

    full.eval()
    with torch.no_grad():
        expected = full.latent(crops())
        torch.testing.assert_close(network.trunk.latent(crops()).features, expected.features)

    before = copy.deepcopy(network.trunk.state_dict())
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)  # all of them: the others are fixed
    target = torch.rand(1, 21, 3).expand(2, 21, 3)
    losses = []
    for _ in range(30):
        loss = (network(crops()).joints - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    # The wrist's depth, which is 0 by construction, keeps its distance from the target.
    floor = float(target[:, 0, 2].square().sum()) / target.numel()
    assert losses[-1] - floor < 0.2 * (losses[0] - floor)
    assert all(torch.equal(before[k], v) for k, v in network.trunk.state_dict().items())
    assert not network.eval().head.training


def test_another_trunk_is_refused_whole(
    tiny_config: LightConfig, config: NetworkConfig, topology: Topology
) -> None:
    network = seeded(config, topology, "transfer")
    before = copy.deepcopy(network.state_dict())
    good = build(config, topology).state_dict()
    name = next(name for name, tensor in good.items() if tensor.ndim == 4)
    other = build(PAPER if config is tiny_config else tiny_config, topology).state_dict()
    lacking = {key: value for key, value in good.items() if key != name}
    reshaped = good | {name: good[name][:1]}
    for state in (other, lacking, reshaped, network.state_dict()):
        with pytest.raises(InputError, match="full model with the same"):
            load_trunk(network, state)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_assets_are_not_weights(tiny_config: LightConfig, topology: Topology) -> None:
    network = seeded(tiny_config, topology, "parametric")
    heads = {name for name in network.state_dict() if name.startswith("head.")}
    assert heads == {f"head.layers.{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")}


def test_unknown_heads_are_refused(tiny_config: LightConfig, topology: Topology) -> None:
    with pytest.raises(InputError, match=r"head out of .*'lbs'.* got 'mano'"):
        build_network(tiny_config, topology, "mano")  # type: ignore[arg-type]


def test_no_export_of_baselines(tiny_config: LightConfig, topology: Topology) -> None:
    with pytest.raises(ExportError, match="got HeadNetwork"):
        fold(seeded(tiny_config, topology, "joints"))  # type: ignore[arg-type]
