"""Which samples a worker holds and which it draws: the bookkeeping of a stream, without pictures.

Samples are numbered from 0 without end and dealt out to workers in chunks: worker ``w`` of ``W``
takes chunks ``w``, ``w + W``, ``w + 2 W``, ... A worker keeps a pool of them, draws each batch from
it at random, and replaces a sample once it has been drawn as often as planned. So over all workers
no sample is left out and none is taken twice, and the state after any number of batches can be
found again by going through the motions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handmesh.errors import InputError

from .seeds import Purpose, generator

# While the pool grows, so many samples come in for one that is used up: the first batches come
# soon, and the pool is full after as many samples again as it holds.
GROWTH = 2.0


@dataclass(frozen=True, eq=False)
class Fill:
    """Samples ``numbers`` (N,) int64 go into the pool's ``rows`` (N,) int64."""

    rows: NDArray[np.int64]
    numbers: NDArray[np.int64]


class Pool:
    """The samples of one worker; each call of `next` is one batch."""

    def __init__(
        self,
        size: int,
        chunk: int,
        batch: int,
        reuse: float,
        seed: int,
        worker: int = 0,
        workers: int = 1,
    ) -> None:
        """
        Args:
            size: samples held at most. chunk: samples that come in together.
            batch: samples drawn at a time, all different.
            reuse: draws of each sample: of a fraction, now one more and now one less.
            seed: of the draws. worker, workers: number of this worker and of all.

        Raises:
            InputError: numbers that contradict each other.
        """
        if not 0 < chunk <= size // 2 or not 0 < batch <= size - chunk:
            raise InputError(
                f"a pool of {size} must hold two chunks of {chunk}, and a batch of {batch} beside "
                "one of them; raise pool, or lower chunk or batch"
            )
        if not 1 <= reuse < math.inf:  # which nan is not either
            raise InputError(
                f"reuse must be at least 1 and finite: each sample is drawn once, not {reuse}"
            )
        self.size, self.chunk, self.batch, self.reuse = size, chunk, batch, reuse
        self.worker, self.workers = worker, workers
        self._rng = generator(seed, Purpose.POOL, worker)
        self._left = np.zeros(size, dtype=np.int64)  # draws still due
        self._number = np.zeros(size, dtype=np.int64)
        self._taken = 0  # samples taken in so far
        self._credit = 0.0  # chunks that may come in while the pool grows
        self._full = False

    @property
    def turns(self) -> int:
        """Chunks of its own that the worker has taken in so far."""
        return self._taken // self.chunk

    def next(self) -> tuple[list[Fill], NDArray[np.int64]]:
        """What comes in before the next batch, in this order, and the rows (batch,) of the batch.

        Rows are to be read before the next call, which may overwrite them.
        """
        fills = []
        self._credit += GROWTH * self.batch / (self.reuse * self.chunk)
        while self._wants_chunk():
            fills.append(self._take_in())
        held = np.flatnonzero(self._left)
        rows = held[self._rng.choice(len(held), self.batch, replace=False)]
        self._left[rows] -= 1
        return fills, rows

    def skip(self, batches: int) -> None:
        """Go through the motions of so many batches."""
        for _ in range(batches):
            self.next()

    def held(self) -> Fill:
        """All samples that will be drawn again, and where they lie, in the order of their numbers.

        A source draws blocks of neighbouring samples as a whole: read in this order, each block is
        drawn once or twice, in that of the rows again and again.
        """
        rows = np.flatnonzero(self._left)
        rows = rows[np.argsort(self._number[rows])]
        return Fill(rows, self._number[rows])

    def _wants_chunk(self) -> bool:
        free = int((self._left == 0).sum())
        if free < self.chunk:
            self._full = True
            return False
        held = self.size - free
        return self._full or held < max(2 * self.chunk, self.batch) or self._credit >= 1

    def _take_in(self) -> Fill:
        rows = np.flatnonzero(self._left == 0)[: self.chunk]
        turn = self._taken // self.chunk
        first = (turn * self.workers + self.worker) * self.chunk
        self._number[rows] = np.arange(first, first + self.chunk)
        # Whole draws whose running sum keeps up with the running sum of `reuse`.
        due = np.floor((self._taken + np.arange(self.chunk + 1)) * self.reuse)
        self._left[rows] = np.diff(due).astype(np.int64)
        self._taken += self.chunk
        self._credit = max(self._credit - 1, 0.0)
        return Fill(rows, self._number[rows])
