"""Endless batches for training: rendered hands, each drawn a few times, mixed with real photos."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
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
from .rendered import HandRenderer, RenderSettings
from .samples import Crops

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class StreamSettings:
    """How batches are made.

    Attributes:
        batch: crops a batch.
        photo_share: share of each batch taken from photos and data sets, if there are any; each
            hand of theirs is as likely as any other.
        photos: photo sets (see `photos`), held in memory.
        datasets: data sets as LAYOUT:SPLIT:FOLDER (see `datasets`), read as they are drawn.
        reuse: how often each rendered crop is drawn, on average, before it is replaced; every draw
            is augmented anew. Rendering costs a good part of a training step on a CPU.
        pool: rendered crops held at a time.
        chunk: crops rendered at a time.
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
    render: RenderSettings = field(default_factory=RenderSettings)
    augment: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.pool < 2 * self.chunk:
            raise InputError(f"a pool of {self.pool} is less than two chunks of {self.chunk}")
        from_others = self.photos or self.datasets
        if from_others and round(self.batch * self.photo_share) >= self.batch:
            raise InputError(f"photo_share {self.photo_share} leaves no room for rendered hands")
        if self.augment.stored_margin != self.render.margin:
            raise InputError(
                f"crops are stored with margin {self.render.margin}, but augment.stored_margin is "
                f"{self.augment.stored_margin}; give both the same"
            )


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
    """Batches as tensors named like the fields of `Crops`; endless; each worker its own seeds."""

    def __init__(
        self, settings: StreamSettings, seed: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        """
        Args:
            settings: what is in a batch. seed: of the whole stream.
            start: batches already consumed by an earlier run; the stream goes on with hands that
                run has not seen, but for a chunk or two that it had just begun to draw from.
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
        worker, workers = (info.id, info.num_workers) if info is not None else (0, 1)
        worker, workers = self.rank * workers + worker, self.world * workers
        torch.set_num_threads(1)
        cv2.setNumThreads(0)
        renderer = HandRenderer(settings.render, self.seed)
        rng = np.random.default_rng([self.seed, 7, worker, self.start])
        labelled = LabelledCrops(settings, renderer.vertex_count)
        from_others = round(settings.batch * settings.photo_share) if len(labelled) else 0
        from_pool = settings.batch - from_others

        # Chunk numbers: interleaved over workers, continued after `start` batches.
        per_chunk = settings.reuse * settings.chunk / from_pool  # batches a chunk lasts
        number = int(self.start / per_chunk) * workers + worker + (workers if self.start else 0)
        pool = Crops.empty(settings.pool, settings.render.crop_px, renderer.vertex_count)
        filled, slot, due = 0, 0, 0.0
        while True:
            # Start with a few chunks rather than a full pool: the first batches come soon.
            while due >= 1 or filled < 2 * settings.chunk:
                rows = (slot + np.arange(settings.chunk)) % settings.pool
                pool.put(rows, renderer.chunk(number, settings.chunk))
                number += workers
                slot = (slot + settings.chunk) % settings.pool
                filled = min(filled + settings.chunk, settings.pool)
                due = max(due - 1, 0.0)
            due += 1 / per_chunk
            parts = [pool.take(rng.integers(filled, size=from_pool))]
            if from_others:
                parts.append(labelled.draw(rng, from_others))
            batch = settings.augment(rng, Crops.concatenate(parts))
            yield {f.name: torch.from_numpy(getattr(batch, f.name)) for f in fields(Crops)}


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
