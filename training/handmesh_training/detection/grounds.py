"""What composed scenes stand before: crops of panoramas, walls, patterns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from handmesh.errors import ImageError, InputError

from ..opencv import cv2
from ..rendering.folders import panorama_files
from ..rendering.textures import log_brightness
from ..seeds import Purpose, generator

Image = NDArray[np.uint8]

# Rows of a panorama that are kept: a scene shows less of it than its own pixels have.
_PANORAMA_PX = 512
# Side of the stored views, pixels.
_VIEW_PX = 240
# Of grounds that are no panorama.
PLAIN = 0.18
# Linear light 0..4 in so many steps, to sRGB.
_STEPS = 4096
_HIGHEST = 4.0


class Grounds:
    """Draws grounds: parts of a store of views, for a view takes longer than all else in a scene.

    Args:
        panoramas: each (H, 2 H, 3) float32 linear RGB, equirectangular.
        views: how many are stored, always the same ones.

    Raises:
        InputError: no panorama.
    """

    def __init__(self, panoramas: list[NDArray[np.float32]], views: int = 1200) -> None:
        if not panoramas:
            raise InputError("scenes need at least one panorama to stand before")
        self._panoramas = [
            (each * (0.18 / log_brightness(each))).astype(np.float32) for each in panoramas
        ]
        levels = np.linspace(0, _HIGHEST, _STEPS, dtype=np.float32)
        bent = 1 - np.exp(-1.6 * levels)  # highlights are compressed, as cameras do
        self._response = (255 * bent ** (1 / 2.2) + 0.5).astype(np.uint8)
        rng = generator(0, Purpose.GROUNDS)
        self._views = [self.look_around(rng, _VIEW_PX) for _ in range(views)]

    @classmethod
    def from_folder(cls, folder: Path, views: int = 1200) -> Grounds:
        """Of the Radiance .hdr panoramas of a folder.

        Raises:
            InputError: none there. ImageError: one that cannot be read.
        """
        read = []
        for file in panorama_files(folder):
            pixels = cv2.imread(str(file), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR)
            if pixels is None or pixels.dtype != np.float32:
                raise ImageError(f"{file}: not a Radiance HDR panorama that OpenCV can read")
            size = 2 * _PANORAMA_PX, _PANORAMA_PX
            sized = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
            read.append(np.maximum(sized[..., ::-1], 0))
        return cls(read, views)

    def draw(self, rng: np.random.Generator, side: int) -> Image:
        """(S, S, 3) uint8 RGB."""
        made = _wall(rng, side) if rng.random() < PLAIN else self._part_of_view(rng, side)
        if rng.random() < 0.3:
            made = np.asarray(cv2.GaussianBlur(made, (0, 0), rng.uniform(0.6, 4.0)), np.uint8)
        return made

    def _part_of_view(self, rng: np.random.Generator, side: int) -> Image:
        view = self._views[int(rng.integers(len(self._views)))]
        part = int(_VIEW_PX * rng.uniform(0.65, 1.0))
        y, x = rng.integers(0, _VIEW_PX - part + 1, 2)
        seen = cv2.resize(
            view[y : y + part, x : x + part], (side, side), interpolation=cv2.INTER_AREA
        )
        return np.array(seen[:, ::-1] if rng.random() < 0.5 else seen, dtype=np.uint8)

    def look_around(self, rng: np.random.Generator, side: int) -> Image:
        """What a camera sees in one of the places, (S, S, 3) uint8 RGB."""
        panorama = self._panoramas[int(rng.integers(len(self._panoramas)))]
        yaw, pitch, roll = rng.uniform(-np.pi, np.pi), rng.normal(0.1, 0.4), rng.normal(0, 0.15)
        half = np.tan(np.radians(rng.uniform(30, 85)) / 2)
        across = np.linspace(-half, half, side, dtype=np.float32)
        x, y = np.meshgrid(across, across)
        x, y = x * np.cos(roll) - y * np.sin(roll), x * np.sin(roll) + y * np.cos(roll)
        # Turned down by the pitch, then around by the yaw.
        height, ahead = y * np.cos(pitch) + np.sin(pitch), np.cos(pitch) - y * np.sin(pitch)
        azimuth = np.arctan2(x, ahead) + yaw
        polar = np.arctan2(height, np.hypot(x, ahead))
        rows, columns = panorama.shape[:2]
        u = np.mod(azimuth / (2 * np.pi), 1.0) * columns - 0.5
        v = (polar / np.pi + 0.5) * rows - 0.5
        seen = cv2.remap(
            panorama, u.astype(np.float32), v.astype(np.float32), cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_WRAP,
        )  # fmt: skip
        light = seen * (
            0.5 / max(float(np.median(seen[::8, ::8])) + 0.2, 1e-3) * np.exp(rng.normal(-0.4, 0.5))
        )
        steps = np.minimum(light * ((_STEPS - 1) / _HIGHEST), _STEPS - 1).astype(np.int32)
        return np.asarray(self._response[steps], dtype=np.uint8)


def _wall(rng: np.random.Generator, side: int) -> Image:
    """One colour with a slope of light, some mottled, some in about the colour of skin."""
    colour = rng.uniform(10, 245) + rng.normal(0, 18, 3)
    if rng.random() < 0.3:
        colour = skin_colour(rng)
    across = np.linspace(-1, 1, side, dtype=np.float32)
    slope = 1 + rng.normal(0, 0.15) * across[None, :] + rng.normal(0, 0.15) * across[:, None]
    made = np.clip(colour, 0, 255).astype(np.float32) * slope[..., None]
    if rng.random() < 0.5:
        cells = int(rng.integers(3, side // 2))
        grain = rng.normal(0, rng.uniform(2, 25), (cells, cells)).astype(np.float32)
        made += cv2.resize(grain, (side, side), interpolation=cv2.INTER_CUBIC)[..., None]
    return np.clip(made, 0, 255).astype(np.uint8)


def skin_colour(rng: np.random.Generator) -> NDArray[np.float64]:
    """(3,) sRGB 0..255: from dark to light, and a little more red or yellow."""
    dark, light = np.array([45.0, 27, 18]), np.array([245.0, 210, 185])
    share = rng.random()
    colour = dark * (1 - share) + light * share
    return np.asarray(np.clip(colour * np.exp(rng.normal(0, 0.1) + rng.normal(0, 0.05, 3)), 0, 255))
