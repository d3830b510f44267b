"""Kinds of hands that figures are told apart by: view, gesture, skin, company."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from handmesh.errors import InputError
from handmesh.types import ROOT_JOINT

# Joints: the bases of index, middle and little finger.
INDEX, MIDDLE, LITTLE = 5, 9, 17
# A hand points along the line of sight where its middle metacarpal is within 45 degrees of it.
ALONG = float(np.cos(np.deg2rad(45)))
VIEWS = ("palm", "back", "thumb's side", "little finger's side", "fingertips", "from the wrist")

# Of the Monk scale, light to dark.
TONES: Mapping[str, range] = {
    "Monk 1 to 3": range(1, 4),
    "Monk 4 to 6": range(4, 7),
    "Monk 7 to 10": range(7, 11),
}
FREE_POSE = "free or between gestures"


class GroupFigures(NamedTuple):
    """Means over the hands of one group.

    Attributes:
        kind: what is told apart: view, gesture, skin, hands. name: of the group.
        asked: how many hands. hands: of these, those that were compared; the others were not found.
        figures: means by the names of docs/evaluation.md, of those hands that have them.
    """

    kind: str
    name: str
    asked: int
    hands: int
    figures: Mapping[str, float]


def view_of(
    joints_m: NDArray[np.floating], is_right: bool, sight: NDArray[np.floating] | None = None
) -> str:
    """Which side of a hand its camera sees, one of `VIEWS`.

    Args:
        joints_m: (21, 3) in the camera's frame, in any unit. The wrist and the bases of index,
            middle and little finger must be known.
        is_right: the person's right hand, in a picture that is not mirrored.
        sight: (3,) from the camera to the hand; without it, from the origin to the palm.
    """
    joints = np.asarray(joints_m, dtype=np.float64)
    if sight is None:
        sight = joints[[ROOT_JOINT, INDEX, MIDDLE, LITTLE]].mean(axis=0)
    sight = np.float64(sight) / np.linalg.norm(sight)
    fingers = joints[MIDDLE] - joints[ROOT_JOINT]
    fingers /= np.linalg.norm(fingers)
    along = float(fingers @ sight)
    if abs(along) > ALONG:
        return "from the wrist" if along > 0 else "fingertips"
    across = joints[LITTLE] - joints[INDEX]  # from the thumb's side to the other
    palm = np.cross(fingers, across) * (1 if is_right else -1)  # points out of the palm
    palm /= np.linalg.norm(palm)
    facing = -float(palm @ sight)
    if abs(facing) > ALONG:
        return "palm" if facing > 0 else "back"
    return "thumb's side" if float(across @ sight) > 0 else "little finger's side"


def tone_of(monk: int) -> str:
    """The group of a Monk tone.

    Raises:
        InputError: not a whole number from 1 to 10.
    """
    for name, tones in TONES.items():
        if monk in tones:
            return name
    raise InputError(f"tones of the Monk scale are 1 to 10, got {monk}")


class GroupTally:
    """Figures of hands, gathered by group."""

    def __init__(self) -> None:
        self._hands: dict[tuple[str, str], list[Mapping[str, float]]] = {}
        self._compared: Counter[tuple[str, str]] = Counter()

    def add(
        self, groups: Mapping[str, str], figures: Mapping[str, float], compared: bool = True
    ) -> None:
        """One hand: its groups by kind, its figures by name, and whether it was found at all."""
        for group in groups.items():
            self._hands.setdefault(group, []).append(figures)
            self._compared[group] += compared

    def report(self) -> Iterator[GroupFigures]:
        """Kinds in the order in which they came, the largest groups of each first."""
        kinds = list(dict.fromkeys(kind for kind, _ in self._hands))
        rows = sorted(self._hands.items(), key=lambda row: (kinds.index(row[0][0]), -len(row[1])))
        for group, hands in rows:
            names = dict.fromkeys(figure for hand in hands for figure in hand)
            means = {
                figure: float(np.mean([hand[figure] for hand in hands if figure in hand]))
                for figure in names
            }
            yield GroupFigures(*group, len(hands), self._compared[group], means)


def group_table(groups: Sequence[GroupFigures]) -> str:
    """Markdown: a line a group. Errors are of "hands"; where some were not found, "asked" counts
    these as well, and "found" is the share that was, in its place."""
    named = {
        "found": ("found, %", 100.0),
        "image_share": ("2D, % of the box", 100.0),
        "joints_mm": ("joints, mm", 1.0),
        "joints_pa_mm": ("joints PA, mm", 1.0),
        "mesh_mm": ("mesh, mm", 1.0),
    }
    present = [name for name in named if any(name in group.figures for group in groups)]
    some_missed = any(group.asked != group.hands for group in groups)
    counts = ["asked", "hands"] if some_missed else ["hands"]
    heads = ["", "", *counts, *(named[name][0] for name in present)]
    lines = ["| " + " | ".join(heads) + " |", "| --- | --- |" + " ---: |" * (len(heads) - 2)]
    kind = None
    for group in groups:
        values = [
            f"{named[name][1] * group.figures[name]:.1f}" if name in group.figures else ""
            for name in present
        ]
        shown = group.kind if group.kind != kind else ""
        numbers = [f"{getattr(group, name):,}" for name in counts]
        lines.append("| " + " | ".join([shown, group.name, *numbers, *values]) + " |")
        kind = group.kind
    return "\n".join(lines)
