"""STB: made here in the set's own layout, in its units, frames and joint order."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import scipy.io
from made_sets import DEPTH_CENTRE, DEPTH_FOCAL, make_stb
from made_sets import STB_FRAMES as FRAMES
from numpy.typing import NDArray

from handmesh import JOINT_NAMES
from handmesh.errors import ImageError, InputError
from handmesh_training.datasets import open_dataset
from handmesh_training.datasets.stb import depth_in_colour

Array = NDArray[np.float64]

# As published, and once more: the code under test has its own.
TURN = cv2.Rodrigues(np.array([0.00531, -0.01196, 0.00301]))[0]
SHIFT_MM = np.array([-24.0381, -0.4563, -1.2326])
COLOUR_FOCAL, COLOUR_CENTRE = np.array([607.92271, 607.88192]), np.array([314.78337, 236.42484])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, known_hand: Any, write_picture: Any) -> Path:
    return make_stb(tmp_path_factory.mktemp("stb"), known_hand, write_picture)


@pytest.fixture
def stb(whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(whole, tmp_path / "stb"))


def joints_of(hand: dict[str, Array]) -> Array:
    return np.array([hand[name] for name in JOINT_NAMES])


@pytest.mark.parametrize("camera", ["sk", "bb_left", "bb_right"])
def test_train_and_test_are_the_protocols(whole: Path, camera: str) -> None:
    train, test = (open_dataset("stb", whole, f"{part}_{camera}") for part in ("train", "test"))

    assert (len(train), len(test)) == (10 * FRAMES, 2 * FRAMES)
    assert {key.split("/")[0] for key in (s.key for s in test)} == {"B1Counting", "B1Random"}
    assert not any(s.key.startswith("B1") for s in train)
    keys = [s.key for s in train]
    assert len(set(keys)) == len(keys)
    # Frame by frame the picture that belongs to the labels.
    assert [int(s.image[0, 0, 0]) for s in test] == [10, 11] * 2


@pytest.mark.parametrize("split", ["test_sk", "test_bb_left", "test_bb_right"])
def test_samples_are_sound_left_hands(whole: Path, split: str, assert_sound: Any) -> None:
    for sample in open_dataset("stb", whole, split):
        assert sample.is_right is False
        assert sample.joint_known.all()
        assert_sound(sample)


def test_joints_lie_where_they_were_put(
    whole: Path, known_hand: Callable[[bool, int], dict[str, Array]]
) -> None:
    truth = joints_of(known_hand(False, 101))

    left = open_dataset("stb", whole, "test_bb_left")[1]
    np.testing.assert_allclose(left.joints_m, truth, atol=1e-9)
    right = open_dataset("stb", whole, "test_bb_right")[1]
    np.testing.assert_allclose(right.joints_m, truth - [0.120054, 0, 0], atol=1e-9)
    # The stereo pair is rectified: a point keeps its row and moves left by f * b / z.
    shift = left.joints_px - right.joints_px
    np.testing.assert_allclose(shift[:, 0], 822.79041 * 0.120054 / truth[:, 2], atol=1e-6)
    np.testing.assert_allclose(shift[:, 1], 0, atol=1e-9)
    colour = open_dataset("stb", whole, "test_sk")[1]
    np.testing.assert_allclose(colour.joints_m, (truth - SHIFT_MM / 1000) @ TURN, atol=1e-9)


def test_depth_at_the_joints_is_theirs(whole: Path) -> None:
    for sample in open_dataset("stb", whole, "test_sk"):
        assert sample.depth_m is not None
        assert sample.joints_m is not None
        columns, rows = np.round(sample.joints_px[1:]).astype(int).T  # the wrist is not labelled
        behind = sample.joints_m[1:, 2] - sample.depth_m[rows, columns]
        # At the joint, unless another joint's square lies before it.
        assert (behind > -0.003).all()
        assert (sample.depth_m[rows, columns] > 0).all()
        assert (abs(behind) < 0.003).mean() > 0.7


def test_a_plane_keeps_its_place_when_moved_to_the_colour_camera() -> None:
    """Against the closed form: where a colour ray meets the plane."""
    normal, distance = np.array([0.2, -0.15, 1.0]), 0.6  # normal @ X = distance, depth's frame
    rows, columns = np.mgrid[:480, :640]
    x, y = ((columns, rows) - DEPTH_CENTRE[:, None, None]) / DEPTH_FOCAL[:, None, None]
    depth = distance / (normal[0] * x + normal[1] * y + normal[2])
    moved = depth_in_colour(depth.astype(np.float32))

    x, y = ((columns, rows) - COLOUR_CENTRE[:, None, None]) / COLOUR_FOCAL[:, None, None]
    rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ TURN.T  # in the depth camera's axes
    expected = (distance - normal @ (SHIFT_MM / 1000)) / (rays @ normal)
    seen = moved > 0
    assert seen[5:-5, 5:-5].mean() > 0.98
    # Within the change of depth over one pixel.
    assert abs(moved - expected)[seen].max() < 0.0012
    assert abs(moved - expected)[seen].mean() < 0.0005


def test_the_nearer_surface_hides_the_farther() -> None:
    depth = np.full((480, 640), 1.0, dtype=np.float32)
    depth[200:280, 280:380] = 0.4
    moved = depth_in_colour(depth)
    centre = np.array([(330 - DEPTH_CENTRE[0]), (240 - DEPTH_CENTRE[1])]) / DEPTH_FOCAL * 0.4
    point = (np.array([*centre, 0.4]) - SHIFT_MM / 1000) @ TURN
    u, v = np.round(COLOUR_FOCAL * point[:2] / point[2] + COLOUR_CENTRE).astype(int)
    assert (abs(moved[v - 30 : v + 31, u - 30 : u + 31] - point[2]) < 0.002).all()


def test_pictures_and_labels_may_lie_in_the_folder_itself(stb: Path) -> None:
    for inner in ("images", "labels"):
        for path in (stb / inner).iterdir():
            path.rename(stb / path.name)
        (stb / inner).rmdir()
    assert len(list(open_dataset("stb", stb, "test_sk"))) == 2 * FRAMES


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda stb: (stb / "labels/B1Random_SK.mat").unlink(), r"B1Random_SK\.mat is missing"),
        (lambda stb: truncate(stb / "labels/B1Random_SK.mat", 60), "complete MATLAB file"),
        (lambda stb: truncate(stb / "labels/B1Random_SK.mat", 900), "complete MATLAB file"),
        (
            lambda stb: scipy.io.savemat(stb / "labels/B1Random_SK.mat", {"x": np.eye(3)}),
            "the variable 'handPara'",
        ),
        (
            lambda stb: scipy.io.savemat(
                stb / "labels/B1Random_SK.mat", {"handPara": np.zeros((3, 20, 5))}
            ),
            r"shape \(3, 21, N\)",
        ),
        (lambda stb: (stb / "images/B1Random").rename(stb / "gone"), "B1Random is missing"),
    ],
)
def test_damaged_sets_are_told(stb: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(stb)
    with pytest.raises(InputError, match=message):
        list(open_dataset("stb", stb, "test_sk"))


def truncate(path: Path, size: int) -> None:
    data = path.read_bytes()
    assert len(data) > size
    path.write_bytes(data[:size])


def test_pictures_that_are_none_are_told(stb: Path, write_picture: Any) -> None:
    place = stb / "images/B1Counting"
    truncate(place / "SK_depth_0.png", 200)
    write_picture(place / "SK_color_1.png", np.zeros((240, 320, 3), dtype=np.uint8))
    (stb / "images/B1Random/SK_color_0.png").unlink()
    data = open_dataset("stb", stb, "test_sk")
    for index, message in enumerate(["SK_depth_0", "expected 640x480", "B1Random/SK_color_0"]):
        with pytest.raises(ImageError, match=message):
            data[index]
