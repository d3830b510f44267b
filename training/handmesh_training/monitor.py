"""What a run tells while it runs: a line of JSON for each report, and TensorBoard."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handmesh.atomic import write_atomic
from handmesh.errors import CheckpointError

from .disk import free_space


class Monitor:
    """Writes ``log.jsonl`` in a run's folder, and TensorBoard's events where it is installed.

    Args:
        folder: of the run. tensorboard: whether to write events; None, if tensorboard is there.
    """

    def __init__(self, folder: Path, tensorboard: bool | None = None) -> None:
        self.folder = folder
        if tensorboard is None:
            tensorboard = importlib.util.find_spec("tensorboard") is not None
        self._wanted = tensorboard
        self._writer: Any = None
        self._purge_from: int | None = None

    @property
    def shows_pictures(self) -> bool:
        """Whether anybody will see them."""
        return self._wanted

    def rewind(self, step: int) -> None:
        """Forget reports of later batches: a run that goes on makes them again."""
        path = self.folder / "log.jsonl"
        if path.exists():
            lines = path.read_text().splitlines(keepends=True)
            kept = [line for line in lines if _step_of(line) <= step]
            if len(kept) < len(lines):
                write_atomic(path, "".join(kept).encode())
        self._purge_from = step + 1

    def scalars(self, row: dict[str, Any]) -> None:
        """Append one report; numbers but for ``step`` and ``images`` become curves.

        Raises:
            CheckpointError: the log cannot be written, as on a full disk.
        """
        path = self.folder / "log.jsonl"
        try:
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise CheckpointError(
                f"cannot write {path} ({error.strerror}); {free_space(path)}: make room, then go "
                "on with --resume"
            ) from error
        if self._wanted and "step" in row:
            for name, value in row.items():
                if name not in ("step", "images") and math.isfinite(value):
                    self._events().add_scalar(name, value, int(row["step"]))

    def picture(self, name: str, image: NDArray[np.uint8], step: int) -> None:
        """Show an (H, W, 3) picture, in TensorBoard alone."""
        if self._wanted:
            self._events().add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Write out what is held back."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _events(self) -> Any:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(
                str(self.folder / "tensorboard"), purge_step=self._purge_from
            )
        return self._writer


def _step_of(line: str) -> float:
    """Of a line of the log; infinite for one that was cut off."""
    try:
        return float(json.loads(line)["step"])
    except (KeyError, TypeError, ValueError):
        return math.inf
