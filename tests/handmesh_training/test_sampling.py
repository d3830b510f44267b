"""Random hands before random cameras: within limits, reproducible, and labelled consistently."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from handmesh_training.gestures.library import default_library
from handmesh_training.hand import HandModel
from handmesh_training.sampling import (
    NEAR_M,
    HandViews,
    sample_views,
)
from handmesh_training.views import DISTANCES_M

Array = NDArray[np.float64]
CROP_PX, MARGIN = 160, 1.9


@pytest.fixture(scope="module")
def views(hand_model: HandModel) -> HandViews:
    return sample_views(np.random.default_rng(1), hand_model, 60, CROP_PX, MARGIN)


def test_the_same_generator_gives_the_same_views(hand_model: HandModel) -> None:
    one, two, other = (
        sample_views(np.random.default_rng(seed), hand_model, 5, CROP_PX, MARGIN)
        for seed in (3, 3, 4)
    )

    for field in dataclasses.fields(HandViews):
        a, b, c = (getattr(each, field.name) for each in (one, two, other))
        np.testing.assert_array_equal(a, b)
        assert field.name == "in_view" or not np.array_equal(a, c)


def test_declared_shapes_and_types(views: HandViews, hand_model: HandModel) -> None:
    vertex_count = len(hand_model.asset.vertices_m)
    expected = {
        "vertices_m": (60, vertex_count, 3),
        "joints_m": (60, 21, 3),
        "intrinsics": (60, 4),
        "joints": (60, 21, 3),
        "vertices": (60, 1036, 3),
        "crop_in_bones": (60,),
        "in_view": (60,),
        "gesture": (60,),
    }
    kinds = {"in_view": np.bool_, "gesture": np.int32}
    for name, shape in expected.items():
        array = getattr(views, name)
        assert array.shape == shape, name
        assert array.dtype == kinds.get(name, np.float32), name
        assert np.isfinite(array).all()


def project(points: NDArray[np.float32], intrinsics: NDArray[np.float32]) -> Array:
    """Crop fractions (B, N, 2) by way of pixels, whose centres lie at whole numbers."""
    found = np.zeros((*points.shape[:2], 2))
    for b, (fx, fy, cx, cy) in enumerate(intrinsics.astype(np.float64)):
        matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        image = points[b].astype(np.float64) @ matrix.T  # (N, 3)
        found[b] = (image[:, :2] / image[:, 2:] + 0.5) / CROP_PX
    return found


def test_the_camera_projects_onto_the_labels(views: HandViews, hand_model: HandModel) -> None:
    small = views.vertices_m[:, hand_model.asset.template_subset]

    for points, labels in ((views.joints_m, views.joints), (small, views.vertices)):
        np.testing.assert_allclose(project(points, views.intrinsics), labels[..., :2], atol=2e-5)


def test_depths_are_in_bones_behind_the_wrist(views: HandViews, hand_model: HandModel) -> None:
    small = views.vertices_m[:, hand_model.asset.template_subset]
    for b in range(len(views.joints)):
        wrist = views.joints_m[b, 0, 2]
        bone = np.linalg.norm(views.joints_m[b, 10] - views.joints_m[b, 9])
        for points, labels in ((views.joints_m[b], views.joints[b]), (small[b], views.vertices[b])):
            np.testing.assert_allclose(labels[:, 2], (points[:, 2] - wrist) / bone, atol=1e-4)
    assert not views.joints[:, 0, 2].any()


def test_crop_in_bones_is_the_crop_s_side_at_the_wrist(views: HandViews) -> None:
    for b, (fx, _, cx, cy) in enumerate(views.intrinsics.astype(np.float64)):
        wrist = views.joints_m[b, 0, 2]
        # Two points at the wrist's depth that project to the crop's left and right edge.
        left, right = ((x - cx) / fx * wrist for x in (-0.5, CROP_PX - 0.5))
        bone = np.linalg.norm(views.joints_m[b, 10] - views.joints_m[b, 9])
        assert views.crop_in_bones[b] == pytest.approx((right - left) / bone, rel=1e-4)
        assert np.isfinite(cy)


def test_the_crop_is_the_tight_box_with_a_margin(views: HandViews) -> None:
    low, high = views.joints[..., :2].min(axis=1), views.joints[..., :2].max(axis=1)

    np.testing.assert_allclose((high - low).max(axis=1), 1 / MARGIN, atol=1e-4)
    np.testing.assert_allclose(0.5 * (low + high), 0.5, atol=1e-4)


def test_hands_stand_at_the_sampled_distances(views: HandViews, hand_model: HandModel) -> None:
    depth = views.joints_m.mean(axis=1)[:, 2]

    assert depth.min() > np.min(DISTANCES_M)
    assert depth.max() < np.max(DISTANCES_M)
    assert depth.max() / depth.min() > 3
    assert views.vertices_m[..., 2].min() >= NEAR_M, "nothing is behind the camera"
    assert views.vertices_m[:, hand_model.asset.template_subset, 2].min() > 0.08
    np.testing.assert_array_equal(views.intrinsics[:, 0], views.intrinsics[:, 1])


def test_hands_are_right_hands(views: HandViews, hand_model: HandModel) -> None:
    """No view mirrors: faces still turn outwards, and fingers bend to the palm."""
    faces = hand_model.asset.faces
    for vertices in views.vertices_m.astype(np.float64):
        assert np.linalg.det((vertices - vertices.mean(axis=0))[faces]).sum() > 0
    wrist, index, middle, tip, little = (views.joints_m[:, j] for j in (0, 5, 9, 12, 17))
    palm = np.cross(index - wrist, little - wrist)  # in a right hand, out of its palm
    assert ((palm * (tip - middle)).sum(axis=1) > 0).mean() > 0.75


def test_gestures_are_those_of_the_library(views: HandViews) -> None:
    assert views.gesture.min() == -1
    assert views.gesture.max() < len(default_library())
    assert 0.4 < (views.gesture >= 0).mean() < 0.9


def test_no_crop_shows_a_stump(hand_model: HandModel) -> None:
    """The open end of the arm, found as the mesh's border, projects outside of every crop."""
    faces = hand_model.asset.faces
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    present = {(int(a), int(b)) for a, b in edges}
    border = sorted({a for a, b in present if (b, a) not in present})
    assert len(border) > 10

    views = sample_views(np.random.default_rng(7), hand_model, 400, CROP_PX, MARGIN)

    place = project(views.vertices_m[:, border], views.intrinsics)
    assert not ((place > 0) & (place < 1)).all(axis=-1).any()
    # The arm has been drawn out, the hand has not: it stays as it was skinned.
    hand = hand_model.asset.template_subset
    scale = np.linalg.norm(views.joints_m[:, 10] - views.joints_m[:, 9], axis=-1)
    size = np.linalg.norm(views.vertices_m[:, hand] - views.joints_m[:, :1], axis=-1).max(axis=1)
    assert (size / scale).max() < 5.5
