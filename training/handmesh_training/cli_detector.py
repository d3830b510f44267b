"""`handmesh train detector`."""

from __future__ import annotations

import argparse

from handmesh.errors import InputError

from .checkpoint import weights_file
from .detection.run import DetectorRun, train_detector
from .parallel import process_group
from .recipe import Recipe
from .render_settings import RenderSettings
from .rendering.folders import panorama_files
from .train import TrainSettings


def train(options: argparse.Namespace, recipe: Recipe) -> int:
    """What `handmesh train detector` does with the options of `handmesh train`.

    Raises:
        InputError: no folder, or one without panoramas.
    """
    if options.environments is None:
        raise InputError("the detector's scenes take panoramas: give --environments DIR")
    if not panorama_files(options.environments):  # made-up places are no way out here
        raise InputError(
            f"{options.environments} holds no .hdr panorama, which the detector's scenes take: "
            "give a folder with some"
        )
    smoke = options.smoke
    with process_group(options.device) as device:
        run = DetectorRun(
            folder=options.out,
            look=RenderSettings(options.skins, options.environments),
            photos=tuple(options.photos),
            settings=TrainSettings(
                steps=8 if smoke else options.steps,
                recipe=recipe,
                seed=options.seed,
                lanes=options.lanes,
                report=4 if smoke else 100,
                evaluate=8 if smoke else 1000,
            ),
            device=device,
            workers=options.workers,
            minutes=options.minutes,
            start_from=None if options.start_from is None else weights_file(options.start_from),
        )
        if smoke:
            run = _small(run)
        train_detector(run)
    return 0


def _small(run: DetectorRun) -> DetectorRun:
    from dataclasses import replace

    return replace(run, cut_outs=64, pictures=32, watched=16)
