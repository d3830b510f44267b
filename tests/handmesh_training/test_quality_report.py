"""Worse pictures of hands: what becomes of the image, and that labels go with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from made_sets import make_photo_set
from numpy.typing import NDArray

from handmesh.errors import InputError
from handmesh_training import quality_report
from handmesh_training.datasets import Sample
from handmesh_training.evaluation_report import Figure, Report
from handmesh_training.protocols import IN_THE_WILD
from handmesh_training.quality_report import (
    QUALITIES,
    Quality,
    all_worsened,
    to_row,
    worsened,
)

LIGHT = np.random.default_rng(0)  # where it does not matter how a picture is lit


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
        depth_m=np.ones((200, 240), np.float32), mask=np.zeros((200, 240), np.uint8),
    )  # fmt: skip


def test_as_it_is_nothing_changes(sample: Sample) -> None:
    same = worsened(sample, Quality(), 0.3, 0, LIGHT)
    np.testing.assert_array_equal(same.image, sample.image)
    np.testing.assert_allclose(same.joints_px, sample.joints_px, atol=1e-9)


@pytest.mark.parametrize("hand_px", [60, 24])
def test_labels_stay_on_the_joints_of_a_smaller_hand(sample: Sample, hand_px: int) -> None:
    small = worsened(sample, Quality(hand_px), 0.0, 0, LIGHT)
    assert np.ptp(small.joints_px, axis=0).max() == pytest.approx(hand_px, rel=0.02)
    # The first joint's spot alone: its middle by weight, to a tenth of a pixel.
    alone = np.zeros_like(sample.image)
    cv2.circle(alone, [round(v) for v in sample.joints_px[0]], 4, (255, 255, 255), -1)
    spot = worsened(
        Sample(
            key="spot", image=alone, is_right=True,
            joints_px=np.round(sample.joints_px), joint_known=sample.joint_known,
        ),
        Quality(hand_px), 0.0, 0, LIGHT,
    )  # fmt: skip
    light = spot.image[..., 0].astype(float)
    rows, columns = np.indices(light.shape)
    middle = (columns * light).sum() / light.sum(), (rows * light).sum() / light.sum()
    np.testing.assert_allclose(middle, spot.joints_px[0], atol=0.1)


def test_the_camera_goes_with_the_picture(sample: Sample) -> None:
    small = worsened(sample, Quality(36), 0.0, 0, LIGHT)
    assert small.intrinsics is not None
    assert small.joints_m is not None
    seen = small.joints_m @ small.intrinsics.T
    np.testing.assert_allclose(seen[:, :2] / seen[:, 2:], small.joints_px, atol=1e-9)


def test_a_hand_of_fewer_pixels_is_not_enlarged(sample: Sample) -> None:
    assert worsened(sample, Quality(500), 0.0, 0, LIGHT).image.shape == sample.image.shape


def test_files_are_compressed_at_the_size_that_they_have(sample: Sample) -> None:
    small = worsened(sample, Quality(36), 0.0, 0, LIGHT).image
    packed = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
    want = cv2.imdecode(packed, cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(worsened(sample, Quality(36, 50), 0.0, 0, LIGHT).image, want)


def test_shaking_runs_along_its_line(sample: Sample) -> None:
    still = sample.image[..., 0].astype(float)
    moved = worsened(sample, Quality(None, None, 0.2), 0.0, 0, LIGHT).image[..., 0].astype(float)
    across = [np.abs(np.diff(image, axis=0)).sum() for image in (still, moved)]
    along = [np.abs(np.diff(image, axis=1)).sum() for image in (still, moved)]
    assert along[1] < 0.4 * along[0]
    assert across[1] > 1.5 * along[1]


@pytest.mark.parametrize("border", range(4))
def test_a_border_leaves_the_rest_of_the_picture_and_every_label(
    sample: Sample, border: int
) -> None:
    """Three tenths of the hand lie beyond; a camera sees the joints where they are told."""
    left = worsened(sample, Quality(cut=0.3), 0.0, border, LIGHT)
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


def test_borders_are_all_four_and_a_hand_that_is_cut_already_keeps_its_picture(
    sample: Sample,
) -> None:
    corners = {
        (round(a), round(b)) for s in all_worsened([sample] * 40, Quality(cut=0.3))
        for a, b in [sample.joints_px[0] - s.joints_px[0]]
    }  # fmt: skip
    assert len(corners) == 3, "left, upper, and neither for right and lower"
    moved = replace(sample, joints_px=sample.joints_px - (120, 0), intrinsics=None, joints_m=None)
    left = worsened(moved, Quality(cut=0.2), 0.0, 0, LIGHT)  # half of it lies beyond that border
    np.testing.assert_array_equal(left.image, sample.image)
    np.testing.assert_allclose(left.joints_px, moved.joints_px, atol=1e-9)
    beyond = worsened(moved, Quality(cut=0.9), 0.0, 2, LIGHT)  # of which nothing would be left
    assert beyond.image.shape == (200, 1, 3)


def test_a_hand_that_cannot_be_placed_is_left_as_it_is(sample: Sample) -> None:
    unknown = replace(
        sample, joint_known=np.zeros(21, bool), joints_px=np.full((21, 2), np.nan)
    )  # fmt: skip
    assert worsened(unknown, Quality(24, 50, 0.2, 0.4), 0.0, 0, LIGHT) is unknown


def test_lines_are_as_long_as_told_before_the_hand_is_reduced(sample: Sample) -> None:
    dot = np.zeros_like(sample.image)
    dot[100, 120] = 255
    spot = replace(sample, image=dot, depth_m=None, mask=None)
    moved = worsened(spot, Quality(None, None, 0.2), 0.0, 0, LIGHT).image[..., 0]
    assert np.count_nonzero(moved) == pytest.approx(0.2 * 120, abs=2)
    small = worsened(spot, Quality(60, None, 0.2), 0.0, 0, LIGHT).image[..., 0]
    assert np.count_nonzero(small) == pytest.approx(0.2 * 60 + 1, abs=3)


def _grey(sample: Sample) -> Sample:
    return replace(sample, image=np.full_like(sample.image, 100), depth_m=None, mask=None)


def test_stripes_are_so_many_a_hand_and_their_shadows_so_deep(sample: Sample) -> None:
    """A hand of 120 px in a picture of 240: twelve waves along it, whatever way they lie."""
    light, ways = np.random.default_rng(2), set()
    for _ in range(4):
        lit = worsened(_grey(sample), Quality(striped=0.5), 0.0, 0, light)
        np.testing.assert_allclose(lit.joints_px, sample.joints_px)
        picture = lit.image[..., 0].astype(float)
        assert picture.min() / picture.max() == pytest.approx(0.5, abs=0.02)
        assert picture.mean() == pytest.approx(100, abs=1), "cameras expose for the mean"
        power = np.abs(np.fft.fft2(picture[:200, :200] - picture.mean()))
        y, x = np.unravel_index(power.argmax(), power.shape)
        waves = np.hypot(*(np.fft.fftfreq(200)[[y, x]] * 120))
        assert waves == pytest.approx(6, abs=0.5)
        ways.add((y, x))
        # A sine is in the outer tenth of its range on each side for a fifth of the time.
        depth = (picture - picture.min()) / np.ptp(picture)
        assert ((depth > 0.1) & (depth < 0.9)).mean() == pytest.approx(0.59, abs=0.05)
    assert len(ways) == 4


def test_dapples_are_so_many_a_hand_and_others_for_every_hand(sample: Sample) -> None:
    first, second = (
        s.image[..., 0].astype(float)
        for s in all_worsened([_grey(sample)] * 2, Quality(dappled=0.5))
    )
    assert np.abs(first - second).mean() > 5
    for picture in (first, second):
        assert picture.min() / picture.max() == pytest.approx(0.5, abs=0.02)
        assert picture.mean() == pytest.approx(100, abs=1)
        # Of independent heights at the cells' middles, 15 px apart; between them straight lines.
        rows = picture[:, 7::15] > picture.mean()
        turns = (rows[:, 1:] != rows[:, :-1]).mean()
        assert turns == pytest.approx(0.5, abs=0.1)
        dense = picture[:, ::3] > picture.mean()
        assert (dense[:, 1:] != dense[:, :-1]).mean() == pytest.approx(0.1, abs=0.025)
        # All but 13 % of normal heights are beyond a sixth on their side, if not between cells.
        depth = (picture - picture.min()) / np.ptp(picture)
        assert ((depth < 0.02) | (depth > 0.98)).mean() > 0.6


def test_a_hand_is_lit_before_anything_else_becomes_of_its_picture(sample: Sample) -> None:
    lit = worsened(sample, Quality(striped=0.5), 0.3, 1, np.random.default_rng(4))
    for rest in (Quality(36, 50), Quality(None, None, 0.2), Quality(cut=0.3)):
        want = worsened(lit, rest, 0.3, 1, LIGHT)
        both = worsened(
            sample, rest._replace(striped=0.5), 0.3, 1, np.random.default_rng(4)
        )  # fmt: skip
        np.testing.assert_array_equal(both.image, want.image)
        np.testing.assert_allclose(both.joints_px, want.joints_px)


def test_each_quality_has_a_name_of_its_own() -> None:
    assert len({str(each) for each in QUALITIES}) == len(QUALITIES)
    assert str(Quality(24, 50, 0.2, 0.4)) == "24 px, JPEG 50, shaken by 0.2, 40 % beyond the border"
    assert str(Quality(striped=0.25)) == "25 % less light in stripes"
    assert str(Quality(dappled=0.5)) == "50 % less light in dapples"


def test_a_picture_with_a_hand_of_a_pixel_can_be_lit(sample: Sample) -> None:
    dot = replace(_grey(sample), joints_px=np.full((21, 2), 50.0), intrinsics=None, joints_m=None)
    for quality in (Quality(striped=0.5), Quality(dappled=0.5)):
        assert worsened(dot, quality, 0.0, 0, LIGHT).image.shape == sample.image.shape


def _report(name: str, **values: float) -> Report:
    figures = [Figure(n, v, "share", 7) for n, v in values.items()]
    return Report(name, IN_THE_WILD, 7, {}, figures, ())


def test_what_labels_do_not_tell_is_not_told() -> None:
    row = to_row(Quality(24), _report("set", image_share=0.123))
    assert row == "| set | 7 | 24 px | 12.3 % | - | - |\n"
    row = to_row(Quality(), _report("set", image_share=0.1, joints_pa_mm=9.04, handedness=0.5))
    assert row == "| set | 7 | as it is | 10.0 % | 9.0 mm | 50 % |\n"


@pytest.mark.slow
def test_a_row_for_each_set_and_quality(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
        assert cv2.imwrite(str(path), picture)

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    photos = [make_photo_set(tmp_path / name / "hands", write_picture) for name in ("a", "b")]
    asked = [argument for folder in photos for argument in ("--photos", str(folder))]
    arguments = ["--rendered", "24", *asked, "--limit", "1", "--looks", "1", "--threads", "1"]
    assert quality_report.main(arguments) == 0
    out = capsys.readouterr().out
    assert out.startswith(quality_report.HEAD)
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in out.splitlines()[2:]]
    names = [str(each) for each in QUALITIES]
    assert [row[2] for row in rows] == names * 3
    assert [row[0] for row in rows] == [n for n in ("hands", "hands", "rendered") for _ in names]
    assert {row[1] for row in rows[: 2 * len(names)]} == {"1"}
    errors = {row[2]: float(row[3].split()[0]) for row in rows[-len(names) :]}
    assert errors["24 px, JPEG 50"] > 1.2 * errors["as it is"]
    assert errors["40 % beyond the border"] > 1.2 * errors["as it is"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rendered", "0"], "--rendered must be at least 1, not 0"),
        (["--rendered", "2", "--limit", "-1"], "--limit must be at least 1, not -1"),
        (["--rendered", "2", "--looks", "9"], "looks must be from 1 to 5, not 9"),
        (["--photos", "nowhere"], "nowhere"),
    ],
)
def test_wrong_arguments_are_told_before_the_work(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=said):
        quality_report.main(arguments)
    assert capsys.readouterr().out == ""


def test_with_nothing_to_measure_it_says_what_to_give() -> None:
    with pytest.raises(InputError, match="--rendered N or --photos DIR"):
        quality_report.main([])
