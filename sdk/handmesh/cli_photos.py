"""Which photos a command line means: files, folders, patterns, lists, standard input."""

from __future__ import annotations

import codecs
import dataclasses
import errno
import glob
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .errors import InputError

__all__ = ["SUFFIXES", "UNREAD", "Source", "find_photos", "tell_left_out"]

# Of files in a folder that are taken for photos; a file that is named itself may have any.
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff", ".jp2", ".ppm", ".pgm")
)
# Pictures too, of which some builds of OpenCV read few and none reads all: left out, and told.
UNREAD = frozenset(
    (".heic", ".heif", ".avif", ".gif", ".jxl", ".psd", ".svg", ".arw", ".cr2", ".cr3", ".dng")
    + (".nef", ".orf", ".raf", ".raw", ".rw2")
)
STDIN = "-"


@dataclasses.dataclass(frozen=True)
class Source:
    """A photo to be read.

    Attributes:
        path: where it lies; None for standard input.
        stem: what results are called and where they go below the output folder: the name without
            suffix, behind its sub-folders in the folder that was given.
    """

    path: Path | None
    stem: Path

    def __str__(self) -> str:
        return STDIN if self.path is None else str(self.path)

    def photo(self) -> Path | bytes:
        """The path, or the bytes, of an image file. Standard input is read to its end.

        Raises:
            InputError: it cannot be read.
        """
        if self.path is not None:
            return self.path
        try:
            return _standard_input()
        except OSError as cause:
            raise InputError(f"cannot read standard input: {cause.strerror}") from cause


def find_photos(
    arguments: Sequence[str],
    files_from: str | None = None,
    recursive: bool = False,
    left_out: set[Path] | None = None,
) -> list[Source]:
    """Every photo that is meant, once, in the order of the arguments; those of a folder by name.

    Args:
        arguments: files; folders; patterns with ``*``, ``?``, ``[...]`` and ``**``, for shells
            that leave them as they are; "-" for one photo on standard input. Pictures that
            `predict` made itself are in no folder and match no pattern.
        files_from: a file with one path a line, taken as it is; "-" for standard input.
        recursive: folders with their sub-folders.
        left_out: takes up the pictures in the folders that are not among the photos, for their
            suffix.

    Raises:
        InputError: nothing is meant, an argument is empty, a folder or a pattern holds nothing, or
            a folder or a list cannot be read.
    """
    if files_from == STDIN and STDIN in arguments:
        raise InputError("standard input is either one photo (-) or a list (--files-from -)")
    unread: set[Path] = set()
    found = [source for argument in arguments for source in _meant(argument, recursive, unread)]
    if files_from is not None:
        found += [_file(Path(line)) for line in _lines(files_from)]
    if not found:
        raise InputError("no photo is named: give files, folders, patterns, - or --files-from")
    sources = {os.path.abspath(s.path) if s.path else STDIN: s for s in found}
    if left_out is not None:  # but what is named besides its folder is read
        left_out |= {path for path in unread if os.path.abspath(path) not in sources}
    return list(sources.values())


def tell_left_out(paths: Iterable[Path]) -> None:
    """Say on standard error which pictures `find_photos` left out, if it did."""
    if kinds := _kinds(paths):
        print(f"handmesh: left out, not read: {kinds}", file=sys.stderr)


def _kinds(paths: Iterable[Path]) -> str:
    """ "1 .avif, 3 .heic"; "" of none."""
    counts = Counter(path.suffix.lower() for path in paths)
    return ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items()))


def _meant(argument: str, recursive: bool, left_out: set[Path]) -> Iterator[Source]:
    if not argument:  # a variable of the shell that is not set: not the current folder
        raise InputError("a PHOTO is empty (''): name a file, a folder or a pattern; . is this one")
    path = Path(argument)
    if argument == STDIN:
        yield Source(None, Path("stdin"))
    elif os.path.isdir(path):  # of os.path: False, no error, of a name that no file can have
        yield from _folder(path, recursive, left_out)
    elif glob.has_magic(argument) and not os.path.exists(path):
        matches = sorted(glob.glob(argument, recursive=True))
        if not matches:
            raise InputError(f"no file matches {argument!r}")
        for match in map(Path, matches):
            if not (os.path.isdir(match) or _is_result(match)):
                yield _file(match)
    else:
        yield _file(path)  # if it is missing, the reader says so, and others are read all the same


def _file(path: Path) -> Source:
    return Source(path, Path(path.stem))


def _folder(folder: Path, recursive: bool, left_out: set[Path]) -> Iterator[Source]:
    try:
        inside = folder.rglob("*") if recursive else folder.iterdir()
        pictures = sorted(
            path
            for path in inside
            if path.suffix.lower() in SUFFIXES | UNREAD
            and not path.name.startswith(".")
            and not _is_result(path)
            and _may_be_file(path)
        )
    except OSError as cause:
        raise InputError(
            f"cannot read the folder {folder}: {cause.strerror}; name others, or allow it"
        ) from cause
    unread = [path for path in pictures if path.suffix.lower() in UNREAD]
    photos = [path for path in pictures if path.suffix.lower() not in UNREAD]
    left_out.update(unread)
    if not photos:
        deeper = "" if recursive else "; --recursive looks into its sub-folders"
        there = f" that can be read: {_kinds(unread)} there; export them as JPEG" if unread else ""
        raise InputError(f"no photo in the folder {folder}{there}{deeper}")
    for path in photos:
        yield Source(path, path.relative_to(folder).with_suffix(""))


def _may_be_file(path: Path) -> bool:
    """Whether it is a file; also where that may not be asked: the reader says so."""
    try:
        return path.is_file()
    except OSError:
        return True


def _is_result(path: Path) -> bool:
    """Whether an earlier run made that picture, so that a folder can hold photos and results."""
    made = re.fullmatch(r"(.+)_(?:hand|side(\d*))\.png", path.name)
    if made is None:
        return False
    # The JSON is written last: where a run was stopped, the GLB tells.
    endings = (".json", f"{made[2] or ''}.glb")
    return any(os.path.exists(path.with_name(f"{made[1]}_hand{ending}")) for ending in endings)


def _standard_input() -> bytes:
    """All of it.

    Raises:
        OSError: it cannot be read; or is closed, of which Python makes None.
    """
    if sys.stdin is None:
        raise OSError(errno.EBADF, "it is closed")
    return sys.stdin.buffer.read()


def _lines(name: str) -> Iterable[str]:
    try:
        if name == STDIN:  # any bytes may be a name, as in arguments: `find` prints them all
            data = _standard_input().removeprefix(codecs.BOM_UTF8)
            text = data.decode(sys.stdin.encoding, "surrogateescape")
        else:
            text = Path(name).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as cause:
        reason = getattr(cause, "strerror", None) or "it is not text in UTF-8"
        raise InputError(f"cannot read the list {name}: {reason}") from cause
    # At line feeds alone: names may hold whatever else `str.splitlines` takes for an end.
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    return [line for line in lines if line.strip()]
