"""`handmesh sheet`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .cli_photos import Source, find_photos, tell_left_out
from .cli_shared import (
    BAD_INPUT,
    NEGATIVE,
    OK,
    add_network_options,
    check_options,
    load_network,
    report,
    same_file,
)
from .errors import InputError
from .styles import STYLES

__all__ = ["add_sheet"]

FORMATS = (".png", ".jpg", ".jpeg", ".webp")
# A view from the side is as wide again as the photo: no tile.
ON_A_TILE = tuple(style for style in STYLES if style != "side")


def add_sheet(commands: Any) -> None:
    """Add `sheet` to argparse's sub-parsers."""
    parser = commands.add_parser(
        "sheet",
        help="one picture of what is found in many photos",
        description="Draws the hands found in each photo and puts all of them on one contact "
        "sheet, with name, side and presence below, those without a hand included.",
        epilog="Exit codes as of `handmesh predict`; a photo that cannot be read is left out.",
    )
    parser.add_argument(
        "photos", nargs="+", metavar="PHOTO", help="files, folders, patterns as 'photos/*.jpg'"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help=f"the sheet: {', '.join(FORMATS)}"
    )
    parser.add_argument(
        "-r", "--recursive", action="store_true", help="folders with their sub-folders"
    )
    parser.add_argument("--tile", type=int, default=240, metavar="PX", help="side (default 240)")
    parser.add_argument("--columns", type=int, default=5, metavar="N", help="default 5")
    parser.add_argument("--style", choices=ON_A_TILE, default="full", help="default full")
    parser.add_argument("--max-hands", type=int, default=2, metavar="N", help="default 2")
    parser.add_argument("--mirrored", action="store_true", help="the photos are mirrored (selfies)")
    add_network_options(parser)
    parser.set_defaults(run=_sheet)


def _keep_photos(sources: list[Source], out: Path) -> None:
    """Refuse a sheet that would replace one of its photos.

    An earlier sheet in the same folder is refused, too: nothing tells it from a photo.
    """
    if out.exists() and any(s.path is not None and same_file(s.path, out) for s in sources):
        raise InputError(
            f"the sheet would replace {out}, one of the photos: give --out another folder, or "
            "delete it if it is an earlier sheet"
        )


def _sheet(args: argparse.Namespace) -> int:
    import cv2
    import numpy as np
    from tqdm import tqdm

    from .atomic import write_atomic
    from .draw import overlay
    from .imaging import decode
    from .sheet import Tile, contact_sheet

    if args.out.is_dir():
        raise InputError(f"cannot write {args.out}: it is a folder; name a file")
    if args.out.suffix.lower() not in FORMATS:
        raise InputError(f"--out must end in {', '.join(FORMATS)}, not {args.out.name!r}")
    if not args.out.parent.is_dir():
        raise InputError(f"cannot write {args.out}: there is no folder {args.out.parent}")
    left_out: set[Path] = set()
    sources = find_photos(args.photos, None, args.recursive, left_out)
    _keep_photos(sources, args.out)
    # What makes no sheet is refused before the work, not after.
    check_options(args)
    blank = np.zeros((1, 1, 3), dtype=np.uint8)
    contact_sheet([Tile(blank, "")] * len(sources), args.tile, args.columns)
    if not args.quiet:
        tell_left_out(left_out)
    tiles: list[Tile] = []
    found, code = 0, OK
    with load_network(args) as predictor:
        hidden = True if args.quiet or len(sources) < 2 else None  # None: unless it is a terminal
        for source in tqdm(sources, unit="photo", disable=hidden, leave=False):
            try:
                pixels = decode(source.photo())
                side = max(pixels.shape[:2])
                if side < args.tile:  # enlarged first: lines drawn into few pixels tell little
                    size = [round(length * args.tile / side) for length in pixels.shape[1::-1]]
                    larger = cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC)
                    pixels = np.asarray(larger, dtype=np.uint8)
                hands = predictor.predict(pixels, max_hands=args.max_hands, mirrored=args.mirrored)
                picture = overlay(pixels, hands, args.style, max_side=args.tile)
            except InputError as error:  # the other photos may be fine
                with tqdm.external_write_mode():
                    report(error)
                code = BAD_INPUT
                continue
            told = ", ".join(f"{hand.handedness} {hand.presence:.2f}" for hand in hands)
            tiles.append(Tile(picture, f"{source.stem.name}: {told or 'no hand'}"))
            found += bool(hands)
            if not hands:
                code = max(code, NEGATIVE)
    if not tiles:
        raise InputError("none of the photos could be read")
    sheet = contact_sheet(tiles, args.tile, args.columns)
    _, data = cv2.imencode(args.out.suffix.lower(), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    write_atomic(args.out, data.tobytes())
    if not args.quiet:
        photos = "1 photo" if len(tiles) == 1 else f"{len(tiles)} photos"
        sys.stdout.write(f"{args.out}: {photos}, {found} with hands\n")
    return code
