"""Rendering a set to shards: by one process or many machines, going on after a crash."""

from __future__ import annotations

import contextlib
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from handmesh.errors import InputError, ShardError, ShardIntegrityError
from handmesh_training.rendered import BLOCK, HandRenderer, RenderSettings
from handmesh_training.rendering.folders import (
    SKIN_CROP,
    panorama_files,
    photo_files,
    skin_files,
)

from .index import ShardIndex, check_shard, index_path
from .manifest import (
    MANIFEST,
    PROBE,
    Manifest,
    ShardEntry,
    file_sha256,
    files_sha256,
    shard_name,
)
from .records import Encoding, encode
from .temporary import put, sweep, temporary_beside

# What a folder of each kind holds, in the order in which it is hashed.
FILES: dict[str, Callable[[Path], list[Path]]] = {
    "skins": lambda folder: [folder / SKIN_CROP, *skin_files(folder)],
    "environments": panorama_files,
    "backgrounds": photo_files,
}


@dataclass(frozen=True)
class SetSettings:
    """A sharded set.

    Attributes:
        count: samples. shards: files that they are shared out among.
        seed: of everything random. render: what to render with. encoding: how to write it.

    Raises:
        InputError: fewer samples than shards, or no shard; another model's hand, which is laid out
            anew by each machine and would differ in its last bits.
    """

    count: int
    shards: int = 1
    seed: int = 0
    render: RenderSettings = field(default_factory=RenderSettings)
    encoding: Encoding = field(default_factory=Encoding)

    def __post_init__(self) -> None:
        if not 1 <= self.shards <= self.count:
            raise InputError(
                f"expected at least one shard and a sample for each, got {self.count} samples in "
                f"{self.shards} shards"
            )
        if self.render.other_hand is not None:
            raise InputError(
                f"sets on disk are of this project's hand, not of that in "
                f"{self.render.other_hand}; render samples of it by number, or leave it out"
            )
        if self.render.partners is not None:
            raise InputError(
                f"sets on disk have partners beside hands as often as any other, not beside "
                f"{self.render.partners} of them: leave it out"
            )
        if self.shards > 99_999 or self.count > 999_999_999:
            raise InputError("names are made for up to 99,999 shards and 999,999,999 samples")


def render_shards(
    settings: SetSettings,
    folder: Path,
    rank: int = 0,
    world: int = 1,
    threads: int = 1,
    device: str = "cpu",
) -> Manifest:
    """Render this process's shards of a set: every ``world``-th, from ``rank`` on.

    May be killed at any time; the same call goes on, and ends with the same bytes as if it had
    never been interrupted. Whole shards are checked and skipped, damaged ones rendered again. The
    process that finds all shards of the set in the folder writes their SHA-256 to the manifest.

    Args:
        settings: of the set; all processes must give the same.
        folder: where to write; made if need be. Processes may share it, or each have its own, to be
            copied into one folder afterwards.
        rank, world: number of this process and of all.
        threads: pictures are shared out among so many. device: "cpu", "cuda" or "cuda:N".

    Returns:
        The manifest; its ``shards`` are empty while some are missing.

    Raises:
        InputError: a rank outside ``world``, more processes than shards, folders that do not hold
            what they should.
        ShardMismatchError: the folder holds another set.
        ShardError: the folder holds other things, or cannot be written to.
        BackendUnavailable: no C++ compiler to build the renderer with.
    """
    if not 0 <= rank < world:
        raise InputError(f"rank must be 0 to {world - 1} in a world of {world}, not {rank}")
    if world > settings.shards:
        raise InputError(
            f"{settings.shards} shards are too few for {world} processes; give at least as many"
        )
    renderer = HandRenderer(settings.render, settings.seed, threads, device)
    manifest = _claim(folder, _describe(settings, renderer))
    own = range(rank, settings.shards, world)
    missing = [
        shard
        for shard in tqdm(own, desc="checking shards", unit="shard", leave=False)
        if not _is_whole(folder, shard, manifest)
    ]
    total = sum(len(manifest.span(shard)) for shard in missing)
    with tqdm(total=total, desc=f"rank {rank}", unit="image", smoothing=0.05) as bar:
        for shard in missing:
            _write_shard(folder, shard, manifest, renderer, settings.encoding, bar)
    return seal(folder)


def seal(folder: Path) -> Manifest:
    """Tell the manifest of all shards, if all are there; by their small files, unchecked.

    Raises:
        ShardError: no manifest, or it cannot be written.
    """
    manifest = Manifest.load(folder)
    try:
        entries = [ShardIndex.load(folder, i, manifest).entry for i in range(manifest.shard_count)]
    except ShardIntegrityError:
        return manifest
    complete = manifest.complete(entries)
    if complete != manifest:
        try:
            complete.save(folder)
        except OSError as error:
            raise ShardError(f"{folder / MANIFEST} cannot be written: {error}") from error
    return complete


def _describe(settings: SetSettings, renderer: HandRenderer) -> Manifest:
    render = settings.render
    folders = {name: getattr(render, name) for name in FILES}
    drawn = renderer.draw(PROBE)
    joints = drawn.views.joints[..., :2].astype(np.float64) * render.crop_px - 0.5  # (4, 21, 2)
    colour = renderer.render(drawn).image.mean(axis=(1, 2))  # (4, 3)
    return Manifest(
        count=settings.count,
        shard_count=settings.shards,
        seed=settings.seed,
        crop_px=render.crop_px,
        margin=render.margin,
        empty=render.empty,
        sources={
            name: None if folder is None else files_sha256(folder, FILES[name](folder))
            for name, folder in folders.items()
        },
        encoding=asdict(settings.encoding),
        hand_sha256=renderer.model.asset.sha256,
        vertex_count=renderer.vertex_count,
        probe={"joints_px": joints.round(3).tolist(), "colour": colour.round(3).tolist()},
    )


def _claim(folder: Path, wanted: Manifest) -> Manifest:
    """Begin the set in the folder, or make sure that it is the one begun there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        if not foreign:
            with contextlib.suppress(FileExistsError):  # another process of this set was quicker
                wanted.begin(folder)
        # Looked for last: the first names may be those of another process that has just begun.
        elif not (folder / MANIFEST).exists():
            raise ShardError(
                f"{folder} holds {foreign[0]!r} but no {MANIFEST}: give an empty folder, or one "
                "with a set that was begun"
            )
    except OSError as error:
        raise ShardError(f"{folder} cannot be used as a folder: {error}") from error
    begun = Manifest.load(folder)
    begun.require_same(wanted, folder)
    return begun


def _is_whole(folder: Path, shard: int, manifest: Manifest) -> bool:
    try:
        check_shard(folder, shard, manifest)
    except ShardIntegrityError as error:
        if (folder / shard_name(shard)).exists():
            tqdm.write(f"rendering again: {error}", file=sys.stderr)
        return False
    return True


def _write_shard(
    folder: Path,
    shard: int,
    manifest: Manifest,
    renderer: HandRenderer,
    encoding: Encoding,
    bar: tqdm,
) -> None:
    """First the shard, then the small file that says that it is whole; each by renaming."""
    path = folder / shard_name(shard)
    starts = []
    try:
        with temporary_beside(path) as (temporary, file):
            for part in _in_blocks(manifest.span(shard)):
                for record in renderer.records(part):
                    starts.append(file.tell())
                    file.write(encode(record, encoding))
                    bar.update()
            starts.append(file.tell())
            # Two empty blocks end an archive, whose length is a whole number of records.
            end = starts[-1] + 2 * tarfile.BLOCKSIZE
            file.write(b"\0" * (end + -end % tarfile.RECORDSIZE - starts[-1]))
            file.flush()
            entry = ShardEntry(file_sha256(temporary), temporary.stat().st_size, len(starts) - 1)
            put(temporary, file, path)
        ShardIndex(entry, starts, manifest.set_sha256).save(folder, shard)
    except OSError as error:
        raise ShardError(f"{path} cannot be written: {error}") from error
    for written in (path, index_path(folder, shard), folder / MANIFEST):
        sweep(written)


def _in_blocks(span: range) -> Iterator[range]:
    """A span cut where the renderer's blocks begin."""
    first = span.start
    while first < span.stop:
        last = min(span.stop, (first // BLOCK + 1) * BLOCK)
        yield range(first, last)
        first = last
