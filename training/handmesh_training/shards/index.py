"""The small file about each shard: whose it is, what it holds, and whether it is still that."""

from __future__ import annotations

import json
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from handmesh.errors import ShardIntegrityError

from .manifest import MANIFEST, Manifest, ShardEntry, file_sha256, shard_name
from .temporary import write_whole


@dataclass(frozen=True)
class ShardIndex:
    """The small file about one shard.

    Attributes:
        entry: what the shard is. starts: byte at which each sample starts, and the last one ends.
        set_sha256: of the `Manifest` whose shard it is.
    """

    entry: ShardEntry
    starts: list[int]
    set_sha256: str

    @classmethod
    def load(cls, folder: Path, shard: int, manifest: Manifest) -> ShardIndex:
        """Read the one about a shard of a set.

        Raises:
            ShardIntegrityError: there is none, it is damaged, or another set's.
        """
        path = index_path(folder, shard)
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            starts, owner = [int(start) for start in stored.pop("starts")], stored.pop("set_sha256")
            index = cls(ShardEntry(**stored), starts, owner)
            index._check_starts()
        except FileNotFoundError as error:
            raise ShardIntegrityError(
                f"{folder} lacks shard {shard} ({path.name}); run the command that renders it again"
            ) from error
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            raise ShardIntegrityError(
                f"{path} is damaged ({error!r}); run the command that renders it again"
            ) from error
        expected = len(manifest.span(shard))
        if owner != manifest.set_sha256 or index.entry.samples != expected:
            raise ShardIntegrityError(
                f"{path} is about a shard of another set, of {index.entry.samples} samples instead "
                f"of {expected} or with other settings; delete both, and run the command that "
                "renders it again"
            )
        return index

    def _check_starts(self) -> None:
        """Samples lie one after the other, at tar's blocks, within the file."""
        steps = np.diff(self.starts)
        if (
            len(steps) != self.entry.samples
            or self.starts[0] != 0
            or (steps <= 0).any()
            or (steps % tarfile.BLOCKSIZE).any()
            or self.starts[-1] > self.entry.bytes
        ):
            raise ValueError("samples do not start where they could")

    def save(self, folder: Path, shard: int) -> None:
        """Write it, atomically.

        Raises:
            OSError: it cannot be written.
        """
        stored = json.dumps(
            {**asdict(self.entry), "set_sha256": self.set_sha256, "starts": self.starts}
        )
        write_whole(index_path(folder, shard), (stored + "\n").encode())


def index_path(folder: Path, shard: int) -> Path:
    """Where the small file about a shard lies."""
    return folder / f"hands-{shard:05d}.json"


def check_shard(folder: Path, shard: int, manifest: Manifest) -> ShardEntry:
    """Compare a shard's bytes with its SHA-256: the manifest's, or else its own small file's.

    Raises:
        ShardIntegrityError: it is missing, truncated or damaged.
    """
    index = ShardIndex.load(folder, shard, manifest)
    path = folder / shard_name(shard)
    expected = manifest.shards.get(shard_name(shard))
    again = "delete it and run the command that renders it again"
    if expected is not None and index.entry != expected:
        raise ShardIntegrityError(
            f"{index_path(folder, shard)} and {MANIFEST} disagree about the shard; {again}"
        )
    if not path.is_file():
        raise ShardIntegrityError(f"{folder} lacks shard {shard} ({path.name}); {again}")
    size = path.stat().st_size
    if size != index.entry.bytes:
        raise ShardIntegrityError(
            f"{path} has {size} bytes, but {index.entry.bytes} were written: it is truncated or "
            f"another file; {again}"
        )
    found = file_sha256(path)
    if found != index.entry.sha256:
        raise ShardIntegrityError(
            f"{path} has SHA-256 {found}, but {index.entry.sha256} was written: it is damaged; "
            f"{again}"
        )
    return index.entry
