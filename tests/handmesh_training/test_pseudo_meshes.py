"""Pseudo meshes: what the network is shown, and its answers brought back into the stored crops."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from handmesh.errors import InputError
from handmesh.imaging import crop
from handmesh.nn import NetworkOutput
from handmesh.types import Box
from handmesh_training.cropped_set import CroppedSet, build
from handmesh_training.datasets import Sample
from handmesh_training.pseudo_meshes import (
    adopt_pseudo_meshes,
    are_pseudo_meshes_of,
    load_pseudo_meshes,
    make_pseudo_meshes,
    origin_of,
)
from handmesh_training.shards.manifest import file_sha256

COUNT, V, SIDE, MARGIN = 7, 5, 90, 1.9
INPUT, HEATMAP = 64, 16
IN_PART, LEFT = 2, 4


def a_sample(number: int) -> Sample:
    """Joints about somewhere in a smooth picture."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (8, 10, 3)).astype(np.uint8)
    picture = cv2.resize(coarse, (200, 160), interpolation=cv2.INTER_CUBIC)
    known = np.ones(21, dtype=bool)
    if number == IN_PART:
        known[3] = False
    px = rng.uniform((70, 50), (140, 110), (21, 2))
    return Sample(
        key=str(number),
        image=np.asarray(picture, dtype=np.uint8),
        is_right=number != LEFT,
        joints_px=np.where(known[:, None], px, np.nan),
        joint_known=known,
    )


class Samples:
    folder, split, revision = Path("somewhere"), "all", 1

    def __len__(self) -> int:
        return COUNT

    def group_of(self, index: int) -> int:
        return index

    def __getitem__(self, index: int) -> Sample:
        return a_sample(index)


def in_crop(points_px: NDArray[np.float64], sample: Sample, margin: float) -> NDArray[np.float64]:
    """Pixels of the picture in fractions of a crop of that margin; of right hands."""
    uv = Box.from_points(sample.joints_px[sample.joint_known], margin=margin).to_crop(points_px)
    return uv if sample.is_right else uv * [-1, 1] + [1, 0]


class Oracle(nn.Module):
    """Returns meshes that it was told, in the order of the hands, and keeps what it was given."""

    def __init__(self, vertices: Sequence[NDArray[np.float64]]) -> None:
        super().__init__()
        self.vertices = torch.from_numpy(np.array(vertices))
        self.images: list[Tensor] = []
        self.heatmaps: list[Tensor] = []

    def forward(self, images: Tensor, heatmaps: Tensor) -> NetworkOutput:
        assert not self.training
        rows = slice(sum(map(len, self.images)), sum(map(len, self.images)) + len(images))
        self.images.append(images)
        self.heatmaps.append(heatmaps)
        joints, logits = torch.zeros(len(images), 21, 3), torch.zeros(len(images), 21)
        return NetworkOutput(self.vertices[rows], joints, [heatmaps], logits, logits[:, 0], None)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> CroppedSet:
    return build([Samples()], tmp_path_factory.mktemp("pseudo") / "set", SIDE, MARGIN, 8, V)


LABELLED = [i for i in range(COUNT) if i != IN_PART]


@pytest.fixture
def points_px() -> NDArray[np.float64]:
    """(N, V, 2): vertices where they are in the pictures."""
    return np.random.default_rng(9).uniform((60, 40), (150, 120), (COUNT, V, 2))


@pytest.fixture
def run(data: CroppedSet, points_px: NDArray[np.float64], tmp_path: Path) -> tuple[Oracle, Path]:
    """Made by a network that looks at crops of margin 1.5, as every one does."""
    depth = np.arange(V)[:, None]
    answers = [
        np.concatenate([in_crop(points_px[i], a_sample(i), 1.5), depth + i], axis=1)
        for i in LABELLED
    ]
    oracle, path = Oracle(answers), tmp_path / "deep" / "meshes.npy"
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"of the oracle")
    make_pseudo_meshes(oracle, weights, data, path, INPUT, HEATMAP, torch.device("cpu"), batch=4)
    return oracle, path


def test_coordinates_come_back_into_the_stored_crop(
    data: CroppedSet, run: tuple[Oracle, Path], points_px: NDArray[np.float64]
) -> None:
    meshes = load_pseudo_meshes(run[1], data)
    assert meshes.shape == (COUNT, V, 3)
    assert meshes.dtype == np.float32
    for i in LABELLED:
        expected = in_crop(points_px[i], a_sample(i), MARGIN)
        np.testing.assert_allclose(meshes[i, :, :2], expected, atol=1e-5)
        np.testing.assert_array_equal(meshes[i, :, 2], np.arange(V) + i)
    assert not meshes[IN_PART].any()


def test_the_network_is_given_the_crops_it_was_trained_on(run: tuple[Oracle, Path]) -> None:
    given = torch.cat(run[0].images)
    assert given.shape == (COUNT - 1, 3, INPUT, INPUT)
    for row, i in zip(given, LABELLED, strict=True):
        sample = a_sample(i)
        straight = crop(sample.image, Box.from_points(sample.joints_px, margin=1.5), INPUT)
        wanted = straight if sample.is_right else straight[:, ::-1]
        seen = (row.permute(1, 2, 0).numpy() + 0.5) * 255
        # Cut twice: a little softer. Half a pixel off, the mean difference is 2 levels and more.
        off = np.abs(seen - wanted)
        assert off.mean() < 1
        shifted = np.abs(seen[:, 1:] - wanted[:, :-1])
        assert shifted.mean() > 4 * off.mean()


def test_the_network_is_given_the_true_heat_maps(run: tuple[Oracle, Path]) -> None:
    given = torch.cat(run[0].heatmaps).numpy()
    sigma = HEATMAP / 16
    for maps, i in zip(given, LABELLED, strict=True):
        sample = a_sample(i)
        centres = in_crop(sample.joints_px, sample, 1.5) * HEATMAP - 0.5
        for (x, y), shown in zip(centres, maps, strict=True):
            for row, column in ((round(y), round(x)), (0, 3), (9, 4)):
                wanted = math.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * sigma**2))
                assert shown[row, column] == pytest.approx(wanted, abs=1e-4)


def test_meshes_of_another_set_are_refused(
    data: CroppedSet, run: tuple[Oracle, Path], tmp_path: Path
) -> None:
    path = run[1]
    other = build([Samples()], tmp_path / "other", SIDE, MARGIN + 0.1, 8, V)
    with pytest.raises(InputError, match="meshes of another set"):
        load_pseudo_meshes(path, other)
    with pytest.raises(InputError, match="no pseudo meshes"):
        load_pseudo_meshes(tmp_path / "none.npy", data)
    whole = path.read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="no pseudo meshes"):
            load_pseudo_meshes(path, data)
    np.save(path, np.zeros((COUNT, V, 3)))
    with pytest.raises(InputError, match="float64 instead of float32"):
        load_pseudo_meshes(path, data)
    path.write_bytes(whole)
    load_pseudo_meshes(path, data)
    for content in ("", "[]", "{}"):
        path.with_suffix(".json").write_text(content)
        with pytest.raises(InputError, match="no pseudo meshes"):
            load_pseudo_meshes(path, data)


def test_a_network_that_fails_leaves_the_old_file_whole(
    data: CroppedSet, run: tuple[Oracle, Path]
) -> None:
    _, path = run
    before = path.read_bytes()
    short = Oracle([np.zeros((V, 3))] * 2)
    with pytest.raises(ValueError, match=r"shape|broadcast"):
        make_pseudo_meshes(
            short, path.parents[1] / "weights.pt", data, path, INPUT, HEATMAP, torch.device("cpu")
        )
    assert path.read_bytes() == before
    assert sorted(path.parent.iterdir()) == [path.with_suffix(".json"), path]
    load_pseudo_meshes(path, data)


def test_new_meshes_never_lie_under_the_origin_of_old_ones(
    data: CroppedSet,
    run: tuple[Oracle, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, path = run
    weights = tmp_path / "others.pt"
    weights.write_bytes(b"of another network")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("handmesh_training.pseudo_meshes.write_atomic", stop)
    oracle = Oracle([np.ones((V, 3))] * len(LABELLED))
    with pytest.raises(KeyboardInterrupt):
        make_pseudo_meshes(oracle, weights, data, path, INPUT, HEATMAP, torch.device("cpu"))
    with pytest.raises(InputError, match="no pseudo meshes"):
        load_pseudo_meshes(path, data)


def test_meshes_are_read_as_they_are_needed(tmp_path: Path) -> None:
    count, vertices = 2000, 1036  # 25 MB, of which a batch takes a hundredth
    path = tmp_path / "meshes.npy"
    stored = np.lib.format.open_memmap(path, "w+", np.float32, (count, vertices, 3))
    stored[:] = np.arange(count, dtype=np.float32)[:, None, None]
    stored.flush()
    path.with_suffix(".json").write_text('{"set_sha256": "a", "weights_sha256": "b"}')
    crops = SimpleNamespace(vertices=np.broadcast_to(np.float32(0), stored.shape))
    data = cast(CroppedSet, SimpleNamespace(sha256="a", crops=crops, folder=tmp_path))
    tracemalloc.start()
    try:
        part = load_pseudo_meshes(path, data)[[3, 1999, *range(18)]]
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(part[:3, 5, 1], [3, 1999, 0])
    assert most < 0.05 * stored.nbytes


def test_meshes_of_an_earlier_handmesh_are_taken_over(
    data: CroppedSet, run: tuple[Oracle, Path], tmp_path: Path
) -> None:
    # As it wrote them: all in one .npz.
    meshes, old, path = load_pseudo_meshes(run[1], data), tmp_path / "a.npz", tmp_path / "a.npy"
    np.savez(
        old,
        vertices=meshes,
        set_sha256=np.array(data.sha256),
        weights_sha256=np.array(file_sha256(tmp_path / "weights.pt")),
    )
    adopt_pseudo_meshes(old, path)
    np.testing.assert_array_equal(load_pseudo_meshes(path, data), meshes)
    assert are_pseudo_meshes_of(path, data, tmp_path / "weights.pt")
    assert origin_of(path) == origin_of(run[1])

    whole, other = old.read_bytes(), tmp_path / "b.npy"
    for content in (b"", b"text", whole[: len(whole) // 2]):
        old.write_bytes(content)
        adopt_pseudo_meshes(old, other)
        assert not other.exists()


def test_sample_of_the_test_is_cut_with_a_left_hand(data: CroppedSet) -> None:
    sample = replace(a_sample(LEFT), is_right=True)
    straight = crop(sample.image, Box.from_points(sample.joints_px, margin=MARGIN), SIDE)
    np.testing.assert_array_equal(data.crops.images[LEFT], straight[:, ::-1])


def test_meshes_know_the_weights_they_were_made_with(
    data: CroppedSet, run: tuple[Oracle, Path], tmp_path: Path
) -> None:
    _, path = run
    weights = tmp_path / "weights.pt"
    assert are_pseudo_meshes_of(path, data, weights)
    weights.write_bytes(b"trained on")
    assert not are_pseudo_meshes_of(path, data, weights)
    assert not are_pseudo_meshes_of(tmp_path / "none.npy", data, weights)
    path.write_bytes(b"damaged")
    assert not are_pseudo_meshes_of(path, data, weights)
