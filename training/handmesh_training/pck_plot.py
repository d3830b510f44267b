"""PCK curves as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from .evaluation_report import Report

_COLOURS = ("#3b6ea8", "#c8553d", "#4f8a5b", "#7b5ea7")
_STYLES = {"none": "-", "root": "--"}
_WORDS = {"none": "camera frame", "root": "root-aligned"}


@dataclass(frozen=True, eq=False)
class Line:
    """One curve.

    Attributes:
        label: in the legend. thresholds_mm, share: (T,). colour: number of its colour.
        style: of matplotlib.
    """

    label: str
    thresholds_mm: NDArray[np.float64]
    share: NDArray[np.float64]
    colour: int
    style: str = "-"


def plot_pck(name: str, reports: Sequence[Report]) -> bytes | None:
    """A PNG, 1200 x 900: share of joints over the threshold from 0 to 50 mm.

    Args:
        name: of the set, for the title. reports: of that set, a colour for each protocol.

    Returns:
        None where no report has a curve.
    """
    lines = [
        Line(
            f"{report.protocol_name}, {_WORDS[curve.alignment]}: "
            f"AUC 0-50 {curve.auc_0_50:.3f}, 20-50 {curve.auc_20_50:.3f}",
            curve.thresholds_mm,
            curve.share,
            k,
            _STYLES[curve.alignment],
        )
        for k, report in enumerate(reports)
        for curve in report.curves
    ]
    if not lines:
        return None
    return draw_panels({f"{name} ({max(report.hands for report in reports):,} hands)": lines})


def draw_panels(panels: Mapping[str, Sequence[Line]]) -> bytes:
    """A PNG, 1200 x 900 each: titled panels side by side, from 0 to 50 mm."""
    figure = Figure(figsize=(8 * len(panels), 6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, lines) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        for line in lines:
            axes.plot(
                line.thresholds_mm,
                100 * line.share,
                line.style,
                color=_COLOURS[line.colour % len(_COLOURS)],
                linewidth=2,
                label=line.label,
            )
        axes.axvspan(20, 50, color="#000000", alpha=0.04, linewidth=0)
        axes.set_xlim(0, 50)
        axes.set_ylim(0, 100)
        axes.set_xlabel("error threshold, mm", fontsize=12)
        axes.set_ylabel("joints within it, %", fontsize=12)
        axes.set_title(title, fontsize=12)
        axes.grid(alpha=0.3)
        # Below the axes: a curve may run anywhere in them.
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
