"""InterHand2.6M (Moon et al., ECCV 2020): one or two hands among many cameras.

Layout: ``*SPLIT*_data.json``, ``*SPLIT*_camera.json`` and ``*SPLIT*_joint_3d.json``, in the folder
or in ``annotations/SPLIT/``, and the pictures named in the first, in the folder or in
``images/SPLIT/``. Joints are 42 x 3 millimetres in the world: the right hand first, of each hand
the thumb, index, middle, ring and little finger from tip to base, then the wrist. A point of the
world is camrot @ (X - campos) in the camera.

The label files of the whole set are gigabytes of JSON and are parsed at the first sample.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handmesh.errors import InputError
from handmesh.imaging import decode

from .dataset import Dataset
from .joints import intrinsic_matrix, project
from .reading import read_json
from .sample import Sample

MM = 1e-3
FILES = ("data", "camera", "joint_3d")
# Theirs: tip to base of each finger, the wrist last.
FROM_THEIRS = np.array([20, *(base + 3 - k for base in range(0, 20, 4) for k in range(4))])


class InterHand26M(Dataset):
    """One sample for each hand of which any joint is labelled; see `Dataset`."""

    splits = ("train", "val", "test")

    def __init__(self, folder: Path | str, split: str) -> None:
        super().__init__(folder, split)
        self._files = {}
        for what in FILES:
            files = _label_files(self.folder, split, what)
            if len(files) != 1:
                raise InputError(
                    f"{self.folder}: expected one label file *{split}*_{what}.json there or in "
                    f"annotations/{split}/, found {[path.name for path in files]}"
                )
            self._files[what] = files[0]

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        return any(
            all(len(_label_files(folder, split, what)) == 1 for what in FILES)
            for split in cls.splits
        )

    def __len__(self) -> int:
        return len(self._hands())

    def _label_file(self, what: str) -> Any:
        return self._keep(
            what, lambda: read_json(self._files[what], f"InterHand2.6M's {what} labels")
        )

    def _hands(self) -> list[tuple[dict[str, Any], int]]:
        """Picture and side (0 right, 1 left) of each sample."""
        return self._keep("hands", self._find_hands)

    def _find_hands(self) -> list[tuple[dict[str, Any], int]]:
        data = self._label_file("data")
        try:
            pictures = {picture["id"]: picture for picture in data["images"]}
            found = []
            for annotation in data["annotations"]:
                valid = np.array(annotation["joint_valid"]).reshape(2, 21)
                picture = pictures[annotation["image_id"]]
                found += [(picture, side) for side in (0, 1) if valid[side].any()]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{self._files['data']} is not as expected ({error!r})") from error
        return found

    def group_of(self, index: int) -> int:
        """Of one moment, from all cameras; of both hands."""
        return self._keep("moments", self._find_moments)[index]

    def _find_moments(self) -> list[int]:
        numbers: dict[tuple[str, str], int] = {}
        return [
            numbers.setdefault((str(p.get("capture")), str(p.get("frame_idx"))), len(numbers))
            for p, _ in self._hands()
        ]

    def _read(self, index: int) -> Sample:
        picture, side = self._hands()[index]
        try:
            capture = str(picture["capture"])
            cameras = self._label_file("camera")[capture]
            camera = str(picture["camera"])
            focal, centre = cameras["focal"][camera], cameras["princpt"][camera]
            turn, position = (np.array(cameras[k][camera]) for k in ("camrot", "campos"))
            frame = self._label_file("joint_3d")[capture][str(picture["frame_idx"])]
            world = np.array(frame["world_coord"], dtype=np.float64).reshape(2, 21, 3)[side]
            valid = np.array(frame["joint_valid"], dtype=bool).reshape(2, 21)[side]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{self._files['data']}: picture {picture.get('file_name')} lacks labels or its "
                f"camera in the files beside it ({error!r})"
            ) from error
        known: NDArray[np.bool_] = valid[FROM_THEIRS]
        joints_m = (world[FROM_THEIRS] - position) @ turn.T * MM
        joints_m[~known] = np.nan
        intrinsics = intrinsic_matrix(*focal, *centre)
        file_name = str(picture["file_name"])
        inner = self.folder / "images" / self.split / file_name
        return Sample(
            key=f"{file_name}/{('right', 'left')[side]}",
            image=decode(inner if inner.is_file() else self.folder / file_name),
            is_right=side == 0,
            joints_px=project(joints_m, intrinsics),
            joint_known=known,
            intrinsics=intrinsics,
            joints_m=joints_m,
        )


def _label_files(folder: Path, split: str, what: str) -> list[Path]:
    places = (folder, folder / "annotations" / split)
    return [path for place in places for path in sorted(place.glob(f"*{split}*_{what}.json"))]


LAYOUT = InterHand26M
