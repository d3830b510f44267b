"""Hands with labels from disk: one sample type, one file for each data set's layout.

A layout is a module of this package with a `LAYOUT`, its `Dataset`: to add one, add a file.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from handmesh.errors import InputError

from .dataset import Dataset, SampleIndexError
from .sample import Sample

__all__ = [
    "Dataset",
    "Sample",
    "SampleIndexError",
    "find_datasets",
    "layouts",
    "open_dataset",
    "parse_dataset",
]


def layouts() -> dict[str, type[Dataset]]:
    """Name and class of every layout there is."""
    found: dict[str, type[Dataset]] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        if hasattr(module, "LAYOUT"):
            found[info.name] = module.LAYOUT
    return found


def open_dataset(layout: str, folder: Path | str, split: str) -> Dataset:
    """One split of a data set.

    Args:
        layout: name of a module of this package, as ``stb``. folder: where the set lies.
        split: one of the layout's ``splits``.

    Raises:
        InputError: no such layout, folder or split, or files of the layout are missing.
    """
    known = layouts()
    if layout not in known:
        raise InputError(f"there is no layout {layout!r}; choose from {', '.join(sorted(known))}")
    return known[layout](folder, split)


def parse_dataset(text: str) -> Dataset:
    """A data set named on a command line as LAYOUT:SPLIT:FOLDER. Raises as `open_dataset`."""
    layout, _, rest = text.partition(":")
    split, separator, folder = rest.partition(":")
    if not separator:
        raise InputError(f"a data set is named LAYOUT:SPLIT:FOLDER, not {text!r}")
    return open_dataset(layout, folder, split)


def find_datasets(folder: Path | str, split: str) -> dict[str, Dataset]:
    """The data sets in the folders directly under one, by those folders' names, in their order.

    Raises:
        InputError: there is none, or one is recognised but cannot be opened.
    """
    folder = Path(folder)
    found: dict[str, Dataset] = {}
    for inner in sorted(path for path in folder.glob("*/") if path.is_dir()):
        for layout in layouts().values():
            if split in layout.splits and layout.recognises(inner):
                found[inner.name] = layout(inner, split)
                break
    if not found:
        raise InputError(f"{folder} holds no folder in which a data set of a known layout lies")
    return found
