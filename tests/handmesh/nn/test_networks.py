"""Both networks: shapes, sizes, gradients, configuration."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from handmesh.errors import InputError
from handmesh.graph import Topology
from handmesh.nn import (
    DecoderConfig,
    LightConfig,
    PaperConfig,
    StageConfig,
    build,
    from_dict,
    to_dict,
)


def millions(*modules: nn.Module) -> float:
    return sum(p.numel() for module in modules for p in module.parameters()) / 1e6


@pytest.mark.parametrize(
    "config",
    [LightConfig(), LightConfig(input_size=160, anchor_to_heatmaps=False)],
    ids=["128", "160 without anchors"],
)
def test_light_shapes(topology: Topology, config: LightConfig) -> None:
    network = build(config, topology).eval()
    with torch.no_grad():
        out = network(torch.rand(2, 3, config.input_size, config.input_size) - 0.5)
    side = config.input_size // 4
    assert out.vertices.shape == (2, topology.vertex_count, 3)
    assert out.joints.shape == (2, 21, 3)
    assert [m.shape for m in out.heatmaps] == [(2, 21, side, side)]
    assert out.confidence_logits.shape == (2, 21)
    assert out.presence_logit.shape == out.handedness_logit.shape == (2,)
    assert all(t.dtype == torch.float32 for t in (out.vertices, out.joints, out.heatmaps[0]))
    assert torch.all(out.joints[:, 0, 2] == 0)


def test_light_size(topology: Topology) -> None:
    network = build(LightConfig(), topology)
    assert 2.0 < millions(network) - millions(network.pose_regressor) < 3.5


def test_untrained_light_mesh_lies_in_the_crop(topology: Topology) -> None:
    torch.manual_seed(0)
    network = build(LightConfig(), topology).eval()
    with torch.no_grad():
        out = network(torch.rand(2, 3, 128, 128) - 0.5)
    assert out.vertices[..., :2].min() > -0.5
    assert out.vertices[..., :2].max() < 1.5


def test_mesh_loss_reaches_the_heatmaps(topology: Topology) -> None:
    torch.manual_seed(0)
    network = build(LightConfig(), topology).train()
    out = network(torch.rand(2, 3, 128, 128) - 0.5)
    out.vertices[..., :2].square().sum().backward()
    assert network.heatmaps.weight.grad.abs().max() > 0
    assert network.log_beta.grad.abs() > 0


def test_confidence_does_not_bend_the_joints(topology: Topology) -> None:
    network = build(LightConfig(), topology).train()
    network(torch.rand(2, 3, 128, 128) - 0.5).confidence_logits.sum().backward()
    touched = {name for name, p in network.named_parameters() if p.grad is not None}
    assert touched == {"confidence", "confidence_bias"}


def test_light_trains_under_autocast_on_a_tiny_task(topology: Topology) -> None:
    """Two pictures, two meshes: a few dozen steps must tell them apart."""
    torch.manual_seed(0)
    network = build(LightConfig(), topology).to(memory_format=torch.channels_last).train()
    network.pose_regressor.freeze()
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, 2e-3)
    images = (torch.rand(2, 3, 128, 128) - 0.5).to(memory_format=torch.channels_last)
    target = torch.rand(2, 1, 3) * 0.5 + 0.25 * torch.rand(2, topology.vertex_count, 3)
    losses = []
    for _ in range(25):
        with torch.autocast("cpu", torch.bfloat16):
            out = network(images)
        assert out.vertices.dtype == torch.float32
        loss = (out.vertices[..., :2] - target[..., :2]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-5:]) < 0.3 * losses[0]


def test_paper_shapes_and_sizes(topology: Topology) -> None:
    network = build(PaperConfig(), topology).eval()
    with torch.no_grad():
        out = network(torch.rand(1, 3, 256, 256) - 0.5)
    assert out.vertices.shape == (1, topology.vertex_count, 3)
    assert out.joints.shape == (1, 21, 3)
    assert [m.shape for m in out.heatmaps] == [(1, 21, 64, 64)] * 2
    assert out.confidence_logits.shape == (1, 21)
    assert out.presence_logit.shape == (1,)
    assert out.handedness_logit is None
    # Counted for the authors' network with two residuals at every position.
    assert millions(network.stem, network.stacks) == pytest.approx(12.6, abs=0.1)
    assert millions(network.encoder) == pytest.approx(1.75, abs=0.1)
    assert millions(network.encode, network.head.decoder) == pytest.approx(4.7, abs=0.1)
    assert millions(network.pose_regressor) == pytest.approx(2.65, abs=0.05)
    assert network.encode.weight.shape == (512, 4096)
    assert network.head.decoder.expand.weight.shape == (5120, 512)
    assert network.pose_regressor.fc1.weight.shape == (512, 5120)


def test_paper_confidence_is_the_heatmap_peak(topology: Topology) -> None:
    torch.manual_seed(0)
    config = PaperConfig(input_size=64, features=16, latent=8)
    network = build(config, topology).eval()
    with torch.no_grad():
        network.stacks[-1].maps.bias.copy_(torch.linspace(-0.5, 1.5, 21))
        out = network(torch.rand(2, 3, 64, 64) - 0.5)
    peaks = out.heatmaps[-1].flatten(2).max(2).values.clamp(1e-4, 1 - 1e-4)
    torch.testing.assert_close(out.confidence_logits.sigmoid(), peaks)
    torch.testing.assert_close(out.presence_logit.sigmoid(), peaks.mean(1))


@pytest.mark.parametrize("config", [LightConfig(beta=7.0), PaperConfig(stacks=1)])
def test_config_round_trip_through_json(config: LightConfig | PaperConfig) -> None:
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


STAGE = {"block": "fused", "channels": 8, "depth": 1}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"network": "heavy"}, "expected a network out of .*, got 'heavy'"),
        ({}, "got None"),
        ([], "got None"),
        ({"network": ["light"]}, "expected a network"),
        ({"network": "light", "beat": 1.0}, r"light has no hyper-parameter \['beat'\]"),
        ({"network": "light", "decoder": {"foo": 1}}, r"light.decoder has no .*\['foo'\]"),
        ({"network": "light", "decoder": 3}, "light.decoder must be an object"),
        ({"network": "light", "stages": [STAGE | {"wide": 1}]}, r"stages\[0\] has no .*'wide'"),
        ({"network": "light", "stages": [STAGE, {"block": "fused"}]}, r"stages\[1\] lacks .*depth"),
        ({"network": "light", "stages": [STAGE | {"block": "fussed"}] * 4}, "fused or separable"),
        ({"network": "light", "stages": 4}, "light.stages must be a list, got 4"),
        ({"network": "light", "stages": [STAGE] * 3}, "four stages"),
        ({"network": "light", "input_size": "128"}, "input_size must be int, got '128'"),
        ({"network": "light", "latent": True}, "latent must be int, got True"),
        ({"network": "light", "latent": 2.0}, "latent must be int"),
        ({"network": "light", "beta": None}, "beta must be float"),
        ({"network": "light", "anchor_to_heatmaps": 1}, "anchor_to_heatmaps must be bool"),
        ({"network": "light", "pyramid_depth": [1, 1]}, "pyramid_depth must be a list of 3"),
        ({"network": "light", "pyramid_depth": [1, 1, "1"]}, r"pyramid_depth\[2\] must be int"),
    ],
)
def test_bad_config(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_dict(values)


def test_bad_blocks() -> None:
    with pytest.raises(InputError, match="block is fused or separable, not 'fussed'"):
        StageConfig("fussed", 24, 2)  # type: ignore[arg-type]


def test_a_whole_number_is_a_real_one() -> None:
    assert from_dict({"network": "light", "beta": 20}) == LightConfig()


@pytest.mark.parametrize("config", [LightConfig(), PaperConfig()])
def test_younger_fields_are_written_where_they_say_something(
    config: LightConfig | PaperConfig,
) -> None:
    """Weights, manifests and checkpoints hold configurations: those of before must stay equal."""
    plain = to_dict(config)
    assert "uv_from_heatmaps" not in plain
    assert "pose_pooling" not in plain["decoder"]
    decoder = DecoderConfig(pose_pooling="max")
    quirky = PaperConfig(decoder=decoder, uv_from_heatmaps=True)
    written = json.loads(json.dumps(to_dict(quirky)))
    assert written["uv_from_heatmaps"] is True
    assert written["decoder"]["pose_pooling"] == "max"
    assert from_dict(written) == quirky


def test_bad_pooling() -> None:
    with pytest.raises(InputError, match="mean or max"):
        DecoderConfig(pose_pooling="median")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="linear"):
        DecoderConfig(pose_pooling="max", pose_template_prior=True)


def test_joints_from_the_highest_points(topology: Topology) -> None:
    torch.manual_seed(0)
    config = PaperConfig(input_size=64, features=16, latent=8, uv_from_heatmaps=True)
    network = build(config, topology).eval()
    plain = build(replace(config, uv_from_heatmaps=False), topology).eval()
    plain.load_state_dict(network.state_dict())  # it adds no weights
    image = torch.rand(2, 3, 64, 64) - 0.5
    maps = torch.zeros(2, 21, 16, 16)
    maps[:, :, 4, 9] = 1.0
    with torch.no_grad():
        out, usual, given = network(image), plain(image), network(image, maps)
    enlarged = F.interpolate(out.heatmaps[-1], size=(64, 64), mode="bilinear")
    u, v = (out.joints[..., :2] * 64).long().unbind(-1)
    samples, joints = torch.arange(2)[:, None], torch.arange(21)
    found = enlarged[samples, joints, v, u]
    torch.testing.assert_close(found, enlarged.amax((2, 3)))
    torch.testing.assert_close(out.joints[..., 2], usual.joints[..., 2])
    torch.testing.assert_close(out.vertices, usual.vertices)
    torch.testing.assert_close(
        given.joints[..., :2], torch.tensor([37.0, 17.0]).expand(2, 21, 2) / 64
    )


@pytest.mark.parametrize("size", [0, 100, -32])
def test_bad_input_size(size: int) -> None:
    with pytest.raises(InputError, match="multiple of"):
        LightConfig(input_size=size)
    with pytest.raises(InputError, match="multiple of"):
        PaperConfig(input_size=size)
