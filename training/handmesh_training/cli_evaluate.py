"""`handmesh evaluate`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from handmesh.atomic import write_atomic
from handmesh.errors import InputError

from .cli_options import EVALUATION_SEED, add_data, needing_the_extra


def add_evaluate(commands: Any) -> None:
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
    labelled = {name: parse_dataset(name) for name in options.data}
    if options.labelled is not None:
        labelled |= find_datasets(options.labelled, "test")
    if not (options.photos or labelled or options.negatives) and options.rendered < 1:
        raise InputError(
            "nothing to evaluate: give --photos, --data, --labelled or --negatives, or "
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
