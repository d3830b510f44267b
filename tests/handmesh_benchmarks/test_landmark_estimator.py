"""How MediaPipe's network is asked, on a picture whose colours say where they lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from handmesh import Predictor
from handmesh.errors import BackendUnavailable, BoxError, InputError
from handmesh.imaging import decode
from handmesh.types import Box
from handmesh_benchmarks.landmark_estimator import LandmarkEstimator, next_region
from handmesh_benchmarks.landmark_network import Landmarks, landmark_files
from handmesh_benchmarks.mediapipe_peer import default_environment
from handmesh_training.estimators import Query
from handmesh_training.protocols import FREIHAND, IN_THE_WILD, UNAIDED

SIZE = 64
# Wrist below, four knuckles and the joints after them above it, thumb aside, tips beyond.
UP = np.array(
    [(-1, 10), (-4, 8), (-6, 6), (-7, 4), (-8, 2)]
    + [(x, y) for x in (-3, -1, 1, 3) for y in (0, -4, -7, -9)],
    dtype=np.float64,
)
WORLD = np.column_stack([UP / 100, np.linspace(-0.03, 0.04, 21)])


def _turn(angle: float) -> NDArray[np.float64]:
    """Clockwise as seen, as `Box.angle` is."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def test_the_next_region_of_a_hand_that_points_up() -> None:
    # Tips and the joints before them do not count: 10 wide, from y = -4 to 10.
    assert next_region(UP) == Box((-7 + 3) / 2, 3 - 0.1 * 14, 2.0 * 14, 0.0)


@pytest.mark.parametrize("angle", [np.pi / 2, 2.5, -0.4, -np.pi / 2])
def test_the_region_turns_with_the_hand(angle: float) -> None:
    still = next_region(UP)
    moved = next_region(3 * UP @ _turn(angle).T + (50, 20))
    np.testing.assert_allclose(
        (moved.cx, moved.cy), 3 * _turn(angle) @ (still.cx, still.cy) + (50, 20), atol=1e-9
    )
    assert moved.size == pytest.approx(3 * still.size)
    assert moved.angle == pytest.approx(angle)


def test_joints_in_one_place_make_no_region() -> None:
    with pytest.raises(BoxError):
        next_region(np.ones((21, 2)))


def _map() -> NDArray[np.uint8]:
    """(200, 240, 3): red is x, green is y, blue is full; so what is black lies outside."""
    y, x = np.mgrid[:200, :240]
    return np.stack([x, y, np.full_like(x, 255)], axis=-1).astype(np.uint8)


class Reader:
    """Reads out of the colours of a crop where it lies, and so where a hand's joints lie in it."""

    def __init__(self, joints_px: NDArray[np.float64], points: float) -> None:
        self.joints, self.points = joints_px, points
        self.angles: list[float] = []

    def __call__(self, crop: NDArray[np.uint8]) -> Landmarks:
        rows, columns = np.nonzero(crop[..., 2] == 255)
        inside = np.column_stack([columns + 0.5, rows + 0.5, np.ones(len(rows))])
        # Crop pixels to those of the photo.
        fit = np.linalg.lstsq(inside, crop[rows, columns, :2].astype(np.float64), rcond=None)[0]
        angle = float(np.arctan2(fit[0, 1], fit[0, 0]))
        self.angles.append(angle)
        within = (self.joints - fit[2]) @ np.linalg.inv(fit[:2])  # (21, 2)
        off = abs(np.angle(np.exp(1j * (angle - self.points))))
        world = WORLD.copy()
        world[:, :2] = WORLD[:, :2] @ _turn(self.points - angle).T
        screen = np.column_stack([within, np.arange(21.0)])
        return Landmarks(np.float32(screen), 1 - off / 4, 0.9, np.float32(world))


@pytest.mark.parametrize("points", [0.0, 1.3, 3.0, -1.8])
def test_the_surest_quarter_counts_and_the_region_follows_the_hand(points: float) -> None:
    joints = 4 * UP @ _turn(points).T + (120, 100)
    reader = Reader(joints, points)
    estimator = LandmarkEstimator(reader, SIZE, "network", "0" * 64)

    (found,) = estimator.estimate([Query(_map(), Box.from_points(joints + 3))])

    assert found is not None
    assert len(reader.angles) == found.crops_seen == 6
    quarters = np.exp(1j * np.array(reader.angles[:4]))
    np.testing.assert_allclose(quarters, [1, 1j, -1, -1j], atol=0.02)
    np.testing.assert_allclose(
        np.exp(1j * np.array(reader.angles[4:])), np.exp(1j * points), atol=0.02
    )
    np.testing.assert_allclose(found.joints_px, joints, atol=0.75)  # colours are rounded
    # The hand's own axes, turned as it is in the photo.
    expected = np.column_stack([WORLD[:, :2] @ _turn(points).T, WORLD[:, 2]])
    np.testing.assert_allclose(found.joints_m, expected, atol=2e-3)
    assert found.handedness == "right"
    assert found.presence == pytest.approx(1, abs=0.01)
    assert found.vertices_m.shape == (0, 3)


def test_joints_of_the_picture_have_mediapipe_s_depth() -> None:
    reader = Reader(4 * UP + (120, 100), 0.0)
    estimator = LandmarkEstimator(reader, SIZE, "network", "0" * 64, "picture", follow=0)
    (found,) = estimator.estimate([Query(_map(), Box(120, 100, 100))])
    assert found is not None
    np.testing.assert_allclose(found.joints_m[:, 2], np.arange(21) / 0.4, atol=1e-4)
    scale = SIZE / 100  # pixels of the crop
    shape = (found.joints_m - found.joints_m[0])[:, :2]
    np.testing.assert_allclose(shape, 4 * (UP - UP[0]) * scale, atol=0.3)


def test_it_is_told_the_box_and_no_camera() -> None:
    estimator = LandmarkEstimator(Reader(UP, 0.0), SIZE, "network", "0" * 64)
    estimator.require(IN_THE_WILD)
    for protocol in (FREIHAND, UNAIDED):
        with pytest.raises(InputError, match="in_the_wild"):
            estimator.require(protocol)
    with pytest.raises(InputError, match="told the box"):
        estimator.estimate([Query(_map())])


def test_the_network_itself_sees_the_example_as_ours_does() -> None:
    try:
        path = landmark_files(default_environment())["hand_landmark_full"]
        estimator = LandmarkEstimator.load(path, threads=1)
    except BackendUnavailable as error:
        pytest.skip(f"takes MediaPipe's wheel, which a benchmark installs: {error}")
    photo = Path(__file__).parents[2] / "examples" / "photos" / "open.jpg"
    with Predictor() as predictor:
        (hand,) = predictor.predict(photo)
    box = Box.from_points(hand.joints_px)

    (found,) = estimator.estimate([Query(decode(photo), box)])

    assert found is not None
    assert found.presence is not None
    assert found.presence > 0.9
    assert found.handedness == hand.handedness
    apart = np.linalg.norm(found.joints_px - hand.joints_px, axis=1).mean()
    assert apart < 0.06 * box.size / 1.5
