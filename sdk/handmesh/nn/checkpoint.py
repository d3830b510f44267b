"""Checkpoints of training, as training and the converters open them, and what is said of others.

What torch says of a file that it cannot read is never passed on: it advises to load it unsafely,
which runs whatever code the file holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from handmesh.errors import CheckpointError

__all__ = ["not_a_checkpoint", "read_state"]

_INSTEAD = "give the checkpoint.pt of a run's folder"


def read_state(
    path: str | PathLike[str],
    names: Sequence[str],
    device: torch.device | str = "cpu",
    resumed: bool = False,
) -> dict[str, Any]:
    """What a checkpoint holds, read without running what it says.

    Args:
        names: what must be in it.
        resumed: whether a run is to go on with this file, its own, so that the remedy for a damaged
            one is to delete it. Of any other file nobody is told to do that.

    Raises:
        CheckpointError: missing, damaged, or no checkpoint.
    """
    path = Path(path)
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"expected a dict, got {type(state).__name__}")
        for name in names:
            state[name]
    except FileNotFoundError as cause:
        raise CheckpointError(f"there is no file {path}: {_INSTEAD}") from cause
    except IsADirectoryError as cause:
        raise CheckpointError(f"{path} is a folder, and no checkpoint: {_INSTEAD}") from cause
    except OSError as cause:
        raise CheckpointError(f"cannot read {path}: {cause.strerror or cause}") from cause
    except Exception as cause:  # torch raises whatever its archive reader or unpickler raises
        raise not_a_checkpoint(path, cause, resumed) from cause
    found: dict[str, Any] = state
    return found


def not_a_checkpoint(
    path: str | PathLike[str], cause: Exception, resumed: bool = False
) -> CheckpointError:
    """The error for a file that holds something else, or a part of a checkpoint. Of ``cause`` only
    the type is told. Arguments as `read_state`."""
    advice = "delete it to start anew" if resumed else _INSTEAD
    return CheckpointError(
        f"{path} is not a checkpoint of a training run ({type(cause).__name__}): it is damaged, or "
        f"something else; {advice}"
    )
