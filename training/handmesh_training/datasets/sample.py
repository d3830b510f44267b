"""The one sample type that every data set, read or rendered, is turned into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from handmesh.errors import InputError
from handmesh.types import JOINT_NAMES

from ..samples import OUTLINE_POINTS

JOINT_COUNT = len(JOINT_NAMES)


@dataclass(frozen=True, eq=False)
class Sample:
    """One hand in one picture. Camera frame: +x right, +y down, +z away; pixel centres at integers.

    Attributes:
        key: name of the sample, unique in its set and the same at every reading.
        image: (H, W, 3) uint8 RGB.
        is_right: the person's right hand, in a picture that is not mirrored; None where the set
            does not tell.
        joints_px: (21, 2) float64 pixels of ``image``, in the order of `handmesh.JOINT_NAMES`.
        joint_known: (21,) bool, False for joints without a label; theirs are NaN.
        joint_taught: (21,) bool, False for known joints that only tell where the hand is, and that
            no network is to learn; None for all of them. Evaluation compares them all the same.
        outline_px: (P, 2) float64 pixels of a closed outline, P = `samples.OUTLINE_POINTS`, in
            order, evenly spaced; or None. outline_known: (P,) bool, points on the hand's own.
        intrinsics: (3, 3) float64 camera matrix in pixels; None where the set does not tell.
        joints_m: (21, 3) float64 metres in the camera frame; None where there is no 3D label.
        vertices_m: (V, 3) float32 metres in the camera frame, of the set's own mesh; or None.
        our_mesh: whether that mesh is the networks' own, vertex by vertex.
        depth_m: (H, W) float32 metres of the nearest surface, 0 where unknown; or None.
        mask: (H, W) uint8 share of the pixel that the hand covers, 0..255; or None.
        groups: what else is known of the hand, as gesture or skin: kind to name.

    Raises:
        InputError: an array of another shape or dtype, or a value that is not finite.
    """

    key: str
    image: NDArray[np.uint8]
    is_right: bool | None
    joints_px: NDArray[np.float64]
    joint_known: NDArray[np.bool_]
    intrinsics: NDArray[np.float64] | None = None
    joints_m: NDArray[np.float64] | None = None
    vertices_m: NDArray[np.float32] | None = None
    depth_m: NDArray[np.float32] | None = None
    mask: NDArray[np.uint8] | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    joint_taught: NDArray[np.bool_] | None = None
    outline_px: NDArray[np.float64] | None = None
    outline_known: NDArray[np.bool_] | None = None
    our_mesh: bool = False

    def __post_init__(self) -> None:
        image = self.image
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise InputError(
                f"{self.key}: image: expected (H, W, 3) uint8, got {image.shape} {image.dtype}"
            )
        height, width = image.shape[:2]
        rules: dict[str, tuple[tuple[int | None, ...], type]] = {
            "joints_px": ((JOINT_COUNT, 2), np.float64),
            "joint_known": ((JOINT_COUNT,), np.bool_),
            "joint_taught": ((JOINT_COUNT,), np.bool_),
            "outline_px": ((OUTLINE_POINTS, 2), np.float64),
            "outline_known": ((OUTLINE_POINTS,), np.bool_),
            "intrinsics": ((3, 3), np.float64),
            "joints_m": ((JOINT_COUNT, 3), np.float64),
            "vertices_m": ((None, 3), np.float32),
            "depth_m": ((height, width), np.float32),
            "mask": ((height, width), np.uint8),
        }
        for name, (shape, dtype) in rules.items():
            array = getattr(self, name)
            if array is None:
                continue
            fits = array.ndim == len(shape) and all(
                wanted in (None, got) for wanted, got in zip(shape, array.shape, strict=True)
            )
            if not fits or array.dtype != dtype:
                raise InputError(
                    f"{self.key}: {name}: expected {shape} {np.dtype(dtype)}, "
                    f"got {array.shape} {array.dtype}"
                )
            labelled = array[self.joint_known] if name in ("joints_px", "joints_m") else array
            if not np.isfinite(labelled).all():
                raise InputError(f"{self.key}: {name} holds values that are not finite")
