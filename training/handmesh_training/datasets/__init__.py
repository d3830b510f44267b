"""Hands with labels from disk: one sample type, one file for each data set's layout.

A layout is a module of this package with a `LAYOUT`, its `Dataset`: to add one, add a file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from pathlib import Path

from handmesh.errors import InputError

from .dataset import Dataset, SampleIndexError
from .sample import Sample

__all__ = [
    "Dataset",
    "Sample",
    "SampleIndexError",
    "all_named",
    "find_datasets",
    "layouts",
    "named_datasets",
    "open_dataset",
    "parse_dataset",
    "recognise",
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


def recognise(folder: Path | str) -> type[Dataset] | None:
    """The layout of a folder, by the names of its files; None if it is of no known one."""
    folder = Path(folder)
    return next((known for known in layouts().values() if known.recognises(folder)), None)


def find_datasets(folder: Path | str, split: str | None = None) -> dict[str, Dataset]:
    """The data sets in the folders directly under one, by those folders' names, in their order.

    Args:
        split: one of the layouts' ``splits``; sets that have none of that name are left out. By
            default each layout's ``evaluation_split``.

    Raises:
        InputError: there is none, or one is recognised but cannot be opened.
    """
    folder = Path(folder)
    found: dict[str, Dataset] = {}
    for inner in sorted(path for path in folder.glob("*/") if path.is_dir()):
        layout = recognise(inner)
        wanted = split if split is not None or layout is None else layout.evaluation_split
        if layout is not None and wanted in layout.splits:
            found[inner.name] = layout(inner, wanted)
    if not found:
        raise InputError(f"{folder} holds no folder in which a data set of a known layout lies")
    return found


def all_named(texts: Iterable[str]) -> dict[str, Dataset]:
    """`named_datasets` of several; of two sets of one name the second also says where it lies.

    Raises:
        InputError: as `named_datasets`.
    """
    found: dict[str, Dataset] = {}
    for text in texts:
        for name, data in named_datasets(text).items():
            found[name if name not in found else f"{name} in {text}"] = data
    return found


def named_datasets(text: str) -> dict[str, Dataset]:
    """What a command line names for evaluation: one data set, or a folder of them.

    Args:
        text: LAYOUT:SPLIT:FOLDER; or a folder of a known layout, whose ``evaluation_split`` is
            taken; or one that holds such folders, see `find_datasets`.

    Returns:
        The sets, by ``text`` where it names one in full, otherwise by their folders' names.

    Raises:
        InputError: as `open_dataset` and `find_datasets`.
    """
    folder = Path(text)
    if not folder.is_dir():
        if text.count(":") < 2:
            raise InputError(
                f"there is no folder {text}: give a data set's, one that holds such folders, or "
                "name a set LAYOUT:SPLIT:FOLDER"
            )
        return {text: parse_dataset(text)}
    layout = recognise(folder)
    if layout is not None:
        return {folder.resolve().name: layout(folder, layout.evaluation_split)}
    return find_datasets(folder)
