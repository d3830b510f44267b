"""The frozen library: names, kinds and solved angles of all gestures."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from handmesh.archive import read_arrays, write_arrays
from handmesh.errors import BundleError

LIBRARY_PATH = Path(__file__).parents[1] / "assets" / "gestures.npz"


@dataclass(frozen=True, eq=False)
class GestureLibrary:
    """G gestures, authored ones first.

    Attributes:
        names: unique names. kinds: of each, see `authored.Spec`.
        angles: (G, 17, 3) float32 radians for `HandModel.rotations`; the wrist is straight.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    angles: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.names)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a byte-reproducible .npz atomically."""
        write_arrays(
            path,
            {
                "names": np.array(self.names, dtype="U48"),
                "kinds": np.array(self.kinds, dtype="U16"),
                "angles": self.angles,
            },
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str] = LIBRARY_PATH) -> GestureLibrary:
        """Read a library.

        Raises:
            BundleError: a missing or unreadable file, or one with other arrays.
        """
        remedy = "restore it or rebuild it with python -m handmesh_training.gestures.build"
        arrays = read_arrays(path, remedy)
        if set(arrays) != {"names", "kinds", "angles"}:
            raise BundleError(f"{path} is no gesture library: it has {sorted(arrays)}; {remedy}")
        return cls(
            tuple(str(name) for name in arrays["names"]),
            tuple(str(kind) for kind in arrays["kinds"]),
            np.asarray(arrays["angles"], dtype=np.float32),
        )


@cache
def default_library() -> GestureLibrary:
    """The library of this package, read once."""
    return GestureLibrary.load()
