"""Rendered hands in the place of real data: seen by a depth camera, labelled as real sets are.

For trying fine-tuning out without a data set, and for measuring it: their true meshes are known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from handmesh.graph import Topology

from .datasets.sample import Sample
from .opencv import cv2
from .other_hand import hash_of
from .rendered import HandRenderer, RenderSettings
from .seeds import Purpose, generator
from .shards.manifest import engine_sha256

# Neighbouring pixels farther apart than this are on two surfaces: a finger and what is behind it.
JUMP_M = 0.02
# Of image coordinates that OpenCV is given.
SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class DepthSensor:
    """What a depth camera does to true depth.

    Attributes:
        noise_m: standard deviation at one metre; it grows with the square of the distance, as that
            of structured light and of stereo does (Khoshelham and Elberink 2012).
        step_m: levels that depth comes in, at one metre; growing likewise.
        holes: share of pixels without a reading; those at the edge of something, where depth jumps
            to what is behind it, go missing three times as often.
    """

    noise_m: float = 0.004
    step_m: float = 0.002
    holes: float = 0.05

    def see(self, rng: np.random.Generator, depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
        """(H, W) true metres, 0 for nothing, to what the sensor reads of them."""
        square = np.square(depth_m)
        noisy = depth_m + rng.normal(0, self.noise_m, depth_m.shape) * square
        step = np.maximum(self.step_m * square, 1e-6)
        read = np.round(noisy / step) * step
        there = depth_m > 0
        edge = there & _beside_a_jump(depth_m)
        missing = rng.random(depth_m.shape) < np.where(edge, 3 * self.holes, self.holes)
        return np.where(there & ~missing, read, 0).astype(np.float32)


def _beside_a_jump(depth_m: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(H, W) bool, pixels with a neighbour at quite another depth; 0 is another as well."""
    found = np.zeros(depth_m.shape, dtype=bool)
    for axis in (0, 1):
        jump = np.abs(np.diff(depth_m, axis=axis)) > JUMP_M
        for before in (True, False):
            ends = [(0, 0), (0, 0)]
            ends[axis] = (0, 1) if before else (1, 0)
            found |= np.pad(jump, ends)
    return found


class RenderedSamples:
    """The first ``count`` rendered hands of a seed, as a data set would give them.

    Behind the hand there is a wall, half a metre farther off: a depth camera sees something
    everywhere. What hides a part of the hand has no depth here, so nothing is read there.

    Attributes:
        split, revision: as of a `datasets.Dataset`. folder: None, for no file holds them.
    """

    WALL_M = 0.5
    folder = None
    revision = 1

    def __init__(
        self, settings: RenderSettings, seed: int, count: int, sensor: DepthSensor | None = None
    ) -> None:
        """
        Args:
            settings, seed: of the renderer; pictures are as large as its crops.
            count: hands. sensor: what sees depth; None for a perfect one.

        Raises:
            InputError: folders that do not hold what they should.
        """
        self.sensor = DepthSensor(0.0, 0.0, 0.0) if sensor is None else sensor
        # The split tells all that decides the samples: a cropped set goes by it.
        self.split = f"seed {seed}, {settings}, {self.sensor}, engine {engine_sha256()}"
        if settings.other_hand is not None:
            self.split += f", hand {hash_of(settings.other_hand)}"
        if settings.partners is not None:
            self.split += f", partners {settings.partners}"
        self.renderer = HandRenderer(replace(settings, empty=0.0), seed)
        self.seed, self.count = seed, count
        self._faces = Topology.default().faces

    def __len__(self) -> int:
        return self.count

    def group_of(self, index: int) -> int:
        """Each is another hand."""
        return index

    def __getitem__(self, index: int) -> Sample:
        (record,) = self.renderer.records([index])
        sample = record.to_sample()
        depth, joints = sample.depth_m, sample.joints_m
        if depth is None or joints is None:  # every rendered hand has both
            raise AssertionError(f"rendered hand {index} came without depth")
        wall = np.float32(joints[0, 2] + self.WALL_M)
        behind = np.where(self._hidden(sample), np.float32(0), wall)
        rng = generator(self.seed, Purpose.SENSOR, index)
        seen = self.sensor.see(rng, np.where(depth > 0, depth, behind))
        return replace(sample, depth_m=seen)

    def _hidden(self, sample: Sample) -> NDArray[np.bool_]:
        """(H, W) bool, pixels where the hand is, but something else is seen."""
        vertices, lens, depth = sample.vertices_m, sample.intrinsics, sample.depth_m
        if vertices is None or lens is None or depth is None:
            return np.zeros(sample.image.shape[:2], dtype=bool)
        seen = vertices @ lens.T.astype(np.float32)  # (V, 3)
        corners = np.round(seen[:, :2] / seen[:, 2:] * 2**SUBPIXEL_BITS).astype(np.int32)
        outline = np.zeros(depth.shape, dtype=np.uint8)
        for triangle in corners[self._faces]:
            cv2.fillConvexPoly(outline, triangle, 1, shift=SUBPIXEL_BITS)
        # OpenCV fills pixels that are only touched, too.
        inside = cv2.erode(outline, np.ones((3, 3), dtype=np.uint8))
        return np.asarray((inside > 0) & (depth == 0))
