"""Floors: what no program that computes the same is faster than on a device, from its data sheet.
Nothing is measured.

A part of a network takes at least as long as its multiply-accumulates at the device's peak, and at
least as long as reading its weights once at the device's memory bandwidth; the floor is the larger
of both. Multiply-accumulates and parameters are counted by `handmesh.nn.summary`. Activations are
not counted: they may stay in caches. Weights are taken to be read from memory for every crop:
where a cache holds them from one crop to the next, a program may be faster. Norms have none: they
fold into the convolutions. Of the pose regressor, which is linear, the one affine map that it
amounts to is counted, as exports have it. Real programs are several times slower.

The floors are those of float32 in the units for it, at the clocks that are stated, each convolution
done as it is defined. Tensor cores, half precision, a clock beyond the data sheet's, and schemes
that convolve with fewer products (Winograd's) each lie below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from handmesh.errors import MissingExtra

from .report import PAPER_MS, PARTS, columns

if TYPE_CHECKING:
    from handmesh.nn import LightNetwork, PaperNetwork

__all__ = ["SHEETS", "Floor", "Sheet", "Work", "floor_ms", "floors", "to_text", "work_of"]

BYTES_PER_WEIGHT = 4  # float32
FLOPS_PER_MAC = 2
NETWORKS = ("paper", "light")


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


# Looked up in November 2026. Where NVIDIA's or Raspberry Pi's own document could not be opened the
# source is one that repeats it.
SHEETS: tuple[Sheet, ...] = (
    Sheet(
        "GeForce GTX 1080", 2560 * 1.733 * 2, 320.0,
        "2,560 cores x 1.733 GHz (boost) x 2; 256 bit x 10 Gbit/s",
        "NVIDIA's specifications, as in "
        "https://forums.overclockers.co.uk/threads/nvidia-live-stream-special-event.18730107",
    ),
    Sheet(
        "Jetson Nano", 128 * 0.9216 * 2, 25.6,
        "128 cores x 0.9216 GHz x 2; 64 bit x 3,200 MT/s",
        "https://cpu-gpu.alldbin.com/graphics-card-comparison/"
        "Jetson-TX2-GPU-and-Jetson-Nano-comparison.html",
    ),
    Sheet(
        "Jetson Orin Nano 8 GB, 15 W", 1024 * 0.625 * 2, 68.0,
        "1,024 cores x 0.625 GHz x 2; 128 bit LPDDR5",
        "Jetson Orin Nano Series data sheet, https://www.scribd.com/document/673174036",
    ),
    Sheet(
        "Jetson Orin Nano 8 GB, Super", 1024 * 1.02 * 2, 102.0,
        "1,024 cores x 1.02 GHz x 2; 128 bit LPDDR5",
        "Jetson Orin Nano Super data sheet (2024), as in https://www.brojogopalsapui.com/"
        "ai-foundations/sub_contents/AI_hardware/jetson_orin_nano_light.html",
    ),
    Sheet(
        "Jetson AGX Orin 64 GB", 2048 * 1.3 * 2, 204.8,
        "2,048 cores x 1.3 GHz x 2, stated as 5.3 TFLOP/s; 256 bit x 6,400 MT/s",
        "Jetson AGX Orin Series technical brief, as in http://mzph.cn/web/30785.shtml, and data "
        "sheet DS-10662-001",
    ),
    Sheet(
        "Raspberry Pi 4", 4 * 1.8 * 8, 12.8,
        "4 cores x 1.8 GHz (1.5 before 2021) x 8, the peak of a Cortex-A72; 32 bit x 3,200 MT/s",
        "Raspberry Pi 4 specifications; https://wlog.flatlib.jp/2015/10/30/n1787/",
    ),
    Sheet(
        "Raspberry Pi 5", 4 * 2.4 * 16, 17.1,
        "4 cores x 2.4 GHz x 16, the most that a Cortex-A76's two 128-bit pipes can do; "
        "32 bit x 4,267 MT/s",
        "Raspberry Pi 5 specifications; https://www.androidauthority.com/cortex-a76-deep-dive-870896/",
    ),
    Sheet(
        "H100 SXM", 67_000.0, 3350.0, "as stated, without tensor cores",
        "https://archive-lib.hpctech.co.jp/gpuproduct/nvidia-h100.html",
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


def work_of(network: LightNetwork | PaperNetwork) -> dict[str, Work]:
    """The least multiply-accumulates and parameters that a network's three parts take.

    Raises:
        InputError: its pose regressor pools by maximum, which is no affine map.
    """
    from handmesh.nn.summary import describe

    rows: dict[str, list[tuple[int, int]]] = {part: [] for part in PARTS}
    for row in describe(network).rows:
        parameters = 0 if row.kind.startswith("BatchNorm") else row.parameters
        rows[_part(row.name, network.config.name)].append((row.macs, parameters))
    work = {
        part: Work(sum(m for m, _ in found), sum(p for _, p in found))
        for part, found in rows.items()
    }
    weight, bias = network.head.pose_regressor.affine()
    done, collapsed = work["pose"], Work(weight.numel(), weight.numel() + bias.numel())
    work["pose"] = Work(min(done.macs, collapsed.macs), min(done.parameters, collapsed.parameters))
    return work


@cache
def _work_of_default(network: str) -> dict[str, Work]:
    """Counted once: it takes a forward pass."""
    from handmesh.graph import Topology
    from handmesh.nn import build, from_dict

    return work_of(build(from_dict({"network": network}), Topology.default()))


def _part(name: str, network: str) -> str:
    """As `parts` times it: the latent vector of `light` is made in its trunk."""
    if name.startswith("head.pose_regressor"):
        return "pose"
    mesh = ("head", "encoder", "encode") if network == "paper" else ("head",)
    return "mesh" if name.split(".")[0] in mesh else "trunk"


def floors(sheets: Sequence[Sheet] = SHEETS) -> list[Floor]:
    """Of both networks on every device.

    Raises:
        MissingExtra: torch, which counts them, is not installed.
    """
    try:
        import handmesh.nn  # noqa: F401
    except ImportError as cause:
        raise MissingExtra(cause.name or "torch", "bench") from cause
    found = []
    for network in NETWORKS:
        work = _work_of_default(network)
        for sheet in sheets:
            parts = {part: floor_ms(work[part], sheet) for part in PARTS}
            found.append(Floor(sheet.device, network, parts))
    return found


def rows(found: Sequence[Floor]) -> list[list[str]]:
    """Cells of a table: network, device, each part, together."""
    return [
        [f.network, f.device, *(_ms(f.parts[part]) for part in PARTS), _ms(f.total)] for f in found
    ]


def _ms(value: float) -> str:
    """With digits enough that no floor reads as 0."""
    return f"{value:.3f}" if value >= 0.01 else f"{value:.2g}"


def to_text(found: Sequence[Floor] | None = None) -> str:
    """The floors, the paper's measurement, and where the data sheets' figures stand."""
    table = columns(
        ["network", "device", *PARTS, "floor"], rows(floors() if found is None else found)
    )
    paper = ", ".join(f"{part} {PAPER_MS[part]}" for part in PARTS)
    return "\n".join(
        [
            "FLOORS from data sheets, ms: float32, no tensor cores, batch 1. Nothing was measured.",
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
