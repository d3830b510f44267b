"""A bundle's folder is replaced whole, or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from handmesh.bundle import MANIFEST
from handmesh.errors import ExportError, InputError

__all__ = ["carry_engines", "replacing_folder"]

# Engines that TensorRT built of an artifact, beside it; and what macOS leaves in any folder.
_ENGINES, _MACOS = ".engines", ".DS_Store"


@contextlib.contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """A new folder beside `target` that takes its place at the end, if nothing is raised.

    Raises:
        InputError: the parent does not exist, or `target` is a file or a folder of other things.
        ExportError: the folder cannot be written, as on a full disk.
    """
    target = target.resolve()
    if not target.parent.is_dir():
        raise InputError(f"cannot write {target}: the folder {target.parent} does not exist")
    if target.exists() and not target.is_dir():
        raise InputError(f"cannot write a bundle to {target}: it is a file, not a folder")
    _refuse_other_folders(target)
    try:
        place = tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        temporary = Path(place)
        try:
            yield temporary
            temporary.chmod(0o755)  # mkdtemp's own is for one user
            _swap(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as cause:
        reason = cause.strerror or cause
        raise ExportError(f"cannot write {target}: {reason}; what was there is whole") from cause


def carry_engines(old: Path, new: Path) -> None:
    """Take along the engines of a bundle whose artifacts for TensorRT stay as they are: each took
    minutes to build."""
    if (old / _ENGINES).is_dir():
        shutil.copytree(old / _ENGINES, new / _ENGINES)


def _refuse_other_folders(target: Path) -> None:
    """Only a bundle may be replaced: a folder with anything else in it is somebody's work."""
    if not target.exists():
        return
    inside = (path.relative_to(target) for path in target.rglob("*") if path.is_file())
    present = {
        path.as_posix() for path in inside if path.parts[0] != _ENGINES and path.name != _MACOS
    }
    if not present:
        return
    try:
        known = set(json.loads((target / MANIFEST).read_text())["files"]) | {MANIFEST}
    except (OSError, ValueError, KeyError, TypeError):
        known = set()
    foreign = sorted(present - known)
    if foreign:
        raise InputError(
            f"{target} holds {foreign[0]}, which is not of a bundle: writing a bundle replaces the "
            "whole folder; choose a new one"
        )


def _swap(new: Path, target: Path) -> None:
    """Put a folder in the place of another; `new` holds the old one afterwards, if there was one.

    Folders cannot be exchanged in one step everywhere, so there is a moment between two renames.
    """
    if not target.exists():
        os.rename(new, target)
        return
    old = new.with_suffix(".old")
    try:
        os.rename(target, old)
        os.rename(new, target)
        os.rename(old, new)
    except BaseException:
        # An interrupt may come after any of these as well as before it: what counts is what lies
        # where. With the new one in its place there is only the old one left to be cleared away.
        if old.exists():
            os.rename(old, new if target.exists() else target)
        raise
