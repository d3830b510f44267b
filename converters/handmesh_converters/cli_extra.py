"""What the sub-commands of the converters have in common: they need an extra."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from handmesh.errors import MissingExtra

EXTRA = "converters"


def needing_the_extra(
    command: Callable[[argparse.Namespace], int],
) -> Callable[[argparse.Namespace], int]:
    """The command, with a missing package told as such: at its start, where nothing can do
    without it, or where the command comes to need it."""

    def run(args: argparse.Namespace) -> int:
        try:
            import safetensors  # noqa: F401
            import torch  # noqa: F401

            return command(args)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("handmesh"):
                raise
            raise MissingExtra(error.name, EXTRA) from error

    return run
