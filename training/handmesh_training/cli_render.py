"""The sub-command `handmesh render`: sets of rendered hands, and a look at them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handmesh.atomic import write_atomic
from handmesh.cli_shared import needing_extra
from handmesh.errors import InputError, ShardIntegrityError

from .cli_options import add_surroundings, check_written

if TYPE_CHECKING:
    from .rendered import RenderSettings

# How many samples each of the modes takes when --count is not given.
PREVIEWED, COUNTED = 64, 5_000


def add_render(commands: Any) -> None:
    """Add it to argparse's sub-parsers."""
    parser = commands.add_parser(
        "render",
        help="render labelled hands to disk, check such a set, or look at samples",
        description="With --out, renders a set as WebDataset shards; interrupted at any time, the "
        "same command goes on. Many machines share the work by --rank and --world. Sample i of a "
        "seed is always the same.",
    )
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--out", type=Path, metavar="DIR", help="write a set of --count samples")
    mode.add_argument("--verify", type=Path, metavar="DIR", help="check every byte of a set")
    mode.add_argument(
        "--preview",
        type=Path,
        metavar="FILE.png",
        help="draw a contact sheet (default: 64 samples)",
    )
    mode.add_argument(
        "--statistics",
        type=Path,
        metavar="FILE.png",
        help="plot what poses, views, tones and scales the samples cover, with the figures as "
        ".json beside it (default: 5000 samples; none is rendered)",
    )
    parser.add_argument("--count", type=int, metavar="N", help="samples in all")
    parser.add_argument("--shards", type=int, default=1, metavar="K", help="files of the set")
    parser.add_argument("--rank", type=int, default=0, metavar="R", help="number of this process")
    parser.add_argument("--world", type=int, default=1, metavar="W", help="of so many")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument(
        "--views",
        default="picture,skeleton,mesh,depth,mask",
        metavar="LIST",
        help="of the contact sheet (default: picture,skeleton,mesh,depth,mask)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default: one for each core")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=160, metavar="PX", help="default 160")
    parser.add_argument(
        "--margin", type=float, default=1.9, help="side over the joints' box (default 1.9)"
    )
    parser.add_argument(
        "--empty", type=float, default=0.05, help="share without a hand (default 0.05)"
    )
    add_surroundings(parser)
    parser.add_argument("--image", choices=("png", "jpg"), default="png")
    parser.add_argument("--quality", type=int, default=95, help="of JPEG, 95 to 100")
    parser.add_argument("--no-mask", action="store_true", help="write no masks")
    parser.add_argument("--no-depth", action="store_true", help="write no depth")
    parser.set_defaults(run=needing_extra(_render, "training"))


def _render(options: argparse.Namespace) -> int:
    # Heavy imports belong to the command, not to `handmesh --help`.
    from .rendered import RenderSettings

    if options.verify is not None:
        return _verify(options.verify)
    if not 0 <= options.empty <= 1 or not 1 <= options.margin <= 10:
        raise InputError("--empty must be from 0 to 1, and --margin from 1 to 10")
    if options.seed < 0:
        raise InputError(f"--seed must not be negative, but is {options.seed}")
    if options.size < 1:
        raise InputError(f"--size must be at least 1, not {options.size}")
    for name in ("preview", "statistics"):
        if getattr(options, name) is not None:
            check_written(f"--{name}", getattr(options, name), ".png")
    threads = options.threads or os.cpu_count() or 1
    settings = RenderSettings(
        options.skins,
        options.environments,
        options.backgrounds,
        options.size,
        options.margin,
        options.empty,
    )
    if options.preview is not None:
        return _preview(options, settings, threads)
    if options.statistics is not None:
        return _statistics(options, settings)
    return _write(options, settings, threads)


def _preview(options: argparse.Namespace, render: RenderSettings, threads: int) -> int:
    import cv2

    from .preview import contact_sheet
    from .rendered import HandRenderer

    renderer = HandRenderer(render, options.seed, threads, options.device)
    records = renderer.records(range(_count(options, PREVIEWED)))
    sheet = contact_sheet([record.to_sample() for record in records], options.views.split(","))
    write_atomic(options.preview, cv2.imencode(".png", sheet[..., ::-1])[1].tobytes())
    return 0


def _statistics(options: argparse.Namespace, render: RenderSettings) -> int:
    from .rendered import HandRenderer
    from .statistics import cover, summary
    from .statistics_plot import plot

    figures = options.statistics.with_suffix(".json")
    coverage = cover(HandRenderer(render, options.seed), _count(options, COUNTED))
    write_atomic(options.statistics, plot(coverage))
    write_atomic(figures, (json.dumps(summary(coverage), indent=1) + "\n").encode())
    return 0


def _count(options: argparse.Namespace, usual: int) -> int:
    count: int = usual if options.count is None else options.count
    if count < 1:
        raise InputError(f"--count must be at least 1, not {count}")
    return count


def _write(options: argparse.Namespace, render: RenderSettings, threads: int) -> int:
    from .shards import Encoding, SetSettings, render_shards

    if options.count is None:
        raise InputError("say with --count how many samples the set is to have")
    encoding = Encoding(options.image, options.quality, not options.no_mask, not options.no_depth)
    settings = SetSettings(options.count, options.shards, options.seed, render, encoding)
    manifest = render_shards(
        settings, options.out, options.rank, options.world, threads, options.device
    )
    state = "complete" if manifest.shards else "not complete yet: other ranks' shards are missing"
    sys.stdout.write(f"{options.out}: {manifest.count} samples, {state}\n")
    return 0


def _verify(folder: Path) -> int:
    from .shards import verify

    try:
        manifest = verify(folder)
    except ShardIntegrityError as error:
        sys.stderr.write(f"handmesh: {error}\n")
        return 1  # a check failed
    size = sum(entry.bytes for entry in manifest.shards.values())
    sys.stdout.write(
        f"{folder}: {manifest.count} samples in {manifest.shard_count} shards, {size / 1e6:.1f} "
        "MB, all whole\n"
    )
    return 0
