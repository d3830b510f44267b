"""`handmesh experiment`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from handmesh.atomic import write_atomic
from handmesh.cli_shared import needing_extra
from handmesh.errors import InputError

NAMES = ("table1", "table2", "fig8", "weak", "recipes")
DEFAULTS = {"hands": 12_000, "shifted": 3_000, "validation": 600, "heatmap_steps": 300,
            "steps": 800, "tuning_steps": 250}  # fmt: skip


def add_experiment(commands: Any) -> None:
    parser = commands.add_parser(
        "experiment",
        help="reproduce a comparison of the paper in kind, with small networks",
        description="Train the variants of a comparison with several seeds on one rendered set, "
        "and tell the differences and their spread: table1 (terms of the loss), table2 (ways to a "
        "mesh), fig8 (pipelines for the pose), weak (weak supervision, Fig. 6), recipes (the "
        "paper's optimiser and a modern one). What was made before is kept.",
    )
    parser.add_argument("name", choices=(*NAMES, "all"), metavar="NAME",
                        help=f"{', '.join(NAMES)} or all")  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="of all studies")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="trainings of each")
    parser.add_argument("--network", choices=("light", "paper"), default="light")
    parser.add_argument(
        "--start-from",
        metavar="PATH",
        help="a bundle or checkpoint with whose trunk every variant begins, under a head from "
        "nothing, and those of `weak` with all of it (default: a small network, all of it from "
        "nothing)",
    )
    for name, value in DEFAULTS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, metavar="N",
                            help=f"default {value}")  # fmt: skip
    parser.add_argument("--skins", type=Path, metavar="DIR", help="of the second domain")
    parser.add_argument("--other-hand", type=Path, metavar="DIR",
                        help="hand of the second domain, with skins of its own: hand_r.gltf and "
                        "base colour textures as in Godot XR Tools; by default this project's hand "
                        "of another build")  # fmt: skip
    parser.add_argument("--environments", type=Path, metavar="DIR", help="of the second domain")
    parser.set_defaults(run=needing_extra(_experiment, "training"))


def _experiment(options: argparse.Namespace) -> int:
    from .experiments.curves import draw_curves
    from .experiments.lab import Lab, LabSettings
    from .experiments.pictures import compare_meshes
    from .experiments.tables import LABELS, STUDIES
    from .opencv import use_one_thread

    if options.seeds < 1:
        raise InputError(f"--seeds must be at least 1, not {options.seeds}")
    use_one_thread()
    given = {f.name: getattr(options, f.name) for f in fields(LabSettings)}
    lab = Lab(options.out, replace(LabSettings(), **given))
    for name in NAMES if options.name == "all" else (options.name,):
        study = STUDIES[name](lab)
        results = study.run(options.out / name, range(options.seeds))
        table = study.to_markdown(results)
        write_atomic(options.out / f"{name}.md", table.encode())
        sys.stdout.write(table + "\n")
        if name == "weak":
            compare_meshes(lab, options.out / "weak.png")
        elif name == "fig8":
            curves = draw_curves(study, options.out / name, LABELS, range(options.seeds))
            write_atomic(options.out / "fig8.png", curves)
    return 0
