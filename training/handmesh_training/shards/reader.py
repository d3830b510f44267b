"""Reading a sharded set, by index, and checking one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from handmesh.errors import ShardError, ShardIntegrityError
from handmesh_training.datasets.sample import Sample
from handmesh_training.record import HandRecord, to_crops
from handmesh_training.samples import Crops

from .index import ShardIndex, check_shard
from .manifest import Manifest, ShardEntry, shard_name
from .records import decode
from .writer import seal

# Shards that are open at a time, in each process.
OPEN_SHARDS = 16


class ShardSet:
    """A complete set on disk: ``len(data)``, ``data[i]``, iteration. One reader for each thread.

    Opening looks at names and sizes only; `verify` looks at every byte. Workers that get a copy
    open the files themselves.
    """

    def __init__(self, folder: Path | str) -> None:
        """
        Raises:
            ShardError: there is no set in the folder, or shards of it are not yet rendered.
            ShardIntegrityError: a shard is missing or truncated.
        """
        self.folder = Path(folder)
        self.manifest = Manifest.load(self.folder)
        if not self.manifest.shards:
            raise ShardError(
                f"the set in {self.folder} is not complete: run the commands that render its "
                f"{self.manifest.shard_count} shards, or, once the files of all are there, "
                f"`handmesh render --verify {self.folder}`"
            )
        for name, entry in self.manifest.shards.items():
            _check_size(self.folder / name, entry)
        self._open: OrderedDict[int, tuple[BinaryIO, NDArray[np.int64]]] = OrderedDict()

    def __len__(self) -> int:
        return self.manifest.count

    @property
    def vertex_count(self) -> int:
        """V of the labels' mesh."""
        return self.manifest.vertex_count

    def __getitem__(self, index: int) -> Sample:
        """One sample; negative numbers count from the end.

        Raises:
            IndexError: there is none of that number.
            ShardIntegrityError: the shard is damaged there.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.folder} holds {len(self)} samples; there is no number {index}")
        return self.record(index % len(self)).to_sample()

    def __iter__(self) -> Iterator[Sample]:
        return (self.record(index).to_sample() for index in range(len(self)))

    def crops(self, indices: Sequence[int] | NDArray[np.integer]) -> Crops:
        """Several, at least one, as what networks are trained on. Raises as `record`."""
        return to_crops([self.record(int(index)) for index in indices])

    def record(self, index: int) -> HandRecord:
        """Sample ``index``, from 0, with all that is known about it.

        Raises:
            ShardIntegrityError: the shard is damaged there.
        """
        shard = self.manifest.shard_of(index)
        file, starts = self._opened(shard)
        place = index - self.manifest.span(shard).start
        where = f"sample {index} in {self.folder / shard_name(shard)}"
        try:
            file.seek(starts[place])
            data = file.read(int(starts[place + 1] - starts[place]))
        except OSError as error:
            raise ShardIntegrityError(f"{where} cannot be read: {error}") from error
        record = decode(data, where)
        if record.index != index:
            raise ShardIntegrityError(
                f"{where} says that it is number {record.index}; the shard is another one's"
            )
        return record

    def _opened(self, shard: int) -> tuple[BinaryIO, NDArray[np.int64]]:
        if shard not in self._open:
            index = ShardIndex.load(self.folder, shard, self.manifest)
            if index.entry != self.manifest.shards[shard_name(shard)]:
                raise ShardIntegrityError(
                    f"{self.folder}: the files about shard {shard} disagree; run "
                    f"`handmesh render --verify {self.folder}`"
                )
            path = self.folder / shard_name(shard)
            try:
                file = path.open("rb")
            except OSError as error:
                raise ShardIntegrityError(f"{path} cannot be opened: {error}") from error
            self._open[shard] = file, np.array(index.starts, dtype=np.int64)
            if len(self._open) > OPEN_SHARDS:
                self._open.popitem(last=False)[1][0].close()
        self._open.move_to_end(shard)
        return self._open[shard]

    def close(self) -> None:
        """Close the files; a later access opens them again."""
        while self._open:
            self._open.popitem()[1][0].close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}


def verify(folder: Path | str) -> Manifest:
    """Check every byte of a set against its SHA-256, and decode every sample.

    If all shards are whole, but the manifest does not tell of them yet (they were rendered in
    several folders), it is completed.

    Raises:
        ShardError: no set there. ShardIntegrityError: shards are missing, truncated or damaged; the
            message names all of them.
    """
    folder = Path(folder)
    manifest = Manifest.load(folder)
    problems = []
    for shard in tqdm(range(manifest.shard_count), desc="verifying", unit="shard"):
        try:
            check_shard(folder, shard, manifest)
        except ShardIntegrityError as error:
            problems.append(str(error))
    if problems:
        raise ShardIntegrityError(
            f"{len(problems)} of {manifest.shard_count} shards are not as they should be:\n"
            + "\n".join(problems)
        )
    manifest = seal(folder)
    data = ShardSet(folder)
    for index in tqdm(range(len(data)), desc="decoding", unit="image"):
        data.record(index)
    data.close()
    return manifest


def _check_size(path: Path, entry: ShardEntry) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ShardIntegrityError(
            f"{path} is missing; run the command that renders it again"
        ) from error
    if size != entry.bytes:
        raise ShardIntegrityError(
            f"{path} has {size} bytes, but {entry.bytes} were written: it is truncated or another "
            "file; delete it and run the command that renders it again"
        )
