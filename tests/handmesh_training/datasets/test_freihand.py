"""FreiHAND: made here in the set's own layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_sets import FREIHAND_POSES as POSES
from made_sets import make_freihand
from numpy.typing import NDArray

from handmesh import JOINT_NAMES
from handmesh.errors import ImageError, InputError
from handmesh_training.datasets import open_dataset

Array = NDArray[np.float64]


@pytest.fixture
def freihand(tmp_path: Path, known_hand: Any, write_picture: Any) -> Path:
    return make_freihand(tmp_path, known_hand, write_picture)


def test_each_pose_is_there_four_times(
    freihand: Path, known_hand: Callable[[bool, int], dict[str, Array]], assert_sound: Any
) -> None:
    data = open_dataset("freihand", freihand, "train")

    assert len(data) == 4 * POSES
    for number, sample in enumerate(data):
        truth = known_hand(True, number % POSES)
        np.testing.assert_allclose(sample.joints_m, [truth[name] for name in JOINT_NAMES])
        assert sample.image.mean() == pytest.approx(3 * number, abs=2)
        assert sample.is_right is True
        assert sample.mask is not None
        assert (sample.mask[:, 0] > 127).sum() == 40 * (number % POSES) + 8
        assert sample.intrinsics is not None
        assert sample.intrinsics[0, 0] == 470 + number % POSES
        assert_sound(sample)
    assert len({sample.key for sample in data}) == 4 * POSES
    assert [data.group_of(i) for i in range(4 * POSES)] == 4 * list(range(POSES))


def test_evaluation_and_its_meshes(freihand: Path) -> None:
    data = open_dataset("freihand", freihand, "test")
    meshes = np.array(json.loads((freihand / "evaluation_verts.json").read_text()))

    assert len(data) == POSES
    for sample, mesh in zip(data, meshes, strict=True):
        np.testing.assert_allclose(sample.vertices_m, mesh, rtol=1e-6)
        assert sample.mask is None
    (freihand / "evaluation_verts.json").unlink()
    assert open_dataset("freihand", freihand, "test")[0].vertices_m is None


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n ", ": ")])
def test_rows_are_found_whatever_the_spacing(freihand: Path, separators: tuple[str, str]) -> None:
    expected = [sample.joints_m for sample in open_dataset("freihand", freihand, "test")]
    path = freihand / "evaluation_xyz.json"
    path.write_text("\n " + json.dumps(json.loads(path.read_text()), separators=separators) + "\n")
    found = [sample.joints_m for sample in open_dataset("freihand", freihand, "test")]
    np.testing.assert_array_equal(found, expected)
    path.write_text(json.dumps(json.loads(path.read_text()), indent=1))
    np.testing.assert_array_equal(
        open_dataset("freihand", freihand, "test")[4].joints_m, expected[4]
    )


def test_damaged_sets_are_told(freihand: Path) -> None:
    path = freihand / "evaluation_xyz.json"
    whole = path.read_text()
    for broken in (whole[: len(whole) // 2], whole[:-1], "", "[]", "{}", "[[1, 2], [3]]"):
        path.write_text(broken)
        with pytest.raises(InputError, match="evaluation_xyz"):
            open_dataset("freihand", freihand, "test")
    path.write_text(json.dumps(json.loads(whole)[:-1]))
    with pytest.raises(InputError, match="holds 4 poses"):
        open_dataset("freihand", freihand, "test")
    rows = json.loads(whole)
    rows[0], rows[1] = rows[0][:20], [["a", 1, 2]] * 21
    path.write_text(json.dumps(rows))
    data = open_dataset("freihand", freihand, "test")
    for index, message in enumerate([r"xyz of shape \(21, 3\)", "row 1 is no matrix"]):
        with pytest.raises(InputError, match=message):
            data[index]
    path.unlink()
    with pytest.raises(InputError, match=r"evaluation_xyz\.json is missing"):
        open_dataset("freihand", freihand, "test")


def test_a_missing_or_cut_picture_is_told(freihand: Path) -> None:
    data = open_dataset("freihand", freihand, "train")
    first, second = (freihand / f"training/rgb/0000000{k}.jpg" for k in (0, 1))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-30])
    for index in (0, 1):
        with pytest.raises(ImageError, match=f"0000000{index}"):
            data[index]
