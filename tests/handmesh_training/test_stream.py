"""The stream of batches on made-up surroundings: shapes, repeatability, going on, mixing."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from handmesh.errors import InputError
from handmesh_training.augment import Augmentation
from handmesh_training.datasets import Sample
from handmesh_training.datasets.freihand import FreiHand
from handmesh_training.outlines import Outline
from handmesh_training.photos import LABELS
from handmesh_training.rendered import HandRenderer, RenderSettings
from handmesh_training.samples import OUTLINE_POINTS, Crops
from handmesh_training.shards import SetSettings, ShardSet, render_shards
from handmesh_training.sources import ShuffledShards
from handmesh_training.stream import Batch, CropStream, LabelledCrops, StreamSettings

pytestmark = pytest.mark.usefixtures("quick_surroundings")

SETTINGS = StreamSettings(
    batch=6,
    pool=16,
    chunk=8,
    reuse=1.5,
    render=RenderSettings(crop_px=48),
    augment=Augmentation(input_size=32),
)


def first(
    settings: StreamSettings, count: int, seed: int = 0, lane: int = 0, of: int = 1, start: int = 0
) -> list[Batch]:
    return list(itertools.islice(CropStream(settings, seed).lane(lane, of, start), count))


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the samples that have been rendered, in order."""
    numbers: list[int] = []
    plain = HandRenderer.crops

    def counted(self: HandRenderer, indices: NDArray[np.integer]) -> Crops:
        numbers.extend(int(index) for index in indices)
        return plain(self, indices)

    monkeypatch.setattr(HandRenderer, "crops", counted)
    return numbers


def assert_same(one: Batch, two: Batch) -> None:
    for name in one:
        assert torch.equal(one[name], two[name]), name


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
        "taught": ((6, 21), torch.bool),
        "outline": ((6, OUTLINE_POINTS, 2), torch.float32),
        "outline_known": ((6, OUTLINE_POINTS), torch.bool),
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


def test_hands_are_rendered_as_they_are_used_up(rendered: list[int]) -> None:
    batches = 40
    first(SETTINGS, batches)

    # All that was drawn, each as often as planned, and what is still in the pool.
    used = batches * SETTINGS.batch / SETTINGS.reuse
    assert used <= len(rendered) <= used + SETTINGS.pool
    assert rendered == list(range(len(rendered))), "none left out, none twice"


@pytest.mark.parametrize("lanes", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_lane_goes_on_bit_for_bit(lanes: int) -> None:
    starts = (1, 7, 23)
    for lane in range(lanes):
        undisturbed = first(SETTINGS, starts[-1] + 3, lane=lane, of=lanes)
        for start in starts:
            later = first(SETTINGS, 3, lane=lane, of=lanes, start=start)
            for one, two in zip(undisturbed[start : start + 3], later, strict=True):
                assert_same(one, two)


def test_starts_and_lanes_draw_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even from the same crops."""
    plain = HandRenderer.crops
    monkeypatch.setattr(HandRenderer, "crops", lambda self, n: plain(self, np.asarray(n) % 8))

    batches = [first(SETTINGS, 1), first(SETTINGS, 1, start=1), first(SETTINGS, 1, lane=1, of=2)]

    assert len({batch[0]["images"].numpy().tobytes() for batch in batches}) == 3


def test_lanes_share_no_hand(rendered: list[int]) -> None:
    seen: list[int] = []
    pictures = []
    for lane in range(4):
        pictures.append(first(SETTINGS, 8, lane=lane, of=4)[0]["images"].numpy().tobytes())
        seen += rendered
        rendered.clear()

    assert len(seen) == len(set(seen))
    assert sorted(seen) == list(range(len(seen))), "together they leave none out"
    assert len(set(pictures)) == 4


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Twenty hands on disk."""
    folder = tmp_path / "shards"
    render_shards(SetSettings(20, 3, 5, SETTINGS.render), folder)
    return folder


def test_shards_are_read_once_an_epoch_over_all_lanes(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    plain = ShardSet.record
    monkeypatch.setattr(ShardSet, "record", lambda self, i: read.append(i) or plain(self, i))
    settings = replace(SETTINGS, shards=shards, reuse=1.0, chunk=5)

    for lane in range(2):
        stream_ = CropStream(settings, 0).lane(lane, 2, 0)
        already = len(read)
        while len(read) < already + 20:  # each two fifths of what two epochs need, or more
            next(stream_)
        del read[already + 20 :]

    assert sorted(read) == sorted([*range(20), *range(20)])
    assert read != sorted(read)


def test_batches_from_shards_are_those_of_the_renderer(shards: Path) -> None:
    """But for the order: the same crops, and the same labels to rounding."""
    source = ShuffledShards(ShardSet(shards), seed=1)
    order = [int(i) for i in source._order(0)]
    assert sorted(order) == list(range(20))

    read, made = source.crops(np.arange(20)), HandRenderer(SETTINGS.render, 5).crops(order)

    np.testing.assert_array_equal(read.images, made.images)
    for name in ("joints", "vertices", "crop_in_bones"):
        np.testing.assert_allclose(getattr(read, name), getattr(made, name), rtol=1e-5, atol=2e-6)
    for name in ("has_hand", "has_joints", "has_depth", "has_mesh", "is_right"):
        np.testing.assert_array_equal(getattr(read, name), getattr(made, name))


def test_shards_of_another_size_are_refused(shards: Path) -> None:
    settings = replace(SETTINGS, shards=shards, render=RenderSettings(crop_px=64))
    with pytest.raises(InputError, match=r"48 px with margin 1\.9.*64 px"):
        first(settings, 1)


@pytest.fixture
def true_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """No camera's colours, nor pictures in grey."""
    monkeypatch.setattr("handmesh_training.augment.develop", lambda rng, image, noise: image)


@pytest.mark.usefixtures("true_colours")
def test_photos_take_their_share(photo_set: Path) -> None:
    plain = Augmentation(input_size=32, misses=0, occluders=0, cut=0)
    settings = replace(SETTINGS, photos=(photo_set,), photo_share=0.5, augment=plain)

    for batch in first(settings, 3):
        assert len(batch["images"]) == 6
        middle = batch["images"][:, 12:20, 12:20].float().mean(dim=(1, 2))
        green = middle[:, 1] > 1.5 * torch.maximum(middle[:, 0], middle[:, 2]) + 20
        assert green.tolist()[3:] == [True] * 3, "photos come last"
        assert not batch["has_depth"][3:].any()
        assert batch["has_joints"][3:].all()


@pytest.mark.usefixtures("true_colours")
def test_photos_bring_the_outlines_of_their_hands(
    photo_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here every other hand has one, over all of the photo."""
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    ring = np.repeat(corners, OUTLINE_POINTS // 4, axis=0) * 1000 - 500
    outline = Outline(ring, np.ones(OUTLINE_POINTS, dtype=bool))
    monkeypatch.setattr(
        "handmesh_training.stream.open_outlines",
        lambda hands: [outline if i % 2 else None for i in range(len(hands))],
    )
    plain = Augmentation(input_size=32, misses=0, occluders=0, cut=0)
    settings = replace(SETTINGS, photos=(photo_set,), photo_share=0.5, augment=plain)
    known = torch.cat([batch["outline_known"].any(dim=1) for batch in first(settings, 12)])
    rows = known.reshape(12, 6)
    assert not rows[:, :3].any()  # rendered
    assert 0.1 < rows[:, 3:].float().mean() < 0.6  # one of three photos


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


@pytest.mark.usefixtures("true_colours")
def test_data_sets_bring_depth_without_a_mesh(freihand: str, photo_set: Path) -> None:
    plain = Augmentation(input_size=32, misses=0, occluders=0, cut=0, left=0)
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
    with pytest.raises(InputError, match=r"with 6 joints or more, some of the palm.*leave this"):
        LabelledCrops(settings, 5).draw(np.random.default_rng(0), 1)


def test_without_photos_all_is_rendered(photo_set: Path) -> None:
    with_none = first(replace(SETTINGS, photo_share=0.9), 1)[0]

    assert len(with_none["images"]) == 6
    assert with_none["vertices"].abs().sum(dim=(1, 2)).min() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pool": 15}, "two chunks"),
        ({"pool": 16, "batch": 9}, "a batch of 9"),
        ({"reuse": 0.5}, "at least 1"),
        ({"photos": (Path("x"),), "photo_share": 1.0}, "no room"),
        ({"datasets": ("photos:all:x",), "photo_share": 1.0}, "no room"),
        ({"augment": Augmentation(stored_margin=1.5)}, "margin"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(SETTINGS, **change)


def test_photos_that_would_round_to_no_crop_of_a_batch_are_told(photo_set: Path) -> None:
    with pytest.raises(InputError, match=r"share of 0\.25 rounds to none.*fewer --lanes or"):
        replace(SETTINGS, batch=2, photos=(photo_set,))
    with pytest.raises(InputError, match="rounds to none"):
        replace(SETTINGS, batch=1, datasets=("freihand:training:D",))
    assert replace(SETTINGS, batch=3, photos=(photo_set,)).others_per_batch == 1
    assert replace(SETTINGS, batch=2).others_per_batch == 0
    assert replace(SETTINGS, batch=2, photos=(photo_set,), photo_share=0.0).others_per_batch == 0
