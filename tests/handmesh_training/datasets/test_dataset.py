"""What holds of every layout: finding it, indexing it, sending it to a worker."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_sets import make_freihand, make_ge_synthetic, make_photo_set, make_rhd, make_stb
from torch.utils.data import DataLoader

from handmesh.errors import InputError
from handmesh_training.datasets import (
    Dataset,
    SampleIndexError,
    find_datasets,
    layouts,
    named_datasets,
    open_dataset,
    parse_dataset,
    recognise,
)
from handmesh_training.protocols import STANDARD

SETS = {"stb", "rhd", "freihand", "ge_synthetic", "interhand26m", "coco", "photos"}


@pytest.fixture
def photos(tmp_path: Path, write_picture: Any) -> Path:
    return make_photo_set(tmp_path / "photos", write_picture)


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


def test_photos_have_the_teachers_joints_with_longer_fingers(photos: Path) -> None:
    data = open_dataset("photos", photos, "all")
    assert data.revision == 3, "sets cut by the teacher's own tips, or with all thumbs, are others"
    for k, sample in enumerate(data):
        expected = np.random.default_rng(k).uniform(10, 50, (21, 2))
        for tip in (4, 8, 12, 16, 20):  # moved to the finger's end
            expected[tip] += 0.3 * (expected[tip] - expected[tip - 1])
        np.testing.assert_allclose(sample.joints_px, expected)
        assert sample.is_right == (k % 2 == 1)
        assert sample.joints_m is None


def test_photos_come_whole_or_in_two_parts(tmp_path: Path, write_picture: Any) -> None:
    folder = make_photo_set(tmp_path / "photos", write_picture, count=10)
    keys = {
        split: [sample.key for sample in open_dataset("photos", folder, split)]
        for split in ("all", "train", "held-out")
    }
    assert keys["held-out"] == ["8.png", "9.png"]
    assert keys["train"] + keys["held-out"] == keys["all"]


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
        make_photo_set(tmp_path / name, write_picture)
    (tmp_path / "c").mkdir()
    (tmp_path / "file.json").write_text("{}")
    found = find_datasets(tmp_path, "all")
    assert list(found) == ["a", "b"]
    assert [len(data) for data in found.values()] == [3, 3]
    with pytest.raises(InputError, match="no folder in which"):
        find_datasets(tmp_path, "test")
    with pytest.raises(InputError, match="no folder in which"):
        find_datasets(tmp_path / "nowhere", "test")


@pytest.fixture
def sets(tmp_path: Path, known_hand: Any, write_picture: Any) -> Path:
    """One set of each of several layouts, of which few have a split named "test"."""
    for name, make in {
        "freihand": make_freihand,
        "ge_synthetic": make_ge_synthetic,
        "rhd": make_rhd,
        "stb": make_stb,
    }.items():
        (tmp_path / name).mkdir()
        make(tmp_path / name, known_hand, write_picture)
    make_photo_set(tmp_path / "photos", write_picture)
    return tmp_path


def test_each_layout_has_a_split_to_evaluate(sets: Path) -> None:
    """Also where none is called "test"; STB's is B1, Ge et al.'s the held-out cameras."""
    found = find_datasets(sets)
    assert {name: (data.split, len(data)) for name, data in found.items()} == {
        "freihand": ("test", 5),
        "ge_synthetic": ("val", 4),
        "photos": ("all", 3),
        "rhd": ("test", 4),
        "stb": ("test_sk", 4),
    }
    assert {sample.key[:2] for sample in found["stb"]} == {"B1"}
    assert set(find_datasets(sets, "test")) == {"freihand", "rhd"}
    for layout in layouts().values():
        assert layout.evaluation_split in layout.splits
        assert layout.protocol in STANDARD


def test_sets_for_evaluation_are_named_by_folder_or_in_full(sets: Path) -> None:
    for name in ("stb", "rhd", "photos"):
        text = str(sets / name)
        (only,) = named_datasets(text).items()
        assert only[0] == name
        assert type(only[1]) is layouts()[name] is recognise(text)
    text = f"stb:train_bb_left:{sets / 'stb'}"
    assert {name: data.split for name, data in named_datasets(text).items()} == {
        text: "train_bb_left"
    }
    assert list(named_datasets(str(sets))) == [path.name for path in sorted(sets.iterdir())]
    for wrong in ("stb:test_sk", str(sets / "nowhere"), str(sets / "rhd" / "evaluation")):
        with pytest.raises(InputError, match=r"LAYOUT:SPLIT:FOLDER|no folder in which"):
            named_datasets(wrong)
