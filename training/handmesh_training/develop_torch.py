"""The camera's side of augmentation for whole batches on any device: the twin of `develop`.

Focus and resolution are separable linear maps of a picture, motion a small kernel, light a coarse
map of gains, tone, colour and noise arithmetic on pixels, compression the arithmetic of JPEG.
Nothing is read back from the device: what a picture is spared is computed and not used.

The steps are in the order in which they happen: what stands before the camera, its lens, its
sensor, its file. A hand far away has few pixels, and grain and blocks of JPEG are of their size:
both are enlarged with the hand when a crop is cut.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from handmesh.errors import InputError

# Tables K.1 and K.2 of ITU-T T.81: steps of luma and chroma coefficients at quality 50.
_LUMA = (
    *(16, 11, 10, 16, 24, 40, 51, 61), *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56), *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77), *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101), *(72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
_CHROMA = (
    *(17, 18, 24, 47, 99, 99, 99, 99), *(18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99), *(47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)  # fmt: skip
_LUMINANCE = (0.299, 0.587, 0.114)  # of BT.601, as OpenCV and JPEG have it
# Pictures out of focus, their standard deviation, and shaken ones, the length of their line, as
# likely in each octave: both in pixels of the network's input.
BLURRED_SHARE, BLUR = 0.12, (0.4, 1.6)
MOVED_SHARE, MOTION = 0.12, (3, 15)
# Pictures of small hands, enlarged: the side that they had, as a share of the crop's, as likely in
# each octave.
SMALL_SHARE, SMALL = 0.3, (0.2, 0.8)
# Pictures with grain, and its strength in levels; and compressed ones, with libjpeg's qualities.
# Small hands are more often compressed: many are out of video.
GRAINY_SHARE, GRAIN = 0.4, (1.0, 11.0)
PACKED_SHARE, PACKED = 0.25, (20, 85)
PACKED_SMALL_SHARE, PACKED_SMALL = 0.6, (30, 90)
# Pictures that a random filter is mixed into, and its sides, pixels.
FILTERED_SHARE = 0.2
FILTER_SIZES = (1, 3, 5, 7)
# Pictures lit anew: largest standard deviation of the light's logarithm, and the share of their own
# light's unevenness that is taken out at most, as phones do to bring out what lies in shadow.
RELIT_SHARE, RELIT_SPREAD, EVENED_MOST = 0.4, 0.35, 0.8
# The new light is drawn on a grid of so many cells a side, and the own one taken from a finer one.
LIGHT_CELLS, SHADE_CELLS = 4, 8
# Pictures in a light of stripes or dapples, as of blinds, leaves and lamps that flicker: how much
# of the light the shadows lack; how many stripes or dapples lie across a crop, and how steep their
# edges are, from waves to steps; all as likely in each octave.
PATTERNED_SHARE, SHADOW = 0.12, (0.08, 0.7)
STRIPES, DAPPLES, STEEPNESS = (2.0, 24.0), (5.0, 16.0), (0.5, 6.0)
# Grey levels added before their unevenness is taken: else black borders would be made to glow.
DARK = 32.0
# Pictures without colour, and with a turned hue and another saturation.
GREY_SHARE, SHIFTED_SHARE = 0.1, 0.26
# Standard deviation of the contrast's logarithm: phones even out light, webcams drive it up.
CONTRAST_SPREAD = 0.25


def uniform(generator: torch.Generator, count: int, low: float, high: float, *more: int) -> Tensor:
    """(count, *more) float32 in [low, high) on the generator's device."""
    drawn = torch.rand((count, *more), generator=generator, device=generator.device)
    return low + (high - low) * drawn


def normal(generator: torch.Generator, count: int, scale: float, *more: int) -> Tensor:
    """(count, *more) float32 of mean 0 on the generator's device."""
    return scale * torch.randn((count, *more), generator=generator, device=generator.device)


def develop(generator: torch.Generator, images: Tensor) -> Tensor:
    """Filters, light, focus, motion, resolution, exposure, colour, noise, JPEG: each now and then.

    Args:
        generator: what chooses; on the images' device. images: (B, 3, S, S) float32, 0..255.

    Returns:
        (B, 3, S, S) float32, whole numbers in 0..255.
    """
    count, side = len(images), images.shape[-1]
    images = torch.where(
        _chosen(generator, count, FILTERED_SHARE),
        filtered(images, random_filters(generator, count)),
        images,
    )
    field = normal(generator, count, 1.0, LIGHT_CELLS, LIGHT_CELLS)
    field = field * uniform(generator, count, 0, RELIT_SPREAD, 1, 1)
    evened = uniform(generator, count, 0, EVENED_MOST)
    relit = _chosen(generator, count, RELIT_SHARE)
    images = torch.where(relit, relight(images, field, evened), images)

    pattern = random_patterns(generator, count, side)
    shadow = _by_octaves(generator, count, *SHADOW)
    patterned = _chosen(generator, count, PATTERNED_SHARE)
    images = torch.where(patterned, shadowed(images, pattern, shadow), images)

    lens = blur_map(uniform(generator, count, *BLUR), side)
    blurred = lens[:, None] @ images @ lens[:, None].transpose(2, 3)
    images = torch.where(_chosen(generator, count, BLURRED_SHARE), blurred, images)
    length = _by_octaves(generator, count, MOTION[0], MOTION[1] + 1).floor()
    length = torch.where(_chosen(generator, count, MOVED_SHARE).view(-1), length, 1.0)
    images = move(images, length, uniform(generator, count, 0, math.pi))

    is_small = _chosen(generator, count, SMALL_SHARE).view(-1)
    size = (side * _by_octaves(generator, count, *SMALL)).floor()
    down, up = small_maps(torch.where(is_small, size, float(side)), side)
    images = down[:, None] @ images @ down[:, None].transpose(2, 3)
    images = _tone(generator, images)
    images = _colours(generator, images)
    grain = uniform(generator, count, *GRAIN, 1, 1, 1)
    grain = grain * _chosen(generator, count, GRAINY_SHARE)
    images = images + normal(generator, count, 1.0, 3, side, side) * grain
    images = repeated(images.clamp(0, 255).round(), torch.where(is_small, size, float(side)))
    chance = uniform(generator, count, 0, 1)
    packed = chance < torch.where(is_small, PACKED_SMALL_SHARE, PACKED_SHARE)
    low, high = (
        torch.where(is_small, float(of_small), float(of_others))
        for of_small, of_others in zip(PACKED_SMALL, PACKED, strict=True)
    )
    quality = (low + (high - low) * uniform(generator, count, 0, 1)).floor()
    images = torch.where(packed[:, None, None, None], compress(images, quality), images)
    images = up[:, None] @ images @ up[:, None].transpose(2, 3)
    return images.clamp(0, 255).round()


def _chosen(generator: torch.Generator, count: int, share: float) -> Tensor:
    """(B, 1, 1, 1) bool, True for that share of pictures."""
    return uniform(generator, count, 0, 1, 1, 1, 1) < share


def _by_octaves(generator: torch.Generator, count: int, low: float, high: float) -> Tensor:
    """(B,) from low to high, as likely in each octave."""
    return low * (high / low) ** uniform(generator, count, 0, 1)


def blur_map(sigma: Tensor, side: int) -> Tensor:
    """(B, S, S) Gaussian blur of a line of pixels, mirrored at its ends; sigma (B,) in pixels."""
    reach = 6  # more than 3.7 sigma of the widest
    offsets = torch.arange(-reach, reach + 1, device=sigma.device)
    weights = (-0.5 * (offsets / sigma[:, None]) ** 2).exp()
    weights = weights / weights.sum(dim=1, keepdim=True)  # (B, 13)
    source = (torch.arange(side, device=sigma.device)[:, None] + offsets).abs()  # (S, 13)
    source = torch.where(source >= side, 2 * (side - 1) - source, source)
    result = torch.zeros(len(sigma), side, side, device=sigma.device)
    source = source.expand(len(sigma), -1, -1)
    return result.scatter_add_(2, source, weights[:, None].expand(-1, side, -1))


def small_maps(small: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Two maps (B, S, S) of a line of pixels: averaging of all S into the first `small` (B,) ones,
    the last of which is repeated to the end; and linear interpolation of those back to S."""
    pixel = torch.arange(side, device=small.device, dtype=torch.float32)
    step = side / small[:, None, None]  # (B, 1, 1)
    last = small[:, None] - 1  # (B, 1)
    low = torch.minimum(pixel, last)[..., None] * step  # (B, S, 1)
    overlap = torch.minimum(low + step, pixel + 1) - torch.maximum(low, pixel)
    down = overlap.clamp(min=0) / step  # (B, S, S)
    place = torch.minimum(((pixel + 0.5) / step[..., 0] - 0.5).clamp(min=0), last)  # (B, S)
    up = (1 - (place[..., None] - pixel).abs()).clamp(min=0)  # (B, S, S)
    return down, up


def repeated(images: Tensor, small: Tensor) -> Tensor:
    """Pictures (B, C, S, S) of which the first `small` (B,) rows and columns mean something, their
    last row and column in place of the rest: as libjpeg fills its last blocks."""
    count, channels, side = images.shape[:3]
    pixel = torch.arange(side, device=images.device)
    source = torch.minimum(pixel, small[:, None].long() - 1)  # (B, S)
    shape = (count, channels, side, side)
    images = images.gather(2, source[:, None, :, None].expand(shape))
    return images.gather(3, source[:, None, None, :].expand(shape))


def move(images: Tensor, length: Tensor, angle: Tensor) -> Tensor:
    """Blur along a line of `length` (B,) pixels at `angle` (B,) radians; of one: none."""
    count, channels = images.shape[:2]
    reach = MOTION[1] // 2
    offset = torch.arange(-reach, reach + 1, device=images.device, dtype=torch.float32)
    dy, dx = torch.meshgrid(offset, offset, indexing="ij")
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    along, across = dx * cosine + dy * sine, dy * cosine - dx * sine  # (B, K, K)
    inside = (0.5 * length[:, None, None] + 0.5 - along.abs()).clamp(0, 1)
    kernel = inside * (1 - across.abs()).clamp(min=0)
    still = (length == 1)[:, None, None]
    kernel = torch.where(still, ((dx == 0) & (dy == 0)).float(), kernel)
    kernel = kernel / kernel.sum(dim=(1, 2), keepdim=True)
    padded = F.pad(images, (reach,) * 4, mode="reflect").flatten(0, 1)[None]  # (1, 3 B, ., .)
    kernels = kernel.repeat_interleave(channels, dim=0)[:, None]  # (3 B, 1, K, K)
    return F.conv2d(padded, kernels, groups=count * channels)[0].unflatten(0, (count, channels))


def random_filters(generator: torch.Generator, count: int) -> Tensor:
    """(B, 3, 3, K, K) filters that mix a picture with what a random one of a random size makes of
    it (Xu et al., ICLR 2021), smaller ones with zeros about them."""
    largest = FILTER_SIZES[-1]
    sizes = torch.tensor(FILTER_SIZES, device=generator.device)
    drawn = torch.randint(len(sizes), (count,), generator=generator, device=generator.device)
    size = sizes[drawn]  # (B,)
    share = uniform(generator, count, 0, 1)
    off = (torch.arange(largest, device=generator.device) - largest // 2).abs()  # (K,)
    inside = 2 * torch.maximum(off[:, None], off) < size[:, None, None]  # (B, K, K)
    scale = share / (3**0.5 * size)
    weights = normal(generator, count, 1.0, 3, 3, largest, largest)
    weights = weights * (inside * scale[:, None, None])[:, None, None]
    itself = torch.eye(3, device=generator.device) * (1 - share)[:, None, None]  # (B, 3, 3)
    weights[..., largest // 2, largest // 2] += itself
    return weights


def filtered(images: Tensor, weights: Tensor) -> Tensor:
    """Each picture (B, 3, S, S), 0..255, through its own filter (B, 3, 3, K, K) about mid-grey."""
    count, reach = len(images), weights.shape[-1] // 2
    padded = F.pad(images - 128, (reach,) * 4, mode="reflect").flatten(0, 1)[None]
    mixed = F.conv2d(padded, weights.flatten(0, 1), groups=count)[0]  # (3 B, S, S)
    return (mixed.unflatten(0, (count, 3)) + 128).clamp(0, 255)


def relight(images: Tensor, field: Tensor, evened: Tensor) -> Tensor:
    """Pictures in other light that changes slowly over them: outlines and texture stay.

    Args:
        images: (B, 3, S, S), 0..255. field: (B, N, N) logarithms of
            the light that is cast, a coarse grid. evened: (B,) share of the picture's own
            unevenness that is taken out.
    """
    side = images.shape[-1]
    shade = (F.adaptive_avg_pool2d(images.mean(dim=1, keepdim=True), SHADE_CELLS) + DARK).log()
    shade = shade - shade.mean(dim=(2, 3), keepdim=True)  # (B, 1, N, N)
    own = F.interpolate(shade, (side, side), mode="bilinear")
    cast = F.interpolate(field[:, None], (side, side), mode="bilinear")
    gain = (cast - evened[:, None, None, None] * own).exp()  # (B, 1, S, S)
    return (images * gain).clamp(0, 255)


def shadowed(images: Tensor, pattern: Tensor, shadow: Tensor) -> Tensor:
    """Pictures (B, 3, S, S) in patterned light, exposed for the mean.

    Args:
        pattern: (B, 1, S, S) from 0 in shadow to 1 in light. shadow: (B,) share of the light that
            shadows lack.
    """
    gain = 1 - shadow[:, None, None, None] * (1 - pattern)
    return (images * gain / gain.mean(dim=(2, 3), keepdim=True)).clamp(0, 255)


def random_patterns(generator: torch.Generator, count: int, side: int) -> Tensor:
    """(B, 1, S, S) from 0 in shadow to 1 in light: stripes, or dapples, as often."""
    angle = uniform(generator, count, 0, math.pi)
    phase = uniform(generator, count, 0, 2 * math.pi)
    waves = stripes(side, _by_octaves(generator, count, *STRIPES), angle, phase)
    cells = _by_octaves(generator, count, *DAPPLES).floor()
    spots = dapples(side, cells, normal(generator, count, 1.0, int(DAPPLES[1]), int(DAPPLES[1])))
    kind = _chosen(generator, count, 0.5).view(-1, 1, 1)
    steepness = _by_octaves(generator, count, *STEEPNESS)[:, None, None]
    return (0.5 + steepness * torch.where(kind, waves, spots)).clamp(0, 1)[:, None]


def stripes(side: int, number: Tensor, angle: Tensor, phase: Tensor) -> Tensor:
    """(B, S, S) waves in -1..1, so many (B,) across a picture in the direction of an angle (B,)."""
    place = (torch.arange(side, device=angle.device) + 0.5) / side
    along = place[None, None] * angle.cos()[:, None, None]
    along = along + place[None, :, None] * angle.sin()[:, None, None]  # (B, S, S)
    return (2 * math.pi * number[:, None, None] * along + phase[:, None, None]).sin()


def dapples(side: int, cells: Tensor, heights: Tensor) -> Tensor:
    """(B, S, S) of the first `cells` (B,) rows and columns of heights (B, N, N), interpolated."""
    place = (torch.arange(side, device=heights.device) + 0.5) / side  # (S,)
    last = cells[:, None] - 1
    cell = torch.minimum((place * cells[:, None] - 0.5).clamp(min=0), last)  # (B, S)
    source = torch.arange(heights.shape[-1], device=heights.device)
    weights = (1 - (cell[..., None] - source).abs()).clamp(min=0)  # (B, S, N)
    return weights @ heights @ weights.transpose(1, 2)


def _tone(generator: torch.Generator, images: Tensor) -> Tensor:
    """Gamma, contrast, exposure and white balance at once."""
    count = len(images)
    gamma = normal(generator, count, 0.2, 1, 1, 1).exp()
    contrast = normal(generator, count, CONTRAST_SPREAD, 1, 1, 1).exp()
    gain = normal(generator, count, 0.12, 1, 1, 1) + normal(generator, count, 0.07, 3, 1, 1)
    level = 0.5 + normal(generator, count, 0.04, 1, 1, 1)
    linear = (images / 255).clamp(0, 1) ** gamma * gain.exp()
    return (((linear - 0.5) * contrast + level) * 255).clamp(0, 255)


def _colours(generator: torch.Generator, images: Tensor) -> Tensor:
    """Turned hue and other saturation, or no colour at all, in a share of the pictures."""
    count = len(images)
    chance = uniform(generator, count, 0, 1)[:, None, None, None]
    turn = normal(generator, count, 10 / 360)  # OpenCV counts hue in steps of two degrees
    shifted = shift_colours(images, turn, normal(generator, count, 0.3).exp())
    weights = torch.tensor(_LUMINANCE, device=images.device)[:, None, None]
    plain = (images * weights).sum(dim=1, keepdim=True).expand_as(images)
    coloured = torch.where(chance < GREY_SHARE + SHIFTED_SHARE, shifted, images)
    return torch.where(chance < GREY_SHARE, plain, coloured)


def shift_colours(images: Tensor, turn: Tensor, saturation: Tensor) -> Tensor:
    """Hue turned and saturation multiplied, in HSV.

    Args:
        images: (B, 3, S, S) RGB, 0..255. turn: (B,) full turns. saturation: (B,) factors.
    """
    value, brightest = images.max(dim=1)  # (B, S, S)
    spread = value - images.min(dim=1).values
    red, green, blue = images.unbind(dim=1)
    rate = 1 / spread.clamp(min=1e-6)
    sextant = torch.where(
        brightest == 0,
        (green - blue) * rate,
        torch.where(brightest == 1, (blue - red) * rate + 2, (red - green) * rate + 4),
    )
    hue = (sextant + 6 * turn[:, None, None]) % 6
    colourful = (spread * saturation[:, None, None]).minimum(value)
    # Each channel: value less the share that its distance from the hue takes away (Smith 1978).
    phases = torch.tensor([5.0, 3.0, 1.0], device=images.device)[:, None, None]
    place = (phases + hue[:, None]) % 6  # (B, 3, S, S)
    return value[:, None] - colourful[:, None] * torch.minimum(place, 4 - place).clamp(0, 1)


def compress(images: Tensor, quality: Tensor) -> Tensor:
    """What JPEG with 4:2:0 chroma leaves of pictures (ITU-T T.81, tables of Annex K).

    Args:
        images: (B, 3, S, S) RGB, 0..255. quality: (B,) integers 1 to 100 as libjpeg counts them.

    Raises:
        InputError: images that are not square RGB.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise InputError(f"expected (B, 3, S, S) images, got {tuple(images.shape)}")
    side = images.shape[-1]
    padded = F.pad(images, (0, -side % 16, 0, -side % 16), mode="replicate")
    red, green, blue = padded.unbind(dim=1)
    luma = _LUMINANCE[0] * red + _LUMINANCE[1] * green + _LUMINANCE[2] * blue
    chroma = torch.stack([(blue - luma) / 1.772, (red - luma) / 1.402], dim=1)  # (B, 2, ., .)
    luma = _quantise(luma[:, None] - 128, quality, _LUMA)[:, 0] + 128
    chroma = _quantise(F.avg_pool2d(chroma, 2), quality, _CHROMA)
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    red, blue = luma + 1.402 * chroma[:, 1], luma + 1.772 * chroma[:, 0]
    green = (luma - _LUMINANCE[0] * red - _LUMINANCE[2] * blue) / _LUMINANCE[1]
    result = torch.stack([red, green, blue], dim=1)[..., :side, :side]
    return result.clamp(0, 255).round()


def _quantise(planes: Tensor, quality: Tensor, table: tuple[int, ...]) -> Tensor:
    """(B, C, H, W), H and W multiples of 8: each 8 x 8 block's cosine transform in coarse steps."""
    k = torch.arange(8, device=planes.device, dtype=torch.float32)
    cosines = (math.pi / 8 * k[:, None] * (k + 0.5)).cos() * 0.5  # (8, 8), orthonormal
    cosines[0] *= 0.5**0.5
    q = quality.float()
    rate = torch.where(q < 50, 5000 / q, 200 - 2 * q)[:, None, None]  # percent, as in libjpeg
    steps = torch.tensor(table, device=planes.device, dtype=torch.float32).view(8, 8)
    steps = ((steps * rate + 50) / 100).floor().clamp(1, 255)[:, None, None, None]
    height, width = planes.shape[-2:]
    blocks = planes.unflatten(3, (width // 8, 8)).unflatten(2, (height // 8, 8))
    blocks = blocks.transpose(3, 4)  # (B, C, H / 8, W / 8, 8, 8)
    levels = cosines @ blocks @ cosines.T
    blocks = cosines.T @ ((levels / steps).round() * steps) @ cosines
    return blocks.transpose(3, 4).flatten(4, 5).flatten(2, 3)
