"""Worse pictures of hands: what becomes of the image, and that labels go with it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from handmesh.errors import InputError
from handmesh_training import quality_report
from handmesh_training.datasets import Sample
from handmesh_training.quality_report import QUALITIES, Quality, all_worsened, worsened


@pytest.fixture
def sample() -> Sample:
    """A picture of 240 x 200 with a white spot of 9 px on each joint of a hand 120 px long."""
    rng = np.random.default_rng(3)
    joints = np.column_stack([np.linspace(60, 180, 21), 100 + rng.uniform(-25, 25, 21)])
    image = np.full((200, 240, 3), 40, dtype=np.uint8)
    for x, y in joints:
        cv2.circle(image, (round(x), round(y)), 4, (255, 255, 255), -1)
    matrix = np.array([[300.0, 0, 119.5], [0, 310.0, 99.5], [0, 0, 1]])
    depth = rng.uniform(0.4, 0.5, 21)
    rays = np.linalg.solve(matrix, np.column_stack([joints, np.ones(21)]).T).T
    return Sample(
        key="spots", image=image, is_right=True, joints_px=joints,
        joint_known=np.ones(21, dtype=bool), intrinsics=matrix, joints_m=rays * depth[:, None],
    )  # fmt: skip


def test_as_it_is_nothing_changes(sample: Sample) -> None:
    same = worsened(sample, Quality(), 0.3, 0)
    np.testing.assert_array_equal(same.image, sample.image)
    np.testing.assert_allclose(same.joints_px, sample.joints_px, atol=1e-9)


@pytest.mark.parametrize("hand_px", [60, 24])
def test_labels_stay_on_the_joints_of_a_smaller_hand(sample: Sample, hand_px: int) -> None:
    small = worsened(sample, Quality(hand_px), 0.0, 0)
    assert np.ptp(small.joints_px, axis=0).max() == pytest.approx(hand_px, rel=0.02)
    # The first joint's spot alone: its middle by weight, to a tenth of a pixel.
    alone = np.zeros_like(sample.image)
    cv2.circle(alone, [round(v) for v in sample.joints_px[0]], 4, (255, 255, 255), -1)
    spot = worsened(
        Sample(
            key="spot", image=alone, is_right=True,
            joints_px=np.round(sample.joints_px), joint_known=sample.joint_known,
        ),
        Quality(hand_px), 0.0, 0,
    )  # fmt: skip
    light = spot.image[..., 0].astype(float)
    rows, columns = np.indices(light.shape)
    middle = (columns * light).sum() / light.sum(), (rows * light).sum() / light.sum()
    np.testing.assert_allclose(middle, spot.joints_px[0], atol=0.1)


def test_the_camera_goes_with_the_picture(sample: Sample) -> None:
    small = worsened(sample, Quality(36), 0.0, 0)
    assert small.intrinsics is not None
    assert small.joints_m is not None
    seen = small.joints_m @ small.intrinsics.T
    np.testing.assert_allclose(seen[:, :2] / seen[:, 2:], small.joints_px, atol=1e-9)


def test_a_hand_of_fewer_pixels_is_not_enlarged(sample: Sample) -> None:
    assert worsened(sample, Quality(500), 0.0, 0).image.shape == sample.image.shape


def test_files_are_compressed_at_the_size_that_they_have(sample: Sample) -> None:
    small = worsened(sample, Quality(36), 0.0, 0).image
    packed = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
    want = cv2.imdecode(packed, cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(worsened(sample, Quality(36, 50), 0.0, 0).image, want)


def test_shaking_runs_along_its_line(sample: Sample) -> None:
    still = sample.image[..., 0].astype(float)
    moved = worsened(sample, Quality(None, None, 0.2), 0.0, 0).image[..., 0].astype(float)
    across = [np.abs(np.diff(image, axis=0)).sum() for image in (still, moved)]
    along = [np.abs(np.diff(image, axis=1)).sum() for image in (still, moved)]
    assert along[1] < 0.4 * along[0]
    assert across[1] > 1.5 * along[1]


@pytest.mark.parametrize("border", range(4))
def test_a_border_leaves_the_rest_of_the_picture_and_every_label(
    sample: Sample, border: int
) -> None:
    """Three tenths of the hand lie beyond; a camera sees the joints where they are told."""
    left = worsened(sample, Quality(cut=0.3), 0.0, border)
    axis = border % 2
    along = left.joints_px[:, axis]
    low, high = along.min(), along.max()
    end = -0.5 if border < 2 else left.image.shape[1 - axis] - 0.5
    beyond = (end - low if border < 2 else high - end) / (high - low)
    assert beyond == pytest.approx(0.3, abs=0.02)
    assert left.joint_known.all()
    moved = np.round(sample.joints_px - left.joints_px).astype(int)
    assert (moved == moved[0]).all()
    x, y = moved[0]
    height, width = left.image.shape[:2]
    np.testing.assert_array_equal(left.image, sample.image[y : y + height, x : x + width])
    assert left.intrinsics is not None
    assert left.joints_m is not None
    seen = left.joints_m @ left.intrinsics.T
    np.testing.assert_allclose(seen[:, :2] / seen[:, 2:], left.joints_px, atol=1e-9)


def test_each_hand_is_shaken_along_its_own_line_and_the_same_every_time(sample: Sample) -> None:
    shaken = Quality(60, None, 0.2)
    first, second = (s.image for s in all_worsened([sample, sample], shaken))
    again = next(all_worsened([sample], shaken)).image
    assert (first != second).any()
    np.testing.assert_array_equal(first, again)


def test_a_row_for_each_quality(capsys: pytest.CaptureFixture[str]) -> None:
    assert quality_report.main(["--rendered", "6", "--looks", "1", "--threads", "1"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split("|")[3].strip() for row in rows] == [str(each) for each in QUALITIES]
    assert all(row.startswith("| rendered | 6 |") for row in rows)
    errors = [float(row.split("|")[4].strip(" %")) for row in rows]
    assert errors[0] == min(errors) or errors[0] < np.mean(errors), "worse pictures, worse hands"


def test_with_nothing_to_measure_it_says_what_to_give() -> None:
    with pytest.raises(InputError, match="--rendered N or --photos DIR"):
        quality_report.main([])
