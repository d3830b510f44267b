"""Files that are written whole or not at all: under a temporary name beside their place, then
renamed into it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from .errors import InputError

__all__ = ["replacing", "write_atomic"]


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], suffix: str = "") -> Iterator[Path]:
    """A temporary path, whose file takes the place of `path` when the block ends without an error.

    It ends in `suffix`, for writers that choose their format by the name.
    Otherwise it is removed, and what was there stays. Processes and threads may write the same
    file at once: one of them wins, whole.
    """
    target = Path(path)
    temporary = target.with_name(
        f".{target.name}.{os.getpid()}.{threading.get_ident()}.tmp{suffix}"
    )
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write bytes to a file; returns its path.

    Raises:
        InputError: the folder does not exist or cannot be written to.
    """
    target = Path(path)
    try:
        with replacing(target) as temporary:
            temporary.write_bytes(data)
    except (OSError, ValueError) as cause:  # ValueError: NUL in the name, or half a character
        reason = getattr(cause, "strerror", None) or str(cause)
        name = str(target) if str(target).isprintable() else repr(str(target))
        raise InputError(f"cannot write {name}: {reason}; does its folder exist?") from cause
    return target
