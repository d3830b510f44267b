"""MediaPipe Hands 0.10.21, the last release whose wheel carries its models: installed into an
environment of its own (it needs NumPy 1), and run in a process of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .environments import Environment, Process

__all__ = [
    "ENVIRONMENT",
    "VERSION",
    "MediaPipe",
    "add_environment",
    "default_environment",
    "prepare",
]

VERSION = "0.10.21"
ENVIRONMENT = Environment(
    name=f"mediapipe-{VERSION}",
    title=f"MediaPipe {VERSION}",
    # With what it is measured; pip settles the rest, which is not on the clock's way.
    packages=(
        f"mediapipe=={VERSION}",
        "numpy==1.26.4",
        "opencv-contrib-python==4.11.0.86",
        "protobuf==4.25.9",
    ),
    needs="Python 3.9 to 3.12, see --python",
)
_CHILD = Path(__file__).with_name("mediapipe_child.py")


def default_environment() -> Path:
    """A folder for it in the user's cache."""
    return ENVIRONMENT.default()


def add_environment(parser: argparse.ArgumentParser) -> None:
    """The option ``--environment``."""
    parser.add_argument(
        "--environment",
        type=Path,
        default=default_environment(),
        metavar="DIR",
        help="where MediaPipe is installed (default %(default)s)",
    )


def prepare(environment: Path, python: str = sys.executable) -> Path:
    """The environment's interpreter; installed there if MediaPipe of this version is not.

    Args:
        environment: folder of a virtual environment, made if it is missing.
        python: interpreter to make it with; MediaPipe has wheels for Python 3.9 to 3.12.

    Raises:
        BackendUnavailable: it cannot be installed.
    """
    return ENVIRONMENT.prepare(environment, python)


class MediaPipe(Process):
    """MediaPipe's process. It waits while it is not asked, and takes no time then.

    Args:
        interpreter: of its environment.
        folder: where pictures are handed over.

    Raises:
        BackendError: the process ended.
    """

    def __init__(self, interpreter: Path, folder: Path) -> None:
        self._folder = folder
        quiet = {"GLOG_minloglevel": "2", "PYTHONPATH": ""}
        super().__init__([str(interpreter), str(_CHILD)], "MediaPipe", quiet)
        self.versions: dict[str, str] = self.ask({"do": "versions"})

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
        answer = self.ask({"do": "run", "pictures": pictures, "still": still, "hands": hands})
        return answer["ms"], answer["found"]
