"""`handmesh train`: its options. What they make of a run is in `cli_run`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from handmesh.cli_shared import needing_extra
from handmesh.errors import InputError

from .cli_options import add_data

# As in `stages`, which is not imported before it is needed: torch takes a second.
STAGES = ("heatmaps", "pose", "full", "fine-tune-heatmaps", "pseudo", "weak")
HEADS = ("mesh", "joints", "transfer", "lbs", "parametric")
DETECTOR = "detector"
_RENDERING = ("heatmaps", "full")
_ADAPTING = ("fine-tune-heatmaps", "pseudo", "weak")
_LOOKING = (*_RENDERING, *_ADAPTING)  # those that are watched on rendered hands among them
_TRAINING = (*(stage for stage in STAGES if stage != "pseudo"), DETECTOR)
# The stages that an option has an effect on; those that are missing here have one on all.
EFFECTIVE = {
    "rate": _TRAINING,
    "recipe": _TRAINING,
    "batch": _TRAINING,
    "lanes": _TRAINING,
    "workers": _TRAINING,
    "skins": (*_LOOKING, DETECTOR),
    "environments": (*_LOOKING, DETECTOR),
    "backgrounds": _LOOKING,
    "photos": (*_RENDERING, DETECTOR),
    "data": _LOOKING,
    "shards": _RENDERING,
    "reuse": _RENDERING,
    "partners": _RENDERING,
    "network": STAGES,
    "input_size": STAGES,
    "head": STAGES,
    "start_from": (*_LOOKING, DETECTOR),
    "steps": ("heatmaps", "full", "fine-tune-heatmaps", "weak", DETECTOR),
    "decay": ("heatmaps", "full", "fine-tune-heatmaps", "weak", DETECTOR),
    "losses": ("full",),
    "draw_on_device": STAGES,
    "joints_3d": _ADAPTING,  # fine-tune-heatmaps and pseudo cut the set that weak is trained on
    "pseudo": ("weak",),
    "depth": ("weak",),
    "limit": _ADAPTING,
}
# As they are typed, where that is not the name in argparse.
_TYPED = {"pseudo": "--no-pseudo", "depth": "--no-depth"}


def add_train(commands: Any) -> None:
    parser = commands.add_parser(
        "train",
        help="train a network, stage by stage, on rendered hands, photos and data sets",
        description="The stages of the paper, in its order: heatmaps (the hourglass alone), pose "
        "(the pose regressor alone), full (end to end on rendered hands), fine-tune-heatmaps, "
        "pseudo (pseudo-ground-truth meshes) and weak (end to end on real data with depth maps); "
        "or all of them. A stage starts from those before it in --out. With several GPUs, or a "
        "process for each core: torchrun --nproc-per-node N -m handmesh train ...",
    )
    parser.add_argument(
        "stage",
        choices=(*STAGES, "all", DETECTOR),
        metavar="STAGE",
        nargs="?",
        default="full",
        help=f"{', '.join(STAGES)}, all (default: full); or detector, which finds hands in photos",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="of the run")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="a tiny network for a few batches: does every stage run here?",
    )
    add_data(parser)
    _add_network(parser)
    _add_optimisation(parser)
    _add_fine_tuning(parser)
    parser.set_defaults(run=needing_extra(partial(_train, parser), "training"))


def _add_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--network", choices=("light", "paper"), default="light")
    parser.add_argument(
        "--input-size",
        type=int,
        metavar="N",
        help="side of the crops, pixels (default: that of the run in --out; of a new one 128 for "
        "light, 256 for paper); a run of small ones is soon done, and one of larger ones can "
        "--start-from it",
    )
    parser.add_argument(
        "--head",
        choices=HEADS,
        default="mesh",
        help="what the network ends in: the graph CNN's mesh, or one of the paper's baselines",
    )
    parser.add_argument(
        "--start-from",
        metavar="PATH",
        help="begin with the weights of this bundle, or of this checkpoint",
    )


def _add_optimisation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, default=20_000, metavar="N", help="batches a stage")
    parser.add_argument(
        "--recipe",
        choices=("paper", "modern", "prolongable", "muon"),
        default="prolongable",
        help="of the optimisation: the paper's RMSprop; "
        "AdamW, cosine, averaging, bfloat16; the same with a constant rate that "
        "falls at the end (default); or that by Muon in place of AdamW",
    )
    parser.add_argument(
        "--losses",
        choices=("paper", "tuned"),
        help="weights of L_fully: as published (default with --recipe paper), or as `light` is "
        "shipped (default)",
    )
    parser.add_argument("--rate", type=float, help="learning rate, in place of the recipe's")
    parser.add_argument("--batch", type=int, metavar="N", help="crops a step, over all processes")
    parser.add_argument(
        "--decay", type=int, metavar="N", help="batches at the end over which the rate falls"
    )
    parser.add_argument(
        "--shards", type=Path, metavar="DIR", help="train on this set of `handmesh render`"
    )
    parser.add_argument(
        "--reuse",
        type=float,
        metavar="N",
        help="draws of each rendered hand, augmented anew (default 3; with --shards 1 an epoch)",
    )
    parser.add_argument(
        "--partners",
        type=float,
        metavar="SHARE",
        help="of rendered hands, those with another hand beside or upon them (default 0.2)",
    )
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop each stage after so long"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="loader processes of each training process",
    )
    parser.add_argument(
        "--lanes",
        type=int,
        metavar="N",
        help="rows that samples are dealt out to; the batches depend on them, not "
        "on the number of processes (default: one a loader)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument(
        "--draw-on-device",
        action=argparse.BooleanOptionalAction,
        help="draw and augment the crops on the GPU (default: with --device cuda), "
        "which takes nvcc; else on the CPU",
    )


def _add_fine_tuning(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "fine-tuning (fine-tune-heatmaps, pseudo, weak)",
        "--data names the sets that are adapted to; other stages mix --data and --photos into the "
        "rendered hands.",
    )
    group.add_argument(
        "--joints-3d",
        action="store_true",
        help="supervise 3D joints as well, lambda_J = 10; without, the sets' 3D "
        "joints give only root depth and scale",
    )
    group.add_argument(
        "--no-pseudo",
        dest="pseudo",
        action="store_false",
        help="leave out the pseudo-ground-truth mesh loss",
    )
    group.add_argument(
        "--no-depth",
        dest="depth",
        action="store_false",
        help="leave out the depth maps' loss: the paper's Baseline 2; the data may be without them",
    )
    group.add_argument("--limit", type=int, metavar="N", help="hands of each set at most")


def _train(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    from .cli_run import train, wanted_stages  # heavy: not for `handmesh --help`

    _check(options, parser, wanted_stages(options))
    return train(options)


def _check(
    options: argparse.Namespace, parser: argparse.ArgumentParser, wanted: Sequence[str]
) -> None:
    """Raise `InputError` where an option would have no effect on the stages, or a count makes no
    sense."""
    for name, stages in EFFECTIVE.items():
        if getattr(options, name) != parser.get_default(name) and not {*stages} & {*wanted}:
            typed = _TYPED.get(name, "--" + name.replace("_", "-"))
            raise InputError(
                f"{typed} has no effect on {', '.join(wanted)}, but on {', '.join(stages)}: leave "
                "it out"
            )
    for name in ("steps", "limit", "lanes", "batch"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} must be at least 1, not {value}")
    if not options.minutes > 0:  # nor is nan, of which no time is past
        raise InputError(f"--minutes must be above 0, not {options.minutes}")
