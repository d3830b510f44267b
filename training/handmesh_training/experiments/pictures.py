"""The paper's Fig. 6 with our own hands: what weak supervision does to the surface."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from handmesh.atomic import write_atomic

from ..datasets.sample import Sample
from ..preview import GUTTER, PAPER, contact_sheet
from .hands import Hands
from .lab import Lab
from .tables import weak_checkpoints

TILE, CAPTION = 200, 28


def compare_meshes(lab: Lab, path: Path, seed: int = 0, count: int = 4) -> None:
    """Write a PNG: hands of the second domain in rows; the picture, the true mesh and those of the
    studied networks in columns."""
    hands = lab.validation["second"]
    rows = [i * len(hands.images) // count for i in range(count)]
    columns: dict[str, list[Sample]] = {
        "picture": [_sample(hands, i, None) for i in rows],
        "truth": [_sample(hands, i, hands.vertices_m[i]) for i in rows],
    }
    for name, checkpoint in weak_checkpoints(lab, seed).items():
        _, vertices = lab.predict(checkpoint, hands)
        if vertices is not None:
            columns[name] = [_sample(hands, i, vertices[i]) for i in rows]
    strips = [_column(name, samples) for name, samples in columns.items()]
    encoded = cv2.imencode(".png", np.hstack(strips)[..., ::-1])[1]
    write_atomic(path, encoded.tobytes())


def _column(name: str, samples: list[Sample]) -> NDArray[np.uint8]:
    view = "picture" if name == "picture" else "mesh"
    sheet = contact_sheet(samples, (view,), TILE, columns=1)
    head = np.full((CAPTION, sheet.shape[1], 3), PAPER, dtype=np.uint8)
    cv2.putText(head, name, (GUTTER, CAPTION - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.45,
                (230, 230, 230), 1, cv2.LINE_AA)  # fmt: skip
    return np.vstack([head, sheet])


def _sample(hands: Hands, index: int, vertices_m: NDArray[np.float64] | None) -> Sample:
    """One hand of the set, drawn four times as large, with a mesh."""
    zoom = 4
    image = cv2.resize(hands.images[index], None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
    fx, fy, cx, cy = hands.intrinsics[index]
    # Pixel centres are at integers: half a pixel of the small picture becomes two of the large.
    lens = np.array([[fx * zoom, 0, (cx + 0.5) * zoom - 0.5], [0, fy * zoom, 0], [0, 0, 1]])
    lens[1, 2] = (cy + 0.5) * zoom - 0.5
    joints = hands.joints_m[index]
    seen = joints @ lens.T
    return Sample(
        key=str(index),
        image=np.asarray(image, dtype=np.uint8),
        is_right=True,
        joints_px=seen[:, :2] / seen[:, 2:],
        joint_known=np.ones(21, dtype=bool),
        intrinsics=lens,
        joints_m=joints,
        vertices_m=None if vertices_m is None else vertices_m.astype(np.float32),
    )
