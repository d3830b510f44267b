"""Samples as training crops, against the renderer's own crops and by painted dots."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from handmesh import JOINT_NAMES
from handmesh.errors import InputError
from handmesh_training.datasets import Sample
from handmesh_training.datasets.crops import can_crop, locates_hand, to_crops
from handmesh_training.hand import HandModel
from handmesh_training.sampling import sample_views

MARGIN, SIDE = 1.7, 160


def sample_of(
    joints_m: NDArray[np.float64], is_right: bool | None, dot: int | None = None
) -> Sample:
    """A black picture of 400 x 300 pixels, with a soft dot at one of the joints."""
    K = np.array([[420.0, 0, 190], [0, 420.0, 160], [0, 0, 1]])
    projected = joints_m @ K.T
    pixels = projected[:, :2] / projected[:, 2:]
    image = np.zeros((300, 400, 3), dtype=np.uint8)
    if dot is not None:
        rows, columns = np.mgrid[:300, :400]
        squared = (columns - pixels[dot, 0]) ** 2 + (rows - pixels[dot, 1]) ** 2
        image[:] = np.round(250 * np.exp(-squared / 18))[..., None]
    return Sample("made", image, is_right, pixels, np.ones(21, dtype=bool), K, joints_m)


@pytest.fixture
def right(known_hand: Any) -> NDArray[np.float64]:
    hand = known_hand(True, 3)
    return np.array([hand[name] for name in JOINT_NAMES])


def centre_of(crop: NDArray[np.uint8]) -> NDArray[np.float64]:
    weight = crop[..., 0].astype(np.float64)
    rows, columns = np.mgrid[: len(crop), : len(crop)]
    return np.array([((columns + 0.5) * weight).sum(), ((rows + 0.5) * weight).sum()]) / (
        weight.sum() * len(crop)
    )


@pytest.mark.parametrize("is_right", [True, False])
@pytest.mark.parametrize("joint", [0, 4, 9, 20])
def test_labels_lie_where_the_picture_shows_them(
    right: NDArray[np.float64], is_right: bool, joint: int
) -> None:
    crops = to_crops([sample_of(right, is_right, joint)], SIDE, MARGIN, 7)

    np.testing.assert_allclose(
        centre_of(crops.images[0]), crops.joints[0, joint, :2], atol=0.4 / SIDE
    )
    low, high = crops.joints[0, :, :2].min(axis=0), crops.joints[0, :, :2].max(axis=0)
    np.testing.assert_allclose((high - low).max(), 1 / MARGIN, atol=1e-5)
    assert crops.vertices.shape == (1, 7, 3)
    for name in ("has_hand", "has_joints", "has_depth", "is_right"):
        assert getattr(crops, name)[0]
    assert not crops.has_mesh[0]


def test_a_left_hand_gives_the_mirrored_crop_of_the_right_one(
    right: NDArray[np.float64],
) -> None:
    as_right, as_left = sample_of(right, True, 8), sample_of(right, True, 8)
    # The mirrored picture, as a camera in a mirror sees it.
    width = as_left.image.shape[1]
    assert as_left.intrinsics is not None
    intrinsics = as_left.intrinsics.copy()
    intrinsics[0, 2] = width - 1 - intrinsics[0, 2]
    as_left = replace(
        as_left,
        image=np.ascontiguousarray(as_left.image[:, ::-1]),
        is_right=False,
        joints_px=np.stack([width - 1 - as_left.joints_px[:, 0], as_left.joints_px[:, 1]], axis=1),
        joints_m=right * [-1, 1, 1],
        intrinsics=intrinsics,
    )
    crops = to_crops([as_right, as_left], SIDE, MARGIN, 1)

    np.testing.assert_allclose(crops.joints[1], crops.joints[0], atol=1e-6)
    assert abs(crops.images[1].astype(int) - crops.images[0]).max() <= 2
    np.testing.assert_allclose(crops.crop_in_bones[1], crops.crop_in_bones[0], rtol=1e-6)


def test_depth_and_scale_are_those_of_rendered_crops(hand_model: HandModel) -> None:
    """The same hands by way of `sample_views`, whose camera is that of the crop."""
    views = sample_views(np.random.default_rng(0), hand_model, 12, 128, MARGIN)
    samples = []
    for i in range(12):
        fx, fy, cx, cy = views.intrinsics[i].astype(np.float64)
        K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        joints = views.joints_m[i].astype(np.float64)
        projected = joints @ K.T
        samples.append(
            Sample(
                key=str(i),
                image=np.zeros((128, 128, 3), dtype=np.uint8),
                is_right=True,
                joints_px=projected[:, :2] / projected[:, 2:],
                joint_known=np.ones(21, dtype=bool),
                intrinsics=K,
                joints_m=joints,
                vertices_m=views.vertices_m[i],
            )
        )
    crops = to_crops(samples, 128, MARGIN, views.vertices.shape[1])

    np.testing.assert_allclose(crops.joints, views.joints, atol=1e-3)
    np.testing.assert_allclose(crops.crop_in_bones, views.crop_in_bones, rtol=1e-4)
    assert not crops.has_mesh.any(), "a foreign mesh is not ours"


def test_hands_known_in_part_show_a_hand_without_labels(right: NDArray[np.float64]) -> None:
    whole = sample_of(right, True)
    known = np.ones(21, dtype=bool)
    known[[4, 8]] = False
    assert whole.joints_m is not None
    part = replace(
        whole,
        joint_known=known,
        joints_px=np.where(known[:, None], whole.joints_px, np.nan),
        joints_m=np.where(known[:, None], whole.joints_m, np.nan),
    )
    flat = replace(whole, joints_m=None)
    unseen = replace(whole, intrinsics=None)
    crops = to_crops([part, flat, unseen], SIDE, MARGIN, 2)

    assert crops.has_hand.all()
    np.testing.assert_array_equal(crops.has_joints, [False, True, True])
    assert not crops.has_depth.any()
    assert np.isfinite(crops.joints).all()
    assert (crops.crop_in_bones == 1).all()


def test_what_cannot_be_a_crop_is_told(right: NDArray[np.float64]) -> None:
    whole = sample_of(right, None)
    with pytest.raises(InputError, match="right or a left hand"):
        to_crops([whole], SIDE, MARGIN, 1)
    known = np.arange(21) == 5
    with pytest.raises(InputError, match="1 known joints"):
        to_crops([replace(whole, is_right=True, joint_known=known)], SIDE, MARGIN, 1)
    assert len(to_crops([], SIDE, MARGIN, 3)) == 0


@pytest.mark.parametrize(
    ("known", "enough"),
    [
        (range(21), True),
        ((7, 8), False),  # a fingertip
        ((5, 6, 7, 8), False),  # a finger
        ((0, 5, 6, 7, 8), False),  # with the wrist
        ((0, 5, 6, 7, 8, 9), True),
        ((0, 1, 5, 9, 13, 17), False),  # the palm alone
        ((7, 8, 11, 12, 15, 16), False),  # tips alone
        ((9, 12, 13, 16, 17, 20), True),
    ],
)
def test_it_takes_palm_and_fingers_to_tell_where_a_hand_is(
    right: NDArray[np.float64], known: Any, enough: bool
) -> None:
    whole = sample_of(right, True)
    rows = np.isin(np.arange(21), list(known))
    part = replace(
        whole,
        joint_known=rows,
        joints_px=np.where(rows[:, None], whole.joints_px, np.nan),
        joints_m=None,
    )
    assert locates_hand(part) == can_crop(part) == enough
    assert not can_crop(replace(part, is_right=None))
    if enough:
        assert len(to_crops([part], SIDE, MARGIN, 1)) == 1
    else:
        with pytest.raises(InputError, match="do not tell where the hand is"):
            to_crops([part], SIDE, MARGIN, 1)


def test_joints_that_fall_together_tell_nothing(right: NDArray[np.float64]) -> None:
    whole = sample_of(right, True)
    shrunk = whole.joints_px.mean(axis=0) + (whole.joints_px - whole.joints_px.mean(axis=0)) * 1e-3
    assert not locates_hand(replace(whole, joints_px=shrunk))
    assert not locates_hand(replace(whole, joints_px=shrunk * 0))


@pytest.mark.parametrize("fault", ["no bone", "behind", "at the camera", "no lens"])
def test_3d_labels_that_tell_no_scale_are_not_depth(right: NDArray[np.float64], fault: str) -> None:
    """One that is not finite would turn a whole batch's loss into none."""
    sample = sample_of(right, True)
    joints_m, lens = right.copy(), np.array(sample.intrinsics)
    if fault == "no bone":
        joints_m[10] = joints_m[9]
    elif fault == "no lens":
        lens[0, 0] = 0
    else:
        joints_m[:, 2] -= joints_m[0, 2] + (1 if fault == "behind" else 0)
    crops = to_crops([replace(sample, joints_m=joints_m, intrinsics=lens)], SIDE, MARGIN, 7)

    whole = to_crops([sample], SIDE, MARGIN, 7)
    assert (crops.has_depth[0], whole.has_depth[0]) == (False, True)
    assert crops.has_joints[0]
    np.testing.assert_array_equal(crops.joints[0, :, :2], whole.joints[0, :, :2])
    assert not crops.joints[0, :, 2].any()
    assert crops.crop_in_bones[0] == 1
