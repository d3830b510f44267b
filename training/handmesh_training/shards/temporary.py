"""Files that are still being written, and what is left of them by processes that were killed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from handmesh.atomic import put_in_place, temporary_name

HAS_LOCKS = True
try:
    import fcntl
except ImportError:  # Windows: files are not locked there, and nothing is swept
    HAS_LOCKS = False


@contextlib.contextmanager
def temporary_beside(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file beside a path, under a name of its own; removed at the end unless it was `put`.

    It is locked while it is open, and the lock ends with the process, however it ends: so others
    can tell it from a file that was left over.
    """
    temporary = temporary_name(path)
    file = _locked(temporary)
    try:
        with file:
            yield temporary, file
    finally:
        temporary.unlink(missing_ok=True)


def _locked(path: Path) -> BinaryIO:
    while True:
        file = path.open("wb")
        if not HAS_LOCKS:
            return file
        with contextlib.suppress(OSError):  # a file system without locks: nothing is swept there
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # swept between the two lines


def flush(file: BinaryIO) -> None:
    """Bring to the disk what was written: or a power cut could leave a name without the bytes."""
    file.flush()
    os.fsync(file.fileno())


def put(temporary: Path, file: BinaryIO, path: Path) -> None:
    """Give a file of `temporary_beside` its name, now that it is whole; locked until then."""
    file.flush()
    if not HAS_LOCKS:
        file.close()  # Windows renames no open file
    put_in_place(temporary, path)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file such that under its name lies what was there, or all of the data."""
    with temporary_beside(path) as (temporary, file):
        file.write(data)
        put(temporary, file, path)


def sweep(path: Path) -> None:
    """Remove temporary files beside a path that nobody is writing any more; where there are no
    locks to tell them by, none."""
    if not HAS_LOCKS:
        return
    for left_over in path.parent.glob(f".{path.name}.*.tmp"):
        with contextlib.suppress(OSError), left_over.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while it is being written
            left_over.unlink(missing_ok=True)
