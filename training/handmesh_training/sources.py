"""Where numbered crops come from: a renderer, or a set on disk. And either as a torch dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from handmesh.errors import InputError

from .rendered import BLOCK, HandRenderer, RenderSettings
from .samples import Crops
from .seeds import Purpose, generator

if TYPE_CHECKING:
    from .shards import ShardSet

# Tensors named like the fields of `Crops`.
Batch = dict[str, torch.Tensor]


class CropSource(Protocol):
    """An endless row of crops, numbered from 0; crop ``n`` is always the same."""

    @property
    def vertex_count(self) -> int:
        """V of the labels' mesh."""

    def crops(self, numbers: NDArray[np.int64]) -> Crops:
        """The crops of those numbers, in their order."""


class ShuffledShards:
    """A set on disk, again and again, each time in another order.

    Runs of `BLOCK` neighbours stay together, so that reading is quick on any disk; the stream's
    pool mixes them.
    """

    def __init__(self, shards: ShardSet, seed: int) -> None:
        """
        Args:
            shards: the set. seed: of the orders.
        """
        self.shards = shards
        self.seed = seed
        self._orders: dict[int, NDArray[np.int64]] = {}

    @property
    def vertex_count(self) -> int:
        """V of the labels' mesh."""
        return self.shards.vertex_count

    def crops(self, numbers: NDArray[np.int64]) -> Crops:
        """Crop ``n`` is sample ``n % N`` in the order of epoch ``n // N``, of a set of N."""
        count = len(self.shards)
        epochs, places = numbers // count, numbers % count
        # Two epochs at most are in use at a time.
        kept = {int(e): self._orders.get(int(e)) for e in np.unique(epochs)}
        self._orders = {
            epoch: self._order(epoch) if order is None else order for epoch, order in kept.items()
        }
        indices = [self._orders[int(e)][p] for e, p in zip(epochs, places, strict=True)]
        return self.shards.crops(indices)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        count = len(self.shards)
        runs = generator(self.seed, Purpose.EPOCH, epoch).permutation(-(-count // BLOCK))
        order = (runs[:, None] * BLOCK + np.arange(BLOCK)).ravel()
        return order[order < count]


def open_source(render: RenderSettings, shards: Path | None, seed: int) -> CropSource:
    """The renderer, or the set in the folder ``shards``.

    Raises:
        ShardError: no complete set there. InputError: its crops are not as ``render`` says, or the
            renderer's folders do not hold what they should. BackendUnavailable: no compiler.
    """
    if shards is None:
        return HandRenderer(render, seed)
    from .shards import ShardSet  # what reads files is not needed to render

    opened = ShardSet(shards)
    there = (opened.manifest.crop_px, opened.manifest.margin)
    if there != (render.crop_px, render.margin):
        raise InputError(
            f"{shards} holds crops of {there[0]} px with margin {there[1]}, but the stream is set "
            f"to {render.crop_px} px with margin {render.margin}; give it the set's"
        )
    return ShuffledShards(opened, seed)


def to_tensors(crops: Crops) -> Batch:
    """The same as tensors, which share the memory."""
    return {f.name: torch.from_numpy(getattr(crops, f.name)) for f in fields(Crops)}


def to_input(images: torch.Tensor) -> torch.Tensor:
    """(B, S, S, 3) uint8 to (B, 3, S, S) float32 in -0.5..0.5, channels last in memory."""
    return images.permute(0, 3, 1, 2).float().div_(255).sub_(0.5)


class RenderedDataset(Dataset[Batch]):
    """The first ``count`` samples of a seed as a map-style dataset, rendered when asked for.

    For one's own loop with a `torch.utils.data.DataLoader`; sample ``i`` does not depend on the
    order, on workers or on ranks. Items have no batch axis. Whole blocks of `BLOCK` neighbours are
    drawn at a time, so reading in order costs least.
    """

    def __init__(self, settings: RenderSettings, seed: int, count: int) -> None:
        """
        Args:
            settings: what to render with. seed: of everything random. count: samples.

        Raises:
            InputError: fewer than one sample.
        """
        if count < 1:
            raise InputError(f"expected at least one sample, got {count}")
        self.settings, self.seed, self.count = settings, seed, count
        self._renderer: HandRenderer | None = None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Batch:
        """
        Raises:
            IndexError: outside 0 to ``count``. InputError, BackendUnavailable: see `HandRenderer`.
        """
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Batch]:
        """Several at once, as `DataLoader` asks for a batch."""
        wrong = [index for index in indices if not 0 <= index < self.count]
        if wrong:
            raise IndexError(f"sample {wrong[0]} is outside 0 to {self.count - 1}")
        if self._renderer is None:
            self._renderer = HandRenderer(self.settings, self.seed)
        batch = to_tensors(self._renderer.crops(list(indices)))
        return [{name: values[i] for name, values in batch.items()} for i in range(len(indices))]

    def __getstate__(self) -> dict[str, Any]:
        # Each worker makes its own renderer: it holds memory of the compiled library.
        return {**self.__dict__, "_renderer": None}
