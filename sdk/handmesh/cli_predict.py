"""The sub-command `handmesh predict`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli_photos import Source, find_photos, tell_left_out
from .cli_shared import (
    NEGATIVE,
    OK,
    add_min_presence,
    add_network_options,
    check_options,
    load_network,
    report,
)
from .errors import InputError
from .spelling import address
from .styles import STYLES

if TYPE_CHECKING:
    from .predictor import Predictor
    from .types import Hand

__all__ = ["add_predict"]

# Overlays are to be looked at: a reduced one of a huge photo serves better.
_OVERLAY_SIDE = 2048


def add_predict(commands: Any) -> None:
    """Add `predict` to argparse's sub-parsers."""
    parser = commands.add_parser(
        "predict",
        help="find the hand in photos",
        description="Writes, for each photo, NAME_hand.png (the mesh over the photo), "
        "NAME_side.png, NAME_hand.glb and NAME_hand.json; further hands get a number. Results of "
        "a folder's sub-folders go into sub-folders. Of a photo with a side of more than "
        f"{_OVERLAY_SIDE} pixels NAME_hand.png is reduced to that; pixels in the JSON are the "
        "photo's.",
        epilog="Exit codes: 0 a hand in every photo; 1 none in some; 2 bad input: a photo that "
        "cannot be read stops no other; 3 a package or a device is missing; 130, 143 stopped.",
    )
    parser.add_argument(
        "photos",
        nargs="*",
        metavar="PHOTO",
        help="files, folders, patterns as 'photos/*.jpg'; - reads one from standard input",
    )
    parser.add_argument(
        "--files-from", metavar="FILE", help="a list of files, one a line; - for standard input"
    )
    parser.add_argument(
        "-r", "--recursive", action="store_true", help="folders with their sub-folders"
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="folder for the results (default .)"
    )
    parser.add_argument(
        "--skip-existing",
        action="store_true",
        help="go on with a batch: leave out photos whose results are there, and newer than they",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object a photo instead; files are written only with --out",
    )
    parser.add_argument(
        "--style", choices=STYLES, default="full", help="of the overlay (default full)"
    )
    parser.add_argument(
        "--box",
        type=_box,
        metavar="X0,Y0,X1,Y1",
        help="where the hand is, in pixels; as --box=X0,... where X0 is negative",
    )
    parser.add_argument("--handedness", choices=("left", "right"), help="the person's own hand")
    parser.add_argument("--mirrored", action="store_true", help="the photos are mirrored (selfies)")
    parser.add_argument("--max-hands", type=int, default=1, metavar="N", help="default 1")
    add_min_presence(parser)
    parser.add_argument(
        "--looks",
        type=int,
        default=2,
        metavar="N",
        help="at each hand, 1 to 5 (default 2), of which the mean is taken: more of them are "
        "mostly more accurate, 1 is fastest",
    )
    camera = parser.add_mutually_exclusive_group()
    camera.add_argument(
        "--fov",
        type=float,
        metavar="DEGREES",
        help="the camera's field of view along the longer side (default: 65, and said so)",
    )
    camera.add_argument(
        "--exif", action="store_true", help="the camera that each photo's own EXIF tells"
    )
    parser.add_argument(
        "--bone-length",
        type=float,
        metavar="METRES",
        help="middle finger, knuckle to next joint (default: an adult's, and said so)",
    )
    add_network_options(parser)
    parser.set_defaults(run=_predict)


def _predict(args: argparse.Namespace) -> int:
    out: Path | None = args.out if args.out or args.json else Path()
    if args.skip_existing and out is None:
        raise InputError(
            "--skip-existing goes by the files of results: with --json, give --out DIR"
        )
    left_out: set[Path] = set()
    sources = find_photos(args.photos, args.files_from, args.recursive, left_out)
    check_options(args)
    if out is not None:
        _check_names(sources)
        _make_folder(out)
    if not args.quiet:
        tell_left_out(left_out)
    counts: Counter[str] = Counter()
    worst = OK
    with contextlib.ExitStack() as stack:
        predictor: Predictor | None = None
        for source in _with_progress(sources, args):
            done = _done(source, out) if args.skip_existing and out is not None else None
            if done is not None:
                counts["left out"] += 1
                worst = max(worst, done)  # as if it had been done now
                continue
            if predictor is None:
                predictor = stack.enter_context(load_network(args))
            try:
                found = _predict_one(predictor, source, out, args)
                counts["with hands" if found else "without a hand"] += 1
                worst = max(worst, OK if found else NEGATIVE)
            except InputError as error:  # the other photos may be fine
                counts["failed"] += 1
                with _beside_the_bar():
                    worst = max(worst, report(_naming(source, error)))
                    if args.json:
                        print(json.dumps({"photo": str(source), "error": str(error)}), flush=True)
    if len(sources) > 1 and not args.quiet:
        kinds = ("with hands", "without a hand", "failed", "left out")
        told = ", ".join(f"{counts[kind]} {kind}" for kind in kinds if counts[kind])
        print(f"{len(sources)} photos: {told}", file=sys.stderr if args.json else sys.stdout)
    return worst


def _naming(source: Source, error: InputError) -> InputError:
    """An error that says of which photo, as one of a box that all photos were given does not."""
    name = str(source) if source.path is None else address(source.path) or str(source)
    return error if name in str(error) else type(error)(f"{source}: {error}")


def _check_names(sources: list[Source]) -> None:
    """Refuse photos whose results would have one name, also where case does not count."""
    names = Counter(str(source.stem).lower() for source in sources)
    for source in sources:
        if names[str(source.stem).lower()] > 1:
            raise InputError(
                f"two photos are named {str(source.stem)!r}: run them with separate --out, or "
                "choose by a pattern, as '*.jpg'"
            )


def _with_progress(sources: list[Source], args: argparse.Namespace) -> Iterator[Source]:
    """The photos, with a bar on stderr where somebody looks at it and there are several."""
    from tqdm import tqdm

    hidden = True if args.quiet or len(sources) < 2 else None  # None: unless it is a terminal
    yield from tqdm(sources, unit="photo", disable=hidden, leave=False)


@contextlib.contextmanager
def _beside_the_bar() -> Iterator[None]:
    """Print without tearing the progress bar."""
    from tqdm import tqdm

    with tqdm.external_write_mode():
        yield


def _predict_one(
    predictor: Predictor, source: Source, out: Path | None, args: argparse.Namespace
) -> bool:
    """One photo: its results printed and written. Whether there is a hand in it."""
    from .imaging import decode
    from .pipeline import Stopwatch
    from .types import Camera

    photo, clock = source.photo(), Stopwatch()
    with clock("decode"):
        pixels = decode(photo)
    height, width = pixels.shape[:2]
    camera = None
    if args.exif:
        camera = Camera.from_exif(photo, width, height)
    elif args.fov is not None:
        camera = Camera.from_fov(width, height, args.fov)
    hands = predictor.predict(
        pixels,
        box=args.box,
        camera=camera,
        handedness=args.handedness,
        bone_length_m=args.bone_length,
        mirrored=args.mirrored,
        max_hands=args.max_hands,
        min_presence=args.min_presence,
        looks=args.looks,
    )
    # What is drawn upon was decoded here; the network was shown pixels.
    hands = [
        dataclasses.replace(hand, timings_ms={**hand.timings_ms, **clock.milliseconds})
        for hand in hands
    ]
    written = [] if out is None else _write(pixels, hands, out / source.stem, args)
    with _beside_the_bar():
        if args.json:
            line = {"photo": str(source), "hands": [hand.to_dict() for hand in hands]}
            print(json.dumps(line), flush=True)
        elif not args.quiet:
            for hand in hands:
                print(f"{source}: {_summary(hand)}")
            if not hands:
                print(f"{source}: no hand found")
            for path in written:
                print(f"  {path}")
    return bool(hands)


def _results(stem: Path) -> tuple[Path, Path]:
    """The file that is written last, and that says that there is no hand."""
    return _paths(stem, 1)[-1], stem.with_name(f".{stem.name}_no_hand")


def _paths(stem: Path, number: int) -> tuple[Path, Path, Path]:
    """Side view, GLB and JSON of a photo's hand of that number, from 1."""
    which = "" if number == 1 else str(number)
    side, glb, described = (
        stem.with_name(f"{stem.name}_{ending}")
        for ending in (f"side{which}.png", f"hand{which}.glb", f"hand{which}.json")
    )
    return side, glb, described


def _done(source: Source, out: Path) -> int | None:
    """What an earlier run found, OK or NEGATIVE; None where it did not get to it or the photo is
    newer."""
    if source.path is None:
        return None
    for path, code in zip(_results(out / source.stem), (OK, NEGATIVE), strict=True):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime >= source.path.stat().st_mtime:
                return code
    return None


def _write(pixels: Any, hands: list[Hand], stem: Path, args: argparse.Namespace) -> list[Path]:
    """All files of a photo. The first hand's JSON is the last: where it is, the others are."""
    from .atomic import write_atomic
    from .draw import overlay, side_view

    _make_folder(stem.parent)
    try:
        _keep_pictures(stem, len(hands))
        _clear(stem, len(hands))
    except OSError as cause:  # a name that is too long for that of a result
        raise InputError(f"cannot look for earlier results of {stem}: {cause.strerror}") from cause
    if not hands:
        if args.skip_existing:
            write_atomic(_results(stem)[1], b"")
        return []
    written = []
    picture = overlay(pixels, hands, style=args.style, max_side=_OVERLAY_SIDE)
    # Upwards, as `_clear` looks for what a run that was stopped has left; the first hand at last.
    for number, hand in [*enumerate(hands, start=1)][1:] + [(1, hands[0])]:
        side, glb, described = _paths(stem, number)
        written += [hand.save(glb), _write_png(side, side_view(hand))]
        if number == 1:
            written.append(_write_png(_overlay_path(stem), picture))
        written.append(hand.save(described))
    return written


def _overlay_path(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}_hand.png")


def _keep_pictures(stem: Path, count: int) -> None:
    """Refuse results that would replace pictures that are not ours, as `_clear` tells them: by
    the name of data beside them."""
    for number in range(1, count + 1):
        side, glb, described = _paths(stem, number)
        if glb.exists() or described.exists():
            continue
        for picture in (side, _overlay_path(stem)) if number == 1 else (side,):
            if picture.exists():
                raise InputError(
                    f"{picture} is there and is no result of an earlier run ({glb.name} or "
                    f"{described.name} would be beside it): it is left as it is; give --out "
                    "another folder, or delete it if it is one"
                )


def _clear(stem: Path, count: int) -> None:
    """Take away an earlier run's results of a photo that are not written anew for `count` hands.

    What tells that a photo is done goes first: one that is stopped in here is looked at again. A
    picture counts as ours only beside data of the same hand: of cup.jpg, cup_side.png may be
    another photo. So each picture is written after its GLB, and goes before it.
    """
    described, no_hand = _results(stem)
    side, glb, _ = _paths(stem, 1)
    first_is_ours = described.exists() or glb.exists()
    for path in (no_hand, described):
        _remove(path)
    numbers = itertools.takewhile(
        lambda number: any(path.exists() for path in _paths(stem, number)[1:]),
        itertools.count(max(count, 1) + 1),
    )
    surplus = [path for number in reversed([*numbers]) for path in _paths(stem, number)]
    if first_is_ours and not count:
        surplus += [_overlay_path(stem), side, glb]
    for path in surplus:
        _remove(path)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as cause:
        raise InputError(
            f"cannot remove {path}, the result of an earlier run: {cause.strerror}"
        ) from cause


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise InputError(f"cannot make the folder {folder}: {cause.strerror}") from cause


def _write_png(path: Path, picture: Any) -> Path:
    import cv2

    from .atomic import write_atomic

    _, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return write_atomic(path, data.tobytes())


def _summary(hand: Hand) -> str:
    stages = ", ".join(
        f"{stage} {hand.timings_ms[stage]:.1f} ms"
        for stage in ("detector", "crop", "network", "geometry")
        if stage in hand.timings_ms
    )
    return (
        f"{hand.handedness} hand, presence {hand.presence:.2f}, "
        f"wrist at {hand.joints_m[0, 2]:.2f} m ({hand.depth}); {stages} "
        f"for {hand.crops_seen} crop{'' if hand.crops_seen == 1 else 's'}, {hand.backend}"
    )


def _box(text: str) -> tuple[float, ...]:
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError as cause:
        raise argparse.ArgumentTypeError(f"expected X0,Y0,X1,Y1, not {text!r}") from cause
    return x0, y0, x1, y1
