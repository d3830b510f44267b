"""The command `handmesh`.

Sub-commands of the other packages come through the entry-point group `handmesh.commands`: each
entry point is a function that takes argparse's sub-parsers, adds its own, and sets the default
``run``, a function from the parsed arguments to an exit code.

Exit codes: 0 done; 1 no hand was found, or a check failed; 2 bad input or usage; 3 a package or a
backend is missing; 130 and 143 interrupted and terminated, what was being written cleared away
(of a video, `track` keeps what was done by then, as a whole file).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .cli_track import add_track
from .errors import BackendUnavailable, HandMeshError, InputError, MissingExtra

if TYPE_CHECKING:
    from .predictor import Predictor
    from .types import Hand

__all__ = ["main"]

OK, NEGATIVE, BAD_INPUT, MISSING = 0, 1, 2, 3
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM

# Overlays are to be looked at: a reduced one of a huge photo serves better.
_OVERLAY_SIDE = 2048


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (by default this process's) and return its exit code."""
    # OpenCV logs what it cannot decode; the error that follows says it better.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "FATAL")
    if argv is None:  # a process of its own, which clears up when it is told to end
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = _parser(arguments).parse_args(arguments)
    try:
        code: int = args.run(args)
        return code
    except HandMeshError as error:
        return _report(error)
    except KeyboardInterrupt:
        print("handmesh: interrupted", file=sys.stderr)
        return INTERRUPTED


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="handmesh", description="3D hand meshes from one RGB photo."
    )
    parser.add_argument("--version", action="version", version=f"handmesh {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    own = {"predict": _add_predict, "track": add_track, "info": _add_info, "verify": _add_verify}
    for add in own.values():
        add(commands)
    # Other packages may be slow to import: only when their commands, or the list, are asked for.
    if not arguments or arguments[0] not in own:
        for point in entry_points(group="handmesh.commands"):
            try:
                point.load()(commands)
            except ImportError as error:
                print(f"handmesh: no commands of {point.name!r}: {error}", file=sys.stderr)
    return parser


def _add_predict(commands: Any) -> None:
    parser = commands.add_parser(
        "predict",
        help="find the hand in photos",
        description="Writes, for each photo, NAME_hand.png (the mesh over the photo), "
        "NAME_side.png, NAME_hand.glb and NAME_hand.json; further hands get a number.",
    )
    parser.add_argument("photos", nargs="+", metavar="PHOTO", type=Path)
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="folder for the results (default .)"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object a photo instead; files are written only with --out",
    )
    parser.add_argument("--bundle", metavar="PATH", help="trained model (default: the shipped one)")
    parser.add_argument(
        "--backend", default="auto", help="runtime: auto, onnx, tflite, torch (default auto)"
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: up to 4)")
    parser.add_argument(
        "--box", type=_box, metavar="X0,Y0,X1,Y1", help="where the hand is, in pixels"
    )
    parser.add_argument("--handedness", choices=("left", "right"), help="the person's own hand")
    parser.add_argument("--mirrored", action="store_true", help="the photos are mirrored (selfies)")
    parser.add_argument("--max-hands", type=int, default=1, metavar="N", help="default 1")
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
    parser.set_defaults(run=_predict)


def _add_info(commands: Any) -> None:
    parser = commands.add_parser("info", help="layers, parameters and operations of a network")
    parser.add_argument("--network", choices=("light", "paper"), default="light")
    parser.add_argument(
        "--depth", type=int, metavar="N", help="sum up layers below this depth (default: all)"
    )
    parser.set_defaults(run=_info)


def _add_verify(commands: Any) -> None:
    parser = commands.add_parser(
        "verify",
        help="prove that a bundle computes here what it should",
        description="Checks every file's hash, runs each installed backend on the bundle's "
        "reference crops, and states the worst difference.",
    )
    parser.add_argument("bundle", nargs="?", metavar="BUNDLE", help="default: the shipped one")
    parser.add_argument(
        "--backend", action="append", metavar="NAME", help="only this one; may be repeated"
    )
    parser.set_defaults(run=_verify)


def _predict(args: argparse.Namespace) -> int:
    from .predictor import Predictor

    out: Path | None = args.out if args.out or args.json else Path()
    if out is not None:
        stems = [photo.stem for photo in args.photos]
        for stem in stems:
            if stems.count(stem) > 1:
                raise InputError(f"two photos are named {stem!r}: run them with separate --out")
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise InputError(f"cannot make the folder {out}: {cause.strerror}") from cause
    code = OK
    with Predictor(args.bundle, args.backend, args.threads) as predictor:
        for photo in args.photos:
            try:
                code = max(code, _predict_one(predictor, photo, out, args))
            except InputError as error:  # the other photos may be fine
                code = max(code, _report(error))
    return code


def _predict_one(
    predictor: Predictor, photo: Path, out: Path | None, args: argparse.Namespace
) -> int:
    from .draw import overlay
    from .imaging import decode
    from .types import Camera

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
    )
    written: list[Path] = []
    if out is not None and hands:
        picture = overlay(pixels, hands, max_side=_OVERLAY_SIDE)
        written.append(_write_png(out / f"{photo.stem}_hand.png", picture))
        for number, hand in enumerate(hands, start=1):
            written += _write_hand(hand, out, photo.stem, "" if number == 1 else str(number))
    if args.json:
        print(json.dumps({"photo": str(photo), "hands": [hand.to_dict() for hand in hands]}))
    else:
        for hand in hands:
            print(f"{photo}: {_summary(hand)}")
        if not hands:
            print(f"{photo}: no hand found")
        for path in written:
            print(f"  {path}")
    return OK if hands else NEGATIVE


def _write_hand(hand: Hand, out: Path, stem: str, number: str) -> list[Path]:
    from .draw import side_view

    return [
        _write_png(out / f"{stem}_side{number}.png", side_view(hand)),
        hand.save(out / f"{stem}_hand{number}.glb"),
        hand.save(out / f"{stem}_hand{number}.json"),
    ]


def _write_png(path: Path, picture: Any) -> Path:
    import cv2

    from .atomic import write_atomic

    _, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return write_atomic(path, data.tobytes())


def _summary(hand: Hand) -> str:
    stages = ", ".join(
        f"{stage} {hand.timings_ms[stage]:.1f} ms"
        for stage in ("crop", "network", "geometry")
        if stage in hand.timings_ms
    )
    return (
        f"{hand.handedness} hand, presence {hand.presence:.2f}, "
        f"wrist at {hand.joints_m[0, 2]:.2f} m ({hand.depth}); {stages} "
        f"for {hand.crops_seen} crop{'' if hand.crops_seen == 1 else 's'}, {hand.backend}"
    )


def _info(args: argparse.Namespace) -> int:
    from .graph import Topology

    try:
        from .nn import build, from_dict
        from .nn.summary import describe
    except ModuleNotFoundError as cause:
        if cause.name is None or cause.name.startswith(__package__):
            raise
        raise MissingExtra(cause.name, "torch") from cause
    network = build(from_dict({"network": args.network}), Topology.default())
    print(describe(network).render(args.depth))
    return OK


def _verify(args: argparse.Namespace) -> int:
    from . import backends
    from .bundle import Bundle
    from .verification import verify

    bundle = Bundle.load(args.bundle)
    differences = verify(bundle, args.backend)
    print(f"{bundle.folder}: {len(bundle.manifest['files'])} files as they were made")
    for difference in differences:
        print(
            f"{'ok  ' if difference.passed else 'FAIL'} {difference.backend}: "
            f"{difference.crops} crops, off by at most {difference.tensor:.2e} in (u, v, d), "
            f"{difference.px:.2e} px, {difference.mm:.2e} mm (p99 {difference.p99_mm:.2e}), "
            f"{difference.scores:.2e} in confidence, presence and handedness"
        )
    if args.backend is None:
        for name in sorted(set(bundle.artifacts) & set(backends.names())):
            reason = backends.unavailable(name, bundle)
            if reason is not None:
                print(f"not run here: {name}: {reason}")
    return OK if all(difference.passed for difference in differences) else NEGATIVE


def _box(text: str) -> tuple[float, ...]:
    values = tuple(float(part) for part in text.split(","))  # argparse reports the ValueError
    if len(values) != 4:
        raise argparse.ArgumentTypeError(f"expected X0,Y0,X1,Y1, not {text!r}")
    return values


def _report(error: HandMeshError) -> int:
    print(f"handmesh: {' '.join(str(error).split())}", file=sys.stderr)
    return MISSING if isinstance(error, (BackendUnavailable, MissingExtra)) else BAD_INPUT
