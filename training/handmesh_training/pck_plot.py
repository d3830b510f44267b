"""PCK curves of one set as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .evaluation_report import Report

_COLOURS = ("#3b6ea8", "#c8553d", "#4f8a5b", "#7b5ea7")
_STYLES = {"none": "-", "root": "--"}
_WORDS = {"none": "camera frame", "root": "root-aligned"}


def plot_pck(name: str, reports: Sequence[Report]) -> bytes | None:
    """A PNG, 1200 x 900: share of joints over the threshold from 0 to 50 mm.

    Args:
        name: of the set, for the title. reports: of that set, a colour for each protocol.

    Returns:
        None where no report has a curve.
    """
    if not any(report.curves for report in reports):
        return None
    figure = Figure(figsize=(8, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for k, report in enumerate(reports):
        for curve in report.curves:
            axes.plot(
                curve.thresholds_mm,
                100 * curve.share,
                _STYLES[curve.alignment],
                color=_COLOURS[k % len(_COLOURS)],
                linewidth=2,
                label=f"{report.protocol_name}, {_WORDS[curve.alignment]}: "
                f"AUC 0-50 {curve.auc_0_50:.3f}, 20-50 {curve.auc_20_50:.3f}",
            )
    axes.axvspan(20, 50, color="#000000", alpha=0.04, linewidth=0)
    axes.set_xlim(0, 50)
    axes.set_ylim(0, 100)
    axes.set_xlabel("error threshold, mm", fontsize=12)
    axes.set_ylabel("joints within it, %", fontsize=12)
    axes.set_title(f"{name} ({max(report.hands for report in reports):,} hands)", fontsize=12)
    axes.grid(alpha=0.3)
    # Below the axes: a curve may run anywhere in them.
    figure.legend(loc="outside lower center", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
