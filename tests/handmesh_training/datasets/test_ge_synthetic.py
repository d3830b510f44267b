"""The synthetic set of Ge et al.: made here in the set's own layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from handmesh import JOINT_NAMES
from handmesh.errors import InputError
from handmesh_training.datasets import open_dataset
from handmesh_training.datasets.ge_synthetic import GeSynthetic, composite

Array = NDArray[np.float64]

GESTURES, SIDE = 2, 96
FOCAL = 150.0


def to_world(points_m: Array, angles_deg: Array, place_cm: Array) -> Array:
    """(N, 3) camera, metres, to world, centimetres: what the loader must undo."""
    a, b, c = np.deg2rad(angles_deg)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    rotation = z @ y @ x @ np.diag([1, -1, -1])
    return 100 * points_m @ rotation.T + place_cm


def camera_of(number: int, gesture: int) -> tuple[Array, Array]:
    """Angles in degrees and place in centimetres."""
    rng = np.random.default_rng([number, gesture])
    return rng.uniform(-60, 60, 3), rng.uniform(-30, 30, 3)


# The gesture as camera 1 sees it is known; the others look from elsewhere.
@pytest.fixture
def ge(tmp_path: Path, known_hand: Any, write_picture: Any) -> Path:
    (tmp_path / "3D_labels").mkdir()
    (tmp_path / "hand_3D_mesh").mkdir()
    joint_lines, camera_lines = "\n", "\n"
    for gesture in range(GESTURES):
        hand = known_hand(False, gesture)
        joints = np.array([hand[name] for name in JOINT_NAMES])
        world = to_world(joints, *camera_of(1, gesture))
        lines = (f"bone_{n} {x:.9f} {y:.9f} {z:.9f}" for n, (x, y, z) in enumerate(world))
        joint_lines += "\n".join(lines) + "\n\n"
        for camera in range(1, 26):
            angles, place = camera_of(camera, gesture)
            numbers = " ".join(f"{value:.9f}" for value in (FOCAL, *place, *angles))
            camera_lines += f"cam{camera:02d} {numbers} \n"
        camera_lines += "\n"
        mesh = to_world(joints[:7] + 0.002, *camera_of(1, gesture))
        text = "# made up\n" + "".join(f"v {x:.9f} {y:.9f} {z:.9f}\n" for x, y, z in mesh)
        file = tmp_path / "hand_3D_mesh" / f"pose.{gesture + 1:04d}.obj"
        file.write_text(text + "vn 0 0 1\nf 1 2 3\n")
    (tmp_path / "3D_labels/handGestures.txt").write_text(joint_lines)
    (tmp_path / "3D_labels/camPosition.txt").write_text(camera_lines)
    for light in (1, 30):
        for camera in (1, 6, 25):
            for gesture in range(GESTURES):
                picture = np.zeros((SIDE, SIDE, 4), dtype=np.uint8)
                picture[20:70, 30:60] = (200, 10 * camera // 2, light, 255)
                picture[70:72, 30:60, 3] = 64
                name = f"l{light:02d}/cam{camera:02d}/any_l_cam_.{gesture + 1:04d}.png"
                write_picture(tmp_path / "images" / name, picture)
    return tmp_path


def test_splits_are_by_camera(ge: Path) -> None:
    train, val = (open_dataset("ge_synthetic", ge, split) for split in ("train", "val"))

    assert [sample.key.split("/")[1] for sample in val] == ["cam06"] * 4
    assert len(train) == 8
    assert {sample.key.split("/")[1] for sample in train} == {"cam01", "cam25"}
    assert len({sample.key for sample in train}) == 8


def test_joints_mesh_and_camera(
    ge: Path, known_hand: Callable[[bool, int], dict[str, Array]], assert_sound: Any
) -> None:
    data = open_dataset("ge_synthetic", ge, "train")
    for index in (0, 1):  # l01/cam01, both gestures
        sample = data[index]
        hand = known_hand(False, index)
        joints = np.array([hand[name] for name in JOINT_NAMES])
        np.testing.assert_allclose(sample.joints_m, joints, atol=1e-9)
        np.testing.assert_allclose(sample.vertices_m, joints[:7] + 0.002, atol=1e-6)
        assert sample.is_right is False
        # The ray through the boundary between the two middle pixels is the camera's axis.
        on_axis = np.array([SIDE / 2 - 0.5, SIDE / 2 - 0.5])
        expected = FOCAL * joints[:, :2] / joints[:, 2:] + on_axis
        np.testing.assert_allclose(sample.joints_px, expected, atol=1e-6)
        assert_sound(sample)


def test_alpha_is_the_mask(ge: Path) -> None:
    sample = open_dataset("ge_synthetic", ge, "train")[0]
    assert sample.mask is not None
    np.testing.assert_array_equal(np.unique(sample.mask), [0, 64, 255])
    assert (sample.mask[20:70, 30:60] == 255).all()
    np.testing.assert_array_equal(sample.image[40, 40], [200, 5, 1])


def test_backgrounds_are_put_behind_the_hand(ge: Path, write_picture: Any) -> None:
    behind = np.zeros((200, 400, 3), dtype=np.uint8)
    behind[:, :, 1] = 240
    behind[:, 200:, 1] = 120
    write_picture(ge / "behind.png", behind)
    sample = GeSynthetic(ge, "train", (ge / "behind.png",))[0]

    np.testing.assert_array_equal(sample.image[40, 40], [200, 5, 1])
    np.testing.assert_array_equal(sample.image[5, 5], [0, 240, 0])
    np.testing.assert_array_equal(sample.image[5, 90], [0, 120, 0])
    share = 64 / 255
    np.testing.assert_array_equal(sample.image[71, 40], [0, round(240 * (1 - share)), 0])
    with pytest.raises(InputError, match="mask"):
        composite(sample.image, np.zeros((5, 5), dtype=np.uint8), behind)


def test_damaged_sets_are_told(ge: Path) -> None:
    mesh = ge / "hand_3D_mesh/pose.0001.obj"
    whole = mesh.read_text()
    data = open_dataset("ge_synthetic", ge, "train")
    mesh.write_text(whole.replace("v ", "v 77 "))
    with pytest.raises(InputError, match=r"mesh of gesture 1 lies .* from its joints"):
        data[0]
    mesh.write_text(whole[: whole.index("\n", 30) - 14])
    with pytest.raises(InputError, match="complete"):
        data[0]
    mesh.unlink()
    with pytest.raises(InputError, match=r"no mesh \*0001\.obj"):
        open_dataset("ge_synthetic", ge, "train")[0]

    gestures = ge / "3D_labels/handGestures.txt"
    whole = gestures.read_text()
    gestures.write_text(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="handGestures"):
        open_dataset("ge_synthetic", ge, "train")[0]
    lines = whole.strip().splitlines()
    gestures.write_text("\n".join(lines[:21]))
    with pytest.raises(InputError, match="gesture 2"):
        open_dataset("ge_synthetic", ge, "train")[1]
    (ge / "3D_labels/camPosition.txt").unlink()
    with pytest.raises(InputError, match=r"camPosition\.txt is missing"):
        open_dataset("ge_synthetic", ge, "train")


def test_a_folder_without_pictures_and_an_odd_name_are_told(ge: Path, write_picture: Any) -> None:
    odd = ge / "images/l01/cam01/A.png"  # sorts first
    write_picture(odd, np.zeros((SIDE, SIDE, 4), dtype=np.uint8))
    with pytest.raises(InputError, match="ends in the gesture"):
        open_dataset("ge_synthetic", ge, "train")[0]
    (ge / "images").rename(ge / "elsewhere")
    with pytest.raises(InputError, match="holds no picture"):
        open_dataset("ge_synthetic", ge, "train")
