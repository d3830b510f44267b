"""The export formats. A format is a module of this package, and its name is the module's: the same
as that of the backend in `handmesh.backends` that runs it. Adding one is adding a file with the
members of `Format`.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from handmesh.backends import NamedBackend
from handmesh.bundle import Bundle
from handmesh.errors import MissingExtra

from ..fold import Twin
from ..request import Abilities, Job, one_of

__all__ = ["Format", "abilities", "load", "names"]


class Format(Protocol):
    """What a module of this package has to have.

    Attributes:
        REQUIRES: import names of the packages that it needs. EXTRA: of handmesh that installs them.
        FILE: name of the artifact in a bundle, a file or a folder.
        ABLE: what it can be asked for.
    """

    REQUIRES: Sequence[str]
    EXTRA: str
    FILE: str
    ABLE: Abilities

    def export(self, twin: Twin, path: Path, job: Job) -> dict[str, Any]:
        """Write the twin to a path that does not exist, with the metadata inside.

        Returns:
            Facts for the manifest: "precision", that of computation; "weights", that of storage;
            "tools", the packages' versions; and what else is worth telling.

        Raises:
            ExportError: the converter failed or made something invalid.
            OSError: the path cannot be written.
        """

    def open(self, bundle: Bundle) -> NamedBackend:
        """What runs the artifact of a bundle to prove it: where it can, what apps will use."""


def names() -> list[str]:
    """All formats, in alphabetical order."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def abilities() -> dict[str, Abilities]:
    """The table of formats. Imports none of their packages."""
    return {name: _module(name).ABLE for name in names()}


def load(name: str) -> Format:
    """The format of that name, ready to export.

    Raises:
        InputError: there is no such format.
        MissingExtra: a package that it needs is not installed.
    """
    one_of("format", name, names())
    module = _module(name)
    for package in module.REQUIRES:
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, module.EXTRA)
    return module


def _module(name: str) -> Format:
    return cast(Format, importlib.import_module(f"{__name__}.{name}"))
