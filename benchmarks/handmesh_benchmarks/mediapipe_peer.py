"""MediaPipe Hands 0.10.21, the last release whose wheel carries its models: installed into an
environment of its own (it needs NumPy 1), and run in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handmesh.closing import Closing
from handmesh.errors import BackendError, BackendUnavailable

__all__ = ["VERSION", "MediaPipe", "default_environment", "prepare"]

VERSION = "0.10.21"
# With what it is measured; pip settles the rest, which is not on the clock's way.
PINNED = (
    f"mediapipe=={VERSION}",
    "numpy==1.26.4",
    "opencv-contrib-python==4.11.0.86",
    "protobuf==4.25.9",
)
_CHILD = Path(__file__).with_name("mediapipe_child.py")


def default_environment() -> Path:
    """A folder for it in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "handmesh" / f"mediapipe-{VERSION}"


def prepare(environment: Path, python: str = sys.executable) -> Path:
    """The environment's interpreter; installed there if MediaPipe of this version is not.

    Args:
        environment: folder of a virtual environment, made if it is missing.
        python: interpreter to make it with; MediaPipe has wheels for Python 3.9 to 3.12.

    Raises:
        BackendUnavailable: it cannot be installed.
    """
    interpreter = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if _installed(interpreter) == VERSION:
        return interpreter
    try:
        subprocess.run([python, "-m", "venv", str(environment)], check=True)
        install = [str(interpreter), "-m", "pip", "install", "--quiet", *PINNED]
        subprocess.run(install, check=True)
    except (OSError, subprocess.CalledProcessError) as cause:
        raise BackendUnavailable(
            f"MediaPipe {VERSION} cannot be installed into {environment} ({cause}): it needs a "
            "network for pip and Python 3.9 to 3.12, see --python"
        ) from cause
    return interpreter


def _installed(interpreter: Path) -> str | None:
    code = "import importlib.metadata as m; print(m.version('mediapipe'))"
    try:
        asked = [str(interpreter), "-c", code]
        return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


class MediaPipe(Closing):
    """MediaPipe's process. It waits while it is not asked, and takes no time then.

    Args:
        interpreter: of its environment.
        folder: where pictures are handed over.

    Raises:
        BackendError: the process ended.
    """

    def __init__(self, interpreter: Path, folder: Path) -> None:
        self._folder = folder
        quiet = {**os.environ, "GLOG_minloglevel": "2", "PYTHONPATH": ""}
        self._process = subprocess.Popen(
            [str(interpreter), str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=quiet,
            text=True,
        )
        self.versions: dict[str, str] = self._ask({"do": "versions"})

    def hand_over(self, name: str, pictures: Sequence[NDArray[np.uint8]]) -> str:
        """Write pictures of one size, (H, W, 3) uint8 RGB, for `run`; returns their handle."""
        path = self._folder / f"{name}.npy"
        np.save(path, np.stack(list(pictures)))  # (N, H, W, 3)
        return str(path)

    def run(self, pictures: str, still: bool, hands: int) -> tuple[list[float], list[int]]:
        """Milliseconds and number of hands found, by picture.

        Args:
            pictures: as `hand_over` returned it.
            still: each picture by itself; else they are the frames of a video.
            hands: how many to look for.
        """
        answer = self._ask({"do": "run", "pictures": pictures, "still": still, "hands": hands})
        return answer["ms"], answer["found"]

    def _ask(self, request: dict[str, Any]) -> Any:
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
                f"MediaPipe's process ended with code {self._process.wait()} on {request}: run "
                f"{_CHILD.name} with its interpreter to see why"
            )
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(30)
        if self._process.stdout is not None:
            self._process.stdout.close()
