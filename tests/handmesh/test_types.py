from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from handmesh.errors import BoxError, CameraError, InputError
from handmesh.types import BONES, FINGERS, JOINT_NAMES, JOINT_PARENTS, Box, Camera, Hand


def test_joints_form_five_chains_from_the_wrist() -> None:
    assert len(JOINT_NAMES) == 21
    assert JOINT_PARENTS[0] == -1
    assert [child for _, child in BONES] == list(range(1, 21))
    for finger, joints in FINGERS.items():
        assert all(JOINT_NAMES[joint].startswith(finger) for joint in joints)
        assert [JOINT_PARENTS[joint] for joint in joints] == [0, *joints[:-1]]


def test_box_corners_follow_the_pixel_convention() -> None:
    # The 4 pixels 0..3 are covered, from outer edge to outer edge, by a box around 1.5 of size 4.
    box = Box(1.5, 1.5, 4)
    assert box.corners().tolist() == [[-0.5, -0.5], [3.5, -0.5], [3.5, 3.5], [-0.5, 3.5]]
    assert box.to_image([0.125, 0.125]).tolist() == [0, 0]


def test_turned_box_has_its_x_axis_where_the_angle_says() -> None:
    box = Box(100, 50, 20, math.radians(30))
    centre, right, below = box.to_image([[0.5, 0.5], [1, 0.5], [0.5, 1]])
    assert centre.tolist() == [100, 50]
    assert right - centre == pytest.approx([10 * math.cos(math.pi / 6), 5])
    assert below - centre == pytest.approx([-5, 10 * math.cos(math.pi / 6)])


def test_box_maps_there_and_back() -> None:
    rng = np.random.default_rng(0)
    box = Box(31.5, -7.25, 77, 1.1)
    uv = rng.uniform(-1, 2, (5, 7, 2))
    np.testing.assert_allclose(box.to_crop(box.to_image(uv)), uv, atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 0.7, -2.5])
def test_box_from_points_holds_them_with_the_margin(angle: float) -> None:
    points = np.random.default_rng(1).normal((200, 100), (40, 15), (21, 2))
    box = Box.from_points(points, margin=1.5, angle=angle)
    uv = box.to_crop(points)
    assert uv.min(axis=0) + uv.max(axis=0) == pytest.approx([1, 1])  # centred
    assert np.ptp(uv, axis=0).max() == pytest.approx(1 / 1.5)
    assert box.contains(points).all()


def test_mirrored_box_shows_the_mirrored_points() -> None:
    width = 640
    box, points = Box(100, 200, 80, 0.4), np.random.default_rng(2).uniform(60, 240, (9, 2))
    flipped = points * (-1, 1) + (width - 1, 0)
    uv, uv_flipped = box.to_crop(points), box.mirrored(width).to_crop(flipped)
    np.testing.assert_allclose(uv_flipped, uv * (-1, 1) + (1, 0), atol=1e-12)


@pytest.mark.parametrize(
    "arguments", [(0, 0, 0), (0, 0, -1), (math.nan, 0, 1), (0, math.inf, 1), (0, 0, 1, math.nan)]
)
def test_impossible_boxes_are_refused(arguments: tuple[float, ...]) -> None:
    with pytest.raises(BoxError):
        Box(*arguments)


def test_box_of_text_is_refused_by_name() -> None:
    with pytest.raises(BoxError, match=r"Box\.cx must be a number"):
        Box("left", 0, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "points", [np.zeros((0, 2)), np.zeros((4, 2)), np.full((4, 2), np.nan), np.zeros((4, 3))]
)
def test_box_of_useless_points_is_refused(points: np.ndarray) -> None:
    with pytest.raises(BoxError):
        Box.from_points(points)


def test_box_margin_below_one_is_refused() -> None:
    with pytest.raises(BoxError, match="margin"):
        Box.from_points([[0, 0], [1, 1]], margin=0.5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Box.from_xyxy("a", 0, 1, 1),  # type: ignore[arg-type]
        lambda: Box.from_xyxy(None, 0, 1, 1),  # type: ignore[arg-type]
        lambda: Box.from_xyxy(0, 0, 1, 1, margin="wide"),  # type: ignore[arg-type]
        lambda: Box.from_points("points"),
        lambda: Box.from_points([[0, 1], [2]]),  # type: ignore[list-item]
        lambda: Box.from_points([[0, 0], [1, 1]], margin=None),  # type: ignore[arg-type]
        lambda: Box.from_points([[0, 0], [1, 1]], angle=math.nan),
    ],
)
def test_boxes_of_what_is_no_number_are_refused(make: Callable[[], Box]) -> None:
    with pytest.raises(BoxError):
        make()


@pytest.mark.parametrize("rectangle", [(5, 0, 5, 9), (9, 0, 5, 9), (0, 0, math.nan, 9)])
def test_inside_out_rectangles_are_refused(rectangle: tuple[float, ...]) -> None:
    with pytest.raises(BoxError, match="x0 < x1"):
        Box.from_xyxy(*rectangle)


def test_camera_projects_as_its_matrix_does() -> None:
    rng = np.random.default_rng(3)
    camera = Camera(500, 520, 310, 250, 640, 480)
    points = rng.uniform((-1, -1, 0.5), (1, 1, 3), (50, 3))
    homogeneous = points @ camera.matrix().T
    expected = homogeneous[:, :2] / homogeneous[:, 2:]
    np.testing.assert_allclose(camera.project(points), expected, atol=1e-9)
    np.testing.assert_allclose(camera.unproject(expected, points[:, 2]), points, atol=1e-12)


def test_field_of_view_reaches_the_outer_edges_of_the_longer_side() -> None:
    camera = Camera.from_fov(480, 640, 60)
    ray = camera.rays([[239.5, -0.5], [239.5, 639.5]])
    angles = np.degrees(np.arctan2(ray[:, 1], ray[:, 2]))
    assert angles == pytest.approx([-30, 30])


def test_camera_from_matrix_returns_the_matrix() -> None:
    k = [[600, 0, 320], [0, 610, 241], [0, 0, 1]]
    assert Camera.from_matrix(k, 640, 480).matrix().tolist() == k


@pytest.mark.parametrize(
    "matrix",
    [
        np.eye(4),
        [[600, 5, 320], [0, 610, 241], [0, 0, 1]],
        [[600, 0, 0], [0, 610, 0], [320, 241, 1]],
        [["a", 0, 320], [0, 610, 241], [0, 0, 1]],
        [[600, 0, 320], [0, 610], [0, 0, 1]],
        None,
    ],
)
def test_matrices_that_are_not_intrinsics_are_refused(matrix: Any) -> None:
    with pytest.raises(CameraError):
        Camera.from_matrix(matrix, 640, 480)


def test_angles_and_lengths_in_another_unit_are_told() -> None:
    with pytest.raises(CameraError, match=r"multiply its first row by the width"):
        Camera.from_matrix([[1.1, 0, 0.5], [0, 1.4, 0.5], [0, 0, 1]], 640, 480)
    with pytest.raises(CameraError, match="is it in radians"):
        Camera.from_fov(640, 480, math.radians(65))
    with pytest.raises(CameraError, match=r"horizontal_deg is too narrow .* is it in radians"):
        Camera.from_fov(640, 480, horizontal_deg=math.radians(65))
    with pytest.raises(CameraError, match=r"diagonal_deg is too narrow .* is it in radians"):
        Camera.from_fov(640, 480, diagonal_deg=math.radians(78))
    assert Camera.from_fov(640, 480, 4).fx > 0
    assert Camera.from_matrix([[100, 0, 319], [0, 100, 239], [0, 0, 1]], 640, 480).fx == 100


@pytest.mark.parametrize(
    "arguments",
    [
        (0, 1, 0, 0, 4, 4),
        (1, -1, 0, 0, 4, 4),
        (1, 1, math.nan, 0, 4, 4),
        (1, 1, 0, 0, 0, 4),
        *((1, 1, 0, 0, width, 4) for width in (None, "x", math.inf, math.nan, 4.5)),
    ],
)
def test_impossible_cameras_are_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(CameraError):
        Camera(*arguments)


@pytest.mark.parametrize("width", [None, "x", math.inf, math.nan, 0])
def test_impossible_sizes_are_refused(width: Any) -> None:
    with pytest.raises(CameraError, match="width"):
        Camera.from_fov(width, 480, 60)
    with pytest.raises(CameraError, match="width"):
        Camera.default(width, 480)


@pytest.mark.parametrize("angle", [0, 180, -5, math.nan, "wide"])
def test_impossible_fields_of_view_are_refused(angle: float) -> None:
    with pytest.raises(CameraError, match=r"between 0 and 180|must be (a number|finite)"):
        Camera.from_fov(640, 480, angle)


def test_mirrored_camera_sees_mirrored_points_mirrored() -> None:
    camera = Camera(500, 500, 300, 240, 640, 480)
    points = np.random.default_rng(4).uniform((-1, -1, 1), (1, 1, 3), (9, 3))
    seen = camera.mirrored().project(points * (-1, 1, 1))
    np.testing.assert_allclose(seen, camera.project(points) * (-1, 1) + (639, 0), atol=1e-9)


def _hand(**changes: Any) -> Hand:
    fields: dict[str, Any] = {
        "vertices_m": np.zeros((4, 3)),
        "faces": [[0, 1, 2], [0, 2, 3]],
        "joints_m": np.zeros((21, 3)),
        "joints_px": np.zeros((21, 2)),
        "vertices_px": np.zeros((4, 2)),
        "confidence": np.ones(21),
        "presence": 0.9,
        "handedness": "right",
        "depth": "assumed",
        "box": Box(0, 0, 1),
        "camera": Camera.default(64, 64),
    }
    return Hand(**fields | changes)


def test_a_hand_is_printed_on_one_line() -> None:
    hand = _hand()
    assert "\n" not in repr(hand)
    assert repr(hand).startswith("Hand(right, presence 0.9")
    assert len(repr(hand)) < 120


def test_hand_is_of_stated_types_and_cannot_be_changed() -> None:
    mine = np.zeros((4, 3))
    hand = _hand(vertices_m=mine)
    assert hand.vertices_m.dtype == np.float32
    assert hand.faces.dtype == np.int32
    with pytest.raises(ValueError, match="read-only"):
        hand.vertices_m[0] = 1
    mine[0] = 1  # the caller's own array stays theirs
    assert hand.vertices_m.max() == 0
    with pytest.raises(TypeError):
        hand.timings_ms["crop"] = 1.0  # type: ignore[index]


def test_constant_arrays_are_shared_and_others_copied() -> None:
    faces = np.array([[0, 1, 2], [0, 2, 3]], dtype=np.int32)
    view = faces[:]
    view.flags.writeable = False
    hand = _hand(faces=view)
    faces[0] = 3
    assert hand.faces[0].tolist() == [0, 1, 2], "a view of what can be changed was copied"
    faces.flags.writeable = False
    shared = _hand(faces=faces)
    assert shared.faces is faces
    assert dataclasses.replace(shared, presence=0.5).vertices_m is shared.vertices_m
    for other in (faces.astype(np.int64), faces[:, ::-1]):
        other.flags.writeable = False
        copied = _hand(faces=other)
        assert copied.faces.dtype == np.int32
        assert copied.faces.flags.c_contiguous
        assert not copied.faces.flags.writeable


@pytest.mark.parametrize(
    "changes",
    [
        {"joints_m": np.zeros((20, 3))},
        {"joints_px": np.zeros((21, 3))},
        {"vertices_px": np.zeros((5, 2))},
        {"vertices_m": np.full((4, 3), np.nan)},
        {"confidence": np.ones((21, 1))},
        {"faces": [[0, 1, 4]]},
        {"faces": [[0, 1, -1]]},
        {"presence": math.nan},
        {"handedness": "Right"},
        {"depth": "relative"},
    ],
)
def test_impossible_hands_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"Hand.{next(iter(changes))}"):
        _hand(**changes)


@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 640)])
def test_fields_of_view_along_width_and_diagonal(width: int, height: int) -> None:
    wide = Camera.from_fov(width, height, horizontal_deg=70)
    edge = wide.rays([[-0.5, 0], [width - 0.5, 0]])[:, 0]  # the outer edges of the picture
    assert math.degrees(np.arctan(edge[1]) - np.arctan(edge[0])) == pytest.approx(70)
    across = Camera.from_fov(width, height, diagonal_deg=78)
    rays = across.rays([[-0.5, -0.5], [width - 0.5, height - 0.5]])
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    assert math.degrees(np.arccos(rays[0] @ rays[1])) == pytest.approx(78)


def test_exactly_one_field_of_view_is_wanted() -> None:
    with pytest.raises(CameraError, match="give one of"):
        Camera.from_fov(640, 480)
    with pytest.raises(CameraError, match="give one of"):
        Camera.from_fov(640, 480, 60, diagonal_deg=70)
    with pytest.raises(CameraError, match="diagonal_deg must lie between"):
        Camera.from_fov(640, 480, diagonal_deg=180)


@pytest.mark.parametrize(
    "changes",
    [
        {"vertices_m": 5},
        {"vertices_m": "abc"},
        {"joints_m": [["0", "0", "0"]] * 21},
        {"joints_px": [[0, 0], [0]]},
        {"confidence": None},
        {"faces": 3},
        {"faces": [[0, 1, 2**40]]},
        {"faces": np.array([[0, 1, 2**40]])},
        {"faces": [[0, 1, 2**70]]},
        {"faces": [[0.9, 1.9, 2.9]]},
    ],
)
def test_what_is_no_array_of_numbers_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"Hand.{next(iter(changes))}"):
        _hand(**changes)


def test_whole_numbers_may_be_floats() -> None:
    assert _hand(faces=[[0.0, 1.0, 2.0]]).faces.tolist() == [[0, 1, 2]]
