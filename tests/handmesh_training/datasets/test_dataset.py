"""What holds of every layout: finding it, indexing it, sending it to a worker."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from handmesh.errors import InputError
from handmesh_training.datasets import (
    Dataset,
    SampleIndexError,
    find_datasets,
    layouts,
    open_dataset,
    parse_dataset,
)
from handmesh_training.photos import LABELS

SETS = {"stb", "rhd", "freihand", "ge_synthetic", "interhand26m", "coco", "photos"}


def photo_set(folder: Path, write_picture: Any, count: int = 3) -> Path:
    """Photos whose labels say which they are; the teacher's Left is the person's right."""
    folder.mkdir(exist_ok=True)
    labels = {}
    for k in range(count):
        uv = np.random.default_rng(k).uniform(10, 50, (21, 2)) + 0.5
        hand = {"uv": uv.tolist(), "world_m": [[0, 0, 0]] * 21}
        hand["handedness_as_reported"] = "Left" if k % 2 else "Right"
        labels[f"{k}.png"] = {"hands": [hand]}
        write_picture(folder / f"{k}.png", np.full((60, 60, 3), k, dtype=np.uint8))
    (folder / LABELS).write_text(json.dumps(labels))
    return folder


@pytest.fixture
def photos(tmp_path: Path, write_picture: Any) -> Path:
    return photo_set(tmp_path / "photos", write_picture)


def test_every_layout_is_found_by_its_file() -> None:
    found = layouts()
    assert set(found) >= SETS
    for layout in found.values():
        assert issubclass(layout, Dataset)
        assert layout.splits
        assert layout.__doc__


@pytest.mark.parametrize("layout", sorted(SETS))
def test_wrong_folders_and_splits_are_told(layout: str, tmp_path: Path) -> None:
    split = layouts()[layout].splits[-1]
    with pytest.raises(InputError, match="is not a folder"):
        open_dataset(layout, tmp_path / "nowhere", split)
    with pytest.raises(InputError, match=split):
        open_dataset(layout, tmp_path, "no such split")
    # An empty folder: the message names a path below it, or what it lacks.
    with pytest.raises(InputError, match=str(tmp_path)):
        open_dataset(layout, tmp_path, split)
    assert not layouts()[layout].recognises(tmp_path)


@pytest.mark.parametrize("layout", ["", "sample", "crops", "nothing", "../stb"])
def test_unknown_layouts_are_told(layout: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"choose from .*stb"):
        open_dataset(layout, tmp_path, "train")


def test_indices(photos: Path) -> None:
    data = open_dataset("photos", photos, "all")
    assert len(data) == 3
    assert [int(sample.image[0, 0, 0]) for sample in data] == [0, 1, 2]
    assert [int(data[i].image[0, 0, 0]) for i in (-1, -3, 2)] == [2, 0, 2]
    for index in (3, -4, 1000):
        with pytest.raises(SampleIndexError, match=f"holds 3 samples; there is no number {index}"):
            data[index]
    with pytest.raises(IndexError):
        data[3]


def test_photos_keep_the_teachers_joints(photos: Path) -> None:
    for k, sample in enumerate(open_dataset("photos", photos, "all")):
        expected = np.random.default_rng(k).uniform(10, 50, (21, 2))
        np.testing.assert_allclose(sample.joints_px, expected)
        assert sample.is_right == (k % 2 == 1)
        assert sample.joints_m is None


def test_what_was_read_is_not_sent_to_workers(photos: Path) -> None:
    data = open_dataset("photos", photos, "all")
    before = len(pickle.dumps(data))
    assert len(list(data)) == 3
    assert len(pickle.dumps(data)) == before
    copy = pickle.loads(pickle.dumps(data))
    assert [sample.key for sample in copy] == [sample.key for sample in data]


def test_a_loaders_workers_read_them(photos: Path) -> None:
    loader: Any = DataLoader(
        open_dataset("photos", photos, "all"),  # type: ignore[arg-type]
        batch_size=None,
        num_workers=1,
        multiprocessing_context="fork",
    )
    assert [sample.key for sample in loader] == ["0.png", "1.png", "2.png"]


def test_sets_are_named_on_a_command_line(photos: Path) -> None:
    assert len(parse_dataset(f"photos:all:{photos}")) == 3
    for text in ("photos", f"photos:{photos}", "photos:all"):
        with pytest.raises(InputError, match=r"LAYOUT:SPLIT:FOLDER|no split|not a folder"):
            parse_dataset(text)


def test_sets_in_a_folder_of_folders(tmp_path: Path, write_picture: Any) -> None:
    for name in ("b", "a"):
        photo_set(tmp_path / name, write_picture)
    (tmp_path / "c").mkdir()
    (tmp_path / "file.json").write_text("{}")
    found = find_datasets(tmp_path, "all")
    assert list(found) == ["a", "b"]
    assert [len(data) for data in found.values()] == [3, 3]
    with pytest.raises(InputError, match="no folder in which"):
        find_datasets(tmp_path, "test")
    with pytest.raises(InputError, match="no folder in which"):
        find_datasets(tmp_path / "nowhere", "test")
