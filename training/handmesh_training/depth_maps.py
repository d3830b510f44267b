"""Reference depth maps D of the paper's Eq. (7), cut from a depth camera's picture.

Two values stand for what is not a depth: `UNKNOWN` where the sensor saw nothing, or something that
is not the hand, and `FAR` where it looked past the hand.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from handmesh.types import Box

Depths = NDArray[np.float32]

UNKNOWN, FAR = np.float32(np.nan), np.float32(np.inf)
# A hand's surface is nowhere farther from the wrist's depth than this, in lengths of the middle
# finger's first bone: from wrist to middle tip it measures about 3.9 of them.
REACH_BONES = 4.2
MCP_JOINTS = (5, 9, 13, 17)
# The labelled mesh ends this share of the palm's length below the wrist; farther down is arm.
WRIST_END = 0.08


def reference_depth(
    depth_m: Depths,
    box: Box,
    joints_px: NDArray[np.float64],
    root_depth_m: float,
    bone_m: float,
    side: int,
) -> Depths:
    """The depth picture in a hand's crop, relative to the wrist.

    Args:
        depth_m: (H, W) metres, 0 where the sensor saw nothing; aligned with the colour picture.
        box: the crop. joints_px: (21, 2) pixels of the whole picture.
        root_depth_m: depth of the wrist joint. bone_m: length of the middle finger's first bone.
        side: S of the result, pixels; nearest neighbour, for depths of two surfaces must not mix.

    Returns:
        (S, S) float32 in bones behind the wrist, `UNKNOWN` or `FAR`. Unknown are holes, what stands
        before the hand, the forearm, and what lies outside the picture.
    """
    centres = (np.arange(side) + 0.5) / side
    uv = np.stack(np.meshgrid(centres, centres), axis=-1)  # (S, S, 2)
    points = box.to_image(uv)  # (S, S, 2)
    column, row = np.round(points).astype(np.int64).transpose(2, 0, 1)
    height, width = depth_m.shape
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    metres = depth_m[row.clip(0, height - 1), column.clip(0, width - 1)]
    bones = ((metres - root_depth_m) / bone_m).astype(np.float32)
    result = np.where(bones > REACH_BONES, FAR, bones)
    known = inside & (metres > 0) & (bones > -REACH_BONES)
    # The arm reaches as near as the hand, but no mesh is fitted to it.
    wrist, palm = joints_px[0], joints_px[list(MCP_JOINTS)].mean(axis=0) - joints_px[0]
    along = (points - wrist) @ palm / max(float(palm @ palm), 1e-12)  # (S, S) share of the palm
    known &= (along > -WRIST_END) | ~np.isfinite(result)
    return np.where(known, result, UNKNOWN).astype(np.float32)


def warp_depth(
    stored: Depths, maps: NDArray[np.float64], side: int
) -> tuple[Depths, NDArray[np.bool_]]:
    """Depth maps as crops are drawn from stored ones.

    Args:
        stored: (B, D, D), see `reference_depth`. maps: (B, 2, 3) from stored crop fractions to the
            drawn crop's, see `augment.Augmentation.with_maps`. side: S of the result.

    Returns:
        depth (B, S, S) float32, `FAR` among it, 0 where unknown; known (B, S, S) bool.
    """
    batch, size = len(stored), stored.shape[-1]
    centres = (np.arange(side) + 0.5) / side
    uv = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)  # (S * S, 2)
    inverse = np.linalg.inv(maps[:, :, :2])  # (B, 2, 2)
    source = np.einsum("bij,bpj->bpi", inverse, uv[None] - maps[:, None, :, 2])  # (B, S * S, 2)
    cell = np.floor(source * size).astype(np.int64)
    inside = ((cell >= 0) & (cell < size)).all(axis=-1)
    column, row = cell.clip(0, size - 1).transpose(2, 0, 1)
    found = stored[np.arange(batch)[:, None], row, column]
    known = (inside & ~np.isnan(found)).reshape(batch, side, side)
    depth = found.reshape(batch, side, side)
    return np.where(known, depth, 0).astype(np.float32), known
