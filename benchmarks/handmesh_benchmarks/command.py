"""How a module of this package is a command: ``python -m handmesh_benchmarks.NAME``.

Such a module has a ``main`` that takes arguments and returns an exit code, and begins with ::

    if __name__ == "__main__":
        from .command import run

        run(__spec__)

before its other imports, so that packages that are not installed are told as any other error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import NoReturn

from handmesh.cli_shared import run_module

from .keeping import check_writable

__all__ = ["add_bundle", "add_out", "parse", "parser_of", "run", "say"]


def run(spec: ModuleSpec, extra: str = "bench") -> NoReturn:
    """Run the command and end the process with its exit code; errors are told as by `handmesh`.

    Args:
        spec: of the module that ``python -m`` was given. extra: that brings what it imports.
    """
    run_module(spec, extra)


def parser_of(name: str, doc: str | None) -> argparse.ArgumentParser:
    """The parser of a command, for its options.

    Args:
        name: of the module. doc: its docstring, whose first paragraph says what the command does.
    """
    about = (doc or "").partition("\n\n")[0]
    return argparse.ArgumentParser(prog=f"python -m {name}", description=about.rstrip(":"))


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """The option ``--bundle``."""
    parser.add_argument("--bundle", metavar="PATH", help="trained model (default: the shipped one)")


def add_out(parser: argparse.ArgumentParser) -> None:
    """The option ``--out``, whose place `parse` checks."""
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON, too")


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """What a command is told, by default by this process's command line.

    Raises:
        InputError: ``--out`` cannot be written, which is known before anything is measured.
    """
    options = parser.parse_args(arguments)
    check_writable(getattr(options, "out", None))
    return options


def say(line: str) -> None:
    """Print a line at once, whatever reads it."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
