"""What rendered samples cover: poses, views, skin tones, sizes. Drawn, not rendered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from handmesh.errors import InputError
from handmesh.types import FINGERS

from .rendered import BLOCK, HandRenderer
from .tones import nearest_monk, skin_albedo

Array = NDArray[np.float64]

# Cells of equal area on the sphere of views: rows in the sine of the latitude, columns.
CELLS = (12, 24)
INDEX_MCP, MIDDLE_MCP, LITTLE_MCP = 5, 9, 17


@dataclass(frozen=True, eq=False)
class Coverage:
    """N hands, one row each.

    Attributes:
        bend_deg: (N, 5, 3) angle between the bones that meet at each joint, fingers from the thumb,
            joints from the base; 0 = straight.
        view_deg: (N, 2) longitude and latitude of the camera as the hand sees it: (0, 0) faces the
            palm, (90, 0) the thumb's side, (180, 0) the back; latitude 90 looks at the finger tips,
            -90 comes from the wrist.
        roll_deg: (N,) direction of wrist to middle knuckle in the picture; 0 = up, clockwise.
        skin_tone: (N,) tone of the Monk scale, 1 to 10.
        distance_m: (N,) from the camera to the hand's middle.
        crop_fov_deg: (N,) field of view of the crop.
        off_axis_deg: (N,) between the hand's middle and the camera's axis.
        hand_length_m: (N,) from the wrist along the middle finger to its tip, bone by bone.
        gesture: (N,) index in the gesture library, -1 for transitions and free poses.
        empty_share: share of samples without a hand, which are not among the N.
    """

    bend_deg: Array
    view_deg: Array
    roll_deg: Array
    skin_tone: NDArray[np.int64]
    distance_m: Array
    crop_fov_deg: Array
    off_axis_deg: Array
    hand_length_m: Array
    gesture: NDArray[np.int64]
    empty_share: float

    def __len__(self) -> int:
        return len(self.roll_deg)


def cover(renderer: HandRenderer, count: int) -> Coverage:
    """Look at the first ``count`` samples.

    Raises:
        InputError: fewer than one sample, or none with a hand.
    """
    if count < 1:
        raise InputError(f"expected at least one sample, got {count}")
    parts: dict[str, list[NDArray[Any]]] = {}
    side = renderer.settings.crop_px
    with tqdm(total=count, desc="drawing", unit="hand") as bar:
        for first in range(0, count, BLOCK):
            scene = renderer.draw(range(first, min(first + BLOCK, count)))
            rows = scene.views.in_view
            joints = scene.views.joints_m[rows].astype(np.float64)  # (B, 21, 3)
            middle = joints.mean(axis=1)
            look = {
                "bend_deg": _bends(joints),
                "view_deg": _directions(joints),
                "roll_deg": _rolls(joints),
                "skin_tone": nearest_monk(skin_albedo(scene.look, renderer.skins))[rows],
                "distance_m": np.linalg.norm(middle, axis=1),
                "crop_fov_deg": np.rad2deg(
                    2 * np.arctan(0.5 * side / scene.views.intrinsics[rows, 0].astype(np.float64))
                ),
                "off_axis_deg": np.rad2deg(
                    np.arctan2(np.hypot(middle[:, 0], middle[:, 1]), middle[:, 2])
                ),
                "hand_length_m": _lengths(joints),
                "gesture": scene.views.gesture[rows].astype(np.int64),
            }
            for name, values in look.items():
                parts.setdefault(name, []).append(values)
            bar.update(len(scene))
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    hands = len(joined["roll_deg"])
    if not hands:
        raise InputError("no sample shows a hand; lower the share of empty ones")
    return Coverage(**joined, empty_share=1 - hands / count)


def _bends(joints: Array) -> Array:
    chains = [[0, *chain] for chain in FINGERS.values()]  # from the wrist
    bends = []
    for chain in chains:
        bones = np.diff(joints[:, chain], axis=1)  # (B, 4, 3)
        bones /= np.linalg.norm(bones, axis=-1, keepdims=True)
        cosine = np.einsum("bki,bki->bk", bones[:, 1:], bones[:, :-1])
        bends.append(np.rad2deg(np.arccos(np.clip(cosine, -1, 1))))
    return np.stack(bends, axis=1)  # (B, 5, 3)


def _frames(joints: Array) -> tuple[Array, Array, Array]:
    """Unit vectors towards the thumb's side, the finger tips and out of the palm of right hands."""
    up = joints[:, MIDDLE_MCP] - joints[:, 0]
    up /= np.linalg.norm(up, axis=1, keepdims=True)
    across = joints[:, INDEX_MCP] - joints[:, LITTLE_MCP]
    thumb = across - np.einsum("bi,bi->b", across, up)[:, None] * up
    thumb /= np.linalg.norm(thumb, axis=1, keepdims=True)
    return thumb, up, np.cross(thumb, up)


def _directions(joints: Array) -> Array:
    thumb, up, palm = _frames(joints)
    towards = -joints.mean(axis=1)
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    along = [np.einsum("bi,bi->b", towards, axis) for axis in (thumb, up, palm)]
    longitude = np.arctan2(along[0], along[2])
    return np.rad2deg(np.stack([longitude, np.arcsin(np.clip(along[1], -1, 1))], axis=1))


def _rolls(joints: Array) -> Array:
    seen = joints[..., :2] / joints[..., 2:]
    up = seen[:, MIDDLE_MCP] - seen[:, 0]
    return np.rad2deg(np.arctan2(up[:, 0], -up[:, 1]))


def _lengths(joints: Array) -> Array:
    chain = [0, *FINGERS["middle"]]
    return np.linalg.norm(np.diff(joints[:, chain], axis=1), axis=-1).sum(axis=1)


def cell_counts(view_deg: Array) -> NDArray[np.int64]:
    """Hands in each of the `CELLS` of equal area, south to north, then west to east."""
    counts, _, _ = np.histogram2d(
        np.sin(np.deg2rad(view_deg[:, 1])), view_deg[:, 0], CELLS, [[-1, 1], [-180, 180]]
    )
    return counts.astype(np.int64)


def summary(coverage: Coverage) -> dict[str, Any]:
    """The same as figures that fit into a JSON file: percentiles, counts, shares."""
    figures: dict[str, Any] = {
        "hands": len(coverage),
        "empty_share": coverage.empty_share,
        "gestures_seen": len(np.unique(coverage.gesture[coverage.gesture >= 0])),
        "gesture_share": float((coverage.gesture >= 0).mean()),
        "monk_tones": np.bincount(coverage.skin_tone, minlength=11)[1:].tolist(),
    }
    cells = cell_counts(coverage.view_deg)
    figures["views"] = {
        "cells": cells.size,
        "cells_seen": int((cells > 0).sum()),
        "fewest_and_most_in_a_cell": [int(cells.min()), int(cells.max())],
    }
    marks = (1, 5, 25, 50, 75, 95, 99)
    rows = {k: v for k, v in asdict(coverage).items() if k.endswith(("_m", "_deg"))}
    del rows["view_deg"], rows["bend_deg"]
    for f, finger in enumerate(FINGERS):
        for j in range(3):
            rows[f"bend_deg.{finger}.{j}"] = coverage.bend_deg[:, f, j]
    figures["percentiles"] = {
        name: {str(mark): round(float(np.percentile(values, mark)), 4) for mark in marks}
        for name, values in rows.items()
    }
    return figures


def joint_names() -> Iterable[str]:
    """What the 15 bends are called, in their order."""
    return (f"{finger} {joint}" for finger in FINGERS for joint in ("base", "middle", "end"))
