"""Stacks of images with mip levels, in the layout that the shader reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from handmesh.errors import InputError
from handmesh_training.rendering.arrays import checked
from handmesh_training.rendering.resizing import shrink

LEVELS = 7
LUMINANCE = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)


def srgb_to_linear(value: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Linear light of sRGB values in [0, 1] (IEC 61966-2-1); any shape, float32."""
    x = np.asarray(value, dtype=np.float32)
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4).astype(np.float32)


def log_brightness(image: npt.NDArray[np.float32]) -> float:
    """Luminance averaged in logarithms, of an (H, W, 3) linear image; never below 1e-4."""
    return max(float(np.exp(np.log(image @ LUMINANCE + 1e-3).mean())), 1e-4)


@dataclass(frozen=True)
class TextureStack:
    """Images of any sizes with their mip levels, as square roots of linear light.

    Attributes:
        texels: (bytes,) uint8, RGBX pixels, all images and levels one after the other; in memory,
            or mapped from a file.
        offset: (T, LEVELS) int64, first byte of each level.
        extent: (T, LEVELS, 2) int32, height and width of each level.
    """

    texels: npt.NDArray[np.uint8]
    offset: npt.NDArray[np.int64]
    extent: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.offset)

    @classmethod
    def build(cls, images: Iterable[npt.NDArray[np.float32]]) -> TextureStack:
        """Stack of linear-light images in memory. Arguments and errors as `write`."""
        chunks: list[npt.NDArray[np.uint8]] = []
        offset, extent = cls.write(images, chunks.append)
        return cls(np.concatenate(chunks), offset, extent)

    @classmethod
    def mapped(
        cls, file: Path, offset: npt.NDArray[np.int64], extent: npt.NDArray[np.int32]
    ) -> TextureStack:
        """Stack whose texels stay in a file: the system reads, and forgets, what it sees fit."""
        # Copied on writing, which nobody does: torch takes no arrays that are read-only.
        return cls(np.memmap(file, dtype=np.uint8, mode="c"), offset, extent)

    @staticmethod
    def write(
        images: Iterable[npt.NDArray[np.float32]],
        put: Callable[[npt.NDArray[np.uint8]], object],
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
        """Offset and extent of a stack whose texels go elsewhere, a level at a time.

        Args:
            images: each (H, W, 3) float32, linear light where 1.0 becomes texel value 255;
                an iterator is consumed one by one, so that they need not all fit in memory.
            put: called with each level's texels (bytes,), in their order.

        Raises:
            InputError: no image, or one of another shape.
        """
        offsets: list[list[int]] = []
        extents: list[list[tuple[int, int]]] = []
        position = 0
        for number, image in enumerate(images):
            level = checked(f"image {number}", image, np.float32, (None, None, 3), low=0.0)
            offsets.append([])
            extents.append([])
            for _ in range(LEVELS):
                height, width = level.shape[:2]
                texels = np.zeros((height, width, 4), dtype=np.uint8)  # (H, W, 4)
                texels[..., :3] = np.sqrt(np.minimum(level, 1.0)) * 255.0 + 0.5
                put(texels.reshape(-1))
                offsets[-1].append(position)
                extents[-1].append((height, width))
                position += texels.size
                level = shrink(level, max(1, width // 2), max(1, height // 2))
        if not offsets:
            raise InputError("a texture stack needs at least one image, got none")
        return np.array(offsets, np.int64), np.array(extents, np.int32)

    def image(self, index: int, level: int = 0) -> npt.NDArray[np.float32]:
        """(H, W, 3) float32 linear light of one level of one image."""
        height, width = (int(n) for n in self.extent[index, level])
        start = int(self.offset[index, level])
        texels = self.texels[start : start + 4 * height * width].reshape(height, width, 4)
        return (texels[..., :3].astype(np.float32) / 255.0) ** 2
