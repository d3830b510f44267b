"""Floors follow from counted work and a data sheet, and are called floors."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from torch import nn

from handmesh.errors import MissingExtra
from handmesh.graph import Topology
from handmesh.nn import build, from_dict
from handmesh.nn.summary import describe
from handmesh_benchmarks.floors import (
    SHEETS,
    Floor,
    Sheet,
    Work,
    floor_ms,
    floors,
    rows,
    to_text,
    work_of,
)
from handmesh_converters.fold import fold

SHEET = Sheet("made up", gflops=100.0, gbytes_s=10.0, how="", source="")


def test_the_slower_of_arithmetic_and_memory_decides() -> None:
    # 50 M MACs are 100 M operations: 1 ms at 100 GFLOP/s. 1 M weights are 4 MB: 0.4 ms at 10 GB/s.
    assert floor_ms(Work(50_000_000, 1_000_000), SHEET) == pytest.approx(1.0)
    assert floor_ms(Work(5_000_000, 1_000_000), SHEET) == pytest.approx(0.4)


@pytest.fixture(scope="module", params=["light", "paper"])
def network(request: pytest.FixtureRequest) -> Any:
    return build(from_dict({"network": request.param}), Topology.default())


def _weights(*modules: nn.Module) -> int:
    """Numbers in convolutions, linear and graph layers: all but the norms'."""
    return sum(
        p.numel()
        for module in modules
        for inner in module.modules()
        if not isinstance(inner, nn.BatchNorm2d | nn.BatchNorm1d)
        for p in inner.parameters(recurse=False)
    )


def test_parts_hold_all_the_work_of_a_network(network: Any) -> None:
    summary, work = describe(network), work_of(network)

    assert work["trunk"].macs + work["mesh"].macs == sum(
        row.macs for row in summary.rows if "pose_regressor" not in row.name
    )
    paper = network.config.name == "paper"
    mesh = [network.head, *((network.encoder, network.encode) if paper else ())]
    pose = _weights(network.head.pose_regressor)
    assert work["mesh"].parameters == _weights(*mesh) - pose
    assert work["trunk"].parameters == _weights(network) - _weights(*mesh)


def test_pose_regressor_is_the_map_that_exports_have(network: Any) -> None:
    twin = fold(network.eval()).head
    exported = sum(p.numel() for p in twin.joints.parameters()) + sum(
        b.numel() for b in twin.joints.buffers()
    )

    pose = work_of(network)["pose"]

    # 21 joints and 1,036 vertices, three coordinates each.
    assert (pose.macs, pose.parameters) == (195_804, 195_867)
    assert pose.parameters <= exported
    assert pose.parameters < _weights(network.head.pose_regressor)


def test_the_paper_s_own_device_is_slower_than_its_floor() -> None:
    found = next(f for f in floors() if (f.device, f.network) == ("GeForce GTX 1080", "paper"))

    # The paper measured 12.6, 4.7 and 2.6 ms there.
    assert found.parts["trunk"] < 12.6
    assert found.parts["mesh"] < 4.7
    assert found.parts["pose"] < 2.6
    assert found.total == pytest.approx(sum(found.parts.values()))
    # 195,867 float32 numbers at 320 GB/s.
    assert found.parts["pose"] == pytest.approx(195_867 * 4 / 320e9 * 1e3)


def test_data_sheets_hold_what_they_say() -> None:
    stated = {
        "GeForce GTX 1080": (8873, 320), "Jetson Nano": (236, 25.6),
        "Jetson Orin Nano 8 GB, 15 W": (1280, 68), "Jetson Orin Nano 8 GB, Super": (2089, 102),
        "Jetson AGX Orin 64 GB": (5325, 204.8), "Raspberry Pi 4": (57.6, 12.8),
        "Raspberry Pi 5": (153.6, 17.1), "H100 SXM": (67000, 3350),
    }  # fmt: skip
    assert {s.device: (s.gflops, s.gbytes_s) for s in SHEETS} == {
        device: (pytest.approx(gflops, rel=0.001), gbytes_s)
        for device, (gflops, gbytes_s) in stated.items()
    }


def test_text_says_floor_and_names_every_source() -> None:
    text = to_text()
    assert text.startswith("FLOORS from data sheets")
    assert "Nothing was measured" in text
    assert all(sheet.source and sheet.source in text for sheet in SHEETS)


def test_without_torch_the_extra_of_this_page_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "handmesh.nn", None)
    with pytest.raises(MissingExtra, match="comes with the extra 'bench'"):
        floors()


def test_no_floor_reads_as_zero() -> None:
    found = [Floor("H100 SXM", "light", {"trunk": 0.0123, "mesh": 0.00234, "pose": 0.000234})]
    assert rows(found) == [["light", "H100 SXM", "0.012", "0.0023", "0.00023", "0.015"]]
