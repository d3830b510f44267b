"""MediaPipe's ``hand_landmark`` as what `handmesh evaluate` measures: from a given box on, by the
rules of MediaPipe's own graph.

MediaPipe shows its network a square turned so that the hand points up: first by its palm detector,
then, frame by frame, by the landmarks of the frame before (``HandLandmarkLandmarksToRoi``). Here a
box takes the detector's place: the hand is looked at as it is and turned by quarters, the look of
the highest presence counts, and from there the region follows the landmarks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from handmesh.errors import InputError
from handmesh.imaging import Pyramid
from handmesh.types import Box
from handmesh_training.estimators import Estimate, Query
from handmesh_training.protocols import Protocol

from .landmark_network import LandmarkNetwork, Landmarks

__all__ = ["Joints", "LandmarkEstimator", "next_region"]

Joints = Literal["world", "picture"]

# The joints that the next region is made of: wrist, the thumb up to its last joint, and of each
# finger the first two.
_STABLE = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)
_WRIST, _INDEX, _MIDDLE, _RING = 0, 5, 9, 13
# Side of the region over that of the box around those, and its middle's way towards the fingers in
# heights of that box.
_SCALE, _SHIFT = 2.0, 0.1
# What MediaPipe divides depths of the picture by (``normalize_z`` of hand_landmark_cpu.pbtxt).
_DEPTH = 0.4
_QUARTERS = tuple(np.pi / 2 * n for n in range(4))


def next_region(joints_px: ArrayLike) -> Box:
    """Where MediaPipe looks next, from the joints (21, 2) in pixels that it saw.

    Raises:
        BoxError: the joints are all in one place.
    """
    joints = np.asarray(joints_px, dtype=np.float64)
    # The mean of the knuckles, the middle finger's counted twice.
    knuckles = (joints[_INDEX] + joints[_RING]) / 4 + joints[_MIDDLE] / 2
    dx, dy = knuckles - joints[_WRIST]
    angle = float(np.arctan2(dx, -dy))  # 0 where the hand points up
    stable = joints[list(_STABLE)]
    box = Box.from_points(stable, _SCALE, angle)
    upwards = np.array([np.sin(angle), -np.cos(angle)])
    along = stable @ upwards
    cx, cy = (box.cx, box.cy) + _SHIFT * (along.max() - along.min()) * upwards
    return Box(float(cx), float(cy), box.size, angle)


class LandmarkEstimator:
    """See `handmesh_training.estimators.Estimator`. It returns no mesh, and its joints in 3D have
    an origin of their own: they are for comparison after alignment.

    Args:
        network: what it says of a crop (S, S, 3). size: S. name, sha256: of the network.
        joints: those in 3D: "world" landmarks, in metres, or those of the "picture" with their
            depth, in pixels.
        follow: how often the region follows the landmarks, as it does from frame to frame.
    """

    def __init__(
        self,
        network: Callable[[NDArray[np.uint8]], Landmarks],
        size: int,
        name: str,
        sha256: str,
        joints: Joints = "world",
        follow: int = 2,
    ) -> None:
        self._network, self._size, self._joints, self._follow = network, size, joints, follow
        self.description: Mapping[str, str | int] = {
            "kind": "peer",
            "name": name,
            "sha256": sha256,
            "joints": joints,
        }

    @classmethod
    def load(cls, path: Path, threads: int, joints: Joints = "world") -> LandmarkEstimator:
        """Of a file of MediaPipe's wheel, in LiteRT.

        Raises:
            BackendUnavailable: LiteRT is not installed.
        """
        network = LandmarkNetwork(path, threads)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        return cls(network, network.shape[1], path.stem, sha256, joints)

    def require(self, protocol: Protocol) -> None:
        if not protocol.box or protocol.camera:
            raise InputError(
                "MediaPipe's network is told the box and cannot be told the camera: choose the "
                "protocol in_the_wild"
            )

    def estimate(self, queries: Sequence[Query]) -> list[Estimate | None]:
        return [self._estimate(query) for query in queries]

    def _estimate(self, query: Query) -> Estimate:
        if query.box is None:
            raise InputError("MediaPipe's network must be told the box")
        pyramid, box = Pyramid(query.image), query.box
        regions = [Box(box.cx, box.cy, box.size, box.angle + turn) for turn in _QUARTERS]
        looks = [self._network(pyramid.crop(region, self._size)) for region in regions]
        best = int(np.argmax([look.presence for look in looks]))
        region, look = regions[best], looks[best]
        for _ in range(self._follow):
            region = next_region(self._on_photo(region, look))
            look = self._network(pyramid.crop(region, self._size))
        return Estimate(
            joints_px=self._on_photo(region, look),
            joints_m=_turned(self._in_3d(look), region.angle),
            vertices_m=np.zeros((0, 3)),
            handedness="right" if look.right > 0.5 else "left",
            presence=look.presence,
            crops_seen=len(_QUARTERS) + self._follow,
        )

    def _in_3d(self, look: Landmarks) -> NDArray[np.float32]:
        if self._joints == "world":
            return look.world
        joints = look.screen.copy()
        joints[:, 2] /= _DEPTH
        return joints

    def _on_photo(self, region: Box, look: Landmarks) -> NDArray[np.float64]:
        """(21, 2) pixels of the photo."""
        return region.to_image(look.screen[:, :2] / np.float64(self._size))


def _turned(points: NDArray[np.float32], angle: float) -> NDArray[np.float64]:
    """(N, 3) of the crop's axes on the photo's."""
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    return np.asarray(points, dtype=np.float64) @ turn.T
