"""Which kernels run for a batch, and on how many blocks. Names and grids are `src/decoder.cu`'s."""

from __future__ import annotations

from typing import NamedTuple

from .packing import Packed

__all__ = ["Launch", "plan"]

_THREADS, _WIDE_THREADS = 128, 256
# From this batch on blocks take more rows or samples: weights and theta are then read by fewer
# blocks, and there are enough of those to fill a device.
_LARGE = 8
_TENSOR_ROWS, _TENSOR_SAMPLES = 32, 16


class Launch(NamedTuple):
    """One kernel: its name, blocks (x, y), threads of a block."""

    kernel: str
    grid: tuple[int, int]
    threads: int


def plan(packed: Packed, batch: int, tensor_cores: bool) -> list[Launch]:
    """Five launches, in order, on one stream.

    Args:
        packed: of the head.
        batch: number of samples.
        tensor_cores: use their variants where they pay: with 16 samples, or rows enough, a tile.
    """
    large = batch >= _LARGE
    tensor = tensor_cores and large
    samples = 8 if large else 4 if batch > 1 else 1
    rows = 32 if large else 8
    launches = []
    if tensor and batch >= _TENSOR_SAMPLES:
        grid = (packed.numbers["nodes"], _blocks(batch, _TENSOR_SAMPLES))
        launches.append(Launch("hm_expand_tensor", grid, _WIDE_THREADS))
    else:
        grid = (packed.numbers["nodes"], _blocks(batch, samples))
        launches.append(Launch(f"hm_expand_{samples}", grid, _WIDE_THREADS))
    for i in (1, 2, 3):
        nodes = packed.numbers[f"conv{i}.rows"]
        if tensor and i < 3:
            grid = (_blocks(nodes, _TENSOR_ROWS), batch)
            launches.append(Launch(f"hm_conv{i}_tensor", grid, _THREADS))
        else:
            launches.append(Launch(f"hm_conv{i}_{rows}", (_blocks(nodes, rows), batch), _THREADS))
    shared = 2 if batch >= 2 * _LARGE else 1  # samples of a block of `finish`
    parts = 8 if batch <= 4 else 4 if batch < 2 * _LARGE else 2
    launches.append(Launch(f"hm_finish_{shared}", (parts, _blocks(batch, shared)), _WIDE_THREADS))
    return launches


def _blocks(count: int, each: int) -> int:
    return -(-count // each)
