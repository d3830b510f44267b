"""What a latency was measured on: read from the machine, never guessed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from pathlib import Path

UNKNOWN = "unknown"
PACKAGES = ("handmesh", "numpy", "opencv-python-headless", "onnxruntime", "torch")


def describe() -> dict[str, str | int | float]:
    """Processor, cores, memory, power mode, load, system and versions of this machine.

    ``load_1min`` is what else the machine was doing at the start (Unix load average; cores busy),
    or -1 where the system does not tell.
    """
    return {
        "processor": _processor(),
        "machine": platform.machine(),
        "cores_usable": _usable_cores(),
        "memory_mib": _memory_mib(),
        "power_mode": _power_mode(),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else -1.0,
        "system": platform.platform(),
        "python": platform.python_version(),
        **{f"{name} version": _version(name) for name in PACKAGES},
    }


def peak_memory_mib() -> float:
    """The most memory this process ever held, in MiB; -1 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return -1.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def resident_mib() -> float:
    """Memory that this process holds now, MiB; -1 where the system does not tell."""
    fields = _read("/proc/self/statm").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20 if fields else -1.0


def own_memory_mib() -> float:
    """What of its memory no file backs, resident or swapped out, MiB; -1 where nobody tells.

    Pages of libraries and models come and go as the system likes, so a leak shows here first.
    """
    sizes = re.findall(
        r"^(?:RssAnon|VmSwap):\s+(\d+) kB$", _read("/proc/self/status"), re.MULTILINE
    )
    return sum(map(int, sizes)) / 2**10 if sizes else -1.0


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    """The processor's name as the system gives it."""
    text = _read("/proc/cpuinfo")
    match = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", text, re.MULTILINE)
    # Boards name themselves here and not in cpuinfo.
    board = _read("/proc/device-tree/model").strip("\x00\n ")
    name = match.group(1).strip() if match else platform.processor()
    return ", ".join(part for part in (board, name) if part) or UNKNOWN


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_mib() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    except (AttributeError, OSError, ValueError):
        return -1


def _power_mode() -> str:
    """The frequency governor of the first core."""
    return _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or UNKNOWN


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
