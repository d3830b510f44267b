"""Numbered samples: the same whoever asks, in whatever order and company."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from handmesh.errors import InputError
from handmesh.graph import Topology
from handmesh_training.record import HandRecord, to_crops
from handmesh_training.rendered import BLOCK, HandRenderer, RenderSettings
from handmesh_training.rendering.appearance import NO_SLEEVE
from handmesh_training.rendering.scene import SHARES
from handmesh_training.rendering.solids import Pattern
from handmesh_training.samples import Crops
from handmesh_training.sources import RenderedDataset

pytestmark = pytest.mark.usefixtures("quick_surroundings")

SETTINGS = RenderSettings(crop_px=32, empty=0.2)
PATTERN = 24  # in a row: after shape, centre, axes, extents, taper, shadow and colours


@pytest.fixture
def renderer() -> HandRenderer:
    return HandRenderer(SETTINGS, seed=3)


def assert_same(one: Crops, two: Crops) -> None:
    for field in fields(Crops):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(two, field.name))


def test_a_sample_depends_on_seed_and_number_alone(renderer: HandRenderer) -> None:
    """Not on order, neighbours, chunks, threads or what was rendered before."""
    count = BLOCK + 16
    whole = renderer.crops(range(count))

    scattered = np.random.default_rng(0).permutation(count)
    assert_same(HandRenderer(SETTINGS, 3, threads=2).crops(scattered), whole.take(scattered))
    by_chunks = [renderer.chunk(number, 16) for number in reversed(range(count // 16))]
    assert_same(Crops.concatenate(by_chunks[::-1]), whole)
    repeated = np.array([70, 1, 70])
    assert_same(HandRenderer(SETTINGS, 3).crops(repeated), whole.take(repeated))


def test_samples_of_other_numbers_and_seeds_differ(renderer: HandRenderer) -> None:
    joints = renderer.draw(range(3 * BLOCK)).views.joints
    assert len({row.tobytes() for row in joints}) == 3 * BLOCK
    other = HandRenderer(SETTINGS, seed=4).draw(range(BLOCK)).views.joints
    assert not (other == joints[:BLOCK]).all(axis=(1, 2)).any()


def test_drawing_does_not_depend_on_torchs_threads(renderer: HandRenderer) -> None:
    alone = renderer.draw(range(BLOCK)).views
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        together = HandRenderer(SETTINGS, 3).draw(range(BLOCK)).views
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(alone.vertices_m, together.vertices_m)


def test_crops_know_which_of_them_are_empty() -> None:
    settings = replace(SETTINGS, empty=0.5)
    crops = HandRenderer(settings, seed=0).chunk(0, 40)

    assert 8 < crops.has_hand.sum() < 32
    for name in ("has_joints", "has_depth", "has_mesh"):
        np.testing.assert_array_equal(getattr(crops, name), crops.has_hand)
    assert crops.is_right.all()
    assert crops.taught.all()
    # The hand is what differs from the same chunk without any.
    bare = HandRenderer(replace(settings, empty=1.0), seed=0).chunk(0, 40)
    assert not bare.has_hand.any()
    differs = (crops.images != bare.images).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(differs, crops.has_hand)


def test_records_agree_with_crops_and_with_themselves(renderer: HandRenderer) -> None:
    records, crops = renderer.records(range(20)), renderer.crops(range(20))
    views = renderer.draw(range(20)).views

    again = to_crops(records)
    np.testing.assert_array_equal(again.images, crops.images)
    for name in ("joints", "vertices", "crop_in_bones"):
        np.testing.assert_allclose(getattr(again, name), getattr(crops, name), rtol=1e-5, atol=2e-6)
    for record, wanted in zip(records, crops.has_hand, strict=True):
        sample = record.to_sample()
        assert sample.key == f"{record.index:09d}"
        assert sample.mask is not None
        assert sample.depth_m is not None
        if not wanted:
            assert sample.is_right is None
            assert not sample.joint_known.any()
            assert not sample.mask.any()
            assert (sample.joints_m, sample.vertices_m) == (None, None)
            continue
        assert sample.is_right
        # Joints seen through the camera fall on the hand, where the crop's labels say.
        assert sample.joints_m is not None
        assert sample.intrinsics is not None
        seen = sample.joints_m @ sample.intrinsics.T
        np.testing.assert_allclose(sample.joints_px, seen[:, :2] / seen[:, 2:], atol=1e-6)
        expected = crops.joints[record.index, :, :2] * 32 - 0.5
        np.testing.assert_allclose(sample.joints_px, expected, atol=1e-3)
        # And the surface there is nearer than the joint inside, but no nearer than the mesh.
        column, row = np.clip(np.round(sample.joints_px).astype(int), 0, 31).T
        surface = sample.depth_m[row, column]
        assert (surface > 0).sum() > 5
        assert np.median((sample.joints_m[:, 2] - surface)[surface > 0]) > 0
        mesh = views.vertices_m[record.index, :, 2]
        assert mesh.min() - 1e-3 < surface[surface > 0].min() < mesh.max()


def silhouettes(records: list[HandRecord]) -> NDArray[np.uint8]:
    """(N, S, S) share of each pixel that the labelled mesh covers, drawn by OpenCV."""
    drawn = []
    for record in records:
        fx, fy, cx, cy = record.intrinsics.astype(np.float64)
        points = record.vertices_m[:, :2] / record.vertices_m[:, 2:] * (fx, fy) + (cx, cy)
        side, fine = len(record.image), 8
        canvas = np.zeros((fine * side, fine * side), dtype=np.uint8)
        corners = np.round(fine * (points + 0.5) - 0.5).astype(np.int32)
        for face in Topology.default().faces:
            cv2.fillConvexPoly(canvas, corners[face], 255)
        drawn.append(canvas.reshape(side, fine, side, fine).mean(axis=(1, 3)))
    return np.array(drawn).astype(np.uint8)


def test_mask_and_depth_are_of_the_labelled_mesh() -> None:
    """Not of the arm, nor of its sleeve: the mask is the silhouette of the vertices beside it."""
    # Without partners, which hide some of it as things do.
    settings = RenderSettings(crop_px=96, empty=0, things=frozenset(SHARES))
    renderer = HandRenderer(settings, seed=3)
    records = renderer.records(range(24))
    scene = renderer.draw(range(24))
    bare = replace(
        scene.look,
        solids=np.zeros_like(scene.look.solids),
        sleeve=np.full_like(scene.look.sleeve, NO_SLEEVE),
    )
    alone = renderer.render(replace(scene, look=bare), depth=True)
    covered = silhouettes(records).astype(float)

    # Nothing before the hand: the same pixels, but for those where its own arm is.
    masks = alone.mask.astype(float)
    shared = np.minimum(masks, covered).sum((1, 2)) / np.maximum(masks, covered).sum((1, 2))
    assert np.median(shared) > 0.97
    assert (masks.sum((1, 2)) < 1.02 * covered.sum((1, 2))).all()
    for i, record in enumerate(records):
        assert record.mask is not None
        assert record.depth_m is not None
        # With things and sleeves: some of these pixels, and no others.
        near = cv2.dilate(covered[i], np.ones((5, 5)))
        assert not record.mask[near == 0].any()
        assert (record.mask <= alone.mask[i]).mean() > 0.99
        np.testing.assert_array_equal(record.depth_m > 0, record.mask > 0)
        depth = record.depth_m[record.depth_m > 0]
        z = record.vertices_m[:, 2]
        assert z.min() - 2e-3 < depth.min() < depth.max() < z.max() + 2e-3


def test_a_sleeve_over_the_hand_leaves_a_hole_in_the_mask() -> None:
    renderer = HandRenderer(RenderSettings(crop_px=96, empty=0), seed=3)
    scene = renderer.draw(range(24))
    masks, images = [], []
    for start in (NO_SLEEVE, 0.0):  # none, and one from the wrist on
        sleeve = np.tile(np.float32([start, 0.002, 0.0, 0.8, 0.0, 0.0]), (24, 1))  # green
        made = renderer.render(replace(scene, look=replace(scene.look, sleeve=sleeve)))
        masks.append(made.mask.astype(int))
        images.append(made.image.astype(int))

    lost = (masks[0] == 255) & (masks[1] == 0)
    assert 3 < lost.sum((1, 2)).max() < 600, "a strip below the wrist"
    green = (images[1] - images[0])[lost]
    assert (green[:, 1] - green[:, 0] > 0).mean() > 0.95
    kept = (masks[0] == 255) & (masks[1] == 255)
    assert kept.sum() > 20 * lost.sum()


def test_pictures_without_their_hand_show_no_other() -> None:
    count = 4 * BLOCK
    shown = HandRenderer(replace(SETTINGS, empty=0.0), seed=1).draw(range(count)).look.solids
    empty = HandRenderer(replace(SETTINGS, empty=1.0), seed=1).draw(range(count)).look.solids

    def nailed(solids: NDArray[np.float32]) -> NDArray[np.bool_]:
        """(B,) whether something has a finger nail."""
        return ((solids[..., 0] != 0) & (solids[..., PATTERN] == Pattern.NAIL)).any(axis=1)

    assert nailed(shown).mean() > 0.05
    assert not nailed(empty).any()
    assert (empty[..., 0] != 0).any(axis=1).mean() > 0.3, "other things are there"


@pytest.mark.parametrize("wrong", [[], [-1], [0.5], [[1]]])
def test_numbers_that_are_none_are_refused(renderer: HandRenderer, wrong: list[float]) -> None:
    with pytest.raises(InputError, match="sample number"):
        renderer.draw(wrong)  # type: ignore[arg-type]


def test_the_torch_dataset_gives_the_samples_in_any_order(renderer: HandRenderer) -> None:
    data = pickle.loads(pickle.dumps(RenderedDataset(SETTINGS, 3, 20)))
    whole = renderer.crops(range(20))

    batches = list(DataLoader(data, batch_size=6, shuffle=False))
    assert [len(batch["images"]) for batch in batches] == [6, 6, 6, 2]
    joined = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    for name, values in joined.items():
        np.testing.assert_array_equal(values.numpy(), getattr(whole, name))
    assert len(data) == 20
    np.testing.assert_array_equal(data[13]["joints"], whole.joints[13])
    with pytest.raises(IndexError, match="outside 0 to 19"):
        data[20]
    with pytest.raises(InputError):
        RenderedDataset(SETTINGS, 3, 0)
