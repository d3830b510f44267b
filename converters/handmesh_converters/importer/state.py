"""One file of an imported checkpoint: every tensor is taken by name and shape, or told of."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from handmesh.errors import CheckpointError

__all__ = ["StateFile"]

_PARALLEL = "module."  # before every name, if the network was saved inside DataParallel
_COUNTER = "num_batches_tracked"  # of a batch norm: in newer files only, and never computed with
_NAMED = 5  # of each kind of problem


class StateFile:
    """The tensors of a state dict, until they have all been taken.

    Args:
        path: of a file that torch saved. Nothing in it is executed.
        what: the file, to a reader.
        sign: a tensor that only this file has.

    Raises:
        CheckpointError: it cannot be read, or is no state dict.
    """

    def __init__(self, path: str | os.PathLike[str], what: str, sign: str) -> None:
        self.path, self.what, self._sign = path, what, sign
        self._left = _read(path, what)
        self._missing: list[str] = []
        self._misshapen: list[str] = []
        self._unusable: list[str] = []

    def take(self, name: str, shape: Sequence[int]) -> Tensor:
        """The tensor in float32; zeros where there is none like it, which `finish` will tell."""
        tensor = self._left.pop(name, None)
        if tensor is None:
            self._missing.append(name)
        elif tuple(tensor.shape) != tuple(shape):
            self._misshapen.append(f"{name} {tuple(tensor.shape)}, expected {tuple(shape)}")
        elif not tensor.is_floating_point() or not tensor.isfinite().all():
            self._unusable.append(name)
        else:
            return tensor.float()
        return torch.zeros(*shape)

    def finish(self) -> None:
        """Raise `CheckpointError` unless everything was there and everything was taken."""
        kinds = {
            "missing": self._missing,
            "of another shape": self._misshapen,
            "not finite numbers": self._unusable,
            "not known": list(self._left),
        }
        found = [f"{kind}: {_list(names)}" for kind, names in kinds.items() if names]
        if found:
            raise CheckpointError(
                f"{self.path} is not {self.what} of the known layout; {'; '.join(found)}. "
                + (
                    f"It has no {self._sign}: give each file with its own option"
                    if self._sign in self._missing
                    else "Nothing is imported in part: bring the file as the authors' code saves it"
                )
            )


def _list(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _read(path: str | os.PathLike[str], what: str) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as cause:
        raise CheckpointError(f"cannot read {path}: {cause.strerror or cause}") from cause
    except Exception as cause:  # torch raises whatever its archive reader or unpickler raises
        # Not its text: torch advises to load the file unsafely.
        raise CheckpointError(
            f"{path} is not a file of tensors alone ({type(cause).__name__}); expected {what} as "
            "torch.save wrote its state_dict(). Files that hold code are not opened"
        ) from cause
    if (
        not isinstance(state, dict)
        or not state
        or not all(isinstance(name, str) and torch.is_tensor(t) for name, t in state.items())
    ):
        raise CheckpointError(
            f"{path} holds a {type(state).__name__} that is not names with tensors; expected the "
            f"state_dict() of {what}, at the top of its file"
        )
    prefix = _PARALLEL if all(name.startswith(_PARALLEL) for name in state) else ""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if not name.endswith(_COUNTER)
    }
