"""Hands as COCO key-point annotations, the form in which samples of many sets are passed around.

Layout: one file ``SPLIT_*.json`` or ``*_SPLIT.json``, in the folder or in ``annotations/``, and the
pictures it names in ``file_name``, in the folder or in ``images/``. Annotations hold ``keypoints``,
21 x (u, v, known) pixels, flat or nested; where there is a 3D label also ``joint_cam``, 21 x 3
millimetres in the camera frame, with ``cam_param`` {focal, princpt} at the picture. What the
numbers mean differs by set, which ``info.description`` names: see `CONVENTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from handmesh.errors import InputError
from handmesh.imaging import decode

from .dataset import Dataset
from .joints import TIP_TO_BASE, from_corner, intrinsic_matrix
from .reading import read_json
from .sample import Sample

MM = 1e-3


def _by_type(annotation: Mapping[str, Any], _: str) -> bool:
    return {"right": True, "left": False}[annotation["hand_type"]]


def _by_file(_: Mapping[str, Any], name: str) -> bool:
    return {"_r": True, "_l": False}[Path(name).stem[-2:]]


@dataclass(frozen=True)
class Convention:
    """What one set's annotations mean.

    Attributes:
        is_right: the side from the annotation and the picture's name; None where it is not known.
        tip_first: fingers are listed from the tip.
        from_corner: pixels count from the image's corner, as those of renderings do.
    """

    is_right: Callable[[Mapping[str, Any], str], bool | None]
    tip_first: bool = False
    from_corner: bool = False


# By the first word of the description, in lower case.
CONVENTIONS: Mapping[str, Convention] = {
    "freihand": Convention(lambda *_: True),  # filmed right hands only
    "onehand10k": Convention(lambda *_: None),
    "panoptic": Convention(_by_file),
    "rhd": Convention(_by_type, tip_first=True, from_corner=True),
}


class Coco(Dataset):
    """One sample for each annotated hand; see `Dataset`."""

    splits = ("train", "val", "test")
    protocol = "in_the_wild"  # most of what comes in this form has neither camera nor 3D labels

    def __init__(self, folder: Path | str, split: str) -> None:
        super().__init__(folder, split)
        files = _label_files(self.folder, split)
        if len(files) != 1:
            raise InputError(
                f"{self.folder}: expected one label file {split}_*.json or *_{split}.json there or "
                f"in annotations/, found {[path.name for path in files]}"
            )
        self._file = files[0]

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        return any(len(_label_files(folder, split)) == 1 for split in cls.splits)

    def __len__(self) -> int:
        return len(self._labels()[1])

    def _labels(self) -> tuple[Convention, list[Any], dict[Any, Any]]:
        return self._keep("labels", self._read_labels)

    def _read_labels(self) -> tuple[Convention, list[Any], dict[Any, Any]]:
        labels = read_json(self._file, "annotations of key points")
        try:
            name = labels["info"]["description"].split()[0].lower()
            annotations = list(labels["annotations"])
            pictures = {picture["id"]: picture for picture in labels["images"]}
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise InputError(
                f"{self._file} is no COCO annotation: expected info.description, images and "
                f"annotations ({error!r})"
            ) from error
        if name not in CONVENTIONS:
            raise InputError(
                f"{self._file} calls itself {name!r}; known are {', '.join(CONVENTIONS)}"
            )
        return CONVENTIONS[name], annotations, pictures

    def _read(self, index: int) -> Sample:
        convention, annotations, pictures = self._labels()
        annotation = annotations[index]
        try:
            picture = pictures[annotation["image_id"]]
            file_name = str(picture["file_name"])
            keypoints = np.array(annotation["keypoints"], dtype=np.float64).reshape(21, 3)
            is_right = convention.is_right(annotation, file_name)
            joints_m = intrinsics = None
            if "joint_cam" in annotation:
                joints_m = np.array(annotation["joint_cam"], dtype=np.float64).reshape(21, 3) * MM
            if "cam_param" in picture:
                camera = picture["cam_param"]
                intrinsics = intrinsic_matrix(*camera["focal"], *camera["princpt"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{self._file}: annotation {index} is not that of a hand ({error!r})"
            ) from error
        if convention.tip_first:
            keypoints = keypoints[TIP_TO_BASE]
            joints_m = None if joints_m is None else joints_m[TIP_TO_BASE]
        joints_px, known = keypoints[:, :2], keypoints[:, 2] > 0
        if convention.from_corner:
            joints_px = joints_px - 0.5
            intrinsics = None if intrinsics is None else from_corner(intrinsics)
        inner = self.folder / "images" / file_name
        return Sample(
            key=f"{file_name}/{annotation.get('id', index)}",
            image=decode(inner if inner.is_file() else self.folder / file_name),
            is_right=is_right,
            joints_px=np.where(known[:, None], joints_px, np.nan),
            joint_known=known,
            intrinsics=intrinsics,
            joints_m=None if joints_m is None else np.where(known[:, None], joints_m, np.nan),
        )


def _label_files(folder: Path, split: str) -> list[Path]:
    """Not those of InterHand2.6M, whose three files of a split are of another form."""
    return [
        path
        for place in (folder, folder / "annotations")
        for pattern in (f"{split}_*.json", f"*_{split}.json")
        for path in sorted(place.glob(pattern))
        if not path.stem.endswith(("_data", "_camera", "_joint_3d"))
    ]


LAYOUT = Coco
