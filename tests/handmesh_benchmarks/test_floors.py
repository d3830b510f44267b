"""Floors follow from counted work and a data sheet, and are called floors."""

from __future__ import annotations

import pytest

from handmesh.graph import Topology
from handmesh.nn import build, from_dict
from handmesh.nn.summary import describe
from handmesh_benchmarks.floors import SHEETS, Sheet, Work, floor_ms, floors, to_text, work_of

SHEET = Sheet("made up", gflops=100.0, gbytes_s=10.0, how="", source="")


def test_the_slower_of_arithmetic_and_memory_decides() -> None:
    # 50 M MACs are 100 M operations: 1 ms at 100 GFLOP/s. 1 M weights are 4 MB: 0.4 ms at 10 GB/s.
    assert floor_ms(Work(50_000_000, 1_000_000), SHEET) == pytest.approx(1.0)
    assert floor_ms(Work(5_000_000, 1_000_000), SHEET) == pytest.approx(0.4)


def test_parts_hold_all_the_work_of_a_network() -> None:
    summary = describe(build(from_dict({"network": "light"}), Topology.default()))
    parts = work_of(summary)

    assert sum(work.macs for work in parts.values()) == summary.macs
    assert sum(work.parameters for work in parts.values()) == summary.parameters
    assert all(work.macs > 0 for work in parts.values())


def test_the_paper_s_own_device_is_slower_than_its_floor() -> None:
    found = next(f for f in floors() if (f.device, f.network) == ("GeForce GTX 1080", "paper"))

    # The paper measured 12.6, 4.7 and 2.6 ms there.
    assert found.parts["trunk"] < 12.6
    assert found.parts["mesh"] < 4.7
    assert found.parts["pose"] < 2.6
    assert found.total == pytest.approx(sum(found.parts.values()))


def test_text_says_floor_and_names_every_source() -> None:
    text = to_text()
    assert text.startswith("FLOORS from data sheets")
    assert "Nothing was measured" in text
    assert all(sheet.source and sheet.source in text for sheet in SHEETS)
