"""Batches of real hands: each once an epoch, the same after a stop, labels moved with the crop."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from handmesh.errors import InputError
from handmesh_training.augment import Augmentation
from handmesh_training.cropped_set import CroppedSet, build
from handmesh_training.cropped_stream import CroppedSettings, CroppedStream, adapting
from handmesh_training.datasets import Sample
from handmesh_training.sources import Batch

COUNT, BATCH, V = 26, 4, 7
MARGIN = 1.9
# Nothing but the geometry: crops can be told from what they show.
PLAIN = Augmentation(input_size=32, stored_margin=MARGIN, left=0.0, misses=0.0, occluders=0.0)


class Numbered:
    """Right hands whose wrist's place on a fixed set of joints tells their number."""

    folder, split, revision = Path("numbered"), "all", 1

    def __len__(self) -> int:
        return COUNT

    def group_of(self, index: int) -> int:
        return index

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(0)
        px = rng.uniform((25, 20), (70, 60), (21, 2))
        px[1], px[2], px[3] = (20, 15), (75, 15), (75, 70)
        px[0] = (48, 66)
        px[20] = (30 + index, 40)
        lens = np.array([[200.0, 0, 47.0], [0, 200.0, 39.0], [0, 0, 1]])
        z = np.full(21, 0.5)
        z[20] += 0.001 * (index + 1)
        joints_m = np.column_stack([(px - lens[:2, 2]) / 200 * z[:, None], z])
        known = np.ones(21, dtype=bool)
        if index == COUNT - 1:  # the last is known in part
            known[11] = False
        return Sample(
            key=str(index),
            image=np.full((80, 96, 3), 10 * index, dtype=np.uint8),
            is_right=True,
            joints_px=np.where(known[:, None], px, np.nan),
            joint_known=known,
            intrinsics=lens,
            joints_m=joints_m,
            depth_m=np.full((80, 96), 0.5 + 0.0001 * index, dtype=np.float32),
        )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> CroppedSet:
    return build([Numbered()], tmp_path_factory.mktemp("cropped") / "set", 40, MARGIN, 16, V)


@pytest.fixture
def settings(data: CroppedSet) -> CroppedSettings:
    return CroppedSettings(data.folder, BATCH, augment=PLAIN)


@pytest.fixture(scope="module")
def meshes(data: CroppedSet) -> np.ndarray:
    """(N, V, 3): the first seven joints' (u, v), and the hand's number as depth."""
    made = np.array(data.crops.joints[:, :V]) + [0, 0, 1]
    made[..., 2] += np.arange(COUNT)[:, None]
    made[COUNT - 1] = 0  # known in part: no mesh
    return made.astype(np.float32)


@pytest.fixture
def pseudo(data: CroppedSet, meshes: np.ndarray, tmp_path: Path) -> Path:
    path = tmp_path / "meshes.npy"
    keep(path, meshes, data.sha256)
    return path


def keep(path: Path, meshes: np.ndarray, set_sha256: str) -> None:
    np.save(path, meshes)
    origin = {"set_sha256": set_sha256, "weights_sha256": "0" * 64}
    path.with_suffix(".json").write_text(json.dumps(origin))


def bone_m() -> float:
    """The unit of depth; the same for all."""
    joints_m = Numbered()[0].joints_m
    assert joints_m is not None
    return float(np.linalg.norm(joints_m[10] - joints_m[9]))


def numbers(batch: Batch) -> list[int]:
    """Which hands these are: told by a joint's depth, the last by having none."""
    steps = batch["joints"][:, 20, 2] * bone_m() / 0.001
    return [round(float(s)) - 1 if s > 0 else COUNT - 1 for s in steps]


def parts(stream: CroppedStream, number: int, of: int, start: int, count: int) -> list[Batch]:
    return list(itertools.islice(stream.lane(number, of, start), count))


def same(one: Batch, two: Batch) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("of", [1, 2, 3])
def test_every_hand_comes_once_an_epoch_over_all_lanes(settings: CroppedSettings, of: int) -> None:
    stream = CroppedStream(settings, 5)
    per_epoch = COUNT // (BATCH * of)
    lanes = [parts(stream, number, of, 0, 2 * per_epoch) for number in range(of)]
    orders = []
    for epoch in range(2):
        rows = slice(epoch * per_epoch, (epoch + 1) * per_epoch)
        seen = [n for lane in lanes for part in lane[rows] for n in numbers(part)]
        assert len(seen) == len(set(seen)) == per_epoch * BATCH * of
        assert set(seen) <= set(range(COUNT))
        orders.append(seen)
    assert orders[0] != orders[1]
    # Those that do not fill a batch are others in other epochs.
    assert set(orders[0]) != set(orders[1])


def test_what_is_held_out_is_not_drawn(settings: CroppedSettings) -> None:
    held = (2, 3, 17, 24, 25)
    stream = CroppedStream(replace(settings, held_out=held), 3)
    epoch = parts(stream, 0, 1, 0, (COUNT - len(held)) // BATCH)
    drawn = [number for batch in epoch for number in numbers(batch)]
    assert len({*drawn}) == len(drawn) == 20
    assert not {*drawn} & {*held}


def test_what_adapts_a_network_keeps_the_labels_of_every_hand(settings: CroppedSettings) -> None:
    stream = CroppedStream(replace(settings, augment=adapting(32, MARGIN)), 3)
    batches = parts(stream, 0, 1, 0, 2 * COUNT // BATCH)
    for name in ("has_hand", "has_joints", "has_depth", "has_depth_map"):
        known = [(flag, n) for b in batches for flag, n in zip(b[name], numbers(b), strict=True)]
        assert all(flag for flag, n in known if n != COUNT - 1), name  # the last is known in part


@pytest.mark.parametrize("start", [1, 3, 7])
def test_lanes_go_on_bit_for_bit(settings: CroppedSettings, pseudo: Path, start: int) -> None:
    settings = replace(settings, pseudo=pseudo, augment=Augmentation(32, stored_margin=MARGIN))
    stream = CroppedStream(settings, 5)
    whole = parts(stream, 1, 2, 0, 9)
    again = parts(CroppedStream(settings, 5), 1, 2, start, 9 - start)
    assert all(same(a, b) for a, b in zip(whole[start:], again, strict=True))
    other = parts(CroppedStream(settings, 6), 1, 2, 0, 1)[0]
    assert not same(whole[0], other)
    assert not same(whole[0], parts(stream, 0, 2, 0, 1)[0])


def test_a_batch_is_of_the_hands_it_says(
    settings: CroppedSettings, data: CroppedSet, pseudo: Path
) -> None:
    """Joints, depth maps and pseudo meshes of one row belong to one hand, in one frame."""
    drawn = parts(CroppedStream(replace(settings, pseudo=pseudo), 0), 0, 1, 0, 6)
    seen = 0
    for batch in drawn:
        for row, number in enumerate(numbers(batch)):
            has_mesh = bool(batch["has_pseudo"][row])
            assert has_mesh == bool(batch["has_joints"][row]) == (number != COUNT - 1)
            if not has_mesh:
                continue
            seen += 1
            mesh, joints = batch["pseudo"][row], batch["joints"][row]
            torch.testing.assert_close(mesh[:, :2], joints[:V, :2], atol=1e-5, rtol=0)
            torch.testing.assert_close(mesh[:, 2], joints[:V, 2] + number + 1)
            known = batch["depth_known"][row]
            expected = 0.0001 * number / bone_m()
            depth = batch["depth_map"][row][known]
            assert len(depth) > 30
            torch.testing.assert_close(depth, torch.full_like(depth, expected), atol=1e-5, rtol=0)
            assert batch["depth_map"].shape[1:] == (32, 32)
    assert seen > 20
    assert not data.crops.vertices.any(), "the set itself is left alone"


def test_mirrored_and_missed_hands_have_neither_depth_map_nor_pseudo_mesh(
    settings: CroppedSettings, pseudo: Path
) -> None:
    augment = replace(PLAIN, left=0.4, misses=0.3, wide=0.0)
    settings = replace(settings, batch=24, pseudo=pseudo, augment=augment)
    batches = parts(CroppedStream(settings, 0), 0, 1, 0, 4)
    joined = {name: torch.cat([b[name] for b in batches]) for name in batches[0]}
    gone, turned = ~joined["has_hand"], ~joined["is_right"]
    usable = ~gone & ~turned
    assert min(gone.sum(), turned.sum(), usable.sum()) > 10
    assert not joined["has_pseudo"][~usable].any()
    assert not joined["has_depth_map"][~usable].any()
    assert joined["has_depth_map"][usable].float().mean() > 0.9
    assert joined["has_pseudo"][usable].float().mean() > 0.9


def test_without_pseudo_meshes_there_are_none(settings: CroppedSettings) -> None:
    batch = parts(CroppedStream(settings, 0), 0, 1, 0, 1)[0]
    assert not batch["has_pseudo"].any()
    assert not batch["has_mesh"].any()
    assert batch["pseudo"].shape == (BATCH, V, 3)


def test_a_wall_and_what_is_far_are_as_far_as_the_background(
    data: CroppedSet, settings: CroppedSettings, tmp_path: Path
) -> None:
    class BeforeAWall(Numbered):
        def __getitem__(self, index: int) -> Sample:
            sample = super().__getitem__(index)
            assert sample.depth_m is not None
            depth = sample.depth_m.copy()
            depth[:, 48:] = 4.0
            return replace(sample, depth_m=depth)

    built = build([BeforeAWall()], tmp_path / "wall", 40, MARGIN, 16, V)
    settings = replace(settings, folder=built.folder, far=2.5)
    batch = parts(CroppedStream(settings, 0), 0, 1, 0, 1)[0]
    assert torch.isfinite(batch["depth_map"]).all()
    assert batch["depth_map"].max() == 2.5
    walls = (batch["depth_map"] == 2.5).flatten(1).float().mean(dim=1)
    assert 0.1 < walls.mean() < 0.8
    assert batch["depth_known"][batch["depth_map"] == 2.5].all()


def test_what_does_not_fit_is_refused(
    data: CroppedSet, settings: CroppedSettings, pseudo: Path, tmp_path: Path
) -> None:
    def first(changed: CroppedSettings, of: int = 1) -> Batch:
        return parts(CroppedStream(changed, 0), 0, of, 0, 1)[0]

    with pytest.raises(InputError, match="holds 26 hands to train on, a batch takes 28"):
        first(replace(settings, batch=28))
    with pytest.raises(InputError, match="holds 26 hands to train on, a batch takes 28"):
        first(settings, of=7)
    with pytest.raises(InputError, match=r"margin 1\.9, but augment\.stored_margin is 1\.5"):
        first(replace(settings, augment=replace(PLAIN, stored_margin=1.5)))
    with pytest.raises(InputError, match="no set of cropped hands"):
        first(replace(settings, folder=tmp_path / "none"))
    with pytest.raises(InputError, match="no pseudo meshes"):
        first(replace(settings, pseudo=tmp_path / "none.npy"))
    vertices = np.load(pseudo)
    foreign = tmp_path / "foreign.npy"
    keep(foreign, vertices, "0" * 64)
    with pytest.raises(InputError, match="another set"):
        first(replace(settings, pseudo=foreign))
    keep(foreign, vertices[:5], data.sha256)
    with pytest.raises(InputError, match="another set"):
        first(replace(settings, pseudo=foreign))
    assert len(first(replace(settings, pseudo=pseudo))["images"]) == BATCH


def test_a_pseudo_mesh_without_a_scale_is_none(settings: CroppedSettings, tmp_path: Path) -> None:
    """Its x and y cannot be told in bones."""

    class WithoutACamera(Numbered):
        def __getitem__(self, index: int) -> Sample:
            return replace(super().__getitem__(index), intrinsics=None)

    built = build([WithoutACamera()], tmp_path / "set", 40, MARGIN, 16, V)
    keep(tmp_path / "all.npy", np.full((COUNT, V, 3), 0.5, np.float32), built.sha256)
    settings = replace(settings, folder=built.folder, pseudo=tmp_path / "all.npy")
    for batch in parts(CroppedStream(settings, 0), 0, 1, 0, COUNT // BATCH):
        assert batch["has_hand"].any()
        assert not batch["has_pseudo"].any()
