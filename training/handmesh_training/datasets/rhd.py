"""RHD, the Rendered Hand pose Dataset (Zimmermann & Brox, ICCV 2017): rendered people, both hands.

Layout (version 2), for ``training`` and ``evaluation``: ``color/N.png``, ``mask/N.png`` and
``depth/N.png`` with five digits, 320x320, and ``anno_training.pickle`` (``_evaluation``): number ->
``uv_vis`` (42, 3) pixels and visibility, ``xyz`` (42, 3) metres in the camera frame, and the camera
matrix ``K``. The left hand's joints come first; of each hand the wrist, then each finger from tip
to base. Mask: 0 background, 1 person, 2..17 parts of the left hand, 18..33 of the right.
Depth: (256 red + green) / 65535 of 5 m.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from handmesh.errors import ImageError, InputError
from handmesh.imaging import decode

from .dataset import Dataset, require_file
from .joints import TIP_TO_BASE, Array, from_corner
from .reading import read_pickle, read_pixels
from .sample import Sample

FAR_M = 5.0
FIRST_LEFT, FIRST_RIGHT = 2, 18
FOLDERS = {"train": "training", "test": "evaluation"}
LABELS = {"uv_vis": (42, 3), "xyz": (42, 3), "K": (3, 3)}


class Rhd(Dataset):
    """The hand of each picture of which more is to be seen, as in the set's protocol.

    Its labels are kept whether a joint is visible or not. They are made by rendering, and count
    from the image's corner: they are moved by half a pixel.
    """

    splits = ("train", "test")

    def __init__(self, folder: Path | str, split: str) -> None:
        super().__init__(folder, split)
        name = FOLDERS[split]
        self._place = self.folder / name
        self._labels = require_file(self._place / f"anno_{name}.pickle", "the labels of RHD")
        self._numbers = sorted(path.stem for path in (self._place / "color").glob("[0-9]*.png"))
        if not self._numbers:
            raise InputError(f"{self._place / 'color'} holds no picture: expected 00000.png, ...")

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        return any((folder / name / f"anno_{name}.pickle").is_file() for name in FOLDERS.values())

    def __len__(self) -> int:
        return len(self._numbers)

    def _entry(self, number: str) -> dict[str, Array]:
        entries = self._keep("labels", lambda: self._all_labels())
        try:
            entry = entries[int(number)]
            arrays = {name: np.asarray(entry[name], dtype=np.float64) for name in LABELS}
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{self._labels}: picture {number} has no complete labels ({error!r})"
            ) from error
        for name, shape in LABELS.items():
            if arrays[name].shape != shape:
                raise InputError(
                    f"{self._labels}: picture {number}: expected {name} of shape {shape}, "
                    f"got {arrays[name].shape}"
                )
        return arrays

    def _all_labels(self) -> dict[Any, Any]:
        entries = read_pickle(self._labels, "the labels of RHD")
        if not isinstance(entries, dict):
            raise InputError(f"{self._labels}: expected a dict by picture, got {type(entries)}")
        return entries

    def _read(self, index: int) -> Sample:
        number = self._numbers[index]
        labels = self._entry(number)
        name = f"{number}.png"
        image = decode(self._place / "color" / name)
        parts = read_pixels(self._place / "mask" / name, 1, "the mask of a picture of RHD")
        coded = read_pixels(self._place / "depth" / name, 3, "the depth of a picture of RHD")
        if not parts.shape == coded.shape[:2] == image.shape[:2]:
            raise ImageError(f"{self._place}: {name} has another size as colour, mask and depth")
        left = (parts >= FIRST_LEFT) & (parts < FIRST_RIGHT)
        right = parts >= FIRST_RIGHT
        is_right = int(left.sum()) <= int(right.sum())
        rows = TIP_TO_BASE + (21 if is_right else 0)
        depth = (256.0 * coded[..., 0] + coded[..., 1]) / 65535 * FAR_M
        return Sample(
            key=f"{self._place.name}/{number}",
            image=image,
            is_right=is_right,
            joints_px=labels["uv_vis"][rows, :2] - 0.5,
            joint_known=np.ones(21, dtype=bool),
            intrinsics=from_corner(labels["K"]),
            joints_m=labels["xyz"][rows],
            depth_m=depth.astype(np.float32),
            mask=np.where(right if is_right else left, 255, 0).astype(np.uint8),
        )


LAYOUT = Rhd
