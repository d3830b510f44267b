"""Random hands before random cameras: within limits, reproducible, and labelled consistently."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from handmesh_training.hand import FOREARM, PIVOT_COUNT, HandModel
from handmesh_training.sampling import (
    ABDUCTION,
    DISTANCE_M,
    FINGER_BASES,
    FLEXION,
    FLEXION_LIMITS_DEG,
    OVERLAP_ALLOWED,
    RADIUS_M,
    TWIST,
    HandViews,
    pose_hands,
    sample_angles,
    sample_orientations,
    sample_shapes,
    sample_views,
    self_collides,
)

Array = NDArray[np.float64]
CROP_PX, MARGIN = 160, 1.9
CHAINS = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16], [17, 18, 19, 20]]


@pytest.fixture(scope="module")
def angles() -> Array:
    """(4000, 17, 3) degrees."""
    return np.rad2deg(sample_angles(np.random.default_rng(0), 4000))


@pytest.fixture(scope="module")
def views(hand_model: HandModel) -> HandViews:
    return sample_views(np.random.default_rng(1), hand_model, 60, CROP_PX, MARGIN)


def test_fingers_keep_their_limits(angles: Array) -> None:
    assert angles.shape == (4000, PIVOT_COUNT, 3)
    for offset, joint in enumerate(("mcp", "pip", "dip")):
        low, high = FLEXION_LIMITS_DEG[joint]
        flexion = angles[:, FINGER_BASES + offset, FLEXION]
        assert flexion.min() >= low - 1e-9
        assert flexion.max() <= high + 1e-9
        # And they use them: nearly straight, half and nearly closed all occur.
        share = np.histogram(flexion, [low, 20, 50, high])[0] / flexion.size
        assert share.min() > 0.08
    only_flexion = np.concatenate([FINGER_BASES + 1, FINGER_BASES + 2, [3]])
    assert not angles[:, only_flexion][..., [TWIST, ABDUCTION]].any(), "hinges"
    assert not angles[:, 0].any(), "the wrist is turned by the view"


def test_bent_fingers_do_not_spread(angles: Array) -> None:
    bent = angles[:, FINGER_BASES, FLEXION] > 70
    spread = abs(angles[:, FINGER_BASES, ABDUCTION])

    assert spread[bent].max() < 0.5 * spread[~bent].max()
    assert spread[~bent].max() < 50


def test_the_thumb_and_forearm_keep_their_limits(angles: Array) -> None:
    limits = {
        (1, FLEXION): (-30, 45),
        (1, ABDUCTION): (-35, 30),
        (1, TWIST): (-25, 25),
        (2, FLEXION): (-15, 65),
        (3, FLEXION): (-25, 85),
        (FOREARM, FLEXION): (-69, 69),
        (FOREARM, ABDUCTION): (-26, 26),
    }
    for (pivot, kind), (low, high) in limits.items():
        values = angles[:, pivot, kind]
        assert low <= values.min() < low / 2
        assert high / 2 < values.max() <= high


def test_shapes_are_those_of_people(hand_model: HandModel) -> None:
    shapes = sample_shapes(np.random.default_rng(0), hand_model, 2000)

    names = hand_model.asset.shape_names
    assert shapes.shape == (2000, len(names))
    assert not shapes[:, names.index("height")].any(), "height alone changes no hand"
    spread = shapes.std(axis=0)
    assert abs(shapes).max(axis=0) == pytest.approx(2 * spread / 0.88, rel=0.1)  # cut at 2 sigma
    assert np.delete(spread, names.index("height")).min() > 0.2


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
    }
    for name, shape in expected.items():
        array = getattr(views, name)
        assert array.shape == shape, name
        assert array.dtype == (bool if name == "in_view" else np.float32), name
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

    assert depth.min() > DISTANCE_M[0]
    assert depth.max() < DISTANCE_M[1]
    assert depth.max() / depth.min() > 3
    # A forearm may reach past the camera; the mesh with labels must not.
    assert views.vertices_m[:, hand_model.asset.template_subset, 2].min() > 0.05
    np.testing.assert_array_equal(views.intrinsics[:, 0], views.intrinsics[:, 1])


def test_hands_are_right_hands(views: HandViews, hand_model: HandModel) -> None:
    """No view mirrors: faces still turn outwards, and fingers bend to the palm."""
    faces = hand_model.asset.faces
    for vertices in views.vertices_m.astype(np.float64):
        assert np.linalg.det((vertices - vertices.mean(axis=0))[faces]).sum() > 0
    wrist, index, middle, tip, little = (views.joints_m[:, j] for j in (0, 5, 9, 12, 17))
    palm = np.cross(index - wrist, little - wrist)  # in a right hand, out of its palm
    assert ((palm * (tip - middle)).sum(axis=1) > 0).mean() > 0.75


def test_orientations_are_rotations_of_every_kind() -> None:
    turns = sample_orientations(np.random.default_rng(0), 3000)

    identity = np.broadcast_to(np.eye(3), turns.shape)
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), identity, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(turns), 1, atol=1e-12)
    palm_to_camera = (turns[:, 2, 2] > 0).mean()
    assert 0.45 < palm_to_camera < 0.7
    upright = (turns[:, 1, 1] > 0).mean()
    assert 0.6 < upright < 0.9, "hands are held up more often than not"
    # Every octant of views is seen.
    octants = np.unique((turns[:, :, 2] > 0) @ [1, 2, 4], return_counts=True)[1]
    assert len(octants) == 8
    assert octants.min() > 50


def open_hand(hand_model: HandModel) -> torch.Tensor:
    """(1, 21, 3) the rest pose."""
    return hand_model.joints[None].clone()


def test_an_open_hand_does_not_collide(hand_model: HandModel) -> None:
    for size in (0.7, 1.0, 1.3):
        assert not self_collides(size * open_hand(hand_model)).any()


@pytest.mark.parametrize("pair", [(1, 2), (2, 3), (3, 4), (0, 1), (0, 4)])
def test_fingers_inside_each_other_collide(hand_model: HandModel, pair: tuple[int, int]) -> None:
    joints = open_hand(hand_model)
    first, second = (CHAINS[k] for k in pair)
    joints[:, first[1:]] = joints[:, second[1:]] + torch.tensor([0.0, 0.0, -0.004])

    assert self_collides(joints).all()


@pytest.mark.parametrize("tip", [8, 12, 16, 20, 4])
def test_fingers_behind_the_palm_collide(hand_model: HandModel, tip: int) -> None:
    joints = open_hand(hand_model)
    joints[:, tip] = torch.tensor([-0.005, -0.03, 0.02])
    assert self_collides(joints).all()

    if tip != 4:
        joints[:, tip, 2] = -0.04  # before the palm, where a fist has it
        joints[:, tip - 1, 2] = -0.04
        assert not self_collides(joints).any()


def test_posed_hands_keep_their_fingers_apart(hand_model: HandModel) -> None:
    posed = pose_hands(np.random.default_rng(5), hand_model, 80)

    assert posed.vertices.shape == (80, len(hand_model.asset.vertices_m), 3)
    assert not self_collides(posed.joints).any()
    joints = posed.joints.double().numpy()
    for hand in joints:
        limit = 2 * RADIUS_M * OVERLAP_ALLOWED * np.linalg.norm(hand[9] - hand[10]) / 0.0475
        tips = hand[[chain[3] for chain in CHAINS]]
        between = np.linalg.norm(tips[:, None] - tips[None], axis=-1)[np.triu_indices(5, 1)]
        assert between.min() > 0.999 * limit


def test_many_random_poses_are_refused(hand_model: HandModel) -> None:
    """The check does something: without it a good part of the poses would be impossible."""
    rng = np.random.default_rng(6)
    rotations = hand_model.rotations(torch.from_numpy(sample_angles(rng, 400)).float())
    shape = torch.from_numpy(sample_shapes(rng, hand_model, 400)).float()

    share = self_collides(hand_model.pose_joints(shape, rotations)).float().mean()

    assert 0.05 < share < 0.7
