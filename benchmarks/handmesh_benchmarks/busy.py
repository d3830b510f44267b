"""How busy a machine is with other things, right before something is measured on it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["cores_busy"]

STAT = Path("/proc/stat")
# In a line of a core, in ticks: user, nice, system, idle, iowait, irq, softirq, steal.
IDLE = (3, 4)
COLUMNS = 8  # guests' time, behind these, is counted in "user" already


def cores_busy(
    seconds: float = 0.5, sleep: Callable[[float], None] = time.sleep, stat: Path = STAT
) -> float:
    """Of the usable cores those that did something while this waited, together; -1 where the
    system does not tell.

    Unlike a load average it holds nothing of what has ended before. Time that a virtual machine
    was not given ("steal") counts as busy.

    Args:
        seconds: how long to look. sleep: waits that long. stat: the system's counters.
    """
    before = _ticks(stat)
    sleep(seconds)
    after = _ticks(stat)
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    cores = [f"cpu{number}" for number in usable if f"cpu{number}" in before.keys() & after.keys()]
    busy = 0.0
    for core in cores:
        passed = [b - a for a, b in zip(before[core], after[core], strict=True)]
        if sum(passed) > 0:
            busy += 1 - sum(passed[i] for i in IDLE) / sum(passed)
    return round(busy, 2) if cores else -1.0


def _ticks(stat: Path) -> dict[str, list[int]]:
    """Of each core."""
    try:
        lines = [line.split() for line in stat.read_text(encoding="ascii").splitlines()]
        return {
            words[0]: [int(word) for word in words[1 : COLUMNS + 1]]
            for words in lines
            if words[:1] and words[0].startswith("cpu") and len(words) > COLUMNS
        }
    except (OSError, ValueError):
        return {}
