"""`handmesh train`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from .cli_options import EVALUATION_SEED, add_data, needing_the_extra


def add_train(commands: Any) -> None:
    parser = commands.add_parser(
        "train",
        help="train a network on rendered hands, photos and data sets",
        description="Train until --steps or for --minutes. Run it again to go on from the last "
        "checkpoint in --out. With several GPUs, or a process for each core: torchrun "
        "--nproc-per-node N -m handmesh train ...",
    )
    add_data(parser)
    parser.add_argument("--network", choices=("light", "paper"), default="light")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="of the run")
    parser.add_argument(
        "--start-from", metavar="BUNDLE", help="begin a new run with the weights of this bundle"
    )
    parser.add_argument("--steps", type=int, default=20_000, metavar="N", help="batches in all")
    parser.add_argument(
        "--decay", type=int, metavar="N", help="batches at the end over which the rate falls"
    )
    parser.add_argument("--batch", type=int, default=64, metavar="N")
    parser.add_argument(
        "--shards", type=Path, metavar="DIR", help="train on this set of `handmesh render`"
    )
    parser.add_argument(
        "--reuse",
        type=float,
        metavar="N",
        help="draws of each rendered hand, augmented anew (default 3; with --shards 1 an epoch)",
    )
    parser.add_argument("--rate", type=float, default=2e-3, help="learning rate")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="loader processes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument(
        "--draw-on-device",
        action=argparse.BooleanOptionalAction,
        help="draw and augment the crops on the GPU (default: with --device cuda), which takes "
        "nvcc; else on the CPU",
    )
    parser.set_defaults(run=needing_the_extra(_train))


def _train(options: argparse.Namespace) -> int:
    # Heavy imports belong to the command, not to `handmesh --help`.
    from handmesh import Bundle
    from handmesh.nn import LightConfig, NetworkConfig, PaperConfig

    from .augment import Augmentation
    from .datasets import parse_dataset
    from .parallel import process_group
    from .rendered import HandRenderer, RenderSettings
    from .shards import Manifest
    from .stream import StreamSettings
    from .train import Trainer, TrainSettings

    for name in options.dataset:  # a wrong one is told here, not by a worker later
        parse_dataset(name)
    config: NetworkConfig = LightConfig() if options.network == "light" else PaperConfig()
    side = config.input_size
    render = RenderSettings(
        options.skins, options.environments, options.backgrounds, crop_px=side * 5 // 4
    )
    if options.shards is not None:
        stored = Manifest.load(options.shards)
        render = replace(render, crop_px=stored.crop_px, margin=stored.margin)
    reuse = 3.0 if options.shards is None else 1.0
    settings = TrainSettings(
        steps=options.steps,
        decay=options.steps // 3 if options.decay is None else options.decay,
        learning_rate=options.rate,
        seed=options.seed,
        workers=options.workers,
        draw_on_device=(
            options.device != "cpu" if options.draw_on_device is None else options.draw_on_device
        ),
        stream=StreamSettings(
            batch=options.batch,
            photos=tuple(options.photos),
            datasets=tuple(options.dataset),
            shards=options.shards,
            reuse=reuse if options.reuse is None else options.reuse,
            render=render,
            augment=Augmentation(input_size=side, stored_margin=render.margin),
        ),
    )
    look = RenderSettings(
        options.skins, options.environments, options.backgrounds, side, margin=1.5, empty=0.0
    )
    validation = {"rendered": HandRenderer(look, EVALUATION_SEED).chunk(0, 512)}
    with process_group(options.device) as device:
        trainer = Trainer(config, settings, options.out, validation, device)
        if options.start_from is not None and trainer.step == 0:
            trainer.start_from(Bundle.load(options.start_from).artifact("torch"))
        trainer.run(options.minutes)
    return 0
