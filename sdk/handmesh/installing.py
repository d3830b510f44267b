"""How what is missing is installed: as the README says, from a checkout of the repository."""

from __future__ import annotations

__all__ = ["pip_install"]

# What pip is to install; an extra stands behind it. No name in an index: under one, anybody may
# have put a package of theirs.
_SPEC = "."


def pip_install(extra: str) -> str:
    """What to type for an extra of handmesh, as "torch"."""
    return f"pip install '{_SPEC}[{extra}]' in a checkout of handmesh"
