"""The export formats. A format is a module of this package, and its name is the module's: the same
as that of the backend in `handmesh.backends` that runs it. Adding one is adding a file with

    REQUIRES    import names of the packages that it needs
    EXTRA       the extra of handmesh that installs them
    FILE        name of the artifact in a bundle
    export      (twin, path, metadata, weights) -> facts about the artifact, for the manifest
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from handmesh.errors import InputError, MissingExtra
from handmesh.nn.weights import Precision

from ..fold import ExportTwin

__all__ = ["Format", "load", "names"]


class Format(Protocol):
    """What a module of this package has to have."""

    REQUIRES: Sequence[str]
    EXTRA: str
    FILE: str

    def export(
        self, twin: ExportTwin, path: Path, metadata: Mapping[str, str], weights: Precision
    ) -> dict[str, Any]:
        """Write the twin to a path, with the metadata inside; returns facts for the manifest.

        Args:
            weights: precision in which large weights are stored. The fact of that name says in
                which they are, and the artifact is judged by it.

        Raises:
            ExportError: the converter failed or made something invalid.
        """


def names() -> list[str]:
    """All formats, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Format:
    """The format of that name, ready to export.

    Raises:
        InputError: there is no such format.
        MissingExtra: a package that it needs is not installed.
    """
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"format must be one of {', '.join(names())}; not {name!r}{hint}")
    module = cast(Format, importlib.import_module(f"{__name__}.{name}"))
    for package in module.REQUIRES:
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, module.EXTRA)
    return module
