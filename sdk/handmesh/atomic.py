"""Files that are written whole or not at all: under a temporary name beside their place, brought to
the disk, then renamed into it. So a name never leads to half a file, even after a power cut."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from .errors import InputError

__all__ = ["put_in_place", "replacing", "temporary_name", "write_atomic"]

# Bytes of a name that a temporary one repeats: file systems allow 255 in all, some 143.
_REPEATED = 80


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], suffix: str = "") -> Iterator[Path]:
    """A temporary path, whose file takes the place of `path` when the block ends without an error.

    It ends in `suffix`, for writers that choose their format by the name.
    Otherwise it is removed, and what was there stays. Processes and threads may write the same
    file at once: one of them wins, whole. Of a symbolic link, the file that it leads to is
    replaced.
    """
    target = os.path.realpath(path)
    temporary = temporary_name(target, suffix)
    try:
        yield temporary
        put_in_place(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(path: str | os.PathLike[str], suffix: str = "") -> Path:
    """A hidden name beside a path that no other writer has, ``.NAME.*.tmp`` and the suffix; of a
    long NAME its beginning."""
    target = Path(path)
    name = target.name.encode("utf-8", "surrogatepass")[:_REPEATED].decode("utf-8", "ignore")
    # Processes of several machines, or containers, may share a folder and be of one number.
    return target.with_name(f".{name}.{os.getpid()}.{secrets.token_hex(6)}.tmp{suffix}")


def put_in_place(temporary: Path, path: str | os.PathLike[str]) -> None:
    """Give a finished file its name, in place of what was there, and the permissions of that.

    Raises:
        OSError: its bytes cannot be brought to the disk, or it cannot be renamed.
    """
    _flush(temporary, os.O_RDWR)  # or the name could be there before the bytes are
    with contextlib.suppress(OSError):  # nothing was there; or a file system without permissions
        temporary.chmod(stat.S_IMODE(os.stat(path).st_mode))
    os.replace(temporary, path)
    if os.name == "posix":  # elsewhere folders cannot be opened
        with contextlib.suppress(OSError):  # nor brought to every disk; the file is whole anyhow
            _flush(Path(path).parent, os.O_RDONLY)


def _flush(path: Path, mode: int) -> None:
    descriptor = os.open(path, mode)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
        hint = "; does its folder exist?" if getattr(cause, "errno", 0) == errno.ENOENT else ""
        raise InputError(f"cannot write {name}: {reason}{hint}") from cause
    return target
