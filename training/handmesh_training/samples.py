"""What one training sample is, whatever it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

# Of the outline of each hand. Of an open hand that fills its crop they lie some 4 px of 128 apart.
OUTLINE_POINTS = 128


@dataclass(frozen=True, eq=False)
class Crops:
    """N crops of one size with whatever labels their source has.

    Crop fractions u, v, in [0, 1] inside the crop; depth d in lengths of the middle finger's first
    bone, relative to the wrist.

    Attributes:
        images: (N, S, S, 3) uint8 RGB.
        joints: (N, 21, 3) float32 (u, v, d); (u, v) means something where has_joints, d where
            has_depth.
        vertices: (N, V, 3) float32 (u, v, d) of our mesh; means something where has_mesh.
        crop_in_bones: (N,) float32, the crop's side at the wrist's depth in bones; 1 if unknown.
        has_hand: (N,) bool, a hand is there, about in the middle and of a usable size.
        has_joints: (N,) bool, (u, v) of the joints are labelled.
        has_depth: (N,) bool, depth of the joints is labelled, and is that of a right hand.
        has_mesh: (N,) bool, the same of our mesh. Other people's sets have joints alone.
        is_right: (N,) bool, the crop shows a right hand (meaningful where has_hand).
        taught: (N, 21) bool, of labelled joints those that a network is to learn; the others only
            tell where the hand is.
        outline: (N, OUTLINE_POINTS, 2) float32 (u, v) of a closed outline, in order; of the hand
            where outline_known.
        outline_known: (N, OUTLINE_POINTS) bool, points that are on the hand's own outline. Hands
            with a labelled mesh need none.
    """

    images: NDArray[np.uint8]
    joints: NDArray[np.float32]
    vertices: NDArray[np.float32]
    crop_in_bones: NDArray[np.float32]
    has_hand: NDArray[np.bool_]
    has_joints: NDArray[np.bool_]
    has_depth: NDArray[np.bool_]
    has_mesh: NDArray[np.bool_]
    is_right: NDArray[np.bool_]
    taught: NDArray[np.bool_]
    outline: NDArray[np.float32]
    outline_known: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: NDArray[np.integer] | slice) -> Crops:
        """The crops at ``indices``, copied unless it is a slice."""
        return Crops(*(getattr(self, field.name)[indices] for field in fields(self)))

    @staticmethod
    def concatenate(parts: Sequence[Crops]) -> Crops:
        """All crops of several sets, which must have the same sizes."""
        return Crops(
            *(np.concatenate([getattr(p, field.name) for p in parts]) for field in fields(Crops))
        )

    @staticmethod
    def empty(count: int, side: int, vertex_count: int) -> Crops:
        """Storage for ``count`` crops, to be filled in place: black, without any label, but of what
        will be labelled all is taught."""
        has_hand, has_joints, has_depth, has_mesh, is_right = np.zeros((5, count), dtype=bool)
        return Crops(
            np.zeros((count, side, side, 3), dtype=np.uint8),
            np.zeros((count, 21, 3), dtype=np.float32),
            np.zeros((count, vertex_count, 3), dtype=np.float32),
            np.ones(count, dtype=np.float32),
            has_hand, has_joints, has_depth, has_mesh, is_right,
            np.ones((count, 21), dtype=bool),
            *no_outlines(count),
        )  # fmt: skip

    def put(self, indices: NDArray[np.integer], other: Crops) -> None:
        """Overwrite the rows ``indices`` with ``other``."""
        for field in fields(self):
            getattr(self, field.name)[indices] = getattr(other, field.name)


def no_outlines(count: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """``outline`` and ``outline_known`` of crops without."""
    return (
        np.zeros((count, OUTLINE_POINTS, 2), dtype=np.float32),
        np.zeros((count, OUTLINE_POINTS), dtype=bool),
    )
