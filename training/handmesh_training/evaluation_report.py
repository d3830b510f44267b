"""What an evaluation found, for readers and for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import handmesh

from .groups import GroupFigures, group_table
from .protocols import STANDARD, Protocol

# Of the JSON file; raised when a reader of the old form would misread the new one.
SCHEMA = 1

# What is done to a prediction before it is compared: nothing, in the camera's frame; its wrist is
# moved to the true one; the best similarity, fitted to the very points that are compared; or the
# one fitted to the joints, for meshes whose vertices do not correspond.
Alignment = Literal["none", "root", "procrustes", "procrustes_joints"]
Unit = Literal["mm", "px", "share", ""]

_MARKS: Mapping[Unit, tuple[float, str]] = {
    "mm": (1.0, "mm"),
    "px": (1.0, "px"),
    "share": (100.0, "%"),
    "": (1.0, ""),
}


@dataclass(frozen=True)
class Figure:
    """One number.

    Attributes:
        name: as documented in docs/evaluation.md. value: in ``unit``.
        count: hands that it is of.
        alignment: of the prediction to the truth; None where there is nothing to align.
    """

    name: str
    value: float
    unit: Unit
    count: int
    alignment: Alignment | None = None


@dataclass(frozen=True, eq=False)
class Curve:
    """PCK of the joints: the share whose 3D error is at most a threshold.

    Attributes:
        alignment: of the prediction to the truth.
        thresholds_mm, share: (T,) float64.
        auc_0_50, auc_20_50: area under it between those thresholds in mm, best 1.
    """

    alignment: Alignment
    thresholds_mm: NDArray[np.float64]
    share: NDArray[np.float64]
    auc_0_50: float
    auc_20_50: float


@dataclass(frozen=True, eq=False)
class Report:
    """One set under one protocol.

    Attributes:
        name: of the set. protocol: what was given of each hand.
        hands: how many were compared. left_out: how many were not, by reason.
        figures, curves: those that there is something to say of.
        groups: figures by view, gesture and skin, as far as the labels tell them.
        boxes: in how many each hand was asked for; all counts are of hands times these.
    """

    name: str
    protocol: Protocol
    hands: int
    left_out: Mapping[str, int]
    figures: Sequence[Figure]
    curves: Sequence[Curve]
    groups: Sequence[GroupFigures] = ()
    boxes: int = 1

    def __getitem__(self, name: str) -> Figure:
        """The figure of that name.

        Raises:
            KeyError: there is none.
        """
        return {figure.name: figure for figure in self.figures}[name]

    def __contains__(self, name: str) -> bool:
        return any(figure.name == name for figure in self.figures)

    @property
    def protocol_name(self) -> str:
        """Of `STANDARD`, or "other"."""
        return next((name for name, known in STANDARD.items() if known == self.protocol), "other")


def to_table(reports: Sequence[Report], groups: bool = False) -> str:
    """One line a figure, aligned; shares in percent. With ``groups``, a table of those follows."""
    lines = []
    for report in reports:
        given = ", ".join(report.protocol.given()) or "nothing"
        each = "" if report.boxes == 1 else f", counting the {report.boxes} boxes of each"
        lines.append(f"{report.name} ({report.hands} hands{each})")
        lines.append(f"  protocol {report.protocol_name}; given: {given}")
        lines += [f"  left out: {count}, {why}" for why, count in report.left_out.items()]
        for figure in report.figures:
            factor, mark = _MARKS[figure.unit]
            digits = 2 if mark else 3
            notes = [] if figure.alignment in (None, "none") else [f"aligned: {figure.alignment}"]
            if figure.count != report.hands:
                notes.append(f"of {figure.count} hands")
            line = f"  {figure.name:<22}{factor * figure.value:10.{digits}f} {mark:<3}"
            lines.append(f"{line} {'; '.join(notes)}".rstrip())
        if groups and report.groups:
            lines.append(f"\n{group_table(report.groups)}\n")
    return "\n".join(lines)


def to_dict(estimator: Mapping[str, str | int], reports: Sequence[Report]) -> dict[str, Any]:
    """For JSON: ``schema``, ``handmesh`` (the version), ``estimator``, ``reports``.

    Args:
        estimator: `Estimator.description`.
    """
    return {
        "schema": SCHEMA,
        "handmesh": handmesh.__version__,
        "estimator": dict(estimator),
        "reports": [
            {
                "set": report.name,
                "protocol": {"name": report.protocol_name, **asdict(report.protocol)},
                "hands": report.hands,
                "boxes": report.boxes,
                "left_out": dict(report.left_out),
                "figures": [
                    {**asdict(figure), "given": list(report.protocol.given())}
                    for figure in report.figures
                ],
                "pck": [
                    {
                        "alignment": curve.alignment,
                        "auc_0_50": curve.auc_0_50,
                        "auc_20_50": curve.auc_20_50,
                        "thresholds_mm": curve.thresholds_mm.tolist(),
                        "share": curve.share.tolist(),
                    }
                    for curve in report.curves
                ],
                "groups": [group._asdict() for group in report.groups],
            }
            for report in reports
        ],
    }
