"""What a latency was measured on: read from the machine, never guessed.

Copied to other devices as it is; see `protocol`.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable  # noqa: UP035

UNKNOWN = "unknown"
PACKAGES = (
    "handmesh",
    "numpy",
    "opencv-python-headless",
    "onnxruntime",
    "onnxruntime-gpu",
    "ai-edge-litert",
    "tflite-runtime",
    "coremltools",
    "openvino",
    "torch",
)
_PATIENCE_S = 10.0  # for a tool that tells of the machine


def describe() -> dict[str, str | int | float]:
    """Processor, cores, memory, clocks, power mode, load, system and versions of this machine.

    ``load_1min`` is what else the machine was doing at the start (Unix load average; cores busy),
    or -1 where the system does not tell. A package that is not installed is left out.
    """
    versions = {name: version(name) for name in PACKAGES}
    return {
        "processor": _processor(),
        "machine": platform.machine(),
        "cores_usable": _usable_cores(),
        "memory_mib": _memory_mib(),
        "clock_mhz": _clock_mhz(),
        "power_mode": _power_mode(),
        **_gpu(),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else -1.0,
        "system": platform.platform(),
        "python": platform.python_version(),
        **{f"{name} version": found for name, found in versions.items() if found},
    }


def peak_memory_mib() -> float:
    """The most memory this process ever held, in MiB; -1 where the system does not tell."""
    # Not getrusage on Linux: a child's figure begins with that of the process it was forked from.
    high = re.search(r"^VmHWM:\s*(\d+) kB$", _read("/proc/self/status"), re.MULTILINE)
    if high:
        return int(high.group(1)) / 2**10
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


def footprint(load: Callable[[], Callable[[], Any]], runs: int = 3) -> dict[str, float]:
    """Memory of a process in which nothing else was loaded: MiB, -1 where that is not known.

    Args:
        load: makes a network ready and returns what runs it once. runs: of it.

    Returns:
        "before_mib", held when nothing but the runtime had been imported, and "peak_mib", the most
        ever held, the process itself included.
    """
    before = resident_mib()
    run = load()
    for _ in range(runs):
        run()
    return {"before_mib": round(before, 1), "peak_mib": round(peak_memory_mib(), 1)}


def version(distribution: str) -> str:
    """Of an installed distribution, "" if it is not installed."""
    import importlib.metadata

    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


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


def _clock_mhz() -> str:
    """Of the first core: now, and the most that it may have."""
    folder = "/sys/devices/system/cpu/cpu0/cpufreq/"
    now, most = (_read(folder + name) for name in ("scaling_cur_freq", "scaling_max_freq"))
    if now.strip().isdigit() and most.strip().isdigit():
        return f"{int(now) // 1000} of {int(most) // 1000}"
    match = re.search(r"^cpu MHz\s*:\s*([\d.]+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return f"{float(match.group(1)):.0f}" if match else UNKNOWN


def _power_mode() -> str:
    """A Jetson's power model, else the frequency governor of the first core."""
    nvpmodel = re.search(r"NV Power Mode:\s*(\S+)", _output("nvpmodel", "-q"))
    governor = _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip()
    parts = [nvpmodel.group(1) if nvpmodel else "", governor]
    return ", ".join(part for part in parts if part) or UNKNOWN


def _gpu() -> dict[str, str]:
    """Name, clock and power limit of NVIDIA's GPUs, numbered where there are several.

    Which of them a row ran on is in the row.
    """
    fields = ("name", "driver_version", "clocks.sm", "clocks.max.sm", "power.limit")
    text = _output("nvidia-smi", "--query-gpu=" + ",".join(fields), "--format=csv,noheader")
    found = [line.strip() for line in text.splitlines() if line.strip()]
    if len(found) > 1:
        found = [f"{number}: {line}" for number, line in enumerate(found)]
    return {"gpu": "; ".join(found)} if found else {}


def _output(*command: str) -> str:
    """What a tool prints, "" if it is not there or fails."""
    try:
        return subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            timeout=_PATIENCE_S, check=True,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
