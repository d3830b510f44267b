"""PCK curves that runs of a study keep, and the picture of them: the paper's Fig. 8."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from handmesh.atomic import write_atomic
from handmesh.errors import InputError

from .. import metrics
from ..pck_plot import Line, draw_panels
from .study import Study, place

THRESHOLDS_MM = np.linspace(0.0, 50.0, 101)


def write_curve(folder: Path, label: str, errors_mm: NDArray[np.float64]) -> None:
    """Keep the PCK of a run's joint errors (any shape) at `THRESHOLDS_MM`."""
    share = metrics.pck(errors_mm, THRESHOLDS_MM)
    write_atomic(_file(folder, label), (json.dumps(share.tolist()) + "\n").encode())


def read_curve(folder: Path, label: str) -> NDArray[np.float64]:
    """(T,) share of joints within each of `THRESHOLDS_MM`.

    Raises:
        InputError: there is none.
    """
    path = _file(folder, label)
    try:
        share = np.array(json.loads(path.read_text()), dtype=np.float64)
    except (OSError, TypeError, ValueError) as error:
        raise InputError(f"{path} holds no curve ({error}); delete {folder}") from error
    if share.shape != THRESHOLDS_MM.shape:
        raise InputError(f"{path} holds a curve of other thresholds; delete {folder}")
    return share


def draw_curves(study: Study, folder: Path, labels: Sequence[str], seeds: Sequence[int]) -> bytes:
    """A PNG: a panel for each label, a curve for each variant, the mean of its seeds.

    Args:
        study: whose runs have kept curves. folder: as in `Study.run`.

    Raises:
        InputError: a run that has kept none.
    """
    panels: dict[str, list[Line]] = {}
    for label in labels:
        panels[label] = []
        for colour, variant in enumerate(study.variants):
            places = [place(folder, variant.name, seed) for seed in seeds]
            share = np.mean([read_curve(run, label) for run in places], axis=0)  # (T,)
            beyond = THRESHOLDS_MM >= 20.0
            area = np.trapezoid(share[beyond], THRESHOLDS_MM[beyond]) / 30.0
            text = f"{variant.name}: AUC 20-50 {area:.3f}"
            panels[label].append(Line(text, THRESHOLDS_MM, share, colour))
    return draw_panels(panels)


def _file(folder: Path, label: str) -> Path:
    return folder / f"pck {label}.json"
