"""Weights between those of runs: ``python -m handmesh_training.blend OUT FILE=WEIGHT FILE=WEIGHT``.

Runs that went on from the same weights lie in one valley of the error, and their weighted mean is
often better than each (Wortsman et al., Model soups, ICML 2022). What is written can be evaluated,
exported and begun with, but no run can be resumed from it.
"""

from __future__ import annotations

if __name__ == "__main__":
    from handmesh.cli_shared import run_module

    run_module(__spec__, "training")

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from handmesh.errors import CheckpointError, InputError

from .checkpoint import read_checkpoint, write_checkpoint

# What checkpoints must agree in, to be of one network.
SAME = ("graph", "config", "head")


def blend(files: Mapping[Path, float]) -> dict[str, Any]:
    """A checkpoint's state whose ``average`` is the weighted mean of the files' own.

    Args:
        files: checkpoints and how much each counts; they need not add up to 1. Counters and
            running totals are the last file's.

    Raises:
        InputError: fewer than two files, or weights that are not positive and finite.
        CheckpointError: a file that is no checkpoint, or of another network than the first.
    """
    total = sum(files.values())
    if len(files) < 2 or not all(0 < weight < float("inf") for weight in files.values()):
        raise InputError("a blend takes two checkpoints or more, each with a positive weight")
    blended: dict[str, torch.Tensor] = {}
    first: dict[str, Any] = {}
    state: dict[str, Any] = {}
    for path, weight in files.items():
        state = read_checkpoint(path)
        first = first or state
        shapes = [{k: v.shape for k, v in s["average"].items()} for s in (state, first)]
        if any(state.get(key) != first.get(key) for key in SAME) or shapes[0] != shapes[1]:
            raise CheckpointError(f"{path} is of another network than {next(iter(files))}")
        for name, value in state["average"].items():
            if value.is_floating_point():
                part = weight / total * value.double()
                blended[name] = blended[name] + part if name in blended else part
    average = {
        name: blended[name].to(value.dtype) if name in blended else value
        for name, value in state["average"].items()
    }
    kept = (*SAME, "step", "images_seen")
    return {key: state[key] for key in kept if key in state} | {"average": average}


def main(arguments: list[str] | None = None) -> int:
    """Blend, and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="checkpoint to write")
    parser.add_argument("parts", nargs="+", metavar="FILE=WEIGHT", help="checkpoint, and its share")
    options = parser.parse_args(arguments)
    files: dict[Path, float] = {}
    for part in options.parts:
        name, _, weight = part.rpartition("=")
        if Path(name) in files:
            raise InputError(f"{name} is given twice: add up its weights")
        try:
            files[Path(name)] = float(weight)
        except ValueError as error:
            raise InputError(
                f"expected FILE=WEIGHT, as run/full/checkpoint.pt=0.5, got {part!r}"
            ) from error
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(options.out, blend(files))
    return 0
