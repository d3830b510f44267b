"""FreiHAND (Zimmermann et al., ICCV 2019): right hands, filmed, with a fitted mesh.

Layout: ``training/rgb/N.jpg`` with eight digits, 224x224: all 32,560 poses in the order of the
labels, as filmed before green, then three times more, put before another background in three ways;
``training/mask`` for the first time. ``training_K.json`` (camera matrices), ``training_xyz.json``
(21 x 3 metres in the camera frame, our joint order) and, in later editions,
``training_verts.json`` (778 x 3 metres). ``evaluation/rgb`` and ``evaluation_*.json`` alike, once.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from handmesh.errors import InputError
from handmesh.imaging import decode

from .dataset import Dataset
from .joints import project
from .reading import JsonRows, read_pixels
from .sample import Sample

# Split -> the name of its files, and how often each pose is there.
SPLITS = {"train": ("training", 4), "test": ("evaluation", 1)}


class FreiHand(Dataset):
    """Pictures with joints, masks where there are any, and the vertices where the files have them.

    Vertices that exist only as parameters of the MANO model (``*_mano.json``) are not computed.
    """

    splits = tuple(SPLITS)
    protocol = "freihand"

    def __init__(self, folder: Path | str, split: str) -> None:
        super().__init__(folder, split)
        self._name, self._times = SPLITS[split]
        self._cameras = JsonRows(self._labels("K"), "camera matrices of FreiHAND")
        self._joints = JsonRows(self._labels("xyz"), "joints of FreiHAND")
        if len(self._joints) != len(self._cameras):
            raise InputError(
                f"{self.folder}: {self._name}_xyz.json holds {len(self._joints)} poses, "
                f"{self._name}_K.json {len(self._cameras)}; fetch both again"
            )

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        return any((folder / f"{name}_K.json").is_file() for name, _ in SPLITS.values())

    def __len__(self) -> int:
        return len(self._cameras) * self._times

    def group_of(self, index: int) -> int:
        """Of one pose, in all its pictures."""
        return index % len(self._cameras)

    def _labels(self, what: str) -> Path:
        return self.folder / f"{self._name}_{what}.json"

    def _read(self, index: int) -> Sample:
        pose = index % len(self._cameras)
        intrinsics, joints_m = self._cameras[pose], self._joints[pose]
        if intrinsics.shape != (3, 3) or joints_m.shape != (21, 3):
            raise InputError(
                f"{self.folder}: pose {pose}: expected K of shape (3, 3) and xyz of shape (21, 3), "
                f"got {intrinsics.shape} and {joints_m.shape}"
            )
        vertices_m = None
        if self._labels("verts").is_file():
            rows = self._keep("verts", lambda: JsonRows(self._labels("verts"), "FreiHAND's meshes"))
            vertices_m = rows[pose].astype(np.float32)
        pictures = self.folder / self._name
        mask = None
        if (pictures / "mask" / f"{pose:08d}.jpg").is_file():
            path = pictures / "mask" / f"{pose:08d}.jpg"
            mask = read_pixels(path, 1, "a mask of FreiHAND")
        return Sample(
            key=f"{self._name}/{index:08d}",
            image=decode(pictures / "rgb" / f"{index:08d}.jpg"),
            is_right=True,
            joints_px=project(joints_m, intrinsics),
            joint_known=np.ones(21, dtype=bool),
            intrinsics=intrinsics,
            joints_m=joints_m,
            vertices_m=vertices_m,
            mask=mask,
        )


LAYOUT = FreiHand
