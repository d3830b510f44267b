"""What a sharded set is: ``manifest.json``."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from handmesh import __version__
from handmesh.errors import ShardError, ShardMismatchError

from .temporary import flush, temporary_beside, write_whole

SCHEMA = 2
MANIFEST = "manifest.json"
# Samples that every machine renders first, to see that it renders what the others do.
PROBE = (0, 1, 2, 3)
# How far apart they may be: hundredths of a pixel from rounding, a grey level from the compiler.
PROBE_JOINTS_PX, PROBE_COLOUR = 0.05, 1.0
# Other releases of these may draw other samples; other machines only round differently.
SAME_VERSIONS = ("handmesh", "engine", "numpy", "torch", "opencv")


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
        versions: what the machine that began the set ran; `SAME_VERSIONS` must be the same wherever
            it is rendered.
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
        """Write it to a folder, atomically.

        Raises:
            OSError: it cannot be written.
        """
        write_whole(folder / MANIFEST, self._bytes())

    def _bytes(self) -> bytes:
        stored = {"format": "handmesh-shards", "schema": SCHEMA, **asdict(self)}
        return (json.dumps(stored, indent=1) + "\n").encode()

    def begin(self, folder: Path) -> None:
        """Write it to a folder that has none, whole or not at all.

        Raises:
            FileExistsError: another process was quicker.
        """
        path = folder / MANIFEST
        with temporary_beside(path) as (temporary, file):
            file.write(self._bytes())
            flush(file)
            try:
                os.link(temporary, path)  # unlike renaming, never over what is there
            except FileExistsError:
                raise
            except OSError:  # a file system without links
                with path.open("xb") as exclusive:
                    exclusive.write(self._bytes())
                    flush(exclusive)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the set's bytes, by name: equal in whatever renders a part of it."""
        stored = asdict(self)
        for name in ("probe", "shards"):
            del stored[name]
        stored["versions"] = {name: self.versions[name] for name in SAME_VERSIONS}
        for group in ("sources", "encoding", "versions"):
            stored |= {f"{group}.{name}": value for name, value in stored.pop(group).items()}
        return stored

    @cached_property
    def set_sha256(self) -> str:
        """Hash of `settings`: shards that belong together have the same."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()

    def require_same(self, other: Manifest, folder: Path) -> None:
        """Check that ``other``, what is to be rendered now, is the set in the folder.

        Raises:
            ShardMismatchError: it is another one; the message names every difference.
        """
        ours, theirs = self.settings, other.settings
        differences = [
            f"{name}: the set has {ours[name]}, now it is {theirs[name]}"
            for name in ours
            if ours[name] != theirs[name]
        ]
        if differences:
            raise ShardMismatchError(
                f"{folder} holds a set with other settings ({'; '.join(differences)}); give the "
                "same ones, and the same versions, to go on with it, or another folder"
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


def shard_name(shard: int) -> str:
    """File name of a shard."""
    return f"hands-{shard:05d}.tar"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def files_sha256(folder: Path, files: Sequence[Path]) -> str:
    """SHA-256, in hex, of the names and bytes of files in a folder, in their order."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(bytes.fromhex(file_sha256(path)))
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Of what decides the samples; ``engine`` is the SHA-256 of the sources that make them."""
    return {
        "handmesh": __version__,
        "engine": engine_sha256(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "opencv": cv2.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


@functools.cache
def engine_sha256() -> str:
    """SHA-256, in hex, of the sources that make samples: others may make other ones."""
    root = Path(__file__).parents[1]
    sources = [path for path in root.rglob("*") if path.suffix in (".py", ".cpp", ".cu", ".npz")]
    return files_sha256(root, sorted(sources))
