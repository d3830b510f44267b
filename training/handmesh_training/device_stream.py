"""`stream` for a GPU: processes decide what to show, the GPU draws, augments and mixes it.

Only numbers cross the bus: poses, cameras and looks of a chunk of pictures, a few kilobytes a hand.
Pictures are made, kept and augmented on the device. The batches do not depend on how many processes
there are. It runs on a CPU as well, where it is slower than `stream`; tests do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from .augment_torch import augment
from .rendered import HandRenderer
from .rendering.appearance import Appearance
from .samples import Crops
from .sampling import HandViews
from .stream import Batch, LabelledCrops, StreamSettings

# Prefixes of a chunk's tensors: crops without pictures, what to draw, crops with pictures.
_LABELS, _LOOK, _LABELLED = "label.", "look.", "labelled."


class SceneStream(IterableDataset[Batch]):
    """Chunks first, first + step, ... of undrawn pictures, with labelled crops to go with them.

    Args:
        settings: of the stream. seed: of the renderer.
        first, step: numbers of the chunks. labelled: crops from photos and data sets a chunk.
    """

    def __init__(
        self, settings: StreamSettings, seed: int, first: int, step: int, labelled: int
    ) -> None:
        super().__init__()
        self.settings = settings
        self.seed = seed
        self.first = first
        self.step = step
        self.labelled = labelled

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info is not None else (0, 1)
        if info is not None:
            torch.set_num_threads(1)
            cv2.setNumThreads(0)
        renderer = HandRenderer(self.settings.render, self.seed)
        others = LabelledCrops(self.settings, renderer.vertex_count) if self.labelled else None
        # Chunks are taken from the processes in turn, so that they come in the order of numbers.
        number = self.first + worker * self.step
        while True:
            yield self._chunk(renderer, others, number)
            number += workers * self.step

    def _chunk(self, renderer: HandRenderer, others: LabelledCrops | None, number: int) -> Batch:
        scene = renderer.scene(number, self.settings.chunk)
        arrays = {"vertices_m": scene.vertices_m, "intrinsics": scene.views.intrinsics}
        arrays |= {_LOOK + f.name: getattr(scene.look, f.name) for f in fields(Appearance)}
        arrays |= {_LABELS + name: array for name, array in _labels(scene.views).items()}
        if others is not None:
            rng = np.random.default_rng([self.seed, 13, number])
            drawn = others.draw(rng, self.labelled)
            arrays |= {_LABELLED + f.name: getattr(drawn, f.name) for f in fields(Crops)}
        return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}


class DeviceStream:
    """Endless batches on a device, named like the fields of `Crops`.

    Args:
        settings: what is in a batch.
        seed: of the whole stream.
        device: where pictures are drawn and batches live.
        workers: processes that decide what to show; 0 does it in this one.
        start, rank, world: as for `CropStream`.

    Raises:
        InputError, ImageError: folders that do not hold what they should.
        BackendUnavailable: no compiler for the device, or no such device.
    """

    def __init__(
        self,
        settings: StreamSettings,
        seed: int,
        device: str | torch.device,
        workers: int = 0,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.settings = settings
        self.device = torch.device(device)
        self.workers = workers
        renderer = HandRenderer(settings.render, seed, device=str(device))
        self._renderer = renderer.renderer
        there_are = settings.photos or settings.datasets
        self._from_others = round(settings.batch * settings.photo_share) if there_are else 0
        self._from_pool = settings.batch - self._from_others
        # Batches that a chunk lasts, and labelled crops for so many: each is drawn about once.
        self._per_chunk = settings.reuse * settings.chunk / self._from_pool
        labelled = max(1, round(self._per_chunk * self._from_others)) if self._from_others else 0
        # As in `CropStream`: whoever goes on starts with hands not seen before.
        first = (int(start / self._per_chunk) + (1 if start else 0)) * world + rank
        self._scenes = SceneStream(settings, seed, first, world, labelled)
        self._seed = int(np.random.SeedSequence([seed, 7, rank, start]).generate_state(1)[0])

    def __iter__(self) -> Iterator[Batch]:
        settings = self.settings
        chunks = iter(
            DataLoader(
                self._scenes,
                batch_size=None,
                num_workers=self.workers,
                prefetch_factor=2 if self.workers else None,
                multiprocessing_context="spawn" if self.workers else None,
                pin_memory=self.device.type == "cuda",
            )
        )
        generator = torch.Generator(self.device).manual_seed(self._seed)
        rendered = _Ring(settings.pool)
        labelled = _Ring(settings.pool)
        due = 0.0
        while True:
            while due >= 1 or rendered.filled < 2 * settings.chunk:
                chunk = next(chunks)
                rendered.put(self._drawn(chunk))
                if self._from_others:
                    labelled.put(self._moved(chunk, _LABELLED))
                due = max(due - 1, 0.0)
            due += 1 / self._per_chunk
            batch = rendered.draw(generator, self._from_pool)
            if self._from_others:
                more = labelled.draw(generator, self._from_others)
                batch = {name: torch.cat([batch[name], more[name]]) for name in batch}
            yield augment(settings.augment, generator, batch)

    def _moved(self, chunk: Batch, prefix: str) -> Batch:
        """The tensors of one prefix, on the device."""
        return {
            name.removeprefix(prefix): values.to(self.device, non_blocking=True)
            for name, values in chunk.items()
            if name.startswith(prefix)
        }

    def _drawn(self, chunk: Batch) -> Batch:
        """Crops of a chunk, pictures and all."""
        on_cpu = self.device.type == "cpu"
        look: dict[str, Any] = {
            name.removeprefix(_LOOK): values.numpy() if on_cpu else values
            for name, values in chunk.items()
            if name.startswith(_LOOK)
        }
        points, lens = chunk["vertices_m"], chunk["intrinsics"]
        pictures = self._renderer.render(
            points.numpy() if on_cpu else points,
            lens.numpy() if on_cpu else lens,
            Appearance(**look),
        )
        return {"images": torch.as_tensor(pictures.image), **self._moved(chunk, _LABELS)}


def _labels(views: HandViews) -> dict[str, NDArray[Any]]:
    """The fields of `Crops` but the images, for rendered hands."""
    flags = ("has_hand", "has_joints", "has_depth", "has_mesh")
    return {
        "joints": views.joints,
        "vertices": views.vertices,
        "crop_in_bones": views.crop_in_bones,
        "is_right": np.ones_like(views.in_view),
        **dict.fromkeys(flags, views.in_view),
    }


class _Ring:
    """The last so many crops, on their device."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.filled = 0
        self._next = 0
        self._rows: Batch = {}

    def put(self, crops: Batch) -> None:
        """Keep these in place of the oldest."""
        if not self._rows:
            self._rows = {
                name: torch.empty((self.size, *v.shape[1:]), dtype=v.dtype, device=v.device)
                for name, v in crops.items()
            }
        count = len(crops["images"])
        rows = (self._next + torch.arange(count)) % self.size
        rows = rows.to(crops["images"].device, non_blocking=True)
        for name, values in crops.items():
            self._rows[name][rows] = values
        self._next = (self._next + count) % self.size
        self.filled = min(self.filled + count, self.size)

    def draw(self, generator: torch.Generator, count: int) -> Batch:
        """So many of them at random, copied."""
        device = generator.device
        rows = torch.randint(self.filled, (count,), generator=generator, device=device)
        return {name: values[rows] for name, values in self._rows.items()}
