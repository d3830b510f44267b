"""What every data set on disk looks like from here: a sequence of samples, read when asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from handmesh.errors import InputError

from .sample import Sample

T = TypeVar("T")


class SampleIndexError(InputError, IndexError):
    """There is no sample of that number in the split."""


class Dataset(ABC):
    """One split of one data set: ``len(data)``, ``data[i]``, and iteration over all of it.

    Opening looks at names and sizes only. A sample is read when it is asked for; label files that
    cannot be read in parts are read at the first sample and kept. What is kept is not pickled, so
    that each worker of a `torch.utils.data.DataLoader` starts with an empty hand.

    Attributes:
        splits: names of the splits that the layout has.
        evaluation_split: the one of them that is evaluated where none is named.
        protocol: name of the protocol, of `handmesh_training.protocols`, that the set's own
            figures follow.
        revision: raised where the same files are read otherwise than before.
        folder: where the set lies. split: the one that is open.

    Raises:
        InputError: no such folder or split, or a file of the layout is missing or unreadable: at
            opening where it shows then, otherwise when the sample is read.
    """

    splits: ClassVar[tuple[str, ...]]
    evaluation_split: ClassVar[str] = "test"
    protocol: ClassVar[str] = "paper"
    revision: ClassVar[int] = 1

    def __init__(self, folder: Path | str, split: str) -> None:
        self.folder = Path(folder)
        self.split = split
        self._kept: dict[str, Any] = {}
        if split not in self.splits:
            raise InputError(f"there is no split {split!r}; choose from {', '.join(self.splits)}")
        if not self.folder.is_dir():
            raise InputError(f"{self.folder} is not a folder; give the one that the set lies in")

    @classmethod
    @abstractmethod
    def recognises(cls, folder: Path) -> bool:
        """Whether the files of a folder are named as in this layout."""

    @abstractmethod
    def __len__(self) -> int: ...

    def group_of(self, index: int) -> int:
        """The same number for samples that show one hand in one pose, or nearly: to watch some and
        train on the others would tell nothing. Here each sample is a group of its own.

        Raises:
            InputError: labels that cannot be read.
        """
        return index

    @abstractmethod
    def _read(self, index: int) -> Sample:
        """Sample ``index``, which is in range."""

    def __getitem__(self, index: int) -> Sample:
        """
        Raises:
            SampleIndexError: the index is out of range (negative ones count from the end).
            InputError: a file of the sample is missing or unreadable.
        """
        count = len(self)
        if not -count <= index < count:
            raise SampleIndexError(
                f"{self.folder}: the split {self.split!r} holds {count} samples; "
                f"there is no number {index}"
            )
        return self._read(index % count)

    def __iter__(self) -> Iterator[Sample]:
        return (self._read(index) for index in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}

    def _keep(self, name: str, make: Callable[[], T]) -> T:
        """What ``make`` gives, made once in each process."""
        if name not in self._kept:
            self._kept[name] = make()
        value: T = self._kept[name]
        return value


def spread(count: int, limit: int | None) -> list[int]:
    """At most ``limit`` of the numbers below ``count``, evenly spread; all where it is None."""
    wanted = count if limit is None else min(limit, count)
    return [i * count // wanted for i in range(wanted)]


def require_file(path: Path, what: str) -> Path:
    """The path, if there is a file.

    Raises:
        InputError: there is none; the message says what it should hold.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: expected {what} there")
    return path
