"""Batches for fine-tuning on labelled data: crops, depth maps, pseudo-ground-truth meshes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from handmesh.errors import InputError

from .augment import Augmentation
from .cropped_set import CroppedSet
from .depth_maps import REACH_BONES, warp_depth
from .pseudo_meshes import load_pseudo_meshes
from .seeds import Purpose, generator
from .sources import Batch, to_tensors

# What stands for the depth of all that lies behind a hand: farther than any part of one.
FAR_BONES = REACH_BONES + 0.3


def adapting(input_size: int, stored_margin: float) -> Augmentation:
    """Augmentation that depth maps and 3D labels outlive: a mirrored hand, and one that is hardly
    in the crop, would be taught by its heat-maps alone, or by nothing. No border cuts it: depth
    maps would be compared where it is black."""
    return Augmentation(input_size, stored_margin=stored_margin, left=0, misses=0, cut=0)


@dataclass(frozen=True)
class CroppedSettings:
    """What is in a batch.

    Attributes:
        folder: of a `CroppedSet`. batch: crops of one lane's part of a batch.
        pseudo: file of pseudo-ground-truth meshes, see `pseudo_meshes`; None for none.
        depth_px: side of the depth maps, the paper's 32. far: depth that stands for what lies
            behind the hand, in bones: the background of the `DepthRenderer` that they meet.
        augment: from stored crops to network inputs.
        held_out: rows of the set that are not drawn, see `CroppedSet.last_groups`.
    """

    folder: Path
    batch: int = 32
    pseudo: Path | None = None
    depth_px: int = 32
    far: float = FAR_BONES
    augment: Augmentation = field(default_factory=Augmentation)
    held_out: tuple[int, ...] = ()


class CroppedStream:
    """Parts of batches, a `lanes.LaneSource`: fields of `Crops`, and those `weak_loss` needs.

    Every hand is drawn once an epoch over all lanes, in an order of its own; the last few that do
    not fill a batch of all lanes wait for the next epoch.
    """

    def __init__(self, settings: CroppedSettings, seed: int) -> None:
        """
        Args:
            settings: what is in a batch. seed: of orders and augmentation.
        """
        self.settings = settings
        self.seed = seed

    def lane(self, number: int, of: int, start: int) -> Iterator[Batch]:
        """Parts of one lane.

        Raises:
            InputError: see `check`, or pseudo meshes of another set.
        """
        settings, data = self.settings, self.check(of)
        drawn = np.delete(np.arange(len(data)), settings.held_out)
        count, whole = len(drawn), settings.batch * of
        pseudo = None if settings.pseudo is None else load_pseudo_meshes(settings.pseudo, data)
        per_epoch = count // whole
        batch, order = start, np.empty(0, np.int64)
        while True:
            epoch, place = divmod(batch, per_epoch)
            if place == 0 or batch == start:
                rng = generator(self.seed, Purpose.CROPPED_EPOCH, epoch)
                order = drawn[rng.permutation(count)]
            first = (place * of + number) * settings.batch
            rng = generator(self.seed, Purpose.CROPPED_BATCH, number, batch)
            yield self._part(rng, data, order[first : first + settings.batch], pseudo)
            batch += 1

    def check(self, of: int) -> CroppedSet:
        """The set, once it is known that it can be drawn from by so many lanes.

        Raises:
            InputError: no set, fewer hands than a batch, or crops of another margin than the
                augmentation is set to.
        """
        settings = self.settings
        data = CroppedSet(settings.folder)
        count, whole = len(data) - len(settings.held_out), settings.batch * of
        if count < whole:
            raise InputError(
                f"{settings.folder} holds {count} hands to train on, a batch takes {whole}: give a "
                "smaller --batch, or more data"
            )
        if data.margin != settings.augment.stored_margin:
            raise InputError(
                f"{settings.folder} holds crops of margin {data.margin}, but "
                f"augment.stored_margin is {settings.augment.stored_margin}"
            )
        return data

    def _part(
        self,
        rng: np.random.Generator,
        data: CroppedSet,
        rows: NDArray[np.int64],
        pseudo: NDArray[np.float32] | None,
    ) -> Batch:
        settings = self.settings
        stored = data.crops.take(rows)
        made = np.zeros(len(rows), dtype=bool)
        if pseudo is not None:  # they move with the labels of the mesh, which is not labelled
            stored.vertices[:] = pseudo[rows]
            # Hands known in part have none; without a scale, x and y cannot be told in bones.
            made[:] = stored.vertices.any(axis=(1, 2)) & (stored.crop_in_bones != 1)
        drawn, maps = settings.augment.with_maps(rng, stored)
        seen = drawn.has_hand & (drawn.is_right == stored.is_right)
        depth, known = warp_depth(data.depth_maps[rows], maps, settings.depth_px)
        batch = to_tensors(drawn)
        batch["depth_map"] = torch.from_numpy(np.minimum(depth, np.float32(settings.far)))
        batch["depth_known"] = torch.from_numpy(known)
        batch["has_depth_map"] = torch.from_numpy(seen & known.any(axis=(1, 2)))
        batch["pseudo"] = batch["vertices"]
        batch["has_pseudo"] = torch.from_numpy(seen & made)
        return batch
