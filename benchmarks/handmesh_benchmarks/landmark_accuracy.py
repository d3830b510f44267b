"""Our errors beside those of MediaPipe's ``hand_landmark``, by true labels, from the same boxes.

::

    python -m handmesh_benchmarks.landmark_accuracy --data DIR --boxes 16 --out accuracy.json

All are told the box alone (the protocol ``in_the_wild`` of docs/evaluation.md): neither the side of
the hand, nor camera or scale. The files of MediaPipe come out of its wheel, which the first run
installs into an environment of its own (`mediapipe_peer`); how they are asked says
`landmark_estimator`. MediaPipe has joints in 3D twice: world landmarks, in metres, and those of the
picture with a depth.
"""

from __future__ import annotations

if __name__ == "__main__":
    from .command import run

    run(__spec__, "training")

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from handmesh import Bundle, Predictor
from handmesh.arguments import checked_looks
from handmesh.atomic import write_atomic
from handmesh.errors import InputError
from handmesh.looks import LOOKS, MOST_LOOKS
from handmesh_training.datasets import Dataset, all_named
from handmesh_training.datasets.photos import Photos
from handmesh_training.estimators import Estimator, PredictorEstimator
from handmesh_training.evaluate import BOXES, evaluate
from handmesh_training.evaluation_report import Report
from handmesh_training.evaluation_sets import dataset_samples
from handmesh_training.protocols import IN_THE_WILD

from .command import add_bundle, add_out, parse, parser_of
from .landmark_estimator import LandmarkEstimator
from .landmark_network import landmark_files, require_litert
from .mediapipe_peer import add_environment, prepare

__all__ = ["Row", "rows_of", "to_text"]

ALL = "all"
FIGURES = ("image_share", "joints_pa_mm", "handedness", "crops_seen")


class Row(NamedTuple):
    """A network on one set, or on all.

    Attributes:
        name: of the set. network: which. figures: mean and number of hands of each of `FIGURES`
            that the labels tell.
    """

    name: str
    network: str
    figures: Mapping[str, tuple[float, int]]


def rows_of(reports: Mapping[str, Sequence[Report]]) -> list[Row]:
    """Reports by network, of the same sets, as rows set by set; means over all hands come last."""
    rows = []
    for of_set in zip(*reports.values(), strict=True):
        for network, report in zip(reports, of_set, strict=True):
            rows.append(Row(report.name, network, _figures([report])))
    return rows + [Row(ALL, network, _figures(of)) for network, of in reports.items()]


def _figures(reports: Iterable[Report]) -> dict[str, tuple[float, int]]:
    found = {}
    for name in FIGURES:
        known = [report[name] for report in reports if name in report]
        hands = sum(figure.count for figure in known)
        if hands:
            found[name] = sum(figure.value * figure.count for figure in known) / hands, hands
    return found


def to_text(rows: Iterable[Row], boxes: int) -> str:
    """A table in Markdown. boxes: of each hand; hands are counted once."""
    lines = [
        "| set | hands | network | crops | 2D, share of the box | joints, PA (hands) | side |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for name, network, figures in rows:
        share, asked = figures["image_share"]
        cells = [name, f"{asked // boxes}", network, f"{figures['crops_seen'][0]:.1f}"]
        cells.append(f"{100 * share:.1f} %")
        pa, side = figures.get("joints_pa_mm"), figures.get("handedness")
        cells.append("" if pa is None else f"{pa[0]:.1f} mm ({pa[1] // boxes})")
        cells.append("" if side is None else f"{100 * side[0]:.0f} %")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _sets(folders: Sequence[str]) -> dict[str, Dataset]:
    """
    Raises:
        InputError: there is no such set, or one whose labels are a teacher's: MediaPipe's own.
    """
    found = all_named(folders)
    for data in found.values():
        if isinstance(data, Photos):
            raise InputError(
                f"{data.folder} has a teacher's labels, not the truth: give sets with true ones, "
                "each by itself where a folder holds both"
            )
    return found


def _peers(environment: Path, threads: int) -> Iterator[tuple[str, Estimator]]:
    for name, path in landmark_files(environment).items():
        load = partial(LandmarkEstimator.load, path, threads)
        yield f"{name}, world landmarks", load("world")
        yield f"{name}, landmarks of the picture", load("picture")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = parser_of(__name__, __doc__)
    add_bundle(parser)
    parser.add_argument(
        "--data", action="append", required=True, metavar="LAYOUT:SPLIT:DIR",
        help="labelled hands, as `handmesh evaluate` takes them; may be given more than once",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, metavar="N", help="hands of each set at most")
    parser.add_argument(
        "--boxes", type=int, default=1, metavar="N",
        help=f"each hand in so many boxes, to {len(BOXES)}, and the means (default 1)",
    )  # fmt: skip
    parser.add_argument(
        "--looks", type=int, default=LOOKS, metavar="N",
        help=f"of ours at each hand, to {MOST_LOOKS} (default {LOOKS})",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default 1")
    add_environment(parser)
    add_out(parser)
    options = parse(parser, arguments)
    if not 1 <= options.boxes <= len(BOXES):
        raise InputError(f"--boxes must be from 1 to {len(BOXES)}, not {options.boxes}")
    if options.threads < 1 or (options.limit is not None and options.limit < 1):
        raise InputError("--threads and --limit must be at least 1")
    checked_looks(options.looks)
    sets = _sets(options.data)  # before a download that takes minutes
    bundle = Bundle.load(options.bundle)
    bundle.check()
    require_litert()
    prepare(options.environment)
    reports: dict[str, list[Report]] = {}
    networks: dict[str, dict[str, Any]] = {}
    with Predictor(bundle, threads=options.threads) as predictor:
        ours = f"{bundle.name}, {options.looks} look{'' if options.looks == 1 else 's'}"
        estimators: dict[str, Estimator] = {ours: PredictorEstimator(predictor, options.looks)}
        estimators.update(_peers(options.environment, options.threads))
        for network, estimator in estimators.items():
            reports[network] = [
                evaluate(
                    estimator, dataset_samples(data, options.limit), IN_THE_WILD,
                    name, boxes=options.boxes,
                )
                for name, data in sets.items()
            ]  # fmt: skip
            networks[network] = dict(estimator.description)
    rows = rows_of(reports)
    sys.stdout.write(to_text(rows, options.boxes) + "\n")
    if options.out is not None:
        written = {
            "boxes": options.boxes,
            "networks": networks,
            "rows": [
                {
                    "set": row.name,
                    "network": row.network,
                    "figures": {
                        name: {"mean": mean, "count": count}
                        for name, (mean, count) in row.figures.items()
                    },
                }
                for row in rows
            ],
        }
        write_atomic(options.out, (json.dumps(written, indent=2) + "\n").encode())
    return 0
