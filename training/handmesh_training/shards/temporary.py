"""Files that are still being written, and what is left of them by processes that were killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def temporary_beside(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file beside a path, under a name of its own; removed at the end unless it was renamed.

    It is locked while it is open, and the lock ends with the process, however it ends: so others
    can tell it from a file that was left over.
    """
    owner = f"{platform.node()}.{os.getpid()}.{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.name}.{owner}.tmp")
    file = _locked(temporary)
    try:
        with file:
            yield temporary, file
    finally:
        temporary.unlink(missing_ok=True)


def _locked(path: Path) -> BinaryIO:
    while True:
        file = path.open("wb")
        with contextlib.suppress(OSError):  # a file system without locks: nothing is swept there
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # swept between the two lines


def flush(file: BinaryIO) -> None:
    """Bring to the disk what was written: or a power cut could leave a name without the bytes."""
    file.flush()
    os.fsync(file.fileno())


def write_whole(path: Path, data: bytes) -> None:
    """Write a file such that under its name lies what was there, or all of the data."""
    with temporary_beside(path) as (temporary, file):
        file.write(data)
        flush(file)
        os.replace(temporary, path)


def sweep(path: Path) -> None:
    """Remove temporary files beside a path that nobody is writing any more."""
    for left_over in path.parent.glob(f".{path.name}.*.tmp"):
        with contextlib.suppress(OSError), left_over.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while it is being written
            left_over.unlink(missing_ok=True)
