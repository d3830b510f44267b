"""The sub-command `handmesh completion`: a script that makes a shell complete our commands.

shtab writes it from the parser itself: it is made once and needs no Python at each press of a key.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import MissingExtra

__all__ = ["add_completion"]

SHELLS = ("bash", "zsh", "fish", "powershell")
# Arguments that are files though their type is text.
_FILES = frozenset({"photos", "source", "files_from", "photo"})


def add_completion(commands: Any, root: argparse.ArgumentParser) -> None:
    """Add `completion` to argparse's sub-parsers; ``root`` is the parser that it describes."""
    parser = commands.add_parser(
        "completion",
        help="print a script for completion in a shell",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="bash: handmesh completion bash > "
        "~/.local/share/bash-completion/completions/handmesh\n"
        "zsh:  handmesh completion zsh > DIR/_handmesh, DIR being one of $fpath\n"
        "fish: handmesh completion fish > ~/.config/fish/completions/handmesh.fish",
    )
    parser.add_argument("shell", choices=SHELLS)
    parser.set_defaults(run=lambda args: _completion(args.shell, root))


def _completion(shell: str, root: argparse.ArgumentParser) -> int:
    try:
        import shtab
    except ImportError as cause:
        raise MissingExtra("shtab", "completion") from cause
    from . import backends
    from .bundle import shipped

    kinds = {
        "backend": ["auto", *backends.names()],
        "device": backends.devices(),
        "bundle": sorted(shipped()),
    }
    for action in _actions(root):
        if action.choices is None and action.dest in kinds:
            action.choices = kinds[action.dest]
        elif action.type is Path or action.dest in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(root, shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for inner in {id(p): p for p in action.choices.values()}.values():
                yield from _actions(inner)
