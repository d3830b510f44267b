"""A few real pictures of five sets with their true labels, where they are: see `assets`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handmesh_training.datasets import Dataset, find_datasets
from handmesh_training.datasets.crops import to_crops

COUNTS = {"freihand": 8, "interhand2.6m": 6, "onehand10k": 4, "panoptic": 4, "rhd": 3}


@pytest.fixture
def samples(assets: Path) -> dict[str, Dataset]:
    folder = assets / "photos/check/labelled_samples"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return find_datasets(folder, "test")


def test_all_are_found_and_read(samples: dict[str, Dataset]) -> None:
    assert {name: len(list(data)) for name, data in samples.items()} == COUNTS


def test_labels_lie_in_their_pictures(samples: dict[str, Dataset]) -> None:
    for data in samples.values():
        for sample in data:
            height, width = sample.image.shape[:2]
            points = sample.joints_px[sample.joint_known]
            assert len(points) >= 7
            assert (points > -1).all()
            assert (points < (width, height)).all()


def test_3d_labels_are_sound(samples: dict[str, Dataset], assert_sound: Any) -> None:
    """Order, units, projection and side of real hands, not of ones that this project made."""
    sides = set()
    for name in ("interhand2.6m", "rhd"):
        for sample in samples[name]:
            assert sample.joint_known.all()
            assert_sound(sample)
            sides.add((name, sample.is_right))
    assert len(sides) == 4


def test_repeated_poses_of_freihand_agree(samples: dict[str, Dataset]) -> None:
    by_pose: dict[int, list[Any]] = {}
    for sample in samples["freihand"]:
        by_pose.setdefault(int(sample.key.split(".")[0]) % 32560, []).append(sample.joints_px)
    assert {pose: len(rows) for pose, rows in by_pose.items()} == {17620: 4, 355: 4}
    for rows in by_pose.values():
        np.testing.assert_array_equal(rows, [rows[0]] * 4)


def test_they_become_crops(samples: dict[str, Dataset]) -> None:
    for name, data in samples.items():
        if name == "onehand10k":
            assert all(sample.is_right is None for sample in data)
            continue
        crops = to_crops(data, 64, 1.5, 4)
        assert crops.has_joints.all()
        assert crops.has_depth.all() == (name in ("interhand2.6m", "rhd"))
        inside = (crops.joints[..., :2] > 0) & (crops.joints[..., :2] < 1)
        assert inside.all()
        if crops.has_depth.all():
            assert (crops.crop_in_bones > 2).all()
            assert (crops.crop_in_bones < 12).all()
