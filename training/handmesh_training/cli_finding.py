"""`handmesh evaluate-finding`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from handmesh.atomic import write_atomic
from handmesh.cli_shared import needing_extra
from handmesh.errors import InputError

from .cli_options import add_photos


def add_evaluate_finding(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate-finding",
        help="measure how hands are found in whole photos: by the detector, by windows",
        description="Photos of one hand, their mirrored twins, pairs of them side by side, and "
        "views of places without hands, all fitted into 640 x 480 pixels: share found, sides, "
        "false alarms, milliseconds on this machine.",
    )
    add_photos(parser)
    parser.add_argument(
        "--environments", type=Path, metavar="DIR", help=".hdr panoramas of places without hands"
    )
    parser.add_argument(
        "--by",
        action="append",
        choices=("detector", "windows"),
        help="what finds them; may be given twice (default: detector)",
    )
    parser.add_argument("--bundle", metavar="PATH", help="mesh network (default: the shipped one)")
    parser.add_argument("--detector", metavar="PATH", help="detector (default: the shipped one)")
    parser.add_argument("--threads", type=int, metavar="N", help="of both networks")
    parser.add_argument("--min-presence", type=float, default=0.5, metavar="P")
    parser.add_argument("--limit", type=int, default=200, metavar="N", help="pictures of each kind")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.set_defaults(run=needing_extra(_evaluate_finding, "training"))


def _evaluate_finding(options: argparse.Namespace) -> int:
    from handmesh import Predictor
    from handmesh.detector import Detector
    from handmesh.finding import DetectedHands, Finder, search_windows

    from .detection.grounds import Grounds
    from .detection.report import measure
    from .photos import check_photo_sets, one_hand

    if not options.photos:
        raise InputError("give --photos DIR, a folder of labelled photos with one hand each")
    check_photo_sets(options.photos, one_hand)
    grounds = None
    if options.environments is not None:
        grounds = Grounds.from_folder(options.environments, views=0)
    figures = {}
    for name in dict.fromkeys(options.by or ["detector"]):
        find: Finder = search_windows
        if name == "detector":
            find = DetectedHands(Detector(options.detector, threads=options.threads))
        with Predictor(options.bundle, threads=options.threads, find=find) as predictor:
            found = measure(predictor, options.photos, grounds, options.limit, options.min_presence)
        sys.stdout.write(found.to_table(name) + "\n")
        figures[name] = asdict(found)
    if options.out is not None:
        text = json.dumps(figures, indent=2, allow_nan=False) + "\n"
        write_atomic(options.out, text.encode())
    return 0
