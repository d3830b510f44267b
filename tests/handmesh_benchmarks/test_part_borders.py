"""Where the clock passes from one part of the paper's network to the next."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from handmesh.graph import Topology
from handmesh.nn import build
from handmesh.nn.config import LightConfig, PaperConfig
from handmesh_benchmarks import parts

PAPER = dataclasses.replace(
    PaperConfig(), input_size=64, features=32, stacks=1, residuals_per_position=1
)


@pytest.mark.parametrize(
    ("config", "module", "part"),
    [
        (PAPER, "stem", "trunk"),
        (PAPER, "stacks", "trunk"),
        (PAPER, "encoder", "mesh"),  # 4.7 ms of the paper are of the residual network, too
        (PAPER, "encode", "mesh"),
        (LightConfig(), "encode", "trunk"),
        (LightConfig(), "head.decoder", "mesh"),
        (LightConfig(), "head.pose_regressor", "pose"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_what_a_module_takes_is_counted_for_its_part(
    config: Any, module: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(parts, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    network = build(config, Topology.default()).eval()
    found = network.get_submodule(module)
    slow = found[0] if isinstance(found, torch.nn.ModuleList) else found

    def takes_half_a_second(*_: Any) -> None:
        now[0] += 0.5

    slow.register_forward_hook(takes_half_a_second)

    with torch.inference_mode(), parts.clocked(network) as times:
        network(torch.zeros(1, 3, config.input_size, config.input_size))
        found_ms = times()

    assert found_ms == {name: 500.0 if name == part else 0.0 for name in ("trunk", "mesh", "pose")}
