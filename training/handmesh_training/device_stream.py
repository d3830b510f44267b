"""`stream` for a GPU: processes decide what to show, the GPU draws, keeps and augments it.

Only numbers cross the bus: poses, cameras and looks, a few tens of kilobytes a hand; and the crops
of photos and stored sets. Pictures are made, kept and augmented on the device. The batches do not
depend on how many processes there are. It runs on a CPU as well, where it is slower than `stream`;
tests do, and there a stopped run goes on bit for bit. On a GPU the seeds and the samples are the
same after a stop; whether the pixels are, to the last bit, has not been tried: see
`docs/rendering.md`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from handmesh.errors import InputError

from .augment_torch import augment
from .opencv import use_one_thread
from .rendered import HandRenderer, labelled
from .rendering.appearance import Appearance
from .samples import Crops
from .seeds import Purpose, generator, sequence
from .sources import Batch, open_source, to_tensors
from .stream_settings import StreamSettings

_LOOK = "look."  # prefix of the tensors of an `Appearance`


class ChunkStream(IterableDataset[Batch]):
    """What comes into a pool, chunk after chunk: fields of `Crops`, made or still to be drawn.

    Chunks to be drawn have no pictures, but ``vertices_m``, ``intrinsics`` and the look.

    Args:
        settings: of the stream. seed: of the source.
        held: (N,) numbers of the samples to begin with.
        turn: of the first chunk after them. rank, world: whose chunks, as in `pool.Pool`.
    """

    def __init__(
        self,
        settings: StreamSettings,
        seed: int,
        held: NDArray[np.int64],
        turn: int,
        rank: int,
        world: int,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.seed = seed
        self.turn = turn
        self.rank = rank
        self.world = world
        ends = range(settings.chunk, len(held) + settings.chunk, settings.chunk)
        self._held = [held[end - settings.chunk : end] for end in ends]

    def __iter__(self) -> Iterator[Batch]:
        settings = self.settings
        source = open_source(settings.render, settings.shards, self.seed)
        for index in _own_share():
            numbers = self._numbers(index)
            if isinstance(source, HandRenderer):
                yield self._undrawn(source, numbers)
            else:
                yield to_tensors(source.crops(numbers))

    def _numbers(self, index: int) -> NDArray[np.int64]:
        if index < len(self._held):
            return self._held[index]
        turn = self.turn + index - len(self._held)
        first = (turn * self.world + self.rank) * self.settings.chunk
        return np.arange(first, first + self.settings.chunk)

    def _undrawn(self, renderer: HandRenderer, numbers: NDArray[np.int64]) -> Batch:
        scene = renderer.draw(numbers)
        batch = to_tensors(labelled(scene.views, np.empty((len(scene), 0, 0, 3), np.uint8)))
        del batch["images"]
        arrays = {"vertices_m": scene.vertices_m, "intrinsics": scene.views.intrinsics}
        arrays |= {_LOOK + f.name: getattr(scene.look, f.name) for f in fields(Appearance)}
        return batch | {k: torch.from_numpy(np.ascontiguousarray(a)) for k, a in arrays.items()}


class OthersStream(IterableDataset[Batch]):
    """Crops of photos and data sets for batches start, start + 1, ...; drawn as numbered.

    Args:
        settings: of the stream. vertex_count: V of the crops' mesh. seed, rank: of the draws.
        start: number of the first batch.
    """

    def __init__(
        self, settings: StreamSettings, vertex_count: int, seed: int, rank: int, start: int
    ) -> None:
        super().__init__()
        self.settings = settings
        self.vertex_count = vertex_count
        self.seed = seed
        self.rank = rank
        self.start = start

    def __iter__(self) -> Iterator[Batch]:
        from .stream import LabelledCrops  # reads photos, which takes OpenCV

        crops = LabelledCrops(self.settings, self.vertex_count)
        if not len(crops):
            raise InputError("the photo and data sets hold no labelled hand; leave them out")
        for index in _own_share():
            rng = generator(self.seed, Purpose.OTHERS, self.rank, self.start + index)
            yield to_tensors(crops.draw(rng, self.settings.others_per_batch))


class DeviceStream:
    """Endless batches on a device, named like the fields of `Crops`.

    Args:
        settings: what is in a batch.
        seed: of the whole stream.
        device: where pictures are drawn and batches live.
        workers: processes that decide what to show; 0 does it in this one. With photos or data
            sets there is one more, which reads them.
        start: batches consumed in an earlier run; those that follow show the same as if it had gone
            on.
        rank, world: number of this process and of all that train together; each has its own.

    Raises:
        InputError, ImageError, ShardError: folders that do not hold what they should.
        BackendUnavailable: no compiler for the device, or no such device.
    """

    def __init__(
        self,
        settings: StreamSettings,
        seed: int,
        device: str | torch.device,
        workers: int = 0,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.settings = settings
        self.seed = seed
        self.device = torch.device(device)
        self.workers = workers
        self.start = start
        self.rank = rank
        self.world = world
        self._renderer = None
        if settings.shards is None:
            self._renderer = HandRenderer(settings.render, seed, device=str(device)).renderer

    def __iter__(self) -> Iterator[Batch]:
        settings = self.settings
        plan = settings.new_pool(self.seed, self.rank, self.world)
        plan.skip(self.start)
        held = plan.held()
        chunks = self._loaded(
            ChunkStream(settings, self.seed, held.numbers, plan.turns, self.rank, self.world),
            self.workers,
        )
        pool: Batch = {}
        for first in range(0, len(held.rows), settings.chunk):
            self._put(pool, held.rows[first : first + settings.chunk], next(chunks))
        others: Iterator[Batch] | None = None
        on_device = torch.Generator(self.device)
        batch_number = self.start
        while True:
            fills, rows = plan.next()
            for fill in fills:
                self._put(pool, fill.rows, next(chunks))
            there = torch.from_numpy(rows).to(self.device, non_blocking=True)
            batch = {name: values[there] for name, values in pool.items()}
            if settings.others_per_batch:
                if others is None:
                    count = batch["vertices"].shape[1]
                    more = OthersStream(settings, count, self.seed, self.rank, batch_number)
                    others = self._loaded(more, min(1, self.workers))
                joined = {name: v.to(self.device) for name, v in next(others).items()}
                batch = {name: torch.cat([batch[name], joined[name]]) for name in batch}
            # A seed for each batch: going on needs no memory of those before.
            words = sequence(self.seed, Purpose.AUGMENTATION, self.rank, batch_number)
            on_device.manual_seed(int(words.generate_state(1, np.uint64)[0] >> 1))
            yield augment(settings.augment, on_device, batch)
            batch_number += 1

    def _loaded(self, stream: IterableDataset[Batch], workers: int) -> Iterator[Batch]:
        loader: Iterable[Batch] = DataLoader(
            stream,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=2 if workers else None,
            # Forked workers would inherit torch's thread pool in an undefined state.
            multiprocessing_context="spawn" if workers else None,
            pin_memory=self.device.type == "cuda",
        )
        return iter(loader)

    def _put(self, pool: Batch, rows: NDArray[np.int64], chunk: Batch) -> None:
        """The chunk's crops into rows of the pool, which is made on first use."""
        crops = self._crops(chunk)
        there = torch.from_numpy(rows).to(self.device, non_blocking=True)
        for name, values in crops.items():
            if name not in pool:
                shape = (self.settings.pool, *values.shape[1:])
                pool[name] = torch.zeros(shape, dtype=values.dtype, device=self.device)
            pool[name][there] = values

    def _crops(self, chunk: Batch) -> Batch:
        """The chunk on the device, drawn if it was not."""
        names = [f.name for f in fields(Crops) if f.name in chunk]
        crops = {name: chunk[name].to(self.device, non_blocking=True) for name in names}
        if self._renderer is None:
            return crops
        # The renderer takes arrays where it draws: NumPy's on the CPU, tensors elsewhere.
        given: dict[str, Any] = {k: v for k, v in chunk.items() if k not in names}
        if self.device.type == "cpu":
            given = {k: v.numpy() for k, v in given.items()}
        look = {k.removeprefix(_LOOK): v for k, v in given.items() if k.startswith(_LOOK)}
        made = self._renderer.render(given["vertices_m"], given["intrinsics"], Appearance(**look))
        return crops | {"images": torch.as_tensor(made.image)}


def _own_share() -> Iterator[int]:
    """Numbers of the items that this worker makes; a loader takes from its workers in turn."""
    info = get_worker_info()
    if info is not None:
        use_one_thread()
    index, step = (info.id, info.num_workers) if info is not None else (0, 1)
    while True:
        yield index
        index += step
