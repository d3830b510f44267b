"""Peers in environments of their own, and in processes of their own.

What a peer needs often cannot live beside what we need, and none of it belongs on a user's machine
unless it is asked for: each has a virtual environment in the cache, made on first use.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handmesh.closing import Closing
from handmesh.errors import BackendError, BackendUnavailable

__all__ = ["INSIDE", "Environment", "Process"]

# The stage that a peer's process measured itself; the whole run has the pipe to it in it.
INSIDE = "inside"


@dataclass(frozen=True)
class Environment:
    """A virtual environment that a command sets up.

    Attributes:
        name: of its folder in the cache. title: of the peer, for messages.
        packages: what pip installs, ``NAME==VERSION``; the environment is there when all that are
            pinned so have that version.
        needs: what to check when it cannot be installed.
    """

    name: str
    title: str
    packages: Sequence[str]
    needs: str

    def default(self) -> Path:
        """A folder for it in the user's cache."""
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(cache) / "handmesh" / self.name

    def prepare(self, folder: Path | None = None, python: str = sys.executable) -> Path:
        """The environment's interpreter; made, and the packages installed, unless they are there.

        Args:
            folder: of the environment; None for the default. python: interpreter to make it with.

        Raises:
            BackendUnavailable: it cannot be installed.
        """
        folder = self.default() if folder is None else folder
        interpreter = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        if self._is_there(interpreter):
            return interpreter
        try:
            subprocess.run([python, "-m", "venv", str(folder)], check=True)
            install = [str(interpreter), "-m", "pip", "install", "--quiet", *self.packages]
            subprocess.run(install, check=True)
        except (OSError, subprocess.CalledProcessError) as cause:
            raise BackendUnavailable(
                f"{self.title} cannot be installed into {folder} ({cause}): it needs a network for "
                f"pip and {self.needs}"
            ) from cause
        return interpreter

    def _is_there(self, interpreter: Path) -> bool:
        pinned = dict(package.split("==") for package in self.packages if "==" in package)
        code = "import importlib.metadata as m, sys; print(*(m.version(n) for n in sys.argv[1:]))"
        try:
            done = subprocess.run(
                [str(interpreter), "-c", code, *pinned], check=True, capture_output=True, text=True
            )
        except (OSError, subprocess.CalledProcessError):
            return False
        # A wheel for the CPU calls itself 2.13.0+cpu.
        return [found.split("+")[0] for found in done.stdout.split()] == list(pinned.values())


class Process(Closing):
    """A program that answers one JSON object a line. It waits while it is not asked.

    Args:
        command: that starts it. title: of the peer, for messages.
        environment: variables beside those of this process.
    """

    def __init__(
        self, command: Sequence[str], title: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self._command, self._title = list(command), title
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
            text=True,
        )

    def ask(self, request: Mapping[str, Any]) -> Any:
        """The answer to a request.

        Raises:
            BackendError: the process ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except OSError:
            answer = ""
        if not answer:
            raise BackendError(
                f"{self._title}'s process ended with code {self._process.wait()} on {request}: run "
                f"`{' '.join(self._command)}` and give it that line to see why"
            )
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:  # it hangs in a run
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
