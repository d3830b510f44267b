"""A run's results in their file, and what a run that ends early says of it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from handmesh.errors import InputError

from .results import Results

__all__ = ["check_writable", "kept", "warn_unkept"]


@contextlib.contextmanager
def kept(path: Path | None, say: Callable[[str], None]) -> Iterator[Callable[[Results], None]]:
    """For the time of a run: what is to be called with its results after every round.

    A file that cannot be written any more, as the disk is full, is told and ends no run. An error
    that leaves the block is told of with what was measured until then, and where that is.

    Args:
        path: of the file; None for none. say: told.

    Raises:
        InputError: the file cannot be written, before the block begins.
    """
    check_writable(path)
    measured = 0
    in_file: int | None = None

    def write(results: Results) -> None:
        nonlocal measured, in_file
        measured = len(results.measurements)
        if path is None:
            return
        try:
            results.write(path)
            in_file = measured
        except InputError as error:  # the run is worth more than the file
            say(str(error))

    try:
        yield write
    except BaseException:
        if in_file is not None:
            say(f"stopped: {path} holds what was measured until then, {_rows(in_file)}, as partial")
        elif measured:
            instead = "give --out FILE" if path is None else "give another --out"
            say(f"stopped: what was measured until then, {_rows(measured)}, is lost: {instead}")
        raise


def warn_unkept(path: Path | None, say: Callable[[str], None]) -> None:
    """Say, before what takes long begins, that nothing keeps it.

    Args:
        path: of the file of results; None for none. say: told.
    """
    if path is None:
        say("without --out FILE, what is measured is lost if this is stopped")


def _rows(count: int) -> str:
    return f"{count or 'no'} row{'' if count in (0, 1) else 's'}"


def check_writable(path: Path | None, option: str = "--out") -> None:
    """Raise `InputError` where a file cannot be written: before what it is to hold is measured.

    Args:
        path: of the file; None for none. option: that gave it.
    """
    if path is None:
        return
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as cause:
        raise InputError(
            f"{option} {path} cannot be written: {cause.strerror or cause}; choose another place"
        ) from cause
