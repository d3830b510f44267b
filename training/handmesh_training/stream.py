"""Endless batches for training: rendered hands, each drawn a few times, mixed with real photos."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from handmesh.errors import InputError

from .datasets import parse_dataset
from .datasets.crops import MIN_JOINTS, can_crop, to_crops
from .outline_cache import open_outlines
from .photos import load_crops
from .samples import Crops
from .seeds import Purpose, generator
from .sources import Batch, open_source, to_tensors
from .stream_settings import StreamSettings


class LabelledCrops:
    """Hands that somebody else has labelled, to draw from: photo sets and data sets.

    Raises:
        InputError: a set that cannot be opened; when drawing, one that cannot be read.
    """

    # Some hands of a set cannot be used (of unknown side, hardly labelled): others are drawn then.
    TRIES = 50

    def __init__(self, settings: StreamSettings, vertex_count: int) -> None:
        self._layout = (settings.render.crop_px, settings.render.margin, vertex_count)
        self._photos = load_crops(settings.photos, *self._layout, open_outlines)
        self._datasets = [parse_dataset(name) for name in settings.datasets]
        sizes = [len(self._photos), *(len(data) for data in self._datasets)]
        self._ends = np.cumsum(sizes)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def draw(self, rng: np.random.Generator, count: int) -> Crops:
        """So many of them at random."""
        numbers = rng.integers(len(self), size=count)
        of_photos = numbers < len(self._photos)
        read = [self._read(rng, int(number)) for number in numbers[~of_photos]]
        return Crops.concatenate([self._photos.take(numbers[of_photos]), *read])

    def _read(self, rng: np.random.Generator, number: int) -> Crops:
        which = int(np.searchsorted(self._ends, number, side="right"))
        data = self._datasets[which - 1]
        index = number - int(self._ends[which - 1])
        for _ in range(self.TRIES):
            sample = data[index]
            if can_crop(sample):
                return to_crops([sample], *self._layout)
            index = int(rng.integers(len(data)))
        raise InputError(
            f"{data.folder}: of {self.TRIES} hands none is known to be a right or left one with "
            f"{MIN_JOINTS} joints or more, some of the palm and some of the fingers: leave this "
            "set out"
        )


class CropStream:
    """Parts of batches as tensors named like the fields of `Crops`: a `lanes.LaneSource`.

    Each lane has its own part of the numbered samples (see `pool`): together they leave none out
    and take none twice.
    """

    def __init__(self, settings: StreamSettings, seed: int) -> None:
        """
        Args:
            settings: what is in a lane's part of a batch. seed: of the whole stream.
        """
        self.settings = settings
        self.seed = seed

    def lane(self, number: int, of: int, start: int) -> Iterator[Batch]:
        """Parts of one lane. To go on from ``start``, its pool is filled again first, which takes
        as long as rendering it."""
        settings = self.settings
        source = open_source(settings.render, settings.shards, self.seed)
        labelled = LabelledCrops(settings, source.vertex_count)
        if settings.others_per_batch and not len(labelled):
            raise InputError("the photo and data sets hold no labelled hand; leave them out")

        plan = settings.new_pool(self.seed, number, of)
        plan.skip(start)
        pool = Crops.empty(settings.pool, settings.render.crop_px, source.vertex_count)
        held = plan.held()
        for first in range(0, len(held.rows), settings.chunk):
            part = slice(first, first + settings.chunk)
            pool.put(held.rows[part], source.crops(held.numbers[part]))
        done = start
        while True:
            fills, rows = plan.next()
            for fill in fills:
                pool.put(fill.rows, source.crops(fill.numbers))
            # A generator for each batch: going on needs no memory of those before.
            rng = generator(self.seed, Purpose.BATCH, number, done)
            parts = [pool.take(rows)]
            if settings.others_per_batch:
                parts.append(labelled.draw(rng, settings.others_per_batch))
            yield to_tensors(settings.augment(rng, Crops.concatenate(parts)))
            done += 1
