"""What poor pictures cost: ``python -m handmesh_training.quality_report``.

Each picture is lit in stripes or dapples, blurred along a line, ends across the hand, is reduced
until its hand has so many pixels, and is compressed, in that order and each where it is asked for;
then the hand is asked for in its box as ever. Printed are, for each set and kind of picture, the
errors that `handmesh evaluate` has, by the protocol ``in_the_wild``, of joints beyond the picture
as of others. A hand's pixels are those of the longer side of its joints' tight box. (Where a
picture ends the camera that is assumed for it changes, too: that is part of what its end costs.)
"""

from __future__ import annotations

if __name__ == "__main__":
    from handmesh.cli_shared import run_module

    run_module(__spec__, "training")

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from handmesh import Predictor
from handmesh.arguments import checked_looks
from handmesh.errors import InputError
from handmesh.looks import LOOKS, MOST_LOOKS

from .cli_options import EVALUATION_SEED, add_photos, add_surroundings
from .datasets import Sample
from .datasets.crops import locates_hand
from .develop import compress, dapples, shadowed, shaken, stripes
from .estimators import PredictorEstimator
from .evaluate import evaluate
from .evaluation_report import Report
from .evaluation_sets import photo_samples, rendered_samples
from .photos import check_photo_sets, one_hand
from .protocols import IN_THE_WILD
from .rendered import RenderSettings
from .seeds import Purpose, generator

RENDERED_PX = 192
# Stripes and dapples across a hand, and how fast these change from shadow to light: stripes as a
# sine, dapples within a sixth of their size.
STRIPES, DAPPLES = 6, 8
STRIPES_STEEP, DAPPLES_STEEP = 0.5, 3.0
HEAD = """\
| set | hands | pictures | 2D, share of the box | joints, PA | side |
| --- | ---: | --- | ---: | ---: | ---: |
"""


class Quality(NamedTuple):
    """What becomes of a picture.

    Attributes:
        hand_px: it is reduced until its hand has so many pixels, if it has more; None: it is not.
        jpeg: libjpeg's quality, 1 to 100; None: it is not compressed.
        shaken: length of the blur along a line, as a share of the hand's pixels.
        cut: how much of the hand, of its extent towards a border, lies beyond that border.
        striped, dappled: share of the light that the shadows of blinds and of leaves lack.
    """

    hand_px: int | None = None
    jpeg: int | None = None
    shaken: float = 0.0
    cut: float = 0.0
    striped: float = 0.0
    dappled: float = 0.0

    def __str__(self) -> str:
        words = [] if self.hand_px is None else [f"{self.hand_px} px"]
        words += [] if self.jpeg is None else [f"JPEG {self.jpeg}"]
        words += [f"shaken by {self.shaken:g}"] if self.shaken else []
        words += [f"{100 * self.cut:.0f} % beyond the border"] if self.cut else []
        words += [f"{100 * self.striped:.0f} % less light in stripes"] if self.striped else []
        words += [f"{100 * self.dappled:.0f} % less light in dapples"] if self.dappled else []
        return ", ".join(words) or "as it is"


QUALITIES = (
    Quality(),
    *(Quality(px, jpeg) for px in (60, 36, 24) for jpeg in (None, 75, 50)),
    *(Quality(60, None, share) for share in (0.1, 0.2)),
    Quality(60, 50, 0.1),
    *(Quality(cut=share) for share in (0.2, 0.4)),
    *(Quality(striped=share) for share in (0.25, 0.5)),
    *(Quality(dappled=share) for share in (0.25, 0.5)),
)


def _lit(
    image: NDArray[Any], quality: Quality, hand_px: float, light: np.random.Generator
) -> NDArray[Any]:
    """A picture in the light of a quality; as it is where that is none."""
    height, width = image.shape[:2]
    side = max(height, width)
    hands = side / max(hand_px, 1.0)  # that would lie side by side across the picture
    if quality.striped:
        waves = stripes(
            side, STRIPES * hands, light.uniform(0, math.pi), light.uniform(0, math.tau)
        )
        pattern = np.clip(0.5 + STRIPES_STEEP * waves, 0, 1)
        image = shadowed(image, pattern[:height, :width], quality.striped)
    if quality.dappled:
        cells = min(max(2, round(DAPPLES * hands)), side)
        heights = light.normal(0, 1, (cells, cells)).astype(np.float32)
        pattern = np.clip(0.5 + DAPPLES_STEEP * dapples(side, heights), 0, 1)
        image = shadowed(image, pattern[:height, :width], quality.dappled)
    return image


def worsened(
    sample: Sample, quality: Quality, angle: float, border: int, light: np.random.Generator
) -> Sample:
    """A hand in a worse picture: the image, and with it what is told in its pixels.

    Args:
        sample: its depth map, mask and outline, if it has any, are left out.
        quality: how much worse. angle: of the blur's line, radians. border: across which the
            picture ends: 0 left, 1 upper, 2 right, 3 lower. light: draws where its stripes or
            dapples fall.
    """
    if not locates_hand(sample):
        return sample
    image: NDArray[Any] = sample.image
    known = sample.joints_px[sample.joint_known]
    low, high = known.min(axis=0), known.max(axis=0)
    hand_px = float((high - low).max())
    image = _lit(image, quality, hand_px, light)
    line = round(quality.shaken * hand_px)
    if line > 1:
        image = shaken(image, line, angle)
    corner = np.zeros(2)  # of what is left, in pixels of the picture
    if quality.cut:
        axis = border % 2
        beyond = quality.cut * (high[axis] - low[axis])
        first, end = 0, image.shape[1 - axis]
        if border < 2:
            first = min(max(first, round(low[axis] + beyond + 0.5)), end - 1)
        else:
            end = max(min(end, round(high[axis] - beyond + 0.5)), 1)
        image = image[first:end] if axis else image[:, first:end]
        corner[axis] = first
    height, width = image.shape[:2]
    if quality.hand_px is not None and hand_px > quality.hand_px:
        share = quality.hand_px / hand_px
        size = (max(1, round(share * width)), max(1, round(share * height)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    if quality.jpeg is not None:
        image = compress(image, quality.jpeg)
    scale = np.array([image.shape[1] / width, image.shape[0] / height])
    intrinsics = sample.intrinsics
    if intrinsics is not None:
        # Pixel centres at integers: the corner of the picture is at -1/2 in both.
        intrinsics = np.diag([*scale, 1.0]) @ intrinsics
        intrinsics[:2, 2] += scale * (0.5 - corner) - 0.5
    return replace(
        sample,
        image=image,
        joints_px=(sample.joints_px - corner + 0.5) * scale - 0.5,
        intrinsics=intrinsics,
        depth_m=None,
        mask=None,
        outline_px=None,
        outline_known=None,
    )


def all_worsened(samples: Iterable[Sample], quality: Quality) -> Iterator[Sample]:
    """Samples in worse pictures, each along a line, across a border and in a light of its own."""
    rng = generator(EVALUATION_SEED, Purpose.WORSENED)
    light = generator(EVALUATION_SEED, Purpose.LIT)
    for sample in samples:
        yield worsened(sample, quality, rng.uniform(0, math.pi), int(rng.integers(4)), light)


def to_row(quality: Quality, report: Report) -> str:
    """A row of the table in Markdown; "-" where the labels do not tell."""
    cells = [report.name, str(report["image_share"].count), str(quality)]
    for name, factor, form in (
        ("image_share", 100, "{:.1f} %"),
        ("joints_pa_mm", 1, "{:.1f} mm"),
        ("handedness", 100, "{:.0f} %"),
    ):
        cells.append(form.format(factor * report[name].value) if name in report else "-")
    return "| " + " | ".join(cells) + " |\n"


def _sets(options: argparse.Namespace) -> list[tuple[str, Callable[[], Iterator[Sample]]]]:
    """Names and samples, which are read anew at each call.

    Raises:
        InputError: no set, a count below 1, or photos that cannot be used.
    """
    for name in ("rendered", "limit"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} must be at least 1, not {value}")
    check_photo_sets(options.photos, one_hand)
    sets: list[tuple[str, Callable[[], Iterator[Sample]]]] = [
        (folder.name, partial(photo_samples, folder, options.limit)) for folder in options.photos
    ]
    if options.rendered is not None:
        look = RenderSettings(
            options.skins, options.environments, options.backgrounds, RENDERED_PX, empty=0.0
        )
        hands = list(rendered_samples(look, EVALUATION_SEED, options.rendered))
        sets.append(("rendered", lambda: iter(hands)))
    if not sets:
        raise InputError("there is nothing to measure: give --rendered N or --photos DIR")
    return sets


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print, a row for each set and quality."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--bundle", metavar="PATH", help="default: the shipped one")
    parser.add_argument("--rendered", type=int, metavar="N", help="hands to be rendered")
    add_surroundings(parser)
    add_photos(parser)
    parser.add_argument("--limit", type=int, metavar="N", help="photographed hands of each set")
    parser.add_argument(
        "--looks", type=int, default=LOOKS, metavar="N",
        help=f"at each hand, to {MOST_LOOKS} (default {LOOKS})",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, metavar="N", help="of the CPU")
    options = parser.parse_args(arguments)
    looks = checked_looks(options.looks)
    sets = _sets(options)
    with Predictor(options.bundle, threads=options.threads) as predictor:
        estimator = PredictorEstimator(predictor, looks)
        sys.stdout.write(HEAD)
        for name, read in sets:
            for quality in QUALITIES:
                worse = all_worsened(read(), quality)
                sys.stdout.write(to_row(quality, evaluate(estimator, worse, IN_THE_WILD, name)))
                sys.stdout.flush()
    return 0
