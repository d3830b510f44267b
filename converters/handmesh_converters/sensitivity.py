"""Which convolutions bear 8-bit products, found by measurement on the calibration crops.

Parts of a network, a block or a single convolution, are put into 8 bits one at a time. Then those
that cost least for the work that they take are joined one by one, as long as all of them together
stay within a share of what an int8 artifact may be off by. The artifact is proven afterwards, on
crops that this has not seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from handmesh.backends import RawOutput
from handmesh.errors import ParityError

from .parity import TOLERANCES, Parity, Tolerance, measure
from .quantizer import Convolution, Quantizer

__all__ = ["LIMIT", "Part", "Sensitivity", "find"]

# Of the tolerance: other crops than those that the choice was made on come out worse.
_SHARE = 0.6
LIMIT = Tolerance(*(_SHARE * value for value in astuple(TOLERANCES["int8"])))


@dataclass(frozen=True)
class Part:
    """What is put into 8 bits together.

    Attributes:
        name: in the network. convolutions: of the file.
        alone: how far the outputs are off with this part alone in 8 bits.
        chosen: whether it is in 8 bits in the end.
    """

    name: str
    convolutions: tuple[Convolution, ...]
    alone: Parity
    chosen: bool

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one crop."""
        return sum(each.macs for each in self.convolutions)


@dataclass(frozen=True)
class Sensitivity:
    """Of all parts, in order of execution.

    Attributes:
        parts: see `Part`.
        before: how far the outputs are off without 8-bit products, by rounded weights alone.
        together: with all that were chosen. everything: with every part in 8 bits.
    """

    parts: tuple[Part, ...]
    before: Parity
    together: Parity
    everything: Parity

    @property
    def chosen(self) -> tuple[Convolution, ...]:
        """What is in 8 bits in the end."""
        return tuple(each for part in self.parts if part.chosen for each in part.convolutions)

    @property
    def share(self) -> float:
        """The chosen part of the multiply-accumulates of all convolutions, 0..1."""
        whole = sum(part.macs for part in self.parts)
        return sum(part.macs for part in self.parts if part.chosen) / whole if whole else 0.0

    def render(self) -> str:
        """A table in Markdown."""
        lines = [
            "| in 8 bits | M MAC | px, worst (p99) | mm, worst (p99) | mm, one point in most crops "
            "| chosen |",
            "| --- | --- | --- | --- | --- | --- |",
            _row("none", 0.0, self.before, ""),
        ]
        for part in self.parts:
            lines.append(
                _row(part.name, part.macs / 1e6, part.alone, "yes" if part.chosen else "no")
            )
        whole = sum(part.macs for part in self.parts) / 1e6
        lines.append(_row("all that are chosen", self.share * whole, self.together, ""))
        lines.append(_row("all", whole, self.everything, ""))
        return "\n".join(lines)


def find(
    quantizer: Quantizer,
    run: Callable[[bytes], Callable[[NDArray[np.uint8]], RawOutput]],
    crops: NDArray[np.uint8],
    expected: RawOutput,
    bone_ratios: NDArray[np.float32],
) -> Sensitivity:
    """Measure every part, and choose.

    Args:
        quantizer: of the float model. run: what runs a model's bytes on crops.
        crops: (N, S, S, 3) uint8. expected: what the network says of them.
        bone_ratios: (20,), see `handmesh.graph.Topology`.
    """

    def off(chosen: Sequence[Convolution]) -> Parity:
        model = quantizer.quantize(chosen)
        found = measure(run(model), "8-bit products", crops, expected, bone_ratios)
        bar.update()
        return found

    groups = [
        (name, tuple(members))
        for name, members in itertools.groupby(quantizer.convolutions, key=_part_of)
    ]
    bar = tqdm(
        total=len(groups) + 2, desc="8-bit products", unit="model", disable=None, leave=False
    )
    before = off(())
    alone = [off(members) for _, members in groups]

    def cost(index: int) -> float:
        """The square of the error, which adds up, for each multiply-accumulate."""
        work = sum(each.macs for each in groups[index][1])
        return alone[index].mm.p99 ** 2 / max(work, 1)

    chosen: list[int] = []
    together = before
    bearing = [i for i in sorted(range(len(groups)), key=cost) if _within(alone[i])]
    bar.total += len(bearing)
    for index in bearing:
        tried = off([each for i in sorted([*chosen, index]) for each in groups[i][1]])
        if _within(tried):
            chosen.append(index)
            together = tried
    everything = off(quantizer.convolutions)
    bar.close()
    parts = tuple(
        Part(name, members, alone[i], i in chosen) for i, (name, members) in enumerate(groups)
    )
    return Sensitivity(parts, before, together, everything)


def _part_of(convolution: Convolution) -> str:
    """The block that a layer is in: what lies between two additions."""
    return convolution.layer.split(".body.")[0].removeprefix("network.")


def _within(parity: Parity) -> bool:
    try:
        parity.check(LIMIT)
    except ParityError:
        return False
    return True


def _row(name: str, macs: float, parity: Parity, chosen: str) -> str:
    return (
        f"| {name} | {macs:.2f} | {parity.crop_px.worst:.2f} ({parity.crop_px.p99:.2f}) | "
        f"{parity.mm.worst:.2f} ({parity.mm.p99:.2f}) | {parity.point_mm:.2f} | {chosen} |"
    )
