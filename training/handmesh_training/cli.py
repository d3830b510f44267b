"""The sub-commands `handmesh train`, `evaluate`, `reference` and `render`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from handmesh.atomic import write_atomic
from handmesh.errors import InputError

from .cli_options import add_data, needing_the_extra
from .cli_render import add_render

# Seeds of rendered hands: training counts up from zero, evaluation stands far off.
EVALUATION_SEED = 987_654


def add_commands(commands: Any) -> None:
    """Add them to argparse's sub-parsers."""
    _add_train(commands)
    _add_evaluate(commands)
    _add_reference(commands)
    add_render(commands)


def _add_train(commands: Any) -> None:
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


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure a bundle on rendered hands, labelled data sets and photos",
        description="Errors on rendered hands and data sets with true labels, and disagreement "
        "with a teacher's landmarks on photos. The box around the hand is given.",
    )
    add_data(parser)
    parser.add_argument("--bundle", metavar="PATH", help="trained model (default: the shipped one)")
    parser.add_argument("--backend", default="onnx", metavar="NAME")
    parser.add_argument("--rendered", type=int, default=1000, metavar="N", help="0 for none")
    parser.add_argument(
        "--labelled",
        type=Path,
        metavar="DIR",
        help="a folder of folders, each with the test split of a labelled data set of any layout",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="photos or hands of a set at most")
    parser.add_argument("--search", action="store_true", help="also find hands without a box")
    parser.add_argument(
        "--negatives",
        type=Path,
        metavar="DIR",
        help="pictures without hands: false alarms of finding hands without a box, beside the "
        "share of hands found in --photos",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON, too")
    parser.set_defaults(run=needing_the_extra(_evaluate))


def _add_reference(commands: Any) -> None:
    parser = commands.add_parser(
        "reference",
        help="make the reference crops of a bundle",
        description="Crops of rendered hands and of photos that may be shipped, for "
        "`handmesh export`: each bundle carries them with the outputs expected of it.",
    )
    parser.add_argument(
        "--photos", type=Path, required=True, metavar="DIR", help="photos with a boxes.json"
    )
    parser.add_argument("--side", type=int, default=128, metavar="PX")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".npz to write")
    parser.set_defaults(run=needing_the_extra(_reference))


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


def _evaluate(options: argparse.Namespace) -> int:
    from handmesh import Predictor

    from .datasets import find_datasets, parse_dataset
    from .evaluate import (
        Report,
        evaluate_labelled,
        evaluate_photos,
        evaluate_rendered,
        to_table,
    )
    from .finding import evaluate_finding
    from .rendered import RenderSettings

    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit must be at least 1, not {options.limit}")
    labelled = {name: parse_dataset(name) for name in options.dataset}
    if options.labelled is not None:
        labelled |= find_datasets(options.labelled, "test")
    if not (options.photos or labelled or options.negatives) and options.rendered < 1:
        raise InputError(
            "nothing to evaluate: give --photos, --dataset, --labelled or --negatives, or "
            "--rendered above 0"
        )
    reports: dict[str, Report] = {}
    with Predictor(options.bundle, options.backend) as predictor:
        if options.rendered > 0:
            look = RenderSettings(
                options.skins, options.environments, options.backgrounds, crop_px=192, empty=0.0
            )
            reports["rendered"] = evaluate_rendered(
                predictor, look, options.rendered, EVALUATION_SEED
            )
        for name, dataset in labelled.items():
            reports[name] = evaluate_labelled(predictor, dataset, options.limit)
        for folder in options.photos:
            reports[folder.name] = evaluate_photos(
                predictor, [folder], options.limit, options.search
            )
        finding = (
            evaluate_finding(predictor, options.negatives, options.photos, options.limit)
            if options.negatives is not None
            else None
        )
    figures: dict[str, Any] = {name: asdict(report) for name, report in reports.items()}
    tables = [to_table(reports)] if reports else []
    if finding is not None:
        tables.append(finding.to_table())
        figures["finding"] = finding.to_dict()
    sys.stdout.write("\n".join(tables) + "\n")
    if options.out is not None:
        write_atomic(options.out, (json.dumps(figures, indent=2) + "\n").encode())
    return 0


def _reference(options: argparse.Namespace) -> int:
    import io

    import numpy as np

    from .reference import reference_crops

    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=reference_crops(options.photos, options.side))
    write_atomic(options.out, buffer.getvalue())
    return 0
