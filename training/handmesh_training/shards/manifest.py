"""What a sharded set is: ``manifest.json``, and one small file about each shard."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from handmesh import __version__
from handmesh.atomic import write_atomic
from handmesh.errors import ShardError, ShardIntegrityError, ShardMismatchError

SCHEMA = 1
MANIFEST = "manifest.json"
# Samples that every machine renders first, to see that it renders what the others do.
PROBE = (0, 1, 2, 3)
# How far apart they may be: hundredths of a pixel from rounding, a grey level from the compiler.
PROBE_JOINTS_PX, PROBE_COLOUR = 0.05, 1.0


@dataclass(frozen=True)
class ShardEntry:
    """A shard as it was written: its file's SHA-256 in hex, its bytes and its samples."""

    sha256: str
    bytes: int
    samples: int


@dataclass(frozen=True)
class Manifest:
    """What a set is.

    Attributes:
        count: samples, numbered from 0. shard_count: shards that they are shared out among.
        seed: of everything random.
        crop_px, margin, empty: of `RenderSettings`.
        sources: SHA-256 of the names and bytes of skins, environments and backgrounds; None where
            made up, or none.
        encoding: of `Encoding`, as a dict.
        hand_sha256: of the hand asset. vertex_count: V of the labels' mesh.
        probe: joints in pixels and mean colour of the samples `PROBE`.
        versions: what the machine that began the set ran. Not compared.
        shards: what is in each file, by its name: all of them, or none while some are missing.
    """

    count: int
    shard_count: int
    seed: int
    crop_px: int
    margin: float
    empty: float
    sources: dict[str, str | None]
    encoding: dict[str, Any]
    hand_sha256: str
    vertex_count: int
    probe: dict[str, list[Any]]
    versions: dict[str, str] = field(default_factory=lambda: versions())
    shards: dict[str, ShardEntry] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read a folder's.

        Raises:
            ShardError: there is none, or it is not one of ours.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise ShardError(
                f"{folder} holds no {MANIFEST}: it is not a sharded set; give the folder that "
                "`handmesh render --out` wrote to"
            )
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            schema = stored.pop("schema")
            if schema == SCHEMA and stored.pop("format") == "handmesh-shards":
                shards = {name: ShardEntry(**entry) for name, entry in stored["shards"].items()}
                return cls(**{**stored, "shards": shards})
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            raise ShardError(f"{path} is not the manifest of a sharded set ({error!r})") from error
        raise ShardError(f"{path} has schema {schema}; this handmesh reads schema {SCHEMA}")

    def save(self, folder: Path) -> None:
        """Write it to a folder, atomically."""
        stored = {"format": "handmesh-shards", "schema": SCHEMA, **asdict(self)}
        write_atomic(folder / MANIFEST, (json.dumps(stored, indent=1) + "\n").encode())

    def require_same(self, other: Manifest, folder: Path) -> None:
        """Check that ``other``, what is to be rendered now, is the set in the folder.

        Raises:
            ShardMismatchError: it is another one; the message names every difference.
        """
        ours, theirs = asdict(self), asdict(other)
        for one in (ours, theirs):
            for name in ("probe", "versions", "shards"):
                del one[name]
            for group in ("sources", "encoding"):
                one |= {f"{group}.{name}": value for name, value in one.pop(group).items()}
        differences = [
            f"{name}: the set has {ours[name]}, now it is {theirs[name]}"
            for name in ours
            if ours[name] != theirs[name]
        ]
        if differences:
            raise ShardMismatchError(
                f"{folder} holds a set with other settings ({'; '.join(differences)}); give the "
                "same ones to go on with it, or another folder"
            )
        apart = {
            name: float(np.abs(np.subtract(self.probe[name], other.probe[name])).max())
            for name in self.probe
        }
        if apart["joints_px"] > PROBE_JOINTS_PX or apart["colour"] > PROBE_COLOUR:
            raise ShardMismatchError(
                f"the samples {PROBE} come out otherwise than when {folder} was begun: joints "
                f"{apart['joints_px']:.2f} px apart, colours {apart['colour']:.1f} of 255; then: "
                f"{self.versions}, now: {other.versions}; render with the same versions, or to "
                "another folder"
            )

    def span(self, shard: int) -> range:
        """Numbers of the samples in a shard: equal shares, to within one."""
        return range(
            shard * self.count // self.shard_count, (shard + 1) * self.count // self.shard_count
        )

    def shard_of(self, index: int) -> int:
        """The shard that holds a sample."""
        return ((index + 1) * self.shard_count - 1) // self.count

    def complete(self, entries: Sequence[ShardEntry]) -> Manifest:
        """The same with all shards told, in their order."""
        return replace(self, shards={shard_name(i): entry for i, entry in enumerate(entries)})


@dataclass(frozen=True)
class ShardIndex:
    """The small file about one shard.

    Attributes:
        entry: what the shard is. starts: byte at which each sample starts, and the last one ends.
    """

    entry: ShardEntry
    starts: list[int]

    @classmethod
    def load(cls, folder: Path, shard: int) -> ShardIndex:
        """Read it.

        Raises:
            ShardIntegrityError: there is none, or it cannot be read.
        """
        path = index_path(folder, shard)
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            starts = [int(start) for start in stored.pop("starts")]
            return cls(ShardEntry(**stored), starts)
        except FileNotFoundError as error:
            raise ShardIntegrityError(
                f"{folder} lacks shard {shard} ({path.name}); run the command that renders it again"
            ) from error
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            raise ShardIntegrityError(
                f"{path} is damaged ({error!r}); run the command that renders it again"
            ) from error

    def save(self, folder: Path, shard: int) -> None:
        """Write it, atomically."""
        stored = json.dumps({**asdict(self.entry), "starts": self.starts})
        write_atomic(index_path(folder, shard), (stored + "\n").encode())


def shard_name(shard: int) -> str:
    """File name of a shard."""
    return f"hands-{shard:05d}.tar"


def index_path(folder: Path, shard: int) -> Path:
    """Where the small file about a shard lies."""
    return folder / f"hands-{shard:05d}.json"


def check_shard(folder: Path, shard: int, expected: ShardEntry | None = None) -> ShardEntry:
    """Compare a shard's bytes with its SHA-256: the one ``expected``, or its own small file's.

    Raises:
        ShardIntegrityError: it is missing, truncated or damaged.
    """
    index = ShardIndex.load(folder, shard)
    path = folder / shard_name(shard)
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


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def folder_sha256(folder: Path, suffixes: Sequence[str]) -> str:
    """SHA-256, in hex, of the names and bytes of all files with those suffixes under a folder."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in suffixes):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(bytes.fromhex(file_sha256(path)))
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Of what decides the samples' last bits."""
    return {
        "handmesh": __version__,
        "numpy": np.__version__,
        "torch": torch.__version__,
        "opencv": cv2.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
