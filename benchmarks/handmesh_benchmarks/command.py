"""How a module of this package is a command: ``python -m handmesh_benchmarks.NAME``.

Such a module has a ``main`` that takes arguments and returns an exit code, and begins with ::

    if __name__ == "__main__":
        from .command import run

        run(__spec__)

before its other imports, so that packages that are not installed are told as any other error.
"""

from __future__ import annotations

import importlib
from importlib.machinery import ModuleSpec
from typing import NoReturn

from handmesh.cli_shared import exit_code
from handmesh.errors import MissingExtra

__all__ = ["run"]

_OURS = "handmesh"


def run(spec: ModuleSpec, extra: str = "bench") -> NoReturn:
    """Run the command and end the process with its exit code; errors are told as by `handmesh`.

    Args:
        spec: of the module that ``python -m`` was given. extra: that brings what it imports.
    """

    def command() -> int:
        try:
            code: int = importlib.import_module(spec.name).main()
        except ModuleNotFoundError as cause:
            package = (cause.name or _OURS).partition(".")[0]
            if package.startswith(_OURS):  # a mistake of ours, which no package mends
                raise
            raise MissingExtra(package, extra) from cause
        return code

    raise SystemExit(exit_code(command))
