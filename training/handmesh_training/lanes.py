"""Batches that do not depend on how many processes make or train on them.

A run's samples are dealt out to a fixed number of lanes, each an endless row of its own. One batch
of the whole run is one part from each lane. Processes that train together share out the lanes, and
each process's loaders share out its own: so the same seed and number of lanes give the same batches
on one GPU, on eight, and on a laptop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from handmesh.errors import HandMeshError, InputError

from .opencv import use_one_thread
from .sources import Batch


class LaneSource(Protocol):
    """What can open any lane of a run at any batch. Must be picklable."""

    def lane(self, number: int, of: int, start: int) -> Iterator[Batch]:
        """The parts of lane ``number`` of ``of``, from batch ``start`` on, without end."""


def own_lanes(lanes: int, rank: int, world: int) -> list[int]:
    """Numbers of the lanes that process ``rank`` of ``world`` trains on.

    Raises:
        InputError: the processes cannot share them out evenly.
    """
    if lanes < 1 or lanes % world:
        raise InputError(
            f"{lanes} lanes cannot be shared out among {world} processes: give --lanes a multiple "
            "of them"
        )
    return list(range(rank, lanes, world))


class LaneStream(IterableDataset[Batch | HandMeshError]):
    """The parts of several lanes in turn: of the first, the second, ..., the first again."""

    def __init__(self, source: LaneSource, lanes: Sequence[int], of: int, start: int = 0) -> None:
        """
        Args:
            source: opens lanes. lanes: their numbers. of: how many the run has.
            start: batches that were consumed in an earlier run. Those that follow are the ones that
                would have come next, bit for bit.
        """
        super().__init__()
        self.source = source
        self.lanes = list(lanes)
        self.of = of
        self.start = start

    def __iter__(self) -> Iterator[Batch | HandMeshError]:
        """Parts; in a loader process, an error of ours in the place of the part that it is of, for
        torch would raise it with the text of a traceback."""
        info = get_worker_info()
        own = self.lanes if info is None else self.lanes[info.id :: info.num_workers]
        if info is not None:
            use_one_thread()
        opened = [self.source.lane(number, self.of, self.start) for number in own]
        while True:
            for lane in opened:
                try:
                    yield next(lane)
                except HandMeshError as error:
                    if info is None:
                        raise
                    yield error
                    return


def batches(
    source: LaneSource, lanes: Sequence[int], of: int, start: int = 0, workers: int = 0
) -> Iterator[Batch]:
    """Whole batches of one process: the parts of its lanes, one behind the other.

    Args:
        workers: loader processes; at most one for each lane, and as many as divide the lanes. 0
            makes batches in this process.

    Raises:
        HandMeshError: of the source, wherever it ran.
    """
    most = min(workers, len(lanes))
    used = max((n for n in range(1, most + 1) if len(lanes) % n == 0), default=0)
    parts = iter(
        DataLoader(
            LaneStream(source, lanes, of, start),
            batch_size=None,
            num_workers=used,
            prefetch_factor=4 if used else None,
            # Forked workers would inherit torch's thread pool in an undefined state.
            multiprocessing_context="spawn" if used else None,
        )
    )

    def part() -> Batch:
        made: Batch | HandMeshError = next(parts)
        if isinstance(made, HandMeshError):
            raise made
        return made

    while True:
        batch = [part() for _ in lanes]
        yield {name: torch.cat([part[name] for part in batch]) for name in batch[0]}
