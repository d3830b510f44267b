"""The sub-command `handmesh track`."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli_shared import (
    BROKEN_PIPE,
    INTERRUPTED,
    NEGATIVE,
    OK,
    TERMINATED,
    add_min_presence,
    add_network_options,
    check_options,
    load_network,
    report,
    same_file,
    silence_stdout,
)
from .errors import BackendUnavailable, HandMeshError, InputError

if TYPE_CHECKING:
    from .animation import Animation
    from .tracker import TrackedFrame
    from .video import Frame, Video, VideoWriter

__all__ = ["add_track"]

_WINDOW = "handmesh: q ends"
_QUIT = {ord("q"), 27}  # and Escape


def add_track(commands: Any) -> None:
    """Add `track` to argparse's sub-parsers."""
    parser = commands.add_parser(
        "track",
        help="follow hands through a video or before a camera",
        description="Writes a video with the hands drawn over it. Without --out, --glb, --show or "
        "--json, of a file NAME it is NAME_hand.mp4 in this folder. Ctrl-C ends it: files then "
        "hold all that was done, as where a camera fails. Sound is not copied.",
    )
    parser.add_argument(
        "source", metavar="VIDEO", help="a video file, or the number of a camera, from 0"
    )
    parser.add_argument("--out", metavar="FILE", type=Path, help=".mp4, .mov, .mkv, .avi or .webm")
    parser.add_argument(
        "--glb",
        metavar="FILE",
        type=Path,
        help="animations, one a hand: of hand.glb they are hand_1.glb, hand_2.glb, by the ids",
    )
    parser.add_argument("--show", action="store_true", help="show it in a window; q ends")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object a frame: time, hands with ids"
    )
    parser.add_argument("--mesh", action="store_true", help="with the vertices in the JSON")
    parser.add_argument("--max-hands", type=int, default=2, metavar="N", help="default 2")
    add_min_presence(parser)
    parser.add_argument("--handedness", choices=("left", "right"), help="of all hands, if known")
    parser.add_argument("--mirrored", action="store_true", help="the video is mirrored (selfies)")
    parser.add_argument("--no-smoothing", action="store_true", help="results as they are measured")
    parser.add_argument(
        "--fov",
        type=float,
        metavar="DEGREES",
        help="the camera's field of view along the longer side (default: 65, and said so)",
    )
    parser.add_argument(
        "--bone-length",
        type=float,
        metavar="METRES",
        help="middle finger, knuckle to next joint (default: an adult's, and said so)",
    )
    add_network_options(parser)
    parser.set_defaults(run=_track)


def _track(args: argparse.Namespace) -> int:
    from .video import VideoWriter, open_video

    if not args.source:  # a variable of the shell that is not set: not the current folder
        raise InputError("VIDEO is empty (''): name a file, or the number of a camera")
    source: int | Path = int(args.source) if args.source.isdecimal() else Path(args.source)
    out: Path | None = args.out
    if out is None and not (args.show or args.json or args.glb):
        if isinstance(source, int):
            raise InputError("of a camera, say what is wanted: --show, --out FILE, --glb or --json")
        out = Path(f"{source.stem}_hand.mp4")
    if out is not None and isinstance(source, Path) and same_file(out, source):
        raise InputError(f"--out {out} would replace the video that is read")
    check_options(args)
    animations = None if args.glb is None else _Animations(args.glb)
    with contextlib.ExitStack() as stack:
        if args.show:
            stack.enter_context(_window())
        video = stack.enter_context(open_video(source))
        writer = stack.enter_context(VideoWriter(out, video.fps)) if out is not None else None
        seen = _Report()
        stopped: int | None = None
        failures: list[HandMeshError | OSError] = []
        try:
            for frame, tracked in _followed(video, args):
                seen.add(frame, tracked)
                if animations is not None:
                    animations.add(tracked)
                if args.json:
                    line = {"frame": frame.index, "dropped": frame.dropped}
                    print(json.dumps(line | tracked.to_dict(args.mesh)), flush=True)
                if writer is not None or args.show:
                    picture = _drawn(frame, tracked)
                    if writer is not None:
                        writer.write(picture, frame.time_s)
                    if args.show and _is_quit(picture):
                        break
        except KeyboardInterrupt:
            stopped = INTERRUPTED
        except SystemExit as stop:  # terminated: what was done is kept all the same
            stopped = stop.code if isinstance(stop.code, int) else TERMINATED
        except BrokenPipeError:  # whoever reads the JSON has seen enough
            silence_stdout()
            stopped = BROKEN_PIPE
        except _WrongTime:
            raise
        except (HandMeshError, OSError) as error:  # a camera that is silent: as when interrupted
            failures.append(error)
        written = _written(writer, animations, failures)
    if not args.quiet and (seen.frames or not failures):
        channel = sys.stderr if args.json else sys.stdout
        print(f"{args.source}: {seen}", file=channel)
        for path in written:
            print(f"  {path}", file=channel)
    if video.missing_s and not args.quiet:
        print(
            f"handmesh: {args.source} ended {video.missing_s:.1f} s before the length that it "
            "states: if it is damaged or cut off, a whole copy has more frames",
            file=sys.stderr,
        )
    if failures:
        for further in failures[1:]:
            report(further if isinstance(further, HandMeshError) else InputError(str(further)))
        raise failures[0]
    if stopped is None:
        return OK if seen.frames_of else NEGATIVE
    if stopped != BROKEN_PIPE:
        print("handmesh: interrupted", file=sys.stderr)
    return stopped


def _written(
    writer: VideoWriter | None,
    animations: _Animations | None,
    failures: list[HandMeshError | OSError],
) -> list[Path]:
    """Finish the files, and tell those that could not be written among the failures: one that
    fails keeps no other from its place."""
    written: list[Path] = []
    if writer is not None:
        try:
            film = writer.finish()
            written += [] if film is None else [film]
        except HandMeshError as error:
            failures.append(error)
    if animations is not None:
        try:
            written += animations.write()
        except HandMeshError as error:
            failures.append(error)
    return written


class _WrongTime(InputError):
    """A frame that is not later than the one before: a film would have wrong times, too."""


def _followed(video: Video, args: argparse.Namespace) -> Iterator[tuple[Frame, TrackedFrame]]:
    """Frames with their hands, and how far it is."""
    from .smoothing import HandSmoother
    from .tracker import Tracker
    from .types import Camera

    with load_network(args) as predictor:
        tracker: Tracker | None = None
        last_s = float("-inf")
        for frame in _with_progress(video, args.quiet):
            if tracker is None:
                height, width = frame.pixels.shape[:2]
                tracker = Tracker(
                    predictor,
                    camera=None if args.fov is None else Camera.from_fov(width, height, args.fov),
                    handedness=args.handedness,
                    bone_length_m=args.bone_length,
                    mirrored=args.mirrored,
                    max_hands=args.max_hands,
                    min_presence=args.min_presence,
                    smoother=None if args.no_smoothing else HandSmoother,
                )
            try:
                tracked = tracker.update(frame.pixels, frame.time_s)
            except InputError as cause:
                if frame.time_s > last_s:
                    raise
                raise _WrongTime(str(cause)) from cause
            last_s = frame.time_s
            yield frame, tracked


def _with_progress(video: Video, quiet: bool) -> Iterable[Frame]:
    """The frames, with a bar on stderr where somebody looks at it; of a camera, without an end."""
    from tqdm import tqdm

    bar: Iterable[Frame] = tqdm(
        video, total=video.frame_count, unit="frame", disable=quiet or None, leave=False
    )
    return bar


class _Report:
    """What a run has seen, to be told in one line."""

    def __init__(self) -> None:
        self.frames = self.dropped = self.searches = 0
        self.frames_of: Counter[int] = Counter()
        self.side_of: dict[int, str] = {}
        self.milliseconds: list[float] = []

    def add(self, frame: Frame, tracked: TrackedFrame) -> None:
        self.frames += 1
        self.dropped += frame.dropped
        self.searches += tracked.searched
        self.milliseconds.append(tracked.timings_ms["total"])
        for hand in tracked.hands:
            self.frames_of[hand.id] += 1
            self.side_of[hand.id] = hand.handedness

    def __str__(self) -> str:
        if not self.frames:
            return "no frames"
        hands = ", ".join(
            f"hand {number} ({self.side_of[number]}) in {count}"
            for number, count in sorted(self.frames_of.items())
        )
        middle = sorted(self.milliseconds)[len(self.milliseconds) // 2]
        dropped = f", {self.dropped} left out" if self.dropped else ""
        frames = "1 frame" if self.frames == 1 else f"{self.frames} frames"
        return (
            f"{frames}{dropped}: {hands or 'no hand found'}; "
            f"searched {self.searches} times, median {middle:.1f} ms a frame"
        )


class _Animations:
    """An animated GLB of each hand, written when all of the video has been seen.

    Args:
        path: hand.glb stands for hand_1.glb, hand_2.glb, ..., by the ids.

    Raises:
        InputError: it does not end in .glb, or its folder does not exist.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() != ".glb":
            ends = f"{path.name!r} ends in {path.suffix!r}" if path.suffix else f"not {str(path)!r}"
            raise InputError(f"animations are .glb; {ends}")
        if not path.parent.is_dir():
            raise InputError(f"cannot write {path}: its folder does not exist")
        self._path = path
        # By id, then by side: surfaces of a left and of a right hand cannot be mixed.
        self._of: dict[int, dict[str, Animation]] = {}
        self._last_side: dict[int, str] = {}

    def add(self, tracked: TrackedFrame) -> None:
        from .animation import Animation

        for hand in tracked.hands:
            sides = self._of.setdefault(hand.id, {})
            sides.setdefault(hand.handedness, Animation()).add(hand.hand, tracked.time_s)
            self._last_side[hand.id] = hand.handedness

    def write(self) -> list[Path]:
        from .atomic import write_atomic

        written = []
        for number, sides in sorted(self._of.items()):
            # All frames decide the side, so that the last one knows best.
            animation = sides[self._last_side[number]]
            path = self._path.with_name(f"{self._path.stem}_{number}{self._path.suffix}")
            written.append(write_atomic(path, animation.encode()))
        return written


def _drawn(frame: Frame, tracked: TrackedFrame) -> Any:
    """The frame (H, W, 3) uint8 RGB with its hands, each with its number at the wrist."""
    import cv2

    from .draw import overlay

    picture = overlay(frame.pixels, [hand.hand for hand in tracked.hands])
    scale = max(picture.shape[:2]) / 900
    for hand in tracked.hands:
        x, y = (round(float(c)) for c in hand.joints_px[0])
        text = f"{hand.id} {hand.handedness}"
        for color, width in (((0, 0, 0), 4), ((255, 255, 255), 1)):
            thickness = max(1, round(width * scale))
            place = (x, y + round(28 * scale))
            cv2.putText(
                picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, color, thickness, cv2.LINE_AA
            )
    return picture


@contextlib.contextmanager
def _window() -> Iterator[None]:
    """A window, or why there is none."""
    import cv2

    try:
        cv2.namedWindow(_WINDOW)
    except (cv2.error, AttributeError) as cause:
        raise BackendUnavailable(
            "--show needs windows, which this build of OpenCV or this machine has not: replace "
            "opencv-python-headless by opencv-python, or use --out FILE"
        ) from cause
    try:
        yield
    finally:
        cv2.destroyAllWindows()


def _is_quit(picture: Any) -> bool:
    """Show a frame; whether a key or the window's button asks for the end."""
    import cv2

    cv2.imshow(_WINDOW, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    key = cv2.waitKey(1) & 0xFF
    return key in _QUIT or cv2.getWindowProperty(_WINDOW, cv2.WND_PROP_VISIBLE) < 1
