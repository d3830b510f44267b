"""How busy a machine is follows from what its counters did while it was looked at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from handmesh_benchmarks.busy import cores_busy


@pytest.mark.parametrize(
    ("passed", "busy"),
    [
        # user, nice, system, idle, iowait, irq, softirq, steal, guest: ticks that passed
        ((0, 0, 0, 100, 0, 0, 0, 0, 0), 0.0),
        ((0, 0, 0, 60, 40, 0, 0, 0, 0), 0.0),  # waiting for a disk is not computing
        ((20, 10, 5, 50, 0, 5, 5, 5, 20), 0.5),
        ((100, 0, 0, 0, 0, 0, 0, 0, 0), 1.0),
    ],
)
def test_busy_is_what_was_not_idle(
    tmp_path: Path, passed: tuple[int, ...], busy: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Cores 1 and 3 may be used; 0 and 2 are busy with what is none of ours.
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3}, raising=False)
    stat = tmp_path / "stat"
    start = (900, 10, 300, 7000, 50, 3, 4, 5, 600, 0)
    full = (9900, *start[1:])
    now = tuple(a + b for a, b in zip(start, (*passed, 0), strict=True))

    def write(own: tuple[int, ...], others: tuple[int, ...]) -> None:
        cores = enumerate([others, own, others, own])
        lines = ["cpu  1 2 3 4 5 6 7 8 9 0"]
        lines += [f"cpu{i} {' '.join(map(str, ticks))}" for i, ticks in cores]
        stat.write_text("\n".join([*lines, "intr 12 34", "ctxt 5"]))

    write(start, start)
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        write(now, full)

    assert cores_busy(0.5, sleep, stat) == pytest.approx(2 * busy)
    assert waited == [0.5]


def test_systems_that_do_not_tell_are_unknown(tmp_path: Path) -> None:
    assert cores_busy(0, lambda _: None, tmp_path / "none") == -1
    (tmp_path / "stat").write_text("cpu0 1 2 3 4 5 6 7 much\n")
    assert cores_busy(0, lambda _: None, tmp_path / "stat") == -1
