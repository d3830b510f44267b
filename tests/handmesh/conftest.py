"""A hand that can be drawn exactly, and a network that reads it back: the SDK without training.

`SyntheticHand` is the template's joints somewhere in front of a camera; `paint` marks each joint in
a photo by a disc whose red value tells its number. `ReadingBackend` finds the discs in a crop. So
every step between the photo and the result has a known truth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from handmesh.backends import RawOutput
from handmesh.bundle import Bundle, io_specs, write_manifest
from handmesh.finding import search_windows
from handmesh.graph import Topology
from handmesh.types import Camera

IMAGE_SIZE = 128


@pytest.fixture(scope="session")
def topology() -> Topology:
    return Topology.default()


@dataclass(frozen=True)
class SyntheticHand:
    """Joints (21, 3) in camera space, metres; `left` if they are a left hand's."""

    joints_m: NDArray[np.float64]
    left: bool

    @property
    def bone_length_m(self) -> float:
        return float(np.linalg.norm(self.joints_m[10] - self.joints_m[9]))

    @property
    def depths(self) -> NDArray[np.float64]:
        """(21,), behind the wrist, in bone lengths."""
        return (self.joints_m[:, 2] - self.joints_m[0, 2]) / self.bone_length_m


@pytest.fixture(scope="session")
def make_hand(topology: Topology) -> Callable[..., SyntheticHand]:
    rest = topology.joint_regressor.astype(np.float64) @ topology.template_vertices_m
    rest -= rest[0]

    def make(
        wrist_m: tuple[float, float, float] = (0, 0.05, 0.5), turn: float = 0.3, left: bool = False
    ) -> SyntheticHand:
        """The template's rest pose, turned about its own long axis, at a place in space."""
        cos, sin = np.cos(turn), np.sin(turn)
        joints = rest @ np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]).T  # (21, 3)
        if left:
            joints = joints * (-1, 1, 1)
        return SyntheticHand(joints + np.array(wrist_m), left)

    return make


@pytest.fixture(scope="session")
def paint() -> Callable[..., NDArray[np.uint8]]:
    def paint_hands(camera: Camera, *hands: SyntheticHand) -> NDArray[np.uint8]:
        image = np.zeros((camera.height, camera.width, 3), dtype=np.uint8)
        for hand in hands:
            points = camera.project(hand.joints_m)  # (21, 2)
            radius = 0.045 * float(np.ptp(points, axis=0).max())
            for joint, (x, y) in enumerate(points):
                centre = (round(x * 256), round(y * 256))
                # A black rim: where discs touch, their colours must not mix into a third one.
                for reach, color in ((1.25, (0, 0, 0)), (1.0, (10 * joint, 255, 255))):
                    size = round(reach * radius * 256)
                    cv2.circle(image, centre, size, color, -1, cv2.LINE_8, 8)
        return image

    return paint_hands


@dataclass
class ReadingBackend:
    """Reads painted joints out of crops, as a perfect network for right hands would.

    It knows the depths of the hand that was painted. Shown a left hand it does badly in a known
    way: (u, v) are off by 0.05. `doubt` is how unsure it is of what it is shown.
    """

    depths: NDArray[np.float64]
    topology: Topology
    doubt: float = 0.02
    name: str = "reading"
    description: str = "reads painted joints"
    threads: int = 1
    batches: list[int] = field(default_factory=list)

    def run(self, images: NDArray[np.uint8]) -> RawOutput:
        assert images.dtype == np.uint8
        assert images.shape[1:] == (IMAGE_SIZE, IMAGE_SIZE, 3)
        self.batches.append(len(images))
        return RawOutput(*(np.stack(part) for part in zip(*map(self._read, images), strict=True)))

    def _read(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        uv = np.full((21, 2), 0.5)
        found = np.zeros(21, dtype=bool)
        spread = 0.0
        marked = image[..., 1] > 250
        for joint in range(21):
            rows, columns = np.nonzero(marked & (abs(image[..., 0].astype(int) - 10 * joint) < 4))
            found[joint] = len(rows) > 0
            if found[joint]:
                uv[joint] = np.array([columns.mean() + 0.5, rows.mean() + 0.5]) / IMAGE_SIZE
                spread = max(spread, (np.ptp(columns) + np.ptp(rows)) / IMAGE_SIZE)
        extent = float(np.ptp(uv[found], axis=0).max()) if found.any() else 0.0
        off_centre = abs((uv.min(axis=0) + uv.max(axis=0)) / 2 - 0.5).max()
        one = spread < 0.3  # or two hands are in view, and their middle is nonsense
        good = one and bool(found.all()) and 0.3 < extent < 0.95 and off_centre < 0.25
        # Wrist, index and little knuckle run clockwise, as seen, in the painted right hands.
        (ax, ay), (bx, by) = uv[5] - uv[0], uv[17] - uv[0]
        side = ax * by - ay * bx
        right = 1 - self.doubt if side <= 0 else self.doubt
        if side > 0:
            uv = uv + 0.05
        joints = np.column_stack([uv, self.depths]).astype(np.float32)  # (21, 3)
        vertices = (self.topology.joint_blend @ joints).astype(np.float32)  # (V, 3)
        presence = 0.99997 if good else 0.3 * found.mean()
        confidence = np.where(found, 0.9, 0.05)
        scalars = (np.float32(value) for value in (presence, right))
        return vertices, joints, confidence.astype(np.float32), *scalars


@pytest.fixture(scope="session")
def manifest(topology: Topology) -> dict[str, Any]:
    """A manifest's entries for a network of the test's own, without artifacts."""
    return {
        "name": "test",
        "network": "test",
        "config": {"input_size": IMAGE_SIZE},
        **io_specs(IMAGE_SIZE, topology.vertex_count),
        "artifacts": {},
        "licences": {"code": "Apache-2.0", "weights": "none", "data": "none"},
        "provenance": {"made": "in a test"},
    }


@pytest.fixture
def bundle_folder(tmp_path: Path, topology: Topology, manifest: dict[str, Any]) -> Path:
    """A bundle that holds a mesh graph and nothing to run."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    topology.save(folder / "topology.npz")
    write_manifest(folder, manifest)
    return folder


@pytest.fixture
def bundle(bundle_folder: Path) -> Bundle:
    return Bundle.load(bundle_folder)


@pytest.fixture(scope="session")
def reading_backend(topology: Topology) -> Callable[..., ReadingBackend]:
    def make(hand: SyntheticHand, doubt: float = 0.02) -> ReadingBackend:
        return ReadingBackend(hand.depths, topology, doubt)

    return make


@pytest.fixture
def found_by_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Painted hands are none to the shipped detector: the backend that reads them searches."""
    monkeypatch.setattr("handmesh.predictor.default_finder", lambda threads=None: search_windows)
