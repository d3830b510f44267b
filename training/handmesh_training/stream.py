"""Endless batches for training: rendered hands, each drawn a few times, mixed with real photos."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from handmesh.errors import InputError

from .augment import Augmentation
from .datasets import parse_dataset
from .datasets.crops import can_crop, to_crops
from .photos import load_crops
from .pool import Pool
from .rendered import RenderSettings
from .samples import Crops
from .sources import Batch, open_source, to_tensors


@dataclass(frozen=True)
class StreamSettings:
    """How batches are made.

    Attributes:
        batch: crops a batch.
        photo_share: share of each batch taken from photos and data sets, if there are any; each
            hand of theirs is as likely as any other.
        photos: photo sets (see `photos`), held in memory.
        datasets: data sets as LAYOUT:SPLIT:FOLDER (see `datasets`), read as they are drawn.
        reuse: how often each rendered crop is drawn before it is replaced, at least 1; every draw
            is augmented anew. Rendering costs a good part of a training step on a CPU.
        pool: rendered crops held at a time by each worker.
        chunk: crops rendered at a time; best a multiple of `rendered.BLOCK`.
        shards: folder of a sharded set to draw from, instead of rendering; its crops must be of
            ``render``'s size and margin. Each sample is read once an epoch, over all workers.
        render: of the stored crops. augment: from those to network inputs.

    Raises:
        InputError: settings that contradict each other.
    """

    batch: int = 64
    photo_share: float = 0.25
    photos: tuple[Path, ...] = ()
    datasets: tuple[str, ...] = ()
    reuse: float = 3.0
    pool: int = 6144
    chunk: int = 256
    shards: Path | None = None
    render: RenderSettings = field(default_factory=RenderSettings)
    augment: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.others_per_batch >= self.batch:
            raise InputError(f"photo_share {self.photo_share} leaves no room for rendered hands")
        if self.augment.stored_margin != self.render.margin:
            raise InputError(
                f"crops are stored with margin {self.render.margin}, but augment.stored_margin is "
                f"{self.augment.stored_margin}; give both the same"
            )
        self.new_pool(seed=0)  # which checks the other numbers

    @property
    def others_per_batch(self) -> int:
        """Crops of each batch that come from photos and data sets."""
        return round(self.batch * self.photo_share) if self.photos or self.datasets else 0

    def new_pool(self, seed: int, worker: int = 0, workers: int = 1) -> Pool:
        """The bookkeeping of one worker's pool."""
        drawn = self.batch - self.others_per_batch
        return Pool(self.pool, self.chunk, drawn, self.reuse, seed, worker, workers)


class LabelledCrops:
    """Hands that somebody else has labelled, to draw from: photo sets and data sets.

    Raises:
        InputError: a set that cannot be opened; when drawing, one that cannot be read.
    """

    # Some hands of a set cannot be used (of unknown side, hardly labelled): others are drawn then.
    TRIES = 50

    def __init__(self, settings: StreamSettings, vertex_count: int) -> None:
        self._layout = (settings.render.crop_px, settings.render.margin, vertex_count)
        self._photos = load_crops(settings.photos, *self._layout)
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
            "two joints or more: leave this set out"
        )


class CropStream(IterableDataset[Batch]):
    """Batches as tensors named like the fields of `Crops`; endless.

    Each worker of each process has its own part of the numbered samples (see `pool`): together they
    leave none out and take none twice.
    """

    def __init__(
        self, settings: StreamSettings, seed: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        """
        Args:
            settings: what is in a batch. seed: of the whole stream.
            start: batches that this process has consumed in an earlier run. With as many processes
                and workers as then, the batches are those that would have come next, bit for bit;
                first the pool is filled again, which takes as long as rendering it.
            rank, world: number of this process and of all that train together; each has its own.
        """
        super().__init__()
        self.settings = settings
        self.seed = seed
        self.start = start
        self.rank = rank
        self.world = world

    def __iter__(self) -> Iterator[Batch]:
        settings = self.settings
        info = get_worker_info()
        place, here = (info.id, info.num_workers) if info is not None else (0, 1)
        # A loader asks its workers in turn, from the first: batch `start` must be its first.
        place = (place + self.start) % here
        done = (self.start + here - 1 - place) // here  # batches this worker has made before
        worker, workers = self.rank * here + place, self.world * here
        torch.set_num_threads(1)
        cv2.setNumThreads(0)
        source = open_source(settings.render, settings.shards, self.seed)
        labelled = LabelledCrops(settings, source.vertex_count)
        if settings.others_per_batch and not len(labelled):
            raise InputError("the photo and data sets hold no labelled hand; leave them out")

        plan = settings.new_pool(self.seed, worker, workers)
        plan.skip(done)
        pool = Crops.empty(settings.pool, settings.render.crop_px, source.vertex_count)
        held = plan.held()
        for first in range(0, len(held.rows), settings.chunk):
            part = slice(first, first + settings.chunk)
            pool.put(held.rows[part], source.crops(held.numbers[part]))
        while True:
            fills, rows = plan.next()
            for fill in fills:
                pool.put(fill.rows, source.crops(fill.numbers))
            # A generator for each batch: going on needs no memory of those before.
            rng = np.random.default_rng([self.seed, 7, worker, done])
            parts = [pool.take(rows)]
            if settings.others_per_batch:
                parts.append(labelled.draw(rng, settings.others_per_batch))
            yield to_tensors(settings.augment(rng, Crops.concatenate(parts)))
            done += 1


def loader(stream: CropStream, workers: int) -> DataLoader[Batch]:
    """A `DataLoader` that passes whole batches through."""
    return DataLoader(
        stream,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        # Forked workers would inherit torch's thread pool in an undefined state.
        multiprocessing_context="spawn" if workers else None,
    )
