"""What a name that is none was probably meant to be."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable

__all__ = ["address", "did_you_mean"]

# At least two letters: one is a drive of Windows.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):[/\\]+(.*)", re.IGNORECASE | re.DOTALL)


def address(path: str | os.PathLike[str]) -> str | None:
    """The address that a path is, as "https://example.org/a.jpg", None of any other. A `Path` has
    taken one of the slashes."""
    found = _ADDRESS.fullmatch(os.fspath(path))
    return f"{found[1]}://{found[2].replace(os.sep, '/')}" if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ "; did you mean 'onnx'?" for the known name nearest to a word, "" where none is near."""
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), names, n=1)
    return f"; did you mean {names[near[0]]!r}?" if near else ""
