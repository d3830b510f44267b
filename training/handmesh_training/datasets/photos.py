"""Folders of real photos with a teacher's 2D joints: see `handmesh_training.photos`."""

from __future__ import annotations

from pathlib import Path

from ..photos import HELD_OUT, LABELS, TRAIN, LabelledHand, read_labels
from .dataset import Dataset, require_file
from .sample import Sample


class Photos(Dataset):
    """One sample for each hand that the set trusts, its finger tips moved to the fingers' ends.

    The teacher's 3D joints have no camera and are left out. ``train`` and ``held-out`` are four
    fifths and the last fifth. Of hands with `thumb_before_palm` the thumb is not taught.
    """

    splits = ("all", TRAIN, HELD_OUT)
    evaluation_split = "all"
    protocol = "in_the_wild"
    revision = 3  # 1: with the teacher's own tips; 2: with all thumbs taught

    def __init__(self, folder: Path | str, split: str) -> None:
        super().__init__(folder, split)
        require_file(self.folder / LABELS, "a teacher's labels of the photos")

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        return (folder / LABELS).is_file()

    def __len__(self) -> int:
        return len(self._hands())

    def _hands(self) -> list[LabelledHand]:
        part = self.folder if self.split == "all" else f"{self.folder}:{self.split}"
        return self._keep("hands", lambda: list(read_labels(part)))

    def _read(self, index: int) -> Sample:
        return self._hands()[index].sample()


LAYOUT = Photos
