"""The sub-commands `handmesh train`, `evaluate`, `evaluate-finding`, `reference`, `render` and
`experiment`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from handmesh.atomic import write_atomic
from handmesh.cli_shared import needing_extra

from .cli_evaluate import add_evaluate
from .cli_experiment import add_experiment
from .cli_finding import add_evaluate_finding
from .cli_options import check_written
from .cli_render import add_render
from .cli_train import add_train


def add_commands(commands: Any) -> None:
    """Add them to argparse's sub-parsers."""
    add_train(commands)
    add_evaluate(commands)
    add_evaluate_finding(commands)
    _add_reference(commands)
    add_render(commands)
    add_experiment(commands)


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
    parser.add_argument(
        "--whole",
        action="store_true",
        help="whole photos and scenes, as a detector sees them (with --side 192)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".npz to write")
    parser.set_defaults(run=needing_extra(_reference, "training"))


def _reference(options: argparse.Namespace) -> int:
    check_written("--out", options.out, ".npz")
    import io

    import numpy as np

    from .reference import reference_crops, reference_pictures

    buffer = io.BytesIO()
    if options.whole:
        np.savez_compressed(buffer, images=reference_pictures(options.photos, options.side))
    else:
        np.savez_compressed(buffer, **reference_crops(options.photos, options.side)._asdict())
    write_atomic(options.out, buffer.getvalue())
    return 0
