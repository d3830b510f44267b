"""Opening what scenes are composed of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from handmesh.errors import InputError

from ..render_settings import RenderSettings
from . import layers
from .grounds import Grounds
from .photos import cut_outs, read_photos
from .scenes import Supplies


@dataclass(frozen=True)
class SupplySettings:
    """Where a run's supplies are, in one picklable value.

    Attributes:
        folder: of the rendered layers, see `layers.prepare`.
        environments: folder of panoramas.
        photos: sets of labelled photos.
    """

    folder: Path
    environments: Path
    photos: tuple[Path, ...] = ()

    def open(self) -> Supplies:
        """Open them; photos are read and cut out, which takes some seconds a set.

        Raises:
            InputError, ImageError: a folder that does not hold what it should.
        """
        photos = [photo for folder in self.photos for photo in read_photos(folder)]
        return Supplies(
            Grounds.from_folder(self.environments),
            layers.load(self.folder, "cut-outs"),
            layers.load(self.folder, "pictures"),
            photos,
            cut_outs(photos),
        )


def prepared(
    folder: Path, look: RenderSettings, photos: Sequence[Path], seed: int, count: int, pictures: int
) -> SupplySettings:
    """Render what is missing, and say where everything is. Arguments as `layers.prepare`.

    Raises:
        InputError: no folder of panoramas, or layers that were made otherwise.
    """
    if look.environments is None:
        raise InputError("the detector's scenes take panoramas: give --environments DIR")
    layers.prepare(folder, look, seed, count, pictures)
    return SupplySettings(folder, look.environments, tuple(photos))
