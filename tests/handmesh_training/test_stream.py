"""The stream of batches on made-up surroundings: shapes, repeatability, going on, mixing."""

from __future__ import annotations

import itertools
import json
import pickle
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from handmesh.errors import InputError
from handmesh_training import stream
from handmesh_training.augment import Augmentation
from handmesh_training.datasets import Sample
from handmesh_training.datasets.freihand import FreiHand
from handmesh_training.photos import LABELS
from handmesh_training.rendered import HandRenderer, RenderSettings
from handmesh_training.samples import Crops
from handmesh_training.stream import Batch, CropStream, LabelledCrops, StreamSettings, loader

pytestmark = pytest.mark.usefixtures("quick_surroundings")

SETTINGS = StreamSettings(
    batch=6,
    pool=16,
    chunk=8,
    reuse=1.5,
    render=RenderSettings(crop_px=48),
    augment=Augmentation(input_size=32),
)


def first(settings: StreamSettings, count: int, seed: int = 0, **more: int) -> list[Batch]:
    return list(itertools.islice(CropStream(settings, seed, **more), count))


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Which chunks have been rendered, in order."""
    numbers: list[int] = []
    plain = HandRenderer.chunk

    def counted(self: HandRenderer, number: int, count: int) -> Crops:
        numbers.append(number)
        return plain(self, number, count)

    monkeypatch.setattr(HandRenderer, "chunk", counted)
    return numbers


@pytest.fixture
def photo_set(tmp_path: Path) -> Path:
    """Three photos of nothing but green."""
    joints = np.random.default_rng(0).uniform(20, 60, (21, 2)).tolist()
    hand = {"uv": joints, "world_m": [[0, 0, 0]] * 21, "handedness_as_reported": "Left"}
    for k in range(3):
        picture = np.zeros((80, 80, 3), dtype=np.uint8)
        picture[..., 1] = 200
        cv2.imwrite(str(tmp_path / f"{k}.png"), picture)
    labels = {f"{k}.png": {"hands": [hand]} for k in range(3)}
    (tmp_path / LABELS).write_text(json.dumps(labels))
    return tmp_path


def test_batches_have_the_declared_shapes_and_types() -> None:
    (batch,) = first(SETTINGS, 1)

    expected = {
        "images": ((6, 32, 32, 3), torch.uint8),
        "joints": ((6, 21, 3), torch.float32),
        "vertices": ((6, 1036, 3), torch.float32),
        "crop_in_bones": ((6,), torch.float32),
        **{f"has_{x}": ((6,), torch.bool) for x in ("hand", "joints", "depth", "mesh")},
        "is_right": ((6,), torch.bool),
    }
    assert {name: (tuple(t.shape), t.dtype) for name, t in batch.items()} == expected
    assert all(torch.isfinite(t).all() for t in batch.values())
    assert batch["images"].float().std() > 5, "pictures show something"


def test_the_same_seed_gives_the_same_batches() -> None:
    one, two, other = first(SETTINGS, 5), first(SETTINGS, 5), first(SETTINGS, 5, seed=1)

    for a, b, c in zip(one, two, other, strict=True):
        for name in a:
            assert torch.equal(a[name], b[name]), name
        assert not torch.equal(a["images"], c["images"])
    assert not torch.equal(one[0]["images"], one[1]["images"])


def test_a_chunk_is_a_function_of_seed_and_number() -> None:
    renderer = HandRenderer(SETTINGS.render, seed=3)
    other = HandRenderer(SETTINGS.render, seed=4)

    one, _, again = (renderer.chunk(number, 4) for number in (0, 1, 0))

    np.testing.assert_array_equal(one.images, again.images)
    np.testing.assert_array_equal(one.vertices, again.vertices)
    assert not np.array_equal(one.joints, renderer.chunk(1, 4).joints)
    assert not np.array_equal(one.joints, other.chunk(0, 4).joints)


def test_rendered_crops_know_which_of_them_are_empty() -> None:
    settings = replace(SETTINGS.render, empty=0.5)
    crops = HandRenderer(settings, seed=0).chunk(0, 40)

    assert 8 < crops.has_hand.sum() < 32
    for name in ("has_joints", "has_depth", "has_mesh"):
        np.testing.assert_array_equal(getattr(crops, name), crops.has_hand)
    assert crops.is_right.all()
    # The hand is what differs from the same chunk without any.
    bare = HandRenderer(replace(settings, empty=1.0), seed=0).chunk(0, 40)
    assert not bare.has_hand.any()
    differs = (crops.images != bare.images).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(differs, crops.has_hand)


def test_crops_are_drawn_so_often_and_replaced(chunks: list[int]) -> None:
    batches = 40
    first(SETTINGS, batches)

    # Two chunks to begin with; then one for every reuse * chunk crops drawn.
    rendered = 2 + batches * SETTINGS.batch / (SETTINGS.reuse * SETTINGS.chunk)
    assert abs(len(chunks) - rendered) <= 1
    assert chunks == list(range(len(chunks))), "none left out, none twice"


def test_a_later_start_goes_on_with_other_hands(chunks: list[int]) -> None:
    first(SETTINGS, 40)
    before = list(chunks)
    chunks.clear()

    first(SETTINGS, 3, start=40)

    assert len(set(chunks) & set(before)) <= 2
    assert min(chunks) >= max(before) - 1
    assert max(chunks) <= max(before) + 3, "and leaves none out"


def test_starts_and_processes_draw_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even from the same crops."""
    plain = HandRenderer.chunk
    monkeypatch.setattr(HandRenderer, "chunk", lambda self, _, count: plain(self, 0, count))

    batches = [first(SETTINGS, 1), first(SETTINGS, 1, start=1), first(SETTINGS, 1, rank=1, world=2)]

    assert len({batch[0]["images"].numpy().tobytes() for batch in batches}) == 3


def test_processes_and_workers_share_no_chunk(
    chunks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Worker:
        num_workers = 2

        def __init__(self, number: int) -> None:
            self.id = number

    seen: list[int] = []
    pictures = []
    for rank, worker in itertools.product(range(2), range(2)):
        monkeypatch.setattr(stream, "get_worker_info", lambda worker=worker: Worker(worker))
        pictures.append(first(SETTINGS, 8, rank=rank, world=2)[0]["images"].numpy().tobytes())
        seen += chunks
        chunks.clear()

    assert len(seen) == len(set(seen))
    assert sorted(seen) == list(range(len(seen))), "together they leave none out"
    assert len(set(pictures)) == 4


def test_photos_take_their_share(photo_set: Path) -> None:
    plain = Augmentation(input_size=32, misses=0, occluders=0)
    settings = replace(SETTINGS, photos=(photo_set,), photo_share=0.5, augment=plain)

    for batch in first(settings, 3):
        assert len(batch["images"]) == 6
        middle = batch["images"][:, 12:20, 12:20].float().mean(dim=(1, 2))
        green = (middle[:, 1] > 3 * middle[:, 0] + 20) & (middle[:, 1] > 3 * middle[:, 2] + 20)
        assert green.tolist()[3:] == [True] * 3, "photos come last"
        assert not batch["has_depth"][3:].any()
        assert batch["has_joints"][3:].all()


@pytest.fixture
def freihand(tmp_path: Path) -> str:
    """Two hands, each filmed four times, all red, with joints in 3D."""
    rng = np.random.default_rng(1)
    joints = rng.uniform(-0.06, 0.06, (2, 21, 3)) + (0, 0, 0.6)
    camera = [[480.0, 0.0, 112.0], [0.0, 480.0, 112.0], [0.0, 0.0, 1.0]]
    (tmp_path / "training" / "rgb").mkdir(parents=True)
    (tmp_path / "training_xyz.json").write_text(json.dumps(joints.tolist()))
    (tmp_path / "training_K.json").write_text(json.dumps([camera, camera]))
    for k in range(8):
        picture = np.zeros((224, 224, 3), dtype=np.uint8)
        picture[..., 2] = 200
        cv2.imwrite(str(tmp_path / f"training/rgb/{k:08d}.jpg"), picture)
    return f"freihand:train:{tmp_path}"


def test_data_sets_bring_depth_without_a_mesh(freihand: str, photo_set: Path) -> None:
    plain = Augmentation(input_size=32, misses=0, occluders=0, left=0)
    settings = replace(SETTINGS, datasets=(freihand,), photo_share=0.5, augment=plain)

    for batch in first(settings, 3):
        assert batch["has_depth"].tolist()[3:] == [True] * 3
        assert batch["has_mesh"].tolist()[3:] == [False] * 3
        assert (batch["crop_in_bones"][3:] != 1).all()
        middle = batch["images"][3:, 12:20, 12:20].float().mean(dim=(1, 2))
        assert (middle[:, 0] > 1.5 * middle[:, 1:].amax(dim=1) + 20).all()
    # Beside photos, each hand is as likely as any other: three of them to eight.
    both = LabelledCrops(replace(settings, photos=(photo_set,)), 5)
    assert len(both) == 11
    drawn = both.draw(np.random.default_rng(0), 400)
    assert drawn.has_depth.mean() == pytest.approx(8 / 11, abs=0.08)
    assert (drawn.vertices.shape, drawn.has_joints.all()) == ((400, 5, 3), True)


def test_hands_that_cannot_be_used_are_left_out(
    freihand: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, datasets=(freihand,))
    plain = FreiHand._read

    def unknown(self: FreiHand, index: int) -> Sample:
        sample = plain(self, index)
        return replace(sample, is_right=None) if index % 2 else sample

    monkeypatch.setattr(FreiHand, "_read", unknown)
    assert len(LabelledCrops(settings, 5).draw(np.random.default_rng(0), 30)) == 30
    monkeypatch.setattr(
        FreiHand, "_read", lambda self, index: replace(plain(self, index), is_right=None)
    )
    with pytest.raises(InputError, match="leave this set out"):
        LabelledCrops(settings, 5).draw(np.random.default_rng(0), 1)


def test_without_photos_all_is_rendered(photo_set: Path) -> None:
    with_none = first(replace(SETTINGS, photo_share=0.9), 1)[0]

    assert len(with_none["images"]) == 6
    assert with_none["vertices"].abs().sum(dim=(1, 2)).min() > 0


def test_the_loader_passes_batches_through() -> None:
    here = next(iter(loader(CropStream(SETTINGS, 0), workers=0)))
    expected = first(SETTINGS, 1)[0]

    assert all(torch.equal(here[name], expected[name]) for name in expected)
    assert loader(CropStream(SETTINGS, 0), workers=2).num_workers == 2
    copy = pickle.loads(pickle.dumps(CropStream(SETTINGS, 5, start=7, rank=1, world=3)))
    assert (copy.settings, copy.seed, copy.start, copy.rank, copy.world) == (SETTINGS, 5, 7, 1, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pool": 15}, "less than two chunks"),
        ({"photos": (Path("x"),), "photo_share": 1.0}, "no room"),
        ({"datasets": ("photos:all:x",), "photo_share": 1.0}, "no room"),
        ({"augment": Augmentation(stored_margin=1.5)}, "margin"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(SETTINGS, **change)
