"""What surrounds the hand: light and background from panoramas, backgrounds from photos."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from handmesh.errors import ImageError, InputError
from handmesh_training.opencv import cv2
from handmesh_training.rendering import harmonics
from handmesh_training.rendering.folders import PHOTO_SUFFIXES, panorama_files, photo_files
from handmesh_training.rendering.photo_cache import open_photos
from handmesh_training.rendering.resizing import enlarge, shrink
from handmesh_training.rendering.textures import LUMINANCE, TextureStack, log_brightness
from handmesh_training.seeds import Purpose, generator

# Panoramas are stored up to this multiple of white; what is brighter has burnt out anyway.
PANORAMA_WHITE = 2.5
# For both who read it: at a command line, and in Python.
_MADE_UP = (
    "leave --environments away, or take EnvironmentSet.procedural() in Python, for made-up ones"
)


@dataclass(frozen=True)
class BackgroundSet:
    """Pictures to put behind the hand.

    Attributes:
        textures: the pictures.
        is_panorama: (T,) bool; panoramas are looked up by direction, photos by place.
        white: (T,) float32 linear light of a texel of value 255.
        brightness: (T,) float32 mean log-luminance, exponentiated.
    """

    textures: TextureStack
    is_panorama: npt.NDArray[np.bool_]
    white: npt.NDArray[np.float32]
    brightness: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.textures)

    @classmethod
    def from_folder(
        cls, folder: Path | str, *, limit: int | None = None, side: int = 384
    ) -> BackgroundSet:
        """Photos of a folder and its sub-folders, shrunk to `side` px on the shorter side.

        They are shrunk once, to a file in the cache folder of about a megabyte a photo, and read
        from there as they are needed. A side of 384 px suffices for crops of up to 160 px: what is
        shown of a photo is at least a third of it. A GPU holds all of them.

        Args:
            folder: searched for .jpg, .png, .bmp and .webp; unreadable files are an error.
            limit: at most so many, evenly spread over the sorted names.
            side: shorter side in px after shrinking.

        Raises:
            InputError: no photo there, or the cache folder cannot be written to.
            ImageError: a file that is not an image.
        """
        files = photo_files(Path(folder))
        if not files:
            raise InputError(f"{folder} holds no photo ({', '.join(PHOTO_SUFFIXES)})")
        if limit is not None and len(files) > limit:
            files = [files[i * len(files) // limit] for i in range(limit)]
        return cls._of_photos(*open_photos(files, side))

    @classmethod
    def from_images(cls, images: Iterable[npt.NDArray[np.float32]]) -> BackgroundSet:
        """Photos given as (H, W, 3) float32 linear light in [0, 1]."""
        brightness: list[float] = []

        def noted() -> Iterator[npt.NDArray[np.float32]]:
            for image in images:
                brightness.append(log_brightness(image))
                yield image

        textures = TextureStack.build(noted())
        return cls._of_photos(textures, np.array(brightness, dtype=np.float32))

    @classmethod
    def _of_photos(
        cls, textures: TextureStack, brightness: npt.NDArray[np.float32]
    ) -> BackgroundSet:
        count = len(textures)
        return cls(
            textures, np.zeros(count, dtype=np.bool_), np.ones(count, dtype=np.float32), brightness
        )


@dataclass(frozen=True)
class EnvironmentSet:
    """Places: their light, and their panoramas as backgrounds.

    Radiance is scaled so that each panorama's mean log-luminance is 0.18.

    Attributes:
        panoramas: one background for each place.
        irradiance: (T, 9, 3) float64 spherical harmonics of irradiance / pi, without the key.
        key_direction: (T, 3) float64 unit vector to the strongest light, world frame.
        key_light: (T, 3) float64 irradiance / pi of a surface facing the key light.
    """

    panoramas: BackgroundSet
    irradiance: npt.NDArray[np.float64]
    key_direction: npt.NDArray[np.float64]
    key_light: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.panoramas)

    @classmethod
    def from_folder(cls, folder: Path | str, *, height: int = 512) -> EnvironmentSet:
        """Radiance .hdr panoramas (equirectangular, 2:1) of a folder.

        Raises:
            InputError: no panorama there.
            ImageError: a file that cannot be read.
        """
        files = panorama_files(Path(folder))
        if not files:
            raise InputError(f"{folder} holds no .hdr panorama; {_MADE_UP}")

        def read() -> Iterator[npt.NDArray[np.float32]]:
            for file in files:
                pixels = cv2.imread(str(file), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR)
                if pixels is None or pixels.dtype != np.float32:
                    raise ImageError(f"{file}: not a Radiance HDR panorama that OpenCV can read")
                sized = cv2.resize(pixels, (2 * height, height), interpolation=cv2.INTER_AREA)
                yield np.maximum(sized[..., ::-1], 0)

        return cls.from_panoramas(read())

    @classmethod
    def procedural(cls, seed: int, count: int = 8, height: int = 128) -> EnvironmentSet:
        """Made-up places: a sky-to-floor gradient, blotches, boxes and a few lamps.

        Raises:
            InputError: a count below one.
        """
        if count < 1:
            raise InputError(f"expected count >= 1, got {count}")
        rng = generator(seed, Purpose.ENVIRONMENTS)
        return cls.from_panoramas(_made_up(rng, height) for _ in range(count))

    @classmethod
    def from_panoramas(cls, panoramas: Iterable[npt.NDArray[np.float32]]) -> EnvironmentSet:
        """Places from (H, W, 3) float32 linear radiance in any unit, H x 2H px."""
        irradiance: list[npt.NDArray[np.float64]] = []
        directions: list[npt.NDArray[np.float64]] = []
        lights: list[npt.NDArray[np.float64]] = []

        def measured() -> Iterator[npt.NDArray[np.float32]]:
            for panorama in panoramas:
                scaled = panorama * np.float32(0.18 / log_brightness(panorama))
                direction, light, rest = split_key_light(scaled)
                directions.append(direction)
                lights.append(light)
                irradiance.append(harmonics.project_irradiance(rest))
                yield (scaled / np.float32(PANORAMA_WHITE)).astype(np.float32)

        textures = TextureStack.build(measured())
        count = len(textures)
        backgrounds = BackgroundSet(
            textures,
            np.ones(count, dtype=np.bool_),
            np.full(count, PANORAMA_WHITE, dtype=np.float32),
            np.full(count, 0.18, dtype=np.float32),
        )
        return cls(backgrounds, np.array(irradiance), np.array(directions), np.array(lights))


def split_key_light(
    panorama: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float32]]:
    """Takes the strongest light out of a panorama.

    Args:
        panorama: (H, W, 3) float32 linear radiance.

    Returns:
        Unit direction (3,) to the light in the world frame, its irradiance / pi on a facing
        surface (3,), and the panorama without it, (H, 64..W, 3).
    """
    small = (shrink if panorama.shape[0] >= 128 else enlarge)(panorama, 256, 128)
    luminance = small @ LUMINANCE
    angles = harmonics.solid_angles(128, 256)
    mean = float((luminance * angles).sum() / (4 * np.pi))
    keep = np.minimum(1.0, 4.0 * mean / np.maximum(luminance, 1e-6))[..., None]
    excess = small * (1 - keep) * angles[..., None]  # (128, 256, 3) radiance times solid angle
    directions = harmonics.panorama_directions(128, 256)
    weight = excess @ LUMINANCE
    total = float(weight.sum())
    if total < 1e-6:
        return np.array([0.0, -1.0, 0.0]), np.zeros(3), small
    mean_direction = (directions * weight[..., None]).sum((0, 1)) / total
    gathered = float(np.linalg.norm(mean_direction))
    # Lamps all around have no common direction: only the gathered share becomes the key.
    light = excess.sum((0, 1)) * gathered / np.pi
    rest: npt.NDArray[np.float32] = (small * (1 - (1 - keep) * gathered)).astype(np.float32)
    direction: npt.NDArray[np.float64] = mean_direction / max(gathered, 1e-6)
    return direction, light, rest


def _made_up(rng: np.random.Generator, height: int) -> npt.NDArray[np.float32]:
    width = 2 * height
    directions = harmonics.panorama_directions(height, width)
    rise = (directions[..., 1:2] + 1) / 2  # 0 above, 1 below

    def colour(brightest: float, gaudy: float) -> npt.NDArray[np.float64]:
        return brightest * rng.random() * np.exp(rng.normal(0, gaudy, 3) - gaudy) + 0.01

    top, bottom = colour(1.0, 0.2), colour(0.5, 0.25)
    image = top * (1 - rise) + bottom * rise
    for cells in (4, 16, 64):
        noise = rng.normal(size=(cells, 2 * cells, 3)).astype(np.float32)
        noise = 0.15 * noise + 1.5 * noise.mean(2, keepdims=True)
        blotches = enlarge(noise, width, height, cubic=True)
        image = image * np.exp(0.35 * blotches)
    for _ in range(int(rng.integers(5, 30))):
        x, y = rng.integers(0, width), rng.integers(height // 8, height)
        w, h = rng.integers(2, width // 6), rng.integers(2, height // 3)
        image[y : y + h, x : x + w] = colour(0.9, rng.choice([0.1, 0.5]))
    for _ in range(int(rng.integers(1, 4))):
        centre = rng.normal(size=3) - [0, 0.8, 0]
        centre /= np.linalg.norm(centre)
        sharpness = 10 ** rng.uniform(1.2, 2.8)
        glow = np.exp(sharpness * (directions @ centre - 1))[..., None]
        image += glow * rng.uniform(2, 40) * rng.uniform(0.6, 1.0, 3)
    return image.astype(np.float32)
