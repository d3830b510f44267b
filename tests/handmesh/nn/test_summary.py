"""Counts against formulas and against torch's own counter of floating-point operations."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from handmesh.graph import Topology
from handmesh.nn import LightConfig, PaperConfig, build, describe


@pytest.fixture(scope="module")
def light(topology: Topology) -> nn.Module:
    return build(LightConfig(), topology)


def test_parameters_are_all_there(light: nn.Module) -> None:
    total = sum(p.numel() for p in light.parameters())
    assert describe(light).parameters == total
    light.pose_regressor.freeze()
    assert describe(light).parameters == total
    light.pose_regressor.unfreeze()
    assert light.training


def test_dense_macs_agree_with_the_flop_counter(light: nn.Module) -> None:
    summary = describe(light)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        light.eval()(torch.zeros(1, 3, 128, 128))
        light.train()
    convolutions = counter.get_flop_counts()["Global"][torch.ops.aten.convolution] // 2
    assert sum(r.macs for r in summary.rows if r.kind == "Conv2d") == convolutions


def test_chebyshev_macs(light: nn.Module, topology: Topology) -> None:
    rows = {row.name: row for row in describe(light).rows}
    entries = {level.node_count: int((level.weights != 0).sum()) for level in topology.levels}
    for level in topology.levels:
        # Padding nodes have entries on the diagonal at most; those are not stored.
        fake = ~level.mask
        entries[level.node_count] -= int((level.weights[fake] != 0).sum())
    middle = int(topology.levels[2].mask.sum())
    # 64 -> 64 on 320 nodes, theta on the 80 parents; 64 -> 32 on 320; 3 -> 32 recurrence first.
    assert rows["head.decoder.block1.conv"].macs == 80 * 3 * 64 * 64 + 2 * entries[320] * 64
    assert rows["head.decoder.block2.conv"].macs == middle * 3 * 64 * 32 + 2 * entries[320] * 32
    assert (
        rows["head.pose_regressor.conv1"].macs
        == topology.vertex_count * 3 * 3 * 32 + 2 * entries[1280] * 3
    )


def test_cost_of_both_networks(light: nn.Module, topology: Topology) -> None:
    light.pose_regressor.freeze()
    assert 80e6 < describe(light).macs < 130e6
    light.pose_regressor.unfreeze()
    assert 11e9 < describe(build(PaperConfig(), topology)).macs < 20e9


def test_render_and_groups(light: nn.Module) -> None:
    summary = describe(light)
    groups = summary.grouped(1)
    assert sum(g.macs for g in groups) == summary.macs
    assert sum(g.parameters for g in groups) == summary.parameters
    text = summary.render()
    assert len(text.splitlines()) == len(summary.rows) + 6
    assert f"{summary.macs:,}" in text
    assert "head.decoder.out" in text
    assert max(map(len, summary.render(depth=1).splitlines())) < 100
