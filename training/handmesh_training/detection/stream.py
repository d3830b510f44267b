"""Endless batches of composed scenes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..seeds import Purpose, generator
from ..sources import Batch
from .scenes import MOST, Supplies, compose
from .supplies import SupplySettings


@dataclass(frozen=True, eq=False)
class Scenes:
    """B scenes: pictures (B, S, S, 3) uint8 RGB and labels (B, M, 8) float32, see `scenes`."""

    pictures: NDArray[np.uint8]
    labels: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.pictures)


def batch_of(
    supplies: Supplies, side: int, count: int, seed: int, lane: int, number: int
) -> Scenes:
    """Batch ``number`` of a lane: always the same scenes."""
    made = Scenes(
        np.empty((count, side, side, 3), np.uint8), np.empty((count, MOST, 8), np.float32)
    )
    for place in range(count):
        rng = generator(seed, Purpose.COMPOSED, lane, number, place)
        made.pictures[place], made.labels[place] = compose(rng, supplies, side)
    return made


@dataclass(frozen=True)
class SceneStream:
    """A `lanes.LaneSource` of scenes.

    Attributes:
        supplies: what they are composed of. side: of the pictures in pixels.
        batch: scenes of one lane's part. seed: of the whole stream.
    """

    supplies: SupplySettings
    side: int
    batch: int
    seed: int

    def lane(self, number: int, of: int, start: int) -> Iterator[Batch]:
        """Parts of one lane, from batch ``start`` on."""
        supplies, done = self.supplies.open(), start
        while True:
            made = batch_of(supplies, self.side, self.batch, self.seed, number, done)
            yield {
                "pictures": torch.from_numpy(made.pictures),
                "hands": torch.from_numpy(made.labels),
            }
            done += 1
