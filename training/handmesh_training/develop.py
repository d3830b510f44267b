"""What light and a camera do to a picture, picture by picture with OpenCV.

The twin of `develop_torch`, where the strengths stand and the order of the steps is explained.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .develop_torch import (
    BLUR,
    BLURRED_SHARE,
    CONTRAST_SPREAD,
    DAPPLES,
    DARK,
    EVENED_MOST,
    FILTER_SIZES,
    FILTERED_SHARE,
    GRAIN,
    GRAINY_SHARE,
    GREY_SHARE,
    LIGHT_CELLS,
    MOTION,
    MOVED_SHARE,
    PACKED,
    PACKED_SHARE,
    PACKED_SMALL,
    PACKED_SMALL_SHARE,
    PATTERNED_SHARE,
    RELIT_SHARE,
    RELIT_SPREAD,
    SHADE_CELLS,
    SHADOW,
    SHIFTED_SHARE,
    SMALL,
    SMALL_SHARE,
    STEEPNESS,
    STRIPES,
)
from .opencv import cv2

Image = NDArray[Any]  # always uint8, but OpenCV's type stubs do not know


def develop(
    rng: np.random.Generator,
    image: Image,
    noise: NDArray[np.float32],
    motion: tuple[int, int] = MOTION,
    small: tuple[float, float] = SMALL,
) -> Image:
    """The light's side of it, and a camera's: random filters, light, focus, motion, resolution,
    exposure, colour, sensor noise, JPEG, in the order in which they happen; see `develop_torch`.

    Args:
        rng: what chooses. image: (S, S, 3) uint8. noise: (N, N, 3) float32 standard normal, N > S,
            to cut noise from.
        motion, small: as `develop_torch.MOTION` and `SMALL`; a picture of more than a hand, in
            which hands are small, bears less.

    Returns:
        (S, S, 3) uint8; the input is not changed.
    """
    side = image.shape[0]
    if rng.random() < FILTERED_SHARE:
        image = _filter_at_random(rng, image)
    if rng.random() < RELIT_SHARE:
        field = rng.normal(0, rng.uniform(0, RELIT_SPREAD), (LIGHT_CELLS, LIGHT_CELLS))
        image = relight(image, field, rng.uniform(0, EVENED_MOST))
    if rng.random() < PATTERNED_SHARE:
        image = shadowed(image, _pattern(rng, side), _by_octaves(rng, *SHADOW))
    if rng.random() < BLURRED_SHARE:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(*BLUR))
    if rng.random() < MOVED_SHARE:
        length = int(_by_octaves(rng, motion[0], motion[1] + 1))
        image = shaken(image, length, rng.uniform(0, np.pi))
    is_small = rng.random() < SMALL_SHARE
    if is_small:
        size = int(side * _by_octaves(rng, *small))
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)

    image = cv2.LUT(image, _tone_curve(rng))
    chance = rng.random()
    if chance < GREY_SHARE:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    elif chance < GREY_SHARE + SHIFTED_SHARE:
        image = _shift_colours(rng, image)
    if rng.random() < GRAINY_SHARE:
        height = image.shape[0]
        y, x = rng.integers(0, len(noise) - height, 2)
        grain = noise[y : y + height, x : x + height] * float(rng.uniform(*GRAIN))
        image = np.clip(image + grain, 0, 255).astype(np.uint8)
    if rng.random() < (PACKED_SMALL_SHARE if is_small else PACKED_SHARE):
        image = compress(image, int(rng.integers(*(PACKED_SMALL if is_small else PACKED))))
    if is_small:
        image = cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)
    return image


def _by_octaves(rng: np.random.Generator, low: float, high: float) -> float:
    """From low to high, as likely in each octave."""
    return float(low * (high / low) ** rng.random())


def shadowed(image: Image, pattern: NDArray[np.float32], shadow: float) -> Image:
    """A picture in patterned light; the twin of `develop_torch.shadowed`.

    Args:
        image: (H, W, 3) uint8. pattern: (H, W) from 0 in shadow to 1 in light. shadow: share of the
            light that shadows lack.
    """
    gain = 1 - shadow * (1 - pattern)
    # Cameras expose for the mean.
    return np.clip(image * (gain / gain.mean())[..., None], 0, 255).astype(np.uint8)


def _pattern(rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    """(S, S) from 0 in shadow to 1 in light: stripes, or dapples, as often."""
    if rng.random() < 0.5:
        angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
        height = stripes(side, _by_octaves(rng, *STRIPES), angle, phase)
    else:
        cells = int(_by_octaves(rng, *DAPPLES))
        height = dapples(side, rng.normal(0, 1, (cells, cells)).astype(np.float32))
    return np.clip(0.5 + _by_octaves(rng, *STEEPNESS) * height, 0, 1)


def stripes(side: int, number: float, angle: float, phase: float) -> NDArray[np.float32]:
    """(S, S) waves in -1..1; the twin of `develop_torch.stripes`."""
    place = (np.arange(side, dtype=np.float32) + 0.5) / side
    along = place[None] * np.cos(angle) + place[:, None] * np.sin(angle)
    return np.sin(2 * np.pi * number * along + phase).astype(np.float32)


def dapples(side: int, heights: NDArray[np.float32]) -> NDArray[np.float32]:
    """(S, S) of heights (N, N), interpolated; the twin of `develop_torch.dapples`."""
    return np.asarray(cv2.resize(heights, (side, side), interpolation=cv2.INTER_LINEAR))


def shaken(image: Image, length: int, angle: float) -> Image:
    """Blur along a line; the twin of `develop_torch.move`.

    Args:
        image: (H, W, 3) uint8. length: of the line, pixels. angle: of it, radians from +x to +y.
    """
    reach = length // 2 + 1  # where it slants, its end lies between pixels
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along = dx * np.cos(angle) + dy * np.sin(angle)
    across = dy * np.cos(angle) - dx * np.sin(angle)
    kernel = np.clip(0.5 * length + 0.5 - np.abs(along), 0, 1)
    kernel *= np.clip(1 - np.abs(across), 0, None)
    return cv2.filter2D(image, -1, kernel / kernel.sum())


def compress(image: Image, quality: int) -> Image:
    """What JPEG with 4:2:0 chroma leaves of a picture; the twin of `develop_torch.compress`.

    Args:
        image: (H, W, 3) uint8 RGB. quality: 1 to 100 as libjpeg counts it.
    """
    # OpenCV's files are of BGR pixels. Of pictures with red and blue exchanged JPEG would keep the
    # blue as finely as a camera's keeps the red: luma is 30 % red and 11 % blue.
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    packed = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    pixels = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


def _filter_at_random(rng: np.random.Generator, image: Image) -> Image:
    """Mix in what a random linear filter over space and channels makes of the picture: outlines
    stay, colours and grain become nobody's. Xu et al., Robust and generalizable visual
    representation learning via random convolutions (ICLR 2021)."""
    size = int(rng.choice(FILTER_SIZES))
    share = rng.uniform(0, 1)
    weights = rng.normal(0, share / np.sqrt(3 * size * size), (3, 3, size, size))
    weights[range(3), range(3), size // 2, size // 2] += 1 - share
    return filtered(image, weights)


def filtered(image: Image, weights: NDArray[np.float64]) -> Image:
    """A picture through a linear filter about mid-grey; the twin of `develop_torch.filtered`.

    Args:
        image: (H, W, 3) uint8. weights: (3, 3, K, K) of output and input channel, K odd.
    """
    centred = image.astype(np.float32) - 128
    planes = [np.ascontiguousarray(centred[..., channel]) for channel in range(3)]
    mixed = [
        np.sum([cv2.filter2D(planes[k], -1, weights[c, k]) for k in range(3)], axis=0)
        for c in range(3)
    ]
    return np.clip(np.stack(mixed, axis=-1) + 128, 0, 255).astype(np.uint8)


def relight(image: Image, field: NDArray[np.float64], evened: float) -> Image:
    """A picture in other light, as `develop_torch.relight` makes it: outlines and texture stay.

    Args:
        image: (S, S, 3) uint8. field: (N, N) logarithms of the light that is cast, a coarse grid.
        evened: share of the picture's own unevenness that is taken out.
    """
    side = image.shape[0]
    cells = cv2.resize(image, (SHADE_CELLS, SHADE_CELLS), interpolation=cv2.INTER_AREA)
    shade = np.log(cells.mean(axis=2) + DARK)
    shade -= shade.mean()
    own = cv2.resize(shade, (side, side), interpolation=cv2.INTER_LINEAR)
    cast = cv2.resize(field, (side, side), interpolation=cv2.INTER_LINEAR)
    gain = np.exp(cast - evened * own).astype(np.float32)
    return np.clip(image * gain[..., None], 0, 255).astype(np.uint8)


def _tone_curve(rng: np.random.Generator) -> NDArray[np.uint8]:
    """(1, 256, 3) table: gamma, contrast, exposure and white balance at once."""
    levels = np.linspace(0, 1, 256)[:, None]
    gamma = np.exp(rng.normal(0, 0.2))
    contrast = np.exp(rng.normal(0, CONTRAST_SPREAD))
    gain = np.exp(rng.normal(0, 0.12) + rng.normal(0, 0.07, 3))
    curve = (levels**gamma * gain - 0.5) * contrast + 0.5 + rng.normal(0, 0.04)
    return np.clip(curve * 255, 0, 255).astype(np.uint8)[None]


def _shift_colours(rng: np.random.Generator, image: Image) -> Image:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.int16)
    hsv[..., 0] = (hsv[..., 0] + int(rng.normal(0, 5))) % 180
    hsv[..., 1] = np.clip(hsv[..., 1] * np.exp(rng.normal(0, 0.3)), 0, 255)
    return cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)
