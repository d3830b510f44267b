"""Hands cut out of data sets: what is in them, what is left out, and whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handmesh.errors import CheckpointError, InputError
from handmesh_training.cropped_set import CroppedSet, build
from handmesh_training.datasets import Sample
from handmesh_training.datasets.crops import to_crops
from handmesh_training.samples import Crops

SIDE, MARGIN, DEPTH_SIDE, V = 24, 1.9, 16, 5
WIDTH, HEIGHT = 96, 80


class Samples:
    """A data set in memory that counts how often it is read."""

    poses = 1_000

    def __init__(self, samples: Sequence[Sample], split: str = "training") -> None:
        self.folder, self.split, self.revision = Path("somewhere"), split, 1
        self.samples = list(samples)
        self.read = 0

    def __len__(self) -> int:
        return len(self.samples)

    def group_of(self, index: int) -> int:
        return index % self.poses

    def __getitem__(self, index: int) -> Sample:
        self.read += 1
        return self.samples[index]


def a_sample(number: int) -> Sample:
    """A right hand of random joints half a metre away; every pixel has a depth of its own."""
    rng = np.random.default_rng(number)
    lens = np.array([[200.0, 0, 47.0], [0, 200.0, 39.0], [0, 0, 1]])
    px = rng.uniform((25, 20), (70, 60), (21, 2))
    px[0], px[[5, 9, 13, 17], 1] = (48 + rng.uniform(-3, 3), 66.3), 30  # fingers up
    z = 0.5 + rng.uniform(-0.05, 0.05, 21)
    joints_m = np.column_stack([(px - lens[:2, 2]) / 200 * z[:, None], z])
    return Sample(
        key=f"{number:03d}",
        image=rng.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8),
        is_right=True,
        joints_px=px,
        joint_known=np.ones(21, dtype=bool),
        intrinsics=lens,
        joints_m=joints_m,
        depth_m=rng.uniform(0.48, 0.52, (HEIGHT, WIDTH)).astype(np.float32),
    )


def mirrored(sample: Sample) -> Sample:
    """The left hand in a mirror: picture, depth, camera and all."""
    assert sample.intrinsics is not None
    assert sample.joints_m is not None
    assert sample.depth_m is not None
    lens = sample.intrinsics.copy()
    lens[0, 2] = WIDTH - 1 - lens[0, 2]
    return replace(
        sample,
        image=sample.image[:, ::-1].copy(),
        is_right=False,
        joints_px=sample.joints_px * [-1, 1] + [WIDTH - 1, 0],
        joints_m=sample.joints_m * [-1, 1, 1],
        intrinsics=lens,
        depth_m=sample.depth_m[:, ::-1].copy(),
    )


def in_part(sample: Sample, known: int) -> Sample:
    """With labels of the first joints alone."""
    flags = np.arange(21) < known
    return replace(
        sample, joint_known=flags, joints_px=np.where(flags[:, None], sample.joints_px, np.nan)
    )


Build = Callable[..., CroppedSet]


@pytest.fixture
def made(tmp_path: Path) -> Build:
    def make(*datasets: Samples, **changes: Any) -> CroppedSet:
        settings = {"side": SIDE, "margin": MARGIN, "depth_side": DEPTH_SIDE, "vertex_count": V}
        return build(datasets, tmp_path / "set", **(settings | changes))

    return make


def rows_of(data: CroppedSet) -> dict[str, np.ndarray]:
    arrays = {field.name: np.array(getattr(data.crops, field.name)) for field in fields(Crops)}
    return {**arrays, "depth_maps": np.array(data.depth_maps)}


def test_crops_are_those_of_the_data_sets_in_order(made: Build) -> None:
    samples = [a_sample(i) for i in range(5)]
    data = made(Samples(samples[:2], "a"), Samples(samples[2:], "b"))
    assert len(data) == 5
    assert data.margin == MARGIN
    expected = to_crops(samples, SIDE, MARGIN, V)
    for field in fields(Crops):
        got, wanted = getattr(data.crops, field.name), getattr(expected, field.name)
        np.testing.assert_array_equal(got, wanted)
        assert got.dtype == wanted.dtype
    assert expected.has_depth.all()
    assert data.has_depth_map.all()
    with pytest.raises(ValueError, match="read-only"):
        data.crops.images[0] = 0


def test_depth_maps_are_of_the_same_crop_relative_to_the_wrist_in_bones(made: Build) -> None:
    sample = a_sample(0)
    depth = made(Samples([sample])).depth_maps[0]
    assert sample.joints_m is not None
    assert sample.depth_m is not None
    low, high = sample.joints_px.min(axis=0), sample.joints_px.max(axis=0)
    size = (high - low).max() * MARGIN
    bone = np.sqrt(((sample.joints_m[10] - sample.joints_m[9]) ** 2).sum())
    wrist = sample.joints_px[0]
    compared = 0
    for i in range(DEPTH_SIDE):
        for j in range(DEPTH_SIDE):
            x, y = (low + high) / 2 + (np.array([j, i]) + 0.5 - DEPTH_SIDE / 2) * size / DEPTH_SIDE
            column, row = round(x), round(y)
            if not (0 <= column < WIDTH and 0 <= row < HEIGHT):
                assert np.isnan(depth[i, j])
            elif y < wrist[1] - 5:  # the arm is another matter
                expected = (sample.depth_m[row, column] - sample.joints_m[0, 2]) / bone
                assert depth[i, j] == pytest.approx(expected, abs=1e-4)
                compared += 1
    assert compared > 80


def test_left_hands_are_mirrored_with_their_depth(made: Build) -> None:
    samples = [a_sample(i) for i in range(3)]
    data = rows_of(made(Samples([*samples, *map(mirrored, samples)])))
    for name, array in data.items():
        right, left = array[:3], array[3:]
        if name == "images":  # resampled from the other side: rounded otherwise
            assert np.abs(right.astype(int) - left).max() <= 2
        else:
            np.testing.assert_allclose(left, right, atol=1e-5, err_msg=name)
    assert data["is_right"].all()
    assert 0.3 < np.isfinite(data["depth_maps"]).mean() < 1


def test_samples_that_cannot_be_used_are_left_out(made: Build) -> None:
    good = [a_sample(i) for i in range(6)]
    unusable = [replace(good[0], is_right=None), in_part(good[1], 0), in_part(good[2], 1)]
    mixed = [unusable[0], good[3], unusable[1], in_part(good[4], 9), unusable[2], good[5]]
    data = made(Samples(mixed))
    assert len(data) == 3
    expected = to_crops([mixed[1], mixed[3], mixed[5]], SIDE, MARGIN, V)
    for field in fields(Crops):
        np.testing.assert_array_equal(
            getattr(data.crops, field.name), getattr(expected, field.name), err_msg=field.name
        )
    assert data.crops.has_joints.tolist() == [True, False, True]
    # Known in part, a hand has no crop that a whole one's depth map would be of.
    assert data.has_depth_map.tolist() == [True, False, True]
    assert sorted(path.name for path in data.folder.iterdir()) == sorted(
        [f"{name}.npy" for name in (*(f.name for f in fields(Crops)), "depth_maps", "groups")]
        + ["index.json"]
    )
    assert json.loads((data.folder / "index.json").read_text())["count"] == 3


def test_whole_groups_of_every_set_are_the_last(made: Build) -> None:
    """Ten poses thrice each, of which one hand cannot be used, and a set in which all differ."""
    thrice = Samples([a_sample(i) for i in range(30)])
    thrice.poses = 10
    thrice.samples[9] = replace(thrice.samples[9], is_right=None)
    data = made(thrice, Samples([a_sample(100 + i) for i in range(20)], "other"))
    poses = [i % 10 for i in range(30) if i != 9]
    assert data.groups.tolist() == [[0, p] for p in poses] + [[1, i] for i in range(20)]

    rows = {pose: np.flatnonzero(np.array(poses) == pose).tolist() for pose in (8, 9)}
    # 29 hands over 20, and 20 over 20, are one hand each; the pose has two.
    assert data.last_groups(20, 256).tolist() == [*rows[9], 48]
    # A tenth is 2 hands; a seventh is 4 in the one and 2 in the other; a group is never cut.
    assert data.last_groups(10, 256).tolist() == [*rows[9], 47, 48]
    assert data.last_groups(7, 256).tolist() == [*sorted(rows[8] + rows[9]), 47, 48]
    assert data.last_groups(7, 1).tolist() == [*rows[9], 48]
    assert not data.last_groups(30, 256).size
    # Something is left to train on.
    assert data.last_groups(1, 256).tolist() == [i for i in range(49) if i not in (0, 9, 19, 29)]


def test_a_set_of_one_group_is_trained_on(made: Build) -> None:
    alike = Samples([a_sample(i) for i in range(4)])
    alike.poses = 1
    assert not made(alike).last_groups(2, 256).size


def test_without_any_usable_hand(made: Build, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no hand of a known side"):
        made(Samples([replace(a_sample(0), is_right=None)]))
    assert not (tmp_path / "set").exists()


def test_hands_without_a_depth_picture_or_3d_joints_have_unknown_depth(made: Build) -> None:
    whole = a_sample(0)
    samples = [replace(whole, depth_m=None), replace(whole, joints_m=None), whole]
    data = made(Samples(samples))
    assert data.has_depth_map.tolist() == [False, False, True]
    assert np.isnan(data.depth_maps[:2]).all()
    assert data.crops.has_depth.tolist() == [True, False, True]


def test_without_3d_labels_depth_maps_stay(made: Build, tmp_path: Path) -> None:
    samples = Samples([a_sample(i) for i in range(3)])
    plain = rows_of(made(samples))
    flat = rows_of(
        build([samples], tmp_path / "flat", SIDE, MARGIN, DEPTH_SIDE, V, joints_3d=False)
    )
    assert plain["has_depth"].all()
    assert not flat["has_depth"].any()
    for name in ("depth_maps", "images", "crop_in_bones", "has_joints"):
        np.testing.assert_array_equal(flat[name], plain[name])
    np.testing.assert_array_equal(flat["joints"][..., :2], plain["joints"][..., :2])


@pytest.mark.parametrize(("limit", "rows"), [(3, [0, 3, 6]), (1, [0]), (50, range(10))])
def test_a_limit_takes_hands_evenly_of_each_set(
    made: Build, limit: int, rows: Sequence[int]
) -> None:
    samples = [a_sample(i) for i in range(10)]
    data = made(Samples(samples, "a"), Samples(samples[:2], "b"), limit=limit)
    kept = [samples[i] for i in rows] + samples[: min(limit, 2)]
    expected = to_crops(kept, SIDE, MARGIN, V)
    np.testing.assert_array_equal(data.crops.images, expected.images)


class Interrupted(Samples):
    def __getitem__(self, index: int) -> Sample:
        if index == 2:
            raise KeyboardInterrupt
        return super().__getitem__(index)


def test_an_interrupted_build_leaves_no_set_and_harms_no_later_one(
    made: Build, tmp_path: Path
) -> None:
    samples = [a_sample(i) for i in range(4)]
    with pytest.raises(KeyboardInterrupt):
        made(Interrupted(samples))
    assert not (tmp_path / "set").exists()
    left = tmp_path / "set.partial"
    assert left.is_dir()
    (left / "rubbish.npy").write_bytes(b"x")
    data = made(Samples(samples))
    assert len(data) == 4
    assert not left.exists()
    assert not (data.folder / "rubbish.npy").exists()
    assert np.array_equal(data.crops.images, to_crops(samples, SIDE, MARGIN, V).images)


def test_a_set_that_is_there_is_kept_and_another_refused(made: Build) -> None:
    samples = [a_sample(i) for i in range(4)]
    first = made(Samples(samples))
    again = Samples(samples)
    assert made(again).sha256 == first.sha256
    assert again.read == 0
    before = {path.name: path.read_bytes() for path in first.folder.iterdir()}
    for datasets, changes in (
        ([Samples(samples, "testing")], {}),
        ([Samples(samples[:3])], {}),
        ([Samples(samples), Samples(samples)], {}),
        ([Samples(samples)], {"limit": 2}),
        ([Samples(samples)], {"side": 25}),
        ([Samples(samples)], {"margin": 2.0}),
        ([Samples(samples)], {"depth_side": 8}),
        ([Samples(samples)], {"joints_3d": False}),
        ([Samples(samples)], {"vertex_count": 6}),
    ):
        with pytest.raises(CheckpointError, match="other sets, or otherwise"):
            made(*datasets, **changes)
    assert {path.name: path.read_bytes() for path in first.folder.iterdir()} == before


def test_labels_that_changed_make_another_set(made: Build, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "labels").mkdir(parents=True)
    file = source / "labels" / "joints.json"
    file.write_text("[1]")
    (source / "picture.png").write_bytes(b"1")

    def samples() -> Samples:
        found = Samples([a_sample(i) for i in range(2)])
        found.folder = source
        return found

    first = made(samples())
    (source / "picture.png").write_bytes(b"2")
    assert made(samples()).sha256 == first.sha256
    file.write_text("[2]")
    with pytest.raises(CheckpointError, match="labels or how they"):
        made(samples())
    file.write_text("[1]")
    assert made(samples()).made_from == first.made_from
    (source / "labels" / "more.txt").write_text("")
    with pytest.raises(CheckpointError, match="labels or how they"):
        made(samples())


def test_labels_that_are_read_otherwise_make_another_set(made: Build) -> None:
    first = made(Samples([a_sample(0)]))
    later = Samples([a_sample(0)])
    later.revision = 2
    with pytest.raises(CheckpointError, match="how they are read have changed"):
        made(later)
    later.revision = 1
    assert made(later).made_from == first.made_from


def test_a_run_in_the_folder_of_its_data_is_no_label_of_it(tmp_path: Path) -> None:
    samples = Samples([a_sample(i) for i in range(2)])
    samples.folder = tmp_path
    (tmp_path / "joints.json").write_text("[1]")
    sizes = (SIDE, MARGIN, DEPTH_SIDE, V)
    first = build([samples], tmp_path / "run" / "real", *sizes)
    assert (first.folder / "index.json").exists()
    (tmp_path / "run" / "figures.json").write_text("{}")
    assert build([samples], first.folder, *sizes).made_from == first.made_from
    assert samples.read == 2


def test_the_hash_is_of_what_was_read(made: Build, tmp_path: Path) -> None:
    samples = [a_sample(i) for i in range(2)]
    first = made(Samples(samples))
    sizes = (SIDE, MARGIN, DEPTH_SIDE, V)
    assert build([Samples(samples)], tmp_path / "again", *sizes).sha256 == first.sha256
    assert samples[1].depth_m is not None
    for number, change in enumerate(
        ({"image": samples[1].image // 2}, {"depth_m": samples[1].depth_m + np.float32(0.01)})
    ):
        other = [samples[0], replace(samples[1], **change)]
        found = build([Samples(other)], tmp_path / f"other{number}", *sizes)
        assert found.made_from == first.made_from
        assert found.sha256 != first.sha256


def test_folders_without_a_set_are_refused(made: Build, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no set of cropped hands"):
        CroppedSet(tmp_path / "nowhere")
    samples = Samples([a_sample(0)])
    folder = made(samples).folder
    index = folder / "index.json"
    whole = index.read_bytes()
    for content in (b"", b"[]", b"{}", whole.replace(b'"sha256"', b'"else"')):
        index.write_bytes(content)
        with pytest.raises(InputError, match="delete it, it is made anew"):
            CroppedSet(folder)
        with pytest.raises(InputError, match="delete it, it is made anew"):
            made(samples)
    index.write_bytes(whole)
    for name in ("joints", "depth_maps"):
        (folder / f"{name}.npy").write_bytes(b"")
        with pytest.raises(InputError, match="delete it, it is made anew"):
            CroppedSet(folder)
    (folder / "joints.npy").unlink()
    with pytest.raises(InputError, match="delete it, it is made anew"):
        CroppedSet(folder)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no room can be taken here")
def test_a_full_disk_is_told_before_hands_are_cut(
    made: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    source = Samples([a_sample(0)])
    with pytest.raises(InputError, match=r"set\.partial.*takes \d+ bytes \(No space left"):
        made(source)
    assert not source.read
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no room can be taken here")
def test_a_disk_that_is_full_at_the_end_is_not_left_so(
    made: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where hands were left out, the arrays are written again, shorter, beside the whole ones."""
    take = os.posix_fallocate

    def full(file: int, *room: int) -> None:
        if os.readlink(f"/proc/self/fd/{file}").endswith(".cut.npy"):
            raise OSError(errno.ENOSPC, "No space left on device")
        take(file, *room)

    monkeypatch.setattr(os, "posix_fallocate", full)
    sample = a_sample(0)
    unusable = replace(sample, joint_known=np.zeros(21, bool))
    with pytest.raises(InputError, match=r"\.cut\.npy.*takes \d+ bytes \(No space left"):
        made(Samples([sample, unusable]))
    assert not any(tmp_path.iterdir())


def test_labels_that_tell_no_scale_are_no_depth(made: Build) -> None:
    """Nor a mesh or a depth map, which would be told in lengths of nothing."""
    sample = a_sample(0)
    assert sample.joints_m is not None
    flat = sample.joints_m.copy()
    flat[10] = flat[9]
    points = np.tile(np.float32([0, 0, 0.5]), (V, 1))
    bad = replace(sample, joints_m=flat, vertices_m=points, our_mesh=True)
    data = made(Samples([bad, replace(bad, joints_m=sample.joints_m)]))
    for name in ("has_depth", "has_mesh"):
        assert getattr(data.crops, name).tolist() == [False, True], name
    assert data.has_depth_map.tolist() == [False, True]
    assert all(np.isfinite(getattr(data.crops, field.name)).all() for field in fields(Crops))
