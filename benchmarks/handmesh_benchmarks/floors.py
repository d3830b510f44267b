"""Floors: what no program can be faster than on a device, from its data sheet. Nothing is measured.

A part of a network takes at least as long as its multiply-accumulates at the device's peak, and at
least as long as reading its weights once at the device's memory bandwidth; the floor is the larger
of both. Multiply-accumulates and parameters are counted by `handmesh.nn.summary`. Activations are
not counted: they may stay in caches. Real programs are several times slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from handmesh.errors import MissingExtra

from .report import PAPER_MS, PARTS, columns

if TYPE_CHECKING:
    from handmesh.nn.summary import Summary

__all__ = ["SHEETS", "Floor", "Sheet", "Work", "floor_ms", "floors", "to_text", "work_of"]

BYTES_PER_WEIGHT = 4  # float32
FLOPS_PER_MAC = 2
NETWORKS = ("paper", "light")
_JETSON = "https://developer.nvidia.com/embedded/jetson-modules"


@dataclass(frozen=True)
class Sheet:
    """A device's data sheet.

    Attributes:
        device: name. gflops: peak in float32, billions of operations a second.
        gbytes_s: peak memory bandwidth, 1e9 bytes a second.
        how: what the peak is the product of. source: where these figures stand.
    """

    device: str
    gflops: float
    gbytes_s: float
    how: str
    source: str


SHEETS: tuple[Sheet, ...] = (
    Sheet(
        "GeForce GTX 1080", 2560 * 1.733 * 2, 320.0, "2,560 cores x 1.733 GHz x 2",
        "NVIDIA GeForce GTX 1080 white paper (2016), table 1",
    ),
    Sheet(
        "Jetson Nano", 128 * 0.9216 * 2, 25.6, "128 cores x 0.9216 GHz x 2",
        f"NVIDIA Jetson Nano data sheet; {_JETSON}",
    ),
    Sheet(
        "Jetson Orin Nano 8 GB", 1024 * 0.625 * 2, 68.0, "1,024 cores x 0.625 GHz x 2",
        f"NVIDIA Jetson Orin Nano series data sheet (before its Super mode); {_JETSON}",
    ),
    Sheet(
        "Jetson AGX Orin 64 GB", 2048 * 1.3 * 2, 204.8, "2,048 cores x 1.3 GHz x 2",
        f"NVIDIA Jetson AGX Orin series data sheet; {_JETSON}",
    ),
    Sheet(
        "Raspberry Pi 4", 4 * 1.5 * 8, 12.8,
        "4 cores x 1.5 GHz x 8 (one 128-bit fused multiply-add); 32 bit x 3,200 MT/s",
        "Raspberry Pi 4 Model B data sheet; Arm Cortex-A72 software optimization guide",
    ),
    Sheet(
        "Raspberry Pi 5", 4 * 2.4 * 16, 17.1,
        "4 cores x 2.4 GHz x 16 (two 128-bit fused multiply-adds); 32 bit x 4,267 MT/s",
        "Raspberry Pi 5 product brief; Arm Cortex-A76 software optimization guide",
    ),
    Sheet(
        "H100 SXM", 67_000.0, 3350.0, "as stated, without tensor cores",
        "https://www.nvidia.com/en-us/data-center/h100/",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Work:
    """What a part of a network does for one crop: multiply-accumulates, and parameters read."""

    macs: int
    parameters: int


@dataclass(frozen=True)
class Floor:
    """The least milliseconds of a network's parts on a device, and of all together."""

    device: str
    network: str
    parts: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def floor_ms(work: Work, sheet: Sheet) -> float:
    """The least milliseconds for that work."""
    compute = work.macs * FLOPS_PER_MAC / (sheet.gflops * 1e9)
    memory = work.parameters * BYTES_PER_WEIGHT / (sheet.gbytes_s * 1e9)
    return max(compute, memory) * 1e3


def work_of(summary: Summary) -> dict[str, Work]:
    """Multiply-accumulates and parameters of a network's three parts."""
    rows: dict[str, list[tuple[int, int]]] = {part: [] for part in PARTS}
    for row in summary.rows:
        rows[_part(row.name)].append((row.macs, row.parameters))
    return {
        part: Work(sum(m for m, _ in found), sum(p for _, p in found))
        for part, found in rows.items()
    }


def _part(name: str) -> str:
    if name.startswith("head.pose_regressor"):
        return "pose"
    return "mesh" if name.split(".")[0] in ("head", "encoder", "encode") else "trunk"


def floors(sheets: Sequence[Sheet] = SHEETS) -> list[Floor]:
    """Of both networks on every device.

    Raises:
        MissingExtra: torch, which counts them, is not installed.
    """
    try:
        from handmesh.graph import Topology
        from handmesh.nn import build, from_dict
        from handmesh.nn.summary import describe
    except ImportError as cause:
        raise MissingExtra(cause.name or "torch", "torch") from cause
    found = []
    for network in NETWORKS:
        work = work_of(describe(build(from_dict({"network": network}), Topology.default())))
        for sheet in sheets:
            parts = {part: floor_ms(work[part], sheet) for part in PARTS}
            found.append(Floor(sheet.device, network, parts))
    return found


def rows(found: Sequence[Floor]) -> list[list[str]]:
    """Cells of a table: network, device, each part, together."""
    return [
        [f.network, f.device, *(f"{f.parts[part]:.3f}" for part in PARTS), f"{f.total:.3f}"]
        for f in found
    ]


def to_text(found: Sequence[Floor] | None = None) -> str:
    """The floors, the paper's measurement, and where the data sheets' figures stand."""
    table = columns(
        ["network", "device", *PARTS, "floor"], rows(floors() if found is None else found)
    )
    paper = ", ".join(f"{part} {PAPER_MS[part]}" for part in PARTS)
    return "\n".join(
        [
            "FLOORS from data sheets, float32, batch 1, ms. Nothing here was measured.",
            *table,
            f"Measured by the paper on a GTX 1080: {paper}; {sum(PAPER_MS.values()):.1f} ms in all",
            "",
            *(
                f"{s.device}: {s.gflops / 1e3:.2f} TFLOP/s ({s.how}), {s.gbytes_s:g} GB/s; "
                f"{s.source}"
                for s in SHEETS
            ),
        ]
    )
