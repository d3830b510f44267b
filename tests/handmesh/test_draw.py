from __future__ import annotations

import dataclasses
import time
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from handmesh.draw import FINGER_COLORS, depth_map, overlay, side_view
from handmesh.errors import InputError
from handmesh.graph import Topology
from handmesh.types import FINGERS, JOINT_NAMES, Box, Camera, Hand

CAMERA = Camera.default(640, 480)


def _hand(topology: Topology, wrist_m: tuple[float, float, float]) -> Hand:
    vertices = topology.template_vertices_m + np.array(wrist_m)
    joints = topology.joint_regressor @ topology.template_vertices_m + np.array(wrist_m)
    return Hand(
        vertices_m=vertices.astype(np.float32),
        faces=topology.faces,
        joints_m=joints.astype(np.float32),
        joints_px=CAMERA.project(joints).astype(np.float32),
        vertices_px=CAMERA.project(vertices).astype(np.float32),
        confidence=np.ones(21, dtype=np.float32),
        presence=1.0,
        handedness="right",
        depth="assumed",
        box=Box(320, 240, 300),
        camera=CAMERA,
    )


@pytest.fixture(scope="module")
def hand(topology: Topology) -> Hand:
    return _hand(topology, (0, 0.08, 0.5))


@pytest.fixture
def photo() -> np.ndarray:
    return np.full((480, 640, 3), (10, 40, 90), dtype=np.uint8)


def test_photo_itself_is_not_changed(hand: Hand, photo: np.ndarray) -> None:
    before = photo.copy()
    drawn = hand.draw(photo)
    np.testing.assert_array_equal(photo, before)
    assert drawn.shape == photo.shape
    assert drawn.dtype == np.uint8
    assert (drawn != photo).any()


def test_surface_covers_the_hand_and_nothing_else(hand: Hand, photo: np.ndarray) -> None:
    drawn = overlay(photo, [hand], "mesh", 1.0)
    changed = (drawn != photo).any(axis=-1)
    # An independent silhouette: pixels whose centre lies in some triangle.
    corners = hand.vertices_px[hand.faces].astype(np.float64)  # (F, 3, 2)
    silhouette = np.zeros_like(changed)
    for triangle in corners:
        x0, y0 = np.floor(triangle.min(axis=0)).astype(int)
        x1, y1 = np.ceil(triangle.max(axis=0)).astype(int) + 1
        y, x = np.mgrid[y0:y1, x0:x1]
        sides = np.array(
            [
                (q[0] - p[0]) * (y - p[1]) - (q[1] - p[1]) * (x - p[0])
                for p, q in zip(triangle, np.roll(triangle, -1, axis=0), strict=True)
            ]
        )
        inside = (sides >= 0).all(axis=0) | (sides <= 0).all(axis=0)
        silhouette[y[inside], x[inside]] = True
    assert silhouette.sum() > 5000
    assert changed[silhouette].mean() > 0.999
    rim = silhouette.copy()
    for axis in (0, 1):
        rim |= np.roll(rim, 1, axis) | np.roll(rim, -1, axis)
    rim |= np.roll(rim, 1, 0) | np.roll(rim, -1, 0)
    assert not changed[~rim].any()


def test_near_parts_cover_far_ones(topology: Topology, photo: np.ndarray) -> None:
    # Two hands, the nearer one drawn over the farther, in whatever order they come.
    far, near = _hand(topology, (0.02, 0.08, 0.7)), _hand(topology, (0, 0.08, 0.5))
    both = [overlay(photo, hands, opacity=1.0) for hands in ([far, near], [near, far])]
    np.testing.assert_array_equal(both[0], both[1])
    alone = overlay(photo, [near], opacity=1.0)
    drawn = (alone != photo).any(axis=-1)
    # All but the rim, where what lies behind shines through.
    assert (both[0][drawn] == alone[drawn]).mean() > 0.98


def test_the_near_side_of_a_hand_covers_its_far_side(hand: Hand, photo: np.ndarray) -> None:
    # Two copies of the hand in one mesh, the farther of which faces the light: it must not show.
    behind = hand.vertices_m + np.float32([0, 0, 0.1])
    faces = np.vstack([hand.faces, hand.faces[:, ::-1] + len(behind)])
    for order in (1, -1):
        double = replace(
            hand,
            vertices_m=np.vstack([hand.vertices_m, behind]),
            vertices_px=np.vstack([hand.vertices_px, hand.vertices_px]),
            faces=faces[::order],
        )
        drawn, alone = (overlay(photo, [h], "mesh", 1.0) for h in (double, hand))
        assert (drawn == alone).mean() > 0.99


def test_opacity_blends(hand: Hand, photo: np.ndarray) -> None:
    none, half, full = (overlay(photo, [hand], "mesh", s) for s in (0.0, 0.5, 1.0))
    np.testing.assert_array_equal(none, photo)
    middle = (photo.astype(float) + full) / 2
    assert np.abs(half - middle).max() <= 1


def test_joints_are_in_the_colour_of_their_finger(hand: Hand, photo: np.ndarray) -> None:
    drawn = overlay(photo, [hand], "skeleton")
    for finger, joints in FINGERS.items():
        for joint in joints:
            x, y = np.round(hand.joints_px[joint]).astype(int)
            assert tuple(drawn[y, x]) == FINGER_COLORS[finger], JOINT_NAMES[joint]
    x, y = np.round(hand.joints_px[0]).astype(int)
    assert tuple(drawn[y, x]) == (255, 255, 255)


def test_bones_join_their_joints(hand: Hand, photo: np.ndarray) -> None:
    drawn = overlay(photo, [hand], "skeleton")
    for finger, joints in FINGERS.items():
        middle = hand.joints_px[list(joints[2:])].mean(axis=0)
        x, y = np.round(middle).astype(int)
        assert tuple(drawn[y, x]) == FINGER_COLORS[finger]


def test_overlay_can_be_reduced(hand: Hand, photo: np.ndarray) -> None:
    small = overlay(photo, [hand], max_side=320)
    assert small.shape == (240, 320, 3)
    x, y = np.round((hand.joints_px[8] + 0.5) / 2 - 0.5).astype(int)
    assert np.abs(small[y, x].astype(int) - FINGER_COLORS["index"]).max() < 40
    assert overlay(photo, [hand], max_side=2000).shape == photo.shape


def test_hands_beyond_the_edge_are_drawn_as_far_as_they_show(
    topology: Topology, photo: np.ndarray
) -> None:
    inside = overlay(photo, [_hand(topology, (0.3, 0.08, 0.5))])
    assert (inside != photo).any()
    outside = overlay(photo, [_hand(topology, (3.0, 0.08, 0.5))])
    np.testing.assert_array_equal(outside, photo)


def test_side_view_shows_depth(hand: Hand, topology: Topology) -> None:
    picture = side_view(hand, size=256)
    assert picture.shape == (256, 256, 3)
    front = side_view(hand, size=256, degrees=0.0)
    widths = []
    for view in (picture, front):
        columns = np.nonzero((view != view[0, 0]).any(axis=(0, 2)))[0]
        rows = np.nonzero((view != view[0, 0]).any(axis=(1, 2)))[0]
        assert columns.min() > 0
        assert columns.max() < 255
        widths.append(np.ptp(columns) / np.ptp(rows))
    extent = np.ptp(topology.template_vertices_m, axis=0)
    assert widths[0] == pytest.approx(extent[2] / extent[1], rel=0.1)
    assert widths[1] == pytest.approx(extent[0] / extent[1], rel=0.1)


def test_side_view_turns_the_far_end_to_the_right(hand: Hand) -> None:
    # The wrist is the farthest joint of this hand, the thumb's tip the nearest.
    assert hand.joints_m[0, 2] > hand.joints_m[4, 2]
    picture = side_view(hand, size=512)
    white = np.argwhere((picture == 255).all(axis=-1)).mean(axis=0)
    orange = np.argwhere((picture == FINGER_COLORS["thumb"]).all(axis=-1)).mean(axis=0)
    assert white[1] > orange[1]


@pytest.mark.parametrize("angle", [-2.5, -np.pi / 2, 0.3, np.pi / 2, 3.0])
def test_side_view_stands_a_hand_upright(hand: Hand, angle: float) -> None:
    """However it lies in the photo: turned about the camera's axis it looks the same."""
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    turned = dataclasses.replace(
        hand, vertices_m=hand.vertices_m @ turn.T, joints_m=hand.joints_m @ turn.T
    )
    for degrees in (90.0, 0.0, 30.0):
        picture, wanted = (side_view(one, 128, degrees).astype(int) for one in (turned, hand))
        assert (abs(picture - wanted).max(axis=2) > 24).mean() < 0.01, "rounding moves an edge"


def test_the_depth_map_is_the_nearest_surface_along_each_ray(hand: Hand) -> None:
    found = depth_map([hand], CAMERA.width, CAMERA.height)
    rng = np.random.default_rng(0)
    v, u = np.nonzero(np.isfinite(found))
    corners = hand.vertices_m.astype(np.float64)[hand.faces]  # (F, 3, 3)
    first, edges = corners[:, 0], corners[:, 1:] - corners[:, :1]
    errors = []
    for i in rng.choice(len(v), 60, replace=False):
        # Each ray against each triangle, solved as s ray = p + a e1 + b e2.
        ray = CAMERA.rays([u[i], v[i]])
        system = np.stack([np.broadcast_to(ray, first.shape), -edges[:, 0], -edges[:, 1]], axis=2)
        s, a, b = np.linalg.solve(system, first[..., None])[..., 0].T
        hit = (a >= -1e-6) & (b >= -1e-6) & (a + b <= 1 + 1e-6)
        errors.append(abs(s[hit].min() - found[v[i], u[i]]))
    assert max(errors) < 1e-4
    assert np.isnan(found[0, 0])


def test_near_hands_hide_far_ones_in_the_depth_map(topology: Topology) -> None:
    near, far = (_hand(topology, (0, 0.08, z)) for z in (0.5, 0.7))
    alone = depth_map([near], CAMERA.width, CAMERA.height)
    both = depth_map([near, far], CAMERA.width, CAMERA.height)
    there = np.isfinite(alone)
    np.testing.assert_array_equal(both[there], alone[there])


def test_depth_colours_tell_near_from_far(hand: Hand, photo: np.ndarray) -> None:
    drawn = overlay(photo, [hand], "depth", 1.0)
    depths = depth_map([hand], CAMERA.width, CAMERA.height)
    there = np.isfinite(depths)
    np.testing.assert_array_equal(drawn[~there], photo[~there])
    brightness = drawn[there].astype(float).sum(axis=1)
    assert np.corrcoef(brightness, depths[there])[0, 1] < -0.9
    row, column = np.unravel_index(np.nanargmin(depths), depths.shape)
    assert tuple(drawn[row, column]) == (253, 231, 37)  # viridis ends in yellow


def test_wireframe_draws_the_edges_that_are_seen(hand: Hand, photo: np.ndarray) -> None:
    drawn = overlay(photo, [hand], "wireframe")
    changed = (drawn != photo).any(axis=-1)
    solid = (overlay(photo, [hand], "mesh", 1.0) != photo).any(axis=-1)
    assert changed[solid].mean() > 0.2
    assert not changed[~cv2.dilate(solid.astype(np.uint8), np.ones((5, 5))).astype(bool)].any()
    # The same hand close behind: none of its edges shows within the near one.
    behind = replace(hand, vertices_m=hand.vertices_m + np.float32([0, 0, 0.1]))
    double = replace(
        hand,
        vertices_m=np.vstack([hand.vertices_m, behind.vertices_m]),
        vertices_px=np.vstack([hand.vertices_px, hand.vertices_px + np.float32([3, 2])]),
        faces=np.vstack([hand.faces, hand.faces + len(hand.vertices_m)]),
    )
    core = cv2.erode(solid.astype(np.uint8), np.ones((9, 9))).astype(bool)
    both = overlay(photo, [double], "wireframe")
    assert (both[core] == drawn[core]).mean() > 0.97


def test_side_style_adds_the_side_view(hand: Hand, photo: np.ndarray) -> None:
    drawn = hand.draw(photo, "side")
    np.testing.assert_array_equal(drawn[:, :640], hand.draw(photo))
    np.testing.assert_array_equal(drawn[:, 640:], side_view(hand, 480))


def test_full_is_mesh_and_skeleton(hand: Hand, photo: np.ndarray) -> None:
    np.testing.assert_array_equal(
        hand.draw(photo), overlay(hand.draw(photo, "mesh"), [hand], "skeleton")
    )


@pytest.mark.parametrize("style", ["wireframe", "depth", "skeleton", "mesh", "full", "side"])
def test_every_style_bears_hands_outside_the_picture(
    topology: Topology, photo: np.ndarray, style: Any
) -> None:
    outside = _hand(topology, (3.0, 0.08, 0.5))
    np.testing.assert_array_equal(outside.draw(photo, style)[:, :640], photo)
    edge = _hand(topology, (0.3, 0.08, 0.5)).draw(photo, style)
    assert (edge[:, :640] != photo).any()


def test_a_photo_of_another_size_is_refused(hand: Hand, photo: np.ndarray) -> None:
    with pytest.raises(InputError, match="draw over the former"):
        hand.draw(photo[:-2])


def test_other_styles_are_refused(hand: Hand, photo: np.ndarray) -> None:
    with pytest.raises(InputError, match="full, mesh, skeleton, wireframe, depth, side, not 'x'"):
        hand.draw(photo, "x")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="opacity"):
        overlay(photo, [hand], opacity=2)


@pytest.mark.parametrize("size", [0, -5, 1.5, "64", None])
def test_sizes_that_no_picture_has_are_refused(hand: Hand, size: Any) -> None:
    for draw in (
        lambda: side_view(hand, size),
        lambda: depth_map([hand], size, 5),
        lambda: depth_map([hand], 5, size),
    ):
        with pytest.raises(InputError, match=r"(size|width|height) must be"):
            draw()


@pytest.mark.parametrize("wrong", [["x"], [None], 5, None, "hand"])
def test_what_is_no_hand_is_refused(photo: np.ndarray, wrong: Any) -> None:
    for draw in (
        lambda: overlay(photo, wrong),
        lambda: depth_map(wrong, 5, 5),
        lambda: side_view(wrong),
    ):
        with pytest.raises(InputError, match="as predict gives, not"):
            draw()


def test_one_hand_is_no_list_of_hands(hand: Hand, photo: np.ndarray) -> None:
    with pytest.raises(InputError, match="a list of hands"):
        overlay(photo, hand)  # type: ignore[arg-type]


@pytest.mark.parametrize("degrees", [np.nan, np.inf, "x"])
def test_turns_that_are_none_are_refused(hand: Hand, degrees: Any) -> None:
    with pytest.raises(InputError, match="degrees"):
        side_view(hand, 64, degrees)


def test_drawing_is_quick_enough_for_a_preview(hand: Hand, photo: np.ndarray) -> None:
    start = time.process_time()
    overlay(photo, [hand])
    assert time.process_time() - start < 0.5


def test_a_left_hand_is_lit_like_its_mirror_image(hand: Hand, photo: np.ndarray) -> None:
    left = replace(
        hand,
        vertices_m=hand.vertices_m * np.float32([-1, 1, 1]),
        vertices_px=hand.vertices_px * np.float32([-1, 1]) + np.float32([639, 0]),
        faces=hand.faces[:, ::-1],
        handedness="left",
    )
    surfaces = [overlay(photo, [h], "mesh", 1.0) for h in (hand, left)]
    brightness = [s[(s != photo).any(axis=-1)].mean() for s in surfaces]
    assert brightness[0] == pytest.approx(brightness[1], rel=0.1)


@pytest.mark.parametrize("side", [-5, 0, "x", 1.5, True])
def test_sides_that_no_picture_has_are_refused(hand: Hand, photo: np.ndarray, side: Any) -> None:
    with pytest.raises(InputError, match="max_side"):
        overlay(photo, [hand], max_side=side)


@pytest.mark.parametrize("style", ["full", "mesh", "skeleton", "wireframe", "depth", "side"])
def test_hands_without_a_surface_or_an_extent_are_drawn(
    hand: Hand, photo: np.ndarray, style: Any
) -> None:
    no_faces = np.zeros((0, 3), np.int32)
    bare = replace(hand, vertices_m=np.zeros((0, 3)), vertices_px=np.zeros((0, 2)), faces=no_faces)
    point = replace(
        hand,
        vertices_m=np.tile([[0, 0, 0.5]], (len(hand.vertices_m), 1)),
        vertices_px=np.tile([[320, 240]], (len(hand.vertices_m), 1)),
        joints_m=np.tile([[0, 0, 0.5]], (21, 1)),
        joints_px=np.tile([[320, 240]], (21, 1)),
    )
    for one in (bare, point, replace(hand, faces=no_faces)):
        drawn = one.draw(photo, style)
        assert drawn.shape[0] == photo.shape[0]
    assert (side_view(bare) != side_view(point)).any(), "the bones are there"
