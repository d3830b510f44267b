"""Batches made on a device; here the device is the CPU, which runs the same code."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from handmesh_training import augment_torch, device_stream
from handmesh_training.augment import Augmentation
from handmesh_training.device_stream import ChunkStream, DeviceStream
from handmesh_training.photos import LABELS
from handmesh_training.rendered import HandRenderer, RenderSettings
from handmesh_training.samples import Crops
from handmesh_training.stream import Batch, CropStream, StreamSettings

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
    return list(itertools.islice(DeviceStream(settings, seed, "cpu", **more), count))


def test_batches_are_those_of_the_cpu_stream_in_shape_and_type() -> None:
    (batch,) = first(SETTINGS, 1)
    expected = next(CropStream(SETTINGS, 0).lane(0, 1, 0))
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {
        k: (v.shape, v.dtype) for k, v in expected.items()
    }
    assert batch["images"].float().std() > 5, "pictures show something"


def test_what_is_kept_is_what_the_renderer_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without augmentation the crops are those of `HandRenderer.chunk`, pictures and labels."""
    monkeypatch.setattr(device_stream, "augment", lambda _, __, batch: batch)
    renderer = HandRenderer(SETTINGS.render, seed=0)
    known = renderer.chunk(0, 5 * SETTINGS.chunk)
    places = {picture.tobytes(): i for i, picture in enumerate(known.images)}
    for batch in first(SETTINGS, 3):
        for i, picture in enumerate(batch["images"].numpy()):
            row = places[picture.tobytes()]
            for field in fields(Crops):
                np.testing.assert_array_equal(batch[field.name][i], getattr(known, field.name)[row])


def test_the_same_seed_gives_the_same_batches() -> None:
    one, two, other = first(SETTINGS, 4), first(SETTINGS, 4), first(SETTINGS, 4, seed=1)
    for a, b, c in zip(one, two, other, strict=True):
        for name in a:
            assert torch.equal(a[name], b[name]), name
        assert not torch.equal(a["images"], c["images"])
    assert not torch.equal(one[0]["images"], one[1]["images"])


def test_the_number_of_processes_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Worker:
        num_workers = 3

        def __init__(self, number: int) -> None:
            self.id = number

    def drawn(worker: Worker | None) -> list[Batch]:
        monkeypatch.setattr(device_stream, "get_worker_info", lambda: worker)
        held = np.array([5, 2, 40, 41, 7, 100, 3, 9, 1, 11])  # a chunk and a bit
        return list(itertools.islice(ChunkStream(SETTINGS, 0, held, 3, rank=1, world=2), 6))

    alone = drawn(None)
    turns = [drawn(Worker(number)) for number in range(3)]
    for k in range(6):  # a loader takes from its processes in turn
        other = turns[k % 3][k // 3]
        assert all(torch.equal(alone[k][name], other[name]) for name in alone[k])
    assert len(alone[1]["joints"]) == 2
    expected = HandRenderer(SETTINGS.render, 0).draw(np.arange(56, 64))  # turn 3 of rank 1 of 2
    np.testing.assert_array_equal(alone[2]["joints"], expected.views.joints)


@pytest.mark.parametrize("start", [1, 7])
def test_a_stopped_run_goes_on_as_if_it_had_not(start: int) -> None:
    whole = first(SETTINGS, start + 3)[start:]
    for a, b in zip(whole, first(SETTINGS, 3, start=start), strict=True):
        for name in a:
            assert torch.equal(a[name], b[name]), name


def test_ranks_share_no_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_stream, "augment", lambda _, __, batch: batch)
    seen = [
        {
            hand.tobytes()
            for batch in first(SETTINGS, 6, rank=rank, world=2)
            for hand in joints(batch)
        }
        for rank in range(2)
    ]
    assert min(len(hands) for hands in seen) > 12
    assert not seen[0] & seen[1]


def joints(batch: Batch) -> NDArray[np.float32]:
    return batch["joints"].numpy()


def test_a_set_on_disk_is_drawn_from_like_the_renderer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_stream, "augment", lambda _, __, batch: batch)
    known = HandRenderer(SETTINGS.render, seed=0).chunk(0, 24)

    class Stored:
        vertex_count = known.vertices.shape[1]

        def crops(self, numbers: NDArray[np.int64]) -> Crops:
            return known.take(numbers % 24)

    monkeypatch.setattr(device_stream, "open_source", lambda *_: Stored())
    pictures = {picture.tobytes() for picture in known.images}
    (batch,) = first(replace(SETTINGS, shards=tmp_path), 1)
    assert {picture.tobytes() for picture in batch["images"].numpy()} <= pictures


def test_photos_take_their_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment_torch, "develop", lambda _, images: images)  # green stays green
    joints = np.random.default_rng(0).uniform(20, 60, (21, 2)).tolist()
    hand = {"uv": joints, "world_m": [[0, 0, 0]] * 21, "handedness_as_reported": "Left"}
    green = np.zeros((80, 80, 3), dtype=np.uint8)
    green[..., 1] = 200
    for k in range(3):
        cv2.imwrite(str(tmp_path / f"{k}.png"), green)
    (tmp_path / LABELS).write_text(json.dumps({f"{k}.png": {"hands": [hand]} for k in range(3)}))
    plain = Augmentation(input_size=32, misses=0, occluders=0, cut=0)
    settings = replace(SETTINGS, photos=(tmp_path,), photo_share=0.5, augment=plain)
    for batch in first(settings, 3):
        assert len(batch["images"]) == 6
        middle = batch["images"][:, 12:20, 12:20].float().mean(dim=(1, 2))
        is_green = (middle - torch.tensor([0.0, 200.0, 0.0])).abs().amax(dim=1) < 5
        assert is_green.tolist() == [False] * 3 + [True] * 3, "photos come last"
        assert not batch["has_mesh"][3:].any()
        assert batch["has_joints"][3:].all()


WITHOUT_PACKAGES = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"cv2", "scipy", "matplotlib", "rich", "tqdm", "safetensors"}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Blocked())
import numpy as np
from handmesh_training import device_stream, rendered
from handmesh_training.rendering import BackgroundSet, EnvironmentSet

places = EnvironmentSet.procedural(0, 1, height=16)
BackgroundSet.from_images([places.panoramas.textures.image(0)])
try:
    EnvironmentSet.from_folder(sys.argv[1])
except ModuleNotFoundError as error:
    print("needs", error.name)
"""


def test_drawing_needs_torch_and_numpy_alone_and_reading_pictures_opencv(tmp_path: Path) -> None:
    (tmp_path / "a.hdr").touch()
    run = [sys.executable, "-c", WITHOUT_PACKAGES, str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.stdout == "needs cv2\n", done.stderr


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_batches_on_a_gpu_stay_there() -> None:
    stream = DeviceStream(SETTINGS, 0, "cuda")
    batches = list(itertools.islice(stream, 3))
    expected = first(SETTINGS, 3)
    for batch, other in zip(batches, expected, strict=True):
        assert all(values.is_cuda for values in batch.values())
        assert {k: v.shape for k, v in batch.items()} == {k: v.shape for k, v in other.items()}


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
@pytest.mark.parametrize("start", [1, 7])
def test_a_stopped_run_goes_on_as_if_it_had_not_on_a_gpu(start: int) -> None:
    whole = list(itertools.islice(DeviceStream(SETTINGS, 0, "cuda"), start + 3))[start:]
    again = list(itertools.islice(DeviceStream(SETTINGS, 0, "cuda", start=start), 3))
    for a, b in zip(whole, again, strict=True):
        for name in a:
            assert torch.equal(a[name], b[name]), name
