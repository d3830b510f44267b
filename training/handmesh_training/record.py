"""One rendered hand with its labels, as it is written to disk and read back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handmesh.types import UNIT_BONE

from .datasets.sample import JOINT_COUNT, Sample
from .samples import Crops, no_outlines


@dataclass(frozen=True, eq=False)
class HandRecord:
    """A picture of one right hand. Camera frame: +x right, +y down, +z away; metres, pixels.

    Attributes:
        index: number of the sample.
        image: (S, S, 3) uint8 RGB.
        has_hand: False where the hand was left out; the labels below then mean nothing.
        intrinsics: (4,) float32 fx, fy, cx, cy in pixels, pixel centres at integers.
        joints_m: (21, 3) float32, in the order of `handmesh.types.JOINT_NAMES`.
        vertices_m: (V, 3) float32 of the networks' mesh, in its order.
        skin_tone: nearest tone of the Monk scale, 1 (light) to 10 (dark).
        gesture: its name in the gesture library; None for transitions and free poses.
        mask: (S, S) uint8 share of the pixel in which the hand is seen, 0..255; or None. The hand
            is what ``vertices_m`` is: it ends at the wrist. Arm, sleeve and partner are not in the
            mask, and they, as things do, leave a hole where they hide it.
        depth_m: (S, S) float32 metres of the nearest surface of what the mask shows, 0 = none; or
            None.
    """

    index: int
    image: NDArray[np.uint8]
    has_hand: bool
    intrinsics: NDArray[np.float32]
    joints_m: NDArray[np.float32]
    vertices_m: NDArray[np.float32]
    skin_tone: int
    gesture: str | None = None
    mask: NDArray[np.uint8] | None = None
    depth_m: NDArray[np.float32] | None = None

    @property
    def key(self) -> str:
        """The sample's name: its number, of one length for all, so that names sort as numbers."""
        return f"{self.index:09d}"

    def to_sample(self) -> Sample:
        """As what every data set is turned into; without a hand, no joint is known, nor a side."""
        fx, fy, cx, cy = (float(value) for value in self.intrinsics)
        joints = self.joints_m.astype(np.float64)  # (21, 3)
        joints_px = joints[:, :2] / joints[:, 2:] * (fx, fy) + (cx, cy)  # (21, 2)
        seen = self.has_hand
        return Sample(
            key=self.key,
            image=self.image,
            is_right=True if seen else None,
            joints_px=joints_px if seen else np.full((JOINT_COUNT, 2), np.nan),
            joint_known=np.full(JOINT_COUNT, seen),
            intrinsics=np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=np.float64),
            joints_m=joints if seen else None,
            vertices_m=self.vertices_m if seen else None,
            our_mesh=True,
            depth_m=self.depth_m,
            mask=self.mask,
        )


def to_crops(records: Sequence[HandRecord]) -> Crops:
    """Records, at least one and all of one size, as what networks are trained on."""
    lens = np.stack([record.intrinsics for record in records]).astype(np.float64)  # (N, 4)
    joints = np.stack([record.joints_m for record in records]).astype(np.float64)
    vertices = np.stack([record.vertices_m for record in records]).astype(np.float64)
    side = records[0].image.shape[0]
    start, end = UNIT_BONE
    bone = np.linalg.norm(joints[:, end] - joints[:, start], axis=-1)[:, None]  # (N, 1)
    root = joints[:, :1, 2]  # (N, 1)

    def normalised(points: NDArray[np.float64]) -> NDArray[np.float32]:
        """Crop fractions, counted from the crop's corner, and depth from the wrist in bones."""
        pixels = points[..., :2] / points[..., 2:] * lens[:, None, :2] + lens[:, None, 2:]
        depth = (points[..., 2] - root) / bone
        return np.concatenate([(pixels + 0.5) / side, depth[..., None]], -1).astype(np.float32)

    seen = np.array([record.has_hand for record in records])
    outline, outline_known = no_outlines(len(records))
    return Crops(
        images=np.stack([record.image for record in records]),
        joints=normalised(joints),
        vertices=normalised(vertices),
        crop_in_bones=(side / lens[:, 0] * root[:, 0] / bone[:, 0]).astype(np.float32),
        has_hand=seen,
        has_joints=seen.copy(),
        has_depth=seen.copy(),
        has_mesh=seen.copy(),
        is_right=np.ones(len(records), dtype=bool),
        taught=np.ones((len(records), 21), dtype=bool),
        outline=outline,
        outline_known=outline_known,
    )
