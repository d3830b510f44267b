"""The command `handmesh`.

Sub-commands of the other packages come through the entry-point group `handmesh.commands`: each
entry point is a function that takes argparse's sub-parsers, adds its own, and sets the default
``run``, a function from the parsed arguments to an exit code.

Exit codes: 0 done; 1 no hand was found, or a check failed; 2 bad input or usage; 3 a package, a
backend or a device is missing; 130 and 143 interrupted and terminated (by SIGTERM, or SIGHUP where
it is not ignored), what was being written cleared away (of a video, `track` keeps what was done by
then, as a whole file); 141 whoever read the output closed it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, NoReturn

from . import __version__
from .cli_completion import add_completion
from .cli_info import add_info
from .cli_predict import add_predict
from .cli_shared import BAD_INPUT, NEGATIVE, OK, TERMINATED, exit_code
from .cli_sheet import add_sheet
from .cli_track import add_track
from .spelling import did_you_mean

if TYPE_CHECKING:
    from .bundle import Bundle
    from .detector_verification import DetectorDifference
    from .verification import Difference

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (by default this process's) and return its exit code."""
    # OpenCV logs what it cannot decode; the error that follows says it better.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "FATAL")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg's AV_LOG_QUIET
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # see `ort`; commands may import it first
    if argv is None:
        _prepare_process()
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser(arguments)
    if not arguments:
        parser.print_help(sys.stderr)
        return BAD_INPUT
    args = parser.parse_args(arguments)
    return exit_code(lambda: args.run(args))


def _prepare_process() -> None:
    """What is done in a process of its own alone: it clears up when it is told to end, and prints
    every name."""
    ends = [signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)  # of a terminal that is closed; not on Windows
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:  # as by nohup
        ends.append(hangup)
    for end in ends:
        signal.signal(end, lambda *_: sys.exit(TERMINATED))
    for stream in (sys.stdout, sys.stderr):  # None, or another's, in a program around this one
        if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # for names that it cannot encode


class _OneLine(argparse.ArgumentParser):
    """Tells a mistake in one line, not behind ten of usage; sub-commands' parsers are of its class,
    those of other packages too."""

    def error(self, message: str) -> NoReturn:
        told = " ".join(message.split())
        self.exit(BAD_INPUT, f"{self.prog}: {told}; usage: {self.prog} --help\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Nothing unknown is handed up: a sub-command's own parser names it."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return parsed, unknown


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = _OneLine(prog="handmesh", description="3D hand meshes from one RGB photo.")
    parser.add_argument("--version", action="version", version=f"handmesh {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    own = {
        "predict": add_predict, "track": add_track, "sheet": add_sheet, "info": add_info,
        "verify": _add_verify,
    }  # fmt: skip
    for add in own.values():
        add(commands)
    add_completion(commands, parser)
    # Other packages may be slow to import: only when their commands, or the list, are asked for.
    if not arguments or arguments[0] not in own:
        for point in entry_points(group="handmesh.commands"):
            try:
                point.load()(commands)
            except Exception as error:  # whatever another's code raises: ours are to run
                reason = " ".join(str(error).split()) or type(error).__name__
                print(f"handmesh: no commands of {point.name!r}: {reason}", file=sys.stderr)
    named = arguments[0] if arguments and not arguments[0].startswith("-") else None
    if named is not None and named not in commands.choices:
        known = ", ".join(commands.choices)
        parser.error(
            f"no command {named!r}; there are {known}{did_you_mean(named, commands.choices)}"
        )
    return parser


def _add_verify(commands: Any) -> None:
    parser = commands.add_parser(
        "verify",
        help="prove that a bundle computes here what it should",
        description="Checks every file's hash, runs each installed backend on the bundle's "
        "reference crops, and states the worst difference.",
    )
    parser.add_argument("bundle", nargs="?", metavar="BUNDLE", help="default: all that ship")
    parser.add_argument(
        "--backend", action="append", metavar="NAME", help="only this one; may be repeated"
    )
    parser.add_argument(
        "--device", metavar="NAME", help="where they run, as cuda (default: each one's first)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: up to 4)")
    parser.set_defaults(run=_verify)


def _verify(args: argparse.Namespace) -> int:
    from .bundle import DEFAULT, Bundle, shipped

    if args.bundle is not None:
        return _verify_one(args, Bundle.load(args.bundle))
    folders = shipped()
    # Every search asks the detector too: what ships is proven whole.
    names = sorted(folders, key=lambda name: (name != DEFAULT, name))
    bundles = [Bundle.load(folders[name]) for name in names] or [Bundle.load()]
    return max([_verify_one(args, bundle) for bundle in bundles])


def _verify_one(args: argparse.Namespace, bundle: Bundle) -> int:
    from . import backends
    from .detector_verification import verify_detector
    from .verification import verify

    differences: Sequence[Difference | DetectorDifference] = (
        verify_detector(bundle, args.backend, args.device, args.threads)
        if bundle.is_detector
        else verify(bundle, args.backend, args.device, args.threads)
    )
    print(f"{bundle.folder}: {len(bundle.manifest['files'])} files as they were made")
    for difference in differences:
        verdict = "ok  " if difference.passed else "FAIL"
        print(f"{verdict} {difference.backend}: {difference.render()}")
    if args.backend is None:
        for name in sorted(set(bundle.artifacts) & set(backends.names())):
            reason = backends.unavailable(name, bundle, args.device)
            if reason is not None:
                print(f"not run here: {name}: {reason}")
    return OK if all(difference.passed for difference in differences) else NEGATIVE
