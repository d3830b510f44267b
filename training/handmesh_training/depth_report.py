"""How far the wrist is: ``python -m handmesh_training.depth_report``.

Measures, on rendered hands before known cameras, the error of the wrist's depth in percent of it
with camera and bone length given, with one of them, and with neither; and the error of bones that
`handmesh.calibration` measures. Prints a table.

Each hand is rendered as in training and put where its camera saw it into a dark 4:3 picture, whose
field of view along the longer side is drawn between 55 and 75 degrees: phones and webcams, where
65 is assumed. Bones are those of the rendered people: men, women and some children. The box is
given.
"""

from __future__ import annotations

if __name__ == "__main__":
    from handmesh.cli_shared import run_module

    run_module(__spec__, "training")

import argparse
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from handmesh import Box, Camera, Predictor
from handmesh.calibration import (
    CREDIT_CARD_WIDTH_M,
    bone_length_from_depth,
    bone_length_from_object,
)
from handmesh.errors import InputError
from handmesh.types import ROOT_JOINT, UNIT_BONE

from .cli_options import EVALUATION_SEED
from .evaluation_sets import rendered_samples
from .rendered import RenderSettings
from .seeds import Purpose, generator

Array = NDArray[np.float64]

FOV_DEG = (55.0, 75.0)
# Frames of which calibration takes the median.
FRAMES = 10


class Scene(NamedTuple):
    """One rendered right hand before a known camera.

    Attributes:
        image: (H, W, 3) uint8 RGB. camera: of it. joints_m: (21, 3) camera space, metres.
    """

    image: NDArray[np.uint8]
    camera: Camera
    joints_m: Array

    @property
    def depth_m(self) -> float:
        """Depth of the wrist."""
        return float(self.joints_m[ROOT_JOINT, 2])

    @property
    def bone_length_m(self) -> float:
        """Length of the middle finger's MCP to PIP."""
        base, end = self.joints_m[list(UNIT_BONE)]
        return float(np.linalg.norm(end - base))


def scenes(count: int, seed: int = EVALUATION_SEED) -> Iterator[Scene]:
    """At most ``count`` scenes; hands are left out whose crop their camera does not wholly see.

    Raises:
        InputError: fewer than one.
    """
    rng = generator(seed, Purpose.CAMERAS)
    side = 192
    for sample in rendered_samples(RenderSettings(crop_px=side, empty=0.0), seed, count):
        assert sample.intrinsics is not None
        assert sample.joints_m is not None
        fx, fy, cx, cy = sample.intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]]
        width = round(2 * fx * np.tan(np.radians(rng.uniform(*FOV_DEG)) / 2))
        height = round(width * 3 / 4)
        # The crop's corner in the picture whose middle is the principal point, to half a pixel.
        left, top = round((width - 1) / 2 - cx), round((height - 1) / 2 - cy)
        if min(left, top) < 0 or left + side > width or top + side > height:
            continue
        image = np.zeros((height, width, 3), np.uint8)
        image[top : top + side, left : left + side] = sample.image
        camera = Camera(fx, fy, left + cx, top + cy, width, height)
        yield Scene(image, camera, sample.joints_m)


class Errors(NamedTuple):
    """Relative errors, (N,) each, by what was given.

    Attributes:
        depth: of the wrist's depth. calibrated: of the bone's length, each of a single frame.
    """

    depth: dict[str, Array]
    calibrated: dict[str, Array]


def measure(predictor: Predictor, shown: Iterable[Scene]) -> Errors:
    """Depths and bones as the predictor finds them, over the true ones, less 1."""
    depth: dict[str, list[float]] = {}
    calibrated: dict[str, list[float]] = {}
    for scene in shown:
        box = Box.from_points(scene.camera.project(scene.joints_m))
        middle = scene.joints_m[[0, 5, 9, 13, 17]].mean(axis=0)
        card = scene.camera.project(middle + np.outer((-0.5, 0.5), (CREDIT_CARD_WIDTH_M, 0, 0)))
        for name, camera in (("camera given", scene.camera), ("camera assumed", None)):
            for what, bone in (("given", scene.bone_length_m), ("assumed", None)):
                (hand,) = predictor.predict(
                    scene.image, box, camera, handedness="right", bone_length_m=bone
                )
                error = float(hand.joints_m[ROOT_JOINT, 2]) / scene.depth_m - 1
                depth.setdefault(f"{name}, bone length {what}", []).append(error)
            # The last hand's bone was assumed: what it should have been is to be found.
            for source, length in (
                ("wrist's depth known", bone_length_from_depth(hand, scene.depth_m)),
                ("card beside the palm", bone_length_from_object(hand, card)),
            ):
                error = length.length_m / scene.bone_length_m - 1
                calibrated.setdefault(f"{source}, {name}", []).append(error)
    return Errors(
        {name: np.array(values) for name, values in depth.items()},
        {name: np.array(values) for name, values in calibrated.items()},
    )


def to_table(errors: Errors) -> str:
    """The figures as text."""
    count = len(next(iter(errors.depth.values())))
    lines = [f"absolute depth of the wrist, error in % of it, {count} rendered hands"]
    lines += [f"  {'':40} median    mean     p90    bias"]
    for name, values in errors.depth.items():
        size = 100 * np.abs(values)
        figures = (np.median(size), size.mean(), np.percentile(size, 90), 100 * np.median(values))
        lines.append(f"  {name:40} " + "  ".join(f"{figure:6.1f}" for figure in figures))
    lines += [
        f"bone length, error in %: of one frame, and of the median over {FRAMES}, each frame "
        "another person's",
        f"  {'':40} median     p90   median of {FRAMES}",
    ]
    for name, values in errors.calibrated.items():
        size = 100 * np.abs(values)
        groups = values[: len(values) // FRAMES * FRAMES].reshape(-1, FRAMES)
        many = 100 * np.median(np.abs(np.median(groups, axis=1))) if len(groups) else np.nan
        lines.append(
            f"  {name:40} {np.median(size):6.1f}  {np.percentile(size, 90):6.1f}  {many:6.1f}"
        )
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--bundle", metavar="PATH", help="default: the shipped one")
    parser.add_argument("--hands", type=int, default=400, metavar="N", help="to be rendered")
    options = parser.parse_args(arguments)
    with Predictor(options.bundle) as predictor:
        shown = tqdm(scenes(options.hands), total=options.hands, unit="hand")
        errors = measure(predictor, shown)
    if not errors.depth:
        raise InputError(f"no camera saw one of {options.hands} hands wholly: ask for more")
    sys.stdout.write(to_table(errors))
    return 0
