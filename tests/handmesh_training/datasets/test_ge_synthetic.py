"""The synthetic set of Ge et al.: made here in the set's own layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_sets import GE_FOCAL as FOCAL
from made_sets import GE_SIDE as SIDE
from made_sets import make_ge_synthetic
from numpy.typing import NDArray

from handmesh import JOINT_NAMES
from handmesh.errors import InputError
from handmesh_training.datasets import open_dataset
from handmesh_training.datasets.ge_synthetic import GeSynthetic, composite

Array = NDArray[np.float64]


@pytest.fixture
def ge(tmp_path: Path, known_hand: Any, write_picture: Any) -> Path:
    return make_ge_synthetic(tmp_path, known_hand, write_picture)


def test_splits_are_by_camera(ge: Path) -> None:
    train, val = (open_dataset("ge_synthetic", ge, split) for split in ("train", "val"))

    assert [sample.key.split("/")[1] for sample in val] == ["cam06"] * 4
    assert len(train) == 8
    assert {sample.key.split("/")[1] for sample in train} == {"cam01", "cam25"}
    assert len({sample.key for sample in train}) == 8
    gestures = [int(sample.key.rpartition(".")[2]) - 1 for sample in train]
    assert [train.group_of(i) for i in range(8)] == gestures
    assert len({*gestures}) == 2


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
