"""What commands share: exit codes, how errors are told, and the choice of a network."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import BackendUnavailable, HandMeshError, InputError, MissingExtra

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

    from .predictor import Predictor

__all__ = [
    "BAD_INPUT",
    "BROKEN_PIPE",
    "INTERRUPTED",
    "MISSING",
    "NEGATIVE",
    "OK",
    "TERMINATED",
    "add_min_presence",
    "add_network_options",
    "check_options",
    "exit_code",
    "load_network",
    "needing_extra",
    "report",
    "run_module",
    "same_file",
    "silence_stdout",
]

OK, NEGATIVE, BAD_INPUT, MISSING = 0, 1, 2, 3
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
BROKEN_PIPE = 128 + 13  # SIGPIPE, a name that Windows does not know


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Which network runs, in what, where, and how much is said about it."""
    network = parser.add_argument_group("network")
    network.add_argument(
        "--bundle", metavar="PATH", help="trained model (default: the shipped one)"
    )
    network.add_argument(
        "--backend",
        default="auto",
        metavar="NAME",
        help="runtime: auto, onnx, tflite, torch, coreml, cuda (default auto)",
    )
    network.add_argument(
        "--device",
        metavar="NAME",
        help="where it runs: cpu, cuda, cuda:1, tensorrt, coreml, openvino, ... as the backend "
        "knows (default: its first, mostly cpu); refused where it is not there",
    )
    network.add_argument(
        "--precision", choices=("fp32", "fp16", "int8"), help="of the model's large weights"
    )
    network.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: up to 4)")
    said = parser.add_mutually_exclusive_group()
    said.add_argument(
        "-q", "--quiet", action="store_true", help="print errors alone, and with --json the JSON"
    )
    said.add_argument(
        "-v", "--verbose", action="store_true", help="say what runs, and why that was chosen"
    )


def add_min_presence(parser: argparse.ArgumentParser) -> None:
    """How sure a hand must be."""
    parser.add_argument(
        "--min-presence",
        type=float,
        default=0.5,
        metavar="P",
        help="leave out hands that are less sure than this, 0 to 1 (default 0.5)",
    )


def check_options(args: argparse.Namespace) -> None:
    """Refuse what no photo and no video can be looked at with, once and before the work. Errors
    name the option beside the argument in Python.

    Args:
        args: what it lacks is not looked at: commands have some of these options each.

    Raises:
        InputError: a number is none, or one that cannot be.
    """
    from .arguments import checked_looks, checked_presence
    from .camera import counted
    from .geometry import place
    from .types import Box, Camera

    checks: dict[str, Callable[[Any], object]] = {
        "max_hands": lambda count: counted(count, "max_hands"),
        "min_presence": checked_presence,
        "looks": checked_looks,
        "bone_length": lambda length_m: place(1.0, length_m),
        "fov": lambda degrees: Camera.from_fov(1, 1, degrees),
        "box": lambda corners: Box.from_xyxy(*corners),
    }
    for name, check in checks.items():
        value = getattr(args, name, None)
        try:
            if value is not None:
                check(value)
        except InputError as error:
            raise type(error)(f"--{name.replace('_', '-')}: {error}") from error


def load_network(args: argparse.Namespace) -> Predictor:
    """The network that the options of `add_network_options` ask for.

    Raises:
        BundleError, InputError, BackendUnavailable, BackendError: as `Predictor`.
    """
    from .predictor import Predictor

    predictor = Predictor(
        args.bundle, args.backend, args.threads, device=args.device, precision=args.precision
    )
    if args.verbose:
        print(f"bundle {predictor.bundle.name}: {predictor.bundle.folder}", file=sys.stderr)
        for line in predictor.chosen:
            print(f"backend {line}", file=sys.stderr)
    return predictor


def exit_code(command: Callable[[], int]) -> int:
    """Run a command; an error of ours, one of the system's, and an interruption, are told in one
    line.

    Args:
        command: returns its exit code.

    Returns:
        That, or the one for what ended it.
    """
    try:
        code = command()
        if sys.stdout is not None:  # as in a program without a console
            sys.stdout.flush()  # here, where what fails is told; not when Python ends
        return code
    except HandMeshError as error:
        return report(error)
    except BrokenPipeError:
        silence_stdout()
        return BROKEN_PIPE
    except KeyboardInterrupt:
        print("handmesh: interrupted", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        try:
            sys.stdout.flush()
        except (OSError, AttributeError):  # it is the output that failed, and would again
            silence_stdout()
        reason = error.strerror or str(error) or type(error).__name__
        about = "reading or writing" if error.filename is None else repr(str(error.filename))
        with contextlib.suppress(OSError):  # a terminal that is gone takes no message either
            return report(InputError(f"{about} failed: {reason}"))
        return BAD_INPUT


def run_module(spec: ModuleSpec, extra: str) -> NoReturn:
    """Run a module's ``main`` as a command, and end the process with its exit code. A module that
    is one begins with this, before its other imports, so that packages that are not installed are
    told as any other error ::

        if __name__ == "__main__":
            from handmesh.cli_shared import run_module

            run_module(__spec__, "training")

    Args:
        spec: of the module that ``python -m`` was given. extra: that brings what it imports.
    """

    def command() -> int:
        with _told_as_missing(extra):
            return int(importlib.import_module(spec.name).main())

    raise SystemExit(exit_code(command))


def needing_extra(
    command: Callable[[argparse.Namespace], int], extra: str, *packages: str
) -> Callable[[argparse.Namespace], int]:
    """The command, with a package that is not installed told as one of an extra.

    Args:
        packages: import names of those that nothing of it can do without: looked for at its start.
    """

    def run(args: argparse.Namespace) -> int:
        with _told_as_missing(extra):
            for package in packages:
                importlib.import_module(package)
            return command(args)

    return run


@contextlib.contextmanager
def _told_as_missing(extra: str) -> Iterator[None]:
    ours = "handmesh"
    try:
        yield
    except ModuleNotFoundError as cause:
        package = (cause.name or ours).partition(".")[0]
        if package.startswith(ours):  # a mistake of ours, which no package mends
            raise
        raise MissingExtra(package, extra) from cause


def report(error: HandMeshError) -> int:
    """Tell an error in one line; returns the exit code for it."""
    print(f"handmesh: {' '.join(str(error).split())}", file=sys.stderr)
    return MISSING if isinstance(error, (BackendUnavailable, MissingExtra)) else BAD_INPUT


def same_file(path: Path, other: Path) -> bool:
    """Whether two paths lead to one file, links and other spellings included; False of a file that
    is missing, which is told where it is read."""
    try:
        return path.samefile(other)
    except (OSError, ValueError):  # ValueError: NUL, or half a character
        return False


def silence_stdout() -> None:
    """Send the rest nowhere: Python writes what is left when it ends, and would fail again."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
