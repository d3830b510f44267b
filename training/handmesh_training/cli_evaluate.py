"""`handmesh evaluate`."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from handmesh.arguments import checked_looks
from handmesh.atomic import write_atomic
from handmesh.cli_shared import needing_extra
from handmesh.errors import InputError
from handmesh.looks import LOOKS, MOST_LOOKS

from .cli_options import EVALUATION_SEED, add_photos, add_surroundings
from .protocols import STANDARD

if TYPE_CHECKING:
    from handmesh import Predictor

    from .datasets import Dataset, Sample
    from .estimators import Estimator
    from .evaluation_report import Report

USUAL_RENDERED = 1000
REPORT = "evaluation.json"


def add_evaluate(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure a bundle or a checkpoint on labelled data sets, rendered hands and photos",
        description="Errors on data sets with true labels and on rendered hands, and disagreement "
        "with a teacher's landmarks on photos, its finger tips moved to the fingers' ends. What is "
        "given of each hand is told with each set.",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--bundle", metavar="PATH", help="trained model (default: the shipped one)")
    what.add_argument("--checkpoint", type=Path, metavar="FILE", help="of a training run")
    parser.add_argument("--backend", default="onnx", metavar="NAME", help="what runs the bundle")
    parser.add_argument(
        "--data",
        "--dataset",
        action="append",
        default=[],
        metavar="SET",
        help="a labelled set: LAYOUT:SPLIT:DIR, as stb:test_sk:DIR, or a folder of a known layout, "
        "or one that holds such folders; may be given more than once",
    )
    parser.add_argument(
        "--labelled", dest="data", action="append", metavar="DIR", help="the same as --data"
    )
    add_photos(parser)
    parser.add_argument(
        "--rendered",
        type=int,
        metavar="N",
        help=f"so many rendered hands (default: {USUAL_RENDERED} where nothing else is named)",
    )
    add_surroundings(parser)
    parser.add_argument(
        "--protocol",
        action="append",
        choices=tuple(STANDARD),
        help="what is given of each hand, instead of each set's own protocol; may be given more "
        "than once",
    )
    parser.add_argument(
        "--looks",
        type=int,
        metavar="N",
        help=f"at each hand, 1 to {MOST_LOOKS} (default {LOOKS}), as `handmesh predict` has it; of "
        "a bundle, and not for --negatives and --pairs",
    )
    parser.add_argument(
        "--boxes",
        type=int,
        default=1,
        metavar="N",
        help="about each hand, 1 to 16 (default 1), a little larger, smaller and beside the given "
        "one: the mean over them tells more of few hands",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="photos or hands of a set at most")
    parser.add_argument(
        "--search", action="store_true", help="also find hands without a box: protocol unaided"
    )
    parser.add_argument(
        "--groups", action="store_true", help="also figures by gesture, skin, view and company"
    )
    parser.add_argument(
        "--negatives",
        type=Path,
        metavar="DIR",
        help="pictures without hands: false alarms of finding hands without a box, beside the "
        "share of hands found in --photos",
    )
    parser.add_argument(
        "--pairs",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="photos of one hand each, no labels needed: left and right in mirrored twins, and "
        "both hands found in two photos side by side; may be given more than once",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help=f"write the figures as JSON, and PCK curves as PNG beside it: FILE.json, or a folder "
        f"for {REPORT}",
    )
    parser.set_defaults(run=needing_extra(_evaluate, "training"))


def _evaluate(options: argparse.Namespace) -> int:
    from .datasets import all_named
    from .evaluation_report import to_dict, to_table
    from .finding import evaluate_finding
    from .finding_pairs import evaluate_pairs

    if options.looks is not None:
        checked_looks(options.looks)
    _check_boxes(options)
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit must be at least 1, not {options.limit}")
    sets = all_named(options.data)
    named = bool(sets or options.photos or options.negatives is not None or options.pairs)
    rendered = options.rendered
    if rendered is None:
        rendered = 0 if named else USUAL_RENDERED
    if not named and rendered < 1:
        raise InputError(
            "nothing to evaluate: give --data, --photos, --negatives or --pairs, or --rendered "
            "above 0"
        )
    file = None if options.out is None else _file_for(options.out)
    finding, pairs = None, []
    with ExitStack() as stack:
        estimator, predictor = _estimator(options, stack)
        _check_folders(options)
        reports = list(_reports(estimator, _jobs(options, sets, rendered), options.boxes))
        if predictor is not None and options.negatives is not None:
            finding = evaluate_finding(predictor, options.negatives, options.photos, options.limit)
        if predictor is not None:
            pairs = [evaluate_pairs(predictor, one, options.limit) for one in options.pairs]
        figures = to_dict(estimator.description, reports)
    tables = [to_table(reports, options.groups)] if reports else []
    if finding is not None:
        tables.append(finding.to_table())
        figures["finding"] = finding.to_dict()
    if pairs:
        tables += [report.to_table() for report in pairs]
        figures["pairs"] = [report.to_dict() for report in pairs]
    sys.stdout.write("\n".join(tables) + "\n")
    if file is not None:
        _write(file, figures, reports)
    return 0


def _check_boxes(options: argparse.Namespace) -> None:
    """Before the work: afterwards all that was measured would be lost."""
    from .evaluate import BOXES

    if not 1 <= options.boxes <= len(BOXES):
        raise InputError(f"--boxes must be from 1 to {len(BOXES)}, not {options.boxes}")
    without = options.search or not all(STANDARD[name].box for name in options.protocol or ())
    if options.boxes > 1 and without:
        raise InputError(
            "--boxes goes with protocols that give the box: leave out unaided, --search"
        )


def _check_folders(options: argparse.Namespace) -> None:
    """Also those that come last are looked at before the first set is evaluated."""
    from .finding import negative_files
    from .finding_pairs import pair_files
    from .photos import check_photo_sets, one_hand

    check_photo_sets(options.photos, one_hand)
    if options.negatives is not None:
        negative_files(options.negatives)
    for folder in options.pairs:
        pair_files(folder, options.limit)


def _estimator(options: argparse.Namespace, stack: ExitStack) -> tuple[Estimator, Predictor | None]:
    """What is to be evaluated; with a bundle also its predictor, which the stack closes."""
    from handmesh import Predictor

    from .estimators import PredictorEstimator, checkpoint_estimator

    if options.checkpoint is None:
        predictor = stack.enter_context(Predictor(options.bundle, options.backend))
        looks = LOOKS if options.looks is None else options.looks
        return PredictorEstimator(predictor, looks), predictor
    for flag in ("search", "negatives", "pairs"):
        if getattr(options, flag):
            raise InputError(f"--{flag} needs a bundle: a network by itself searches no picture")
    if options.looks is not None:
        raise InputError("--looks needs a bundle: a network by itself looks once")
    return checkpoint_estimator(options.checkpoint), None


class Job(NamedTuple):
    """One set to be evaluated.

    Attributes:
        name: for the report. samples: reads them, anew at each call. total: how many there are,
            where that is known before they are read. protocols: names, each an evaluation.
    """

    name: str
    samples: Callable[[], Iterator[Sample]]
    total: int | None
    protocols: Sequence[str]


def _jobs(options: argparse.Namespace, sets: dict[str, Dataset], rendered: int) -> Iterator[Job]:
    from .evaluation_sets import dataset_samples, photo_samples, rendered_samples, spread
    from .rendered import RenderSettings

    def protocols(usual: str) -> list[str]:
        if options.checkpoint is not None and not STANDARD[usual].handedness:
            usual = "paper"  # a network by itself must be told the side
        chosen = list(options.protocol or [usual])
        return list(dict.fromkeys([*chosen, *(["unaided"] if options.search else [])]))

    if rendered > 0:
        look = RenderSettings(
            options.skins, options.environments, options.backgrounds, crop_px=192, empty=0.0
        )
        yield Job(
            "rendered",
            lambda: rendered_samples(look, EVALUATION_SEED, rendered),
            rendered,
            protocols("paper"),
        )
    for name, dataset in sets.items():
        yield Job(
            name,
            partial(dataset_samples, dataset, options.limit),
            len(spread(len(dataset), options.limit)),
            protocols(dataset.protocol),
        )
    for folder in options.photos:
        yield Job(
            folder.name,
            partial(photo_samples, folder, options.limit),
            None,
            protocols("in_the_wild"),
        )


def _reports(estimator: Estimator, jobs: Iterator[Job], boxes: int) -> Iterator[Report]:
    from .evaluate import evaluate

    for job in jobs:
        for name in job.protocols:
            yield evaluate(estimator, job.samples(), STANDARD[name], job.name, job.total, boxes)


def _file_for(out: Path) -> Path:
    """Where the JSON goes; refused before the work, not after."""
    if out.suffix == ".json":
        if not out.parent.is_dir():
            raise InputError(f"cannot write {out}: there is no folder {out.parent}")
        return out
    try:
        out.mkdir(exist_ok=True)
    except OSError as cause:
        raise InputError(f"cannot make the folder {out}: {cause.strerror}") from cause
    return out / REPORT


def _write(file: Path, figures: dict[str, Any], reports: Sequence[Report]) -> None:
    """The JSON and, beside it, a plot for each set that has a curve; each of them whole."""
    from .pck_plot import plot_pck

    by_set: dict[str, list[Report]] = {}
    for report in reports:
        by_set.setdefault(report.name, []).append(report)
    stems: set[str] = set()
    for name, of_set in by_set.items():
        png = plot_pck(name, of_set)
        if png is None:
            continue
        stem = f"{file.stem}_pck_" + re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("_.")
        while stem in stems:
            stem += "_"
        stems.add(stem)
        write_atomic(file.with_name(f"{stem}.png"), png)
    write_atomic(file, (json.dumps(figures, indent=2) + "\n").encode())
