"""Augmentation: labels move with the pixels, flags tell the truth, and seeds repeat."""

from __future__ import annotations

import dataclasses
from dataclasses import fields

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from handmesh.geometry import upright_angle
from handmesh_training import augment
from handmesh_training.augment import Augmentation, before, part_of
from handmesh_training.hand import HandModel
from handmesh_training.samples import OUTLINE_POINTS, Crops
from handmesh_training.sampling import sample_views

STORED, INPUT = 160, 128
# Nothing but the view of the stored crop: each test adds what it is about.
PLAIN = {
    "margin": 1.9,
    "margin_spread": 0.0,
    "wide": 0.0,
    "upright": 0.0,
    "rotation": 0.0,
    "anyhow": 0.0,
    "shift": 0.0,
    "left": 0.0,
    "misses": 0.0,
    "occluders": 0.0,
    "grounds": 0.0,
    "cut": 0.0,
}


def painted_joint(crops: Crops, i: int) -> int:
    return i % crops.joints.shape[1]


@pytest.fixture(scope="module")
def crops(hand_model: HandModel) -> Crops:
    """42 labelled hands; each picture is black but for a soft dot at one of the joints."""
    views = sample_views(np.random.default_rng(0), hand_model, 42, STORED, 1.9)
    made = Crops.empty(42, STORED, views.vertices.shape[1])
    for name in ("joints", "vertices", "crop_in_bones"):
        getattr(made, name)[:] = getattr(views, name)
    for name in ("has_hand", "has_joints", "has_depth", "has_mesh", "is_right"):
        getattr(made, name)[:] = True
    made.taught[::3, 2:5] = False
    turn = np.arange(OUTLINE_POINTS) / OUTLINE_POINTS * 2 * np.pi
    made.outline[:] = 0.5 + np.stack([0.25 * np.cos(turn), 0.18 * np.sin(turn)], axis=1)
    made.outline_known[::2, ::3] = True
    rows, columns = np.mgrid[:STORED, :STORED]
    for i in range(len(made)):
        u, v = made.joints[i, painted_joint(made, i), :2]
        # A pixel's centre is half a pixel inside: column c lies at fraction (c + 0.5) / side.
        squared = (columns + 0.5 - u * STORED) ** 2 + (rows + 0.5 - v * STORED) ** 2
        made.images[i] = np.round(250 * np.exp(-squared / (2 * 2.5**2)))[..., None]
    return made


@pytest.fixture
def geometry_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No change of colours, and black around the stored crop instead of its reflection."""
    monkeypatch.setattr(augment, "develop", lambda _, image, __: image)
    for border in ("BORDER_REFLECT_101", "BORDER_REPLICATE"):
        monkeypatch.setattr(cv2, border, cv2.BORDER_CONSTANT)


def found_dot(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Crop fraction (2,) of the brightness's centre."""
    grey = image[..., 0].astype(np.float64)
    grey[grey < 3] = 0
    rows, columns = np.indices(grey.shape)
    centre = np.array([(grey * (columns + 0.5)).sum(), (grey * (rows + 0.5)).sum()]) / grey.sum()
    return centre / len(grey)


def check_dots(out: Crops, tolerance_px: float = 0.5) -> int:
    """Compare every dot well inside the picture with its label; returns how many there were."""
    side, seen = out.images.shape[1], 0
    for i in range(len(out)):
        expected = out.joints[i, painted_joint(out, i), :2]
        if abs(expected - 0.5).max() < 0.42:
            np.testing.assert_allclose(
                found_dot(out.images[i]), expected, atol=tolerance_px / side, err_msg=str(i)
            )
            seen += 1
    return seen


def test_the_stored_view_comes_back_unchanged(crops: Crops, geometry_alone: None) -> None:
    out = Augmentation(input_size=STORED, **PLAIN)(np.random.default_rng(0), crops)

    np.testing.assert_array_equal(out.images, crops.images)
    for name in ("joints", "vertices", "crop_in_bones"):
        np.testing.assert_allclose(getattr(out, name), getattr(crops, name), atol=1e-5)


@pytest.mark.parametrize(
    "strength",
    [
        {},
        {"shift": 0.06},
        {"rotation": 0.5},
        {"anyhow": 1.0},
        {"upright": 1.0},
        {"margin": 1.4, "margin_spread": 0.15},
        {"wide": 1.0},
        {"left": 1.0},
        {"left": 0.5, "anyhow": 0.5, "wide": 0.3, "shift": 0.05, "margin": 1.5},
    ],
)
@pytest.mark.parametrize("side", [64, INPUT])
def test_labels_move_with_the_pixels(
    crops: Crops, geometry_alone: None, strength: dict[str, float], side: int
) -> None:
    out = Augmentation(input_size=side, **(PLAIN | strength))(np.random.default_rng(1), crops)

    assert check_dots(out) > 30


def test_a_border_takes_its_share_of_the_hand_and_leaves_the_rest() -> None:
    """A hand from 0.2 to 0.8 of the crop: a quarter of it beyond the border leaves 0.65."""
    joints = np.column_stack([np.linspace(0.2, 0.8, 21), np.full(21, 0.5), np.zeros(21)])
    for angle, kept in (
        (0.0, np.s_[:, :65]), (np.pi, np.s_[:, 35:]),
        (np.pi / 2, np.s_[:50]), (-np.pi / 2, np.s_[50:]),
    ):  # fmt: skip
        image = np.full((100, 100, 3), 7, dtype=np.uint8)
        augment.cut(image, joints.astype(np.float32), angle, 0.25)
        want = np.zeros_like(image)
        want[kept] = 7
        np.testing.assert_array_equal(image, want, err_msg=f"{angle}")
    image = np.full((90, 90, 3), 7, dtype=np.uint8)
    augment.cut(image, None, 0.0, 0.25)  # a sixth to five sixths, where joints are not known
    assert (image[:, :60] == 7).all()
    assert not image[:, 60:].any()


def test_borders_cut_as_many_crops_as_told_and_no_label(crops: Crops, geometry_alone: None) -> None:
    white = dataclasses.replace(crops, images=np.full_like(crops.images, 200))
    black = []
    for seed in range(6):
        draw = Augmentation(STORED, **(PLAIN | {"cut": 0.3}))
        out = draw(np.random.default_rng(seed), white)
        np.testing.assert_allclose(out.joints, crops.joints, atol=1e-5)
        for name in ("has_hand", "has_joints", "has_mesh", "taught", "outline_known"):
            np.testing.assert_array_equal(getattr(out, name), getattr(crops, name))
        black += [float((image == 0).mean()) for image in out.images]
    cut = [share for share in black if share]
    assert len(cut) == pytest.approx(0.3 * len(black), abs=24)
    assert max(cut) < 0.75
    assert len(set(cut)) > 0.9 * len(cut), "each its own"


def test_borders_cross_the_hand_as_the_input_shows_it(
    crops: Crops, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turned, shifted and mirrored hands, from all sides; black comes after the camera's work."""
    monkeypatch.setattr(augment, "develop", lambda _, image, __: np.full_like(image, 255))
    mixed = PLAIN | {"anyhow": 1.0, "shift": 0.05, "margin": 1.5, "left": 0.5, "cut": 1.0}
    out = Augmentation(INPUT, **mixed)(np.random.default_rng(4), crops)
    shares, sides = [], []
    for image, joints in zip(out.images, out.joints, strict=True):
        assert set(np.unique(image)) <= {0, 255}
        black = image[..., 0] == 0
        # The line's own direction: the gradient of black, summed.
        gradient = np.array([np.diff(black.astype(float), axis=1 - axis).sum() for axis in (0, 1)])
        direction = gradient / np.linalg.norm(gradient)
        along = joints[:, :2] @ direction
        place = ((np.argwhere(~black)[:, ::-1] + 0.5) / INPUT @ direction).max()
        shares.append((along.max() - place) / (along.max() - along.min()))
        sides.append((direction > 0).tolist())
    assert min(shares) > -0.02
    assert 0.3 < max(shares) < 0.42
    assert np.mean(shares) == pytest.approx(0.2, abs=0.06)
    assert len({tuple(side) for side in sides}) == 4, "from all sides"


def test_one_similarity_moves_joints_vertices_and_scale(crops: Crops, geometry_alone: None) -> None:
    mixed = PLAIN | {"anyhow": 1.0, "margin": 1.5, "margin_spread": 0.2, "shift": 0.05}
    out = Augmentation(INPUT, **mixed)(np.random.default_rng(2), crops)

    for i in range(len(crops)):
        known = np.column_stack([crops.joints[i, :, :2], np.ones(21)])
        matrix = np.linalg.lstsq(known, out.joints[i, :, :2], rcond=None)[0].T  # (2, 3)
        np.testing.assert_allclose(matrix[0, 0], matrix[1, 1], atol=1e-3)
        np.testing.assert_allclose(matrix[0, 1], -matrix[1, 0], atol=1e-3)
        zoom = np.sqrt(np.linalg.det(matrix[:, :2]))
        assert out.crop_in_bones[i] == pytest.approx(crops.crop_in_bones[i] / zoom, rel=1e-3)
        moved = crops.vertices[i, :, :2] @ matrix[:, :2].T + matrix[:, 2]
        np.testing.assert_allclose(out.vertices[i, :, :2], moved, atol=2e-3)
        np.testing.assert_array_equal(out.vertices[i, :, 2], crops.vertices[i, :, 2])
        np.testing.assert_array_equal(out.joints[i, :, 2], crops.joints[i, :, 2])


def test_upright_crops_show_hands_pointing_up(crops: Crops, geometry_alone: None) -> None:
    strength = PLAIN | {"upright": 1.0, "upright_spread": 0.0, "margin": 1.5}
    out = Augmentation(INPUT, **strength)(np.random.default_rng(3), crops)

    turns = [upright_angle(joints) for joints in out.joints]
    known = [turn for turn in turns if turn is not None]
    assert len(known) > 20
    np.testing.assert_allclose(known, 0, atol=1e-4)
    # And as the SDK would cut them: the tight box in the middle, at the margin.
    low, high = out.joints[..., :2].min(axis=1), out.joints[..., :2].max(axis=1)
    np.testing.assert_allclose(0.5 * (low + high), 0.5, atol=1e-4)
    np.testing.assert_allclose((high - low).max(axis=1), 1 / 1.5, atol=1e-4)


def test_mirrored_hands_are_left_and_lose_their_depth(crops: Crops, geometry_alone: None) -> None:
    plain = Augmentation(INPUT, **PLAIN)(np.random.default_rng(4), crops)
    mirrored = Augmentation(INPUT, **(PLAIN | {"left": 1.0}))(np.random.default_rng(4), crops)

    assert not mirrored.is_right.any()
    assert not (mirrored.has_depth | mirrored.has_mesh).any()
    assert mirrored.has_joints.all()
    assert mirrored.has_hand.all()
    np.testing.assert_array_equal(mirrored.images, plain.images[:, :, ::-1])
    np.testing.assert_allclose(mirrored.joints[..., 0], 1 - plain.joints[..., 0], atol=1e-6)
    np.testing.assert_array_equal(mirrored.joints[..., 1], plain.joints[..., 1])


def test_misses_show_no_hand_and_carry_no_labels(crops: Crops, geometry_alone: None) -> None:
    out = Augmentation(INPUT, **(PLAIN | {"misses": 1.0}))(np.random.default_rng(5), crops)

    for name in ("has_hand", "has_joints", "has_depth", "has_mesh", "outline_known"):
        assert not getattr(out, name).any()
    low, high = out.joints[..., :2].min(axis=1), out.joints[..., :2].max(axis=1)
    beside = abs(0.5 * (low + high) - 0.5).max(axis=1) > 0.5
    too_close = (high - low).max(axis=1) > 2
    assert (beside | too_close).all()
    assert beside.any()
    assert too_close.any()


@pytest.mark.parametrize("strength", [{}, {"anyhow": 1.0, "margin": 1.5}, {"left": 1.0}])
def test_outlines_move_with_the_pixels(
    crops: Crops, geometry_alone: None, strength: dict[str, float]
) -> None:
    painted = crops.take(np.arange(12))
    black, white = (np.full((STORED, STORED, 3), level, dtype=np.uint8) for level in (0, 255))
    painted.outline[:, :, 0] += 0.1  # not about the middle
    for i in range(len(painted)):
        painted.images[i] = before(white, painted.outline[i], black)
    out = Augmentation(INPUT, **(PLAIN | strength))(np.random.default_rng(7), painted)

    np.testing.assert_array_equal(out.outline_known, painted.outline_known)
    for i in range(len(out)):
        seen = out.images[i, ..., 0] > 127
        expected = (
            before(white[:INPUT, :INPUT], out.outline[i], black[:INPUT, :INPUT])[..., 0] > 127
        )
        assert (seen & expected).sum() > 0.95 * (seen | expected).sum()


def test_known_hands_come_before_the_grounds_of_crops_without(
    crops: Crops, geometry_alone: None
) -> None:
    some = crops.take(np.arange(20))
    some.images[:] = 200
    some.has_hand[15:] = some.outline_known[15:] = False
    some.images[15:, :, : STORED // 2] = 40
    some.images[15:, :, STORED // 2 :] = 90
    change = Augmentation(STORED, **(PLAIN | {"grounds": 1.0, "busy": 0.0}))
    out = change(np.random.default_rng(8), some)

    inside = before(some.images[0] * 0 + 255, some.outline[0], some.images[0] * 0)[..., 0] == 255
    for i in range(15):
        assert (out.images[i][inside] == 200).all()
        corner = out.images[i, 2, 2, 0]
        assert (corner in (40, 90)) == some.outline_known[i].any()
    corners = {int(image[2, 2, 0]) for image in out.images[:15:2]}
    assert corners == {40, 90}  # either way round
    np.testing.assert_array_equal(out.images[15:], some.images[15:])

    half = Augmentation(STORED, **(PLAIN | {"grounds": 0.5, "busy": 0.0}))
    changed = [
        half(np.random.default_rng(seed), some).images[i, 2, 2, 0] != 200
        for seed in range(10)
        for i in range(0, 15, 2)
    ]
    assert 0.3 < np.mean(changed) < 0.7
    some.has_hand[15:] = True  # now there is nothing to take: not the own picture either
    some.images[:] = np.arange(STORED, dtype=np.uint8)[:, None]
    np.testing.assert_array_equal(change(np.random.default_rng(8), some).images, some.images)


def test_known_hands_come_before_parts_of_other_crops(crops: Crops, geometry_alone: None) -> None:
    """With hands in them or not, but never of their own."""
    some = crops.take(np.arange(20))
    some.outline_known[:] = True
    some.images[:] = 10 * np.arange(20, dtype=np.uint8)[:, None, None, None]
    busy = Augmentation(STORED, **(PLAIN | {"grounds": 1.0, "busy": 1.0}))
    out = busy(np.random.default_rng(8), some)

    corners = out.images[:, 2, 2, 0]
    assert set(corners) <= set(10 * np.arange(20))
    assert (corners != 10 * np.arange(20)).all()
    assert len(set(corners)) > 8
    often = Augmentation(STORED, **(PLAIN | {"grounds": 1.0, "busy": 0.3}))
    some.has_hand[:] = False
    some.has_hand[:19] = True  # the last is the only one without
    from_empty = [
        often(np.random.default_rng(seed), some).images[:19, 2, 2, 0] == 190 for seed in range(6)
    ]
    assert np.mean(from_empty) == pytest.approx(0.7 + 0.3 / 19, abs=0.12)
    alone = Crops.concatenate([some.take(slice(0, 1))])  # there is no other
    alone.images[:] = np.arange(STORED, dtype=np.uint8)[:, None]
    for seed in range(4):
        np.testing.assert_array_equal(busy(np.random.default_rng(seed), alone).images, alone.images)


def test_grounds_are_parts_of_pictures_not_the_whole(crops: Crops, geometry_alone: None) -> None:
    """Of a ramp, the ground rises as slowly as the part is small."""
    some = crops.take(np.arange(16))
    some.outline_known[:] = True
    some.images[:] = np.arange(STORED, dtype=np.uint8)[:, None, None]  # down the picture
    busy = Augmentation(STORED, **(PLAIN | {"grounds": 1.0, "busy": 1.0}))
    edge = busy(np.random.default_rng(8), some).images[:, :, 1, 0].astype(float)  # (16, S)
    slopes = (edge[:, -8] - edge[:, 8]) / (STORED - 16)
    assert (slopes > augment.PARTS[0] - 0.03).all()
    assert (slopes < augment.PARTS[1] + 0.03).all()
    assert np.ptp(slopes) > 0.2


def test_crops_that_miss_their_hand_show_no_other(crops: Crops, geometry_alone: None) -> None:
    some = crops.take(np.arange(20))
    some.images[:] = (0, 0, 200)
    some.outline_known[:] = np.arange(20)[:, None] < 10
    some.images[10:] = (200, 0, 0)
    change = PLAIN | {"grounds": 1.0, "busy": 1.0}
    there = Augmentation(STORED, **change)(np.random.default_rng(8), some)
    assert there.images[:10, ..., 0].any()
    out = Augmentation(STORED, **(change | {"misses": 1.0}))(np.random.default_rng(8), some)
    assert not out.has_hand.any()
    assert out.images[:10, ..., 2].any()
    assert not out.images[:10, ..., 0].any()


def test_a_part_of_a_picture_is_that_part() -> None:
    """Of a ramp, by its equation."""
    side, share, corner = 40, 0.5, np.array([0.25, 1.0])
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    ramp = np.stack([4 * x, 4 * y, 0 * x], axis=-1).astype(np.uint8)
    part = part_of(ramp, share, corner).astype(np.float64)
    # Fractions of the part, times its side, from its corner on.
    place = (np.arange(side) + 0.5) / side * share * side
    expected_x = 4 * (place + 0.25 * 0.5 * side - 0.5)
    expected_y = 4 * np.minimum(place + 0.5 * side - 0.5, side - 1)
    np.testing.assert_allclose(part[..., 0], np.broadcast_to(expected_x, (side, side)), atol=0.6)
    np.testing.assert_allclose(part[..., 1], np.broadcast_to(expected_y, (side, side)).T, atol=0.6)
    np.testing.assert_array_equal(part_of(ramp, 1.0, corner), ramp)


def test_pictures_without_a_hand_stay_without(crops: Crops) -> None:
    nothing = crops.take(slice(0, 10))
    nothing = Crops.concatenate([nothing])  # a copy: these are changed
    for name in ("has_hand", "has_joints", "has_depth", "has_mesh"):
        getattr(nothing, name)[:] = False

    out = Augmentation(INPUT)(np.random.default_rng(6), nothing)

    for name in ("has_hand", "has_joints", "has_depth", "has_mesh"):
        assert not getattr(out, name).any()


def test_something_covers_a_part_of_the_picture(crops: Crops, geometry_alone: None) -> None:
    shares = []
    for i in range(len(crops)):
        one = crops.take(slice(i, i + 1))
        free, covered = (
            Augmentation(INPUT, **(PLAIN | {"occluders": share}))(np.random.default_rng(i), one)
            for share in (0.0, 1.0)
        )
        shares.append((free.images != covered.images).any(axis=-1).mean())
        np.testing.assert_array_equal(free.joints, covered.joints)
    assert max(shares) < 0.25
    assert np.mean(np.array(shares) > 0.005) > 0.4


@pytest.mark.parametrize("side", [64, INPUT, 256])
def test_shapes_types_and_seeds(crops: Crops, side: int) -> None:
    some = crops.take(slice(0, 12))
    before = [getattr(some, field.name).copy() for field in fields(Crops)]
    draw = Augmentation(input_size=side)

    one, two, other = (draw(np.random.default_rng(seed), some) for seed in (7, 7, 8))

    assert one.images.shape == (12, side, side, 3)
    assert not np.array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.taught, some.taught)
    for field, old in zip(fields(Crops), before, strict=True):
        a, b = getattr(one, field.name), getattr(two, field.name)
        np.testing.assert_array_equal(a, b)
        assert a.dtype == old.dtype
        if field.name != "images":
            assert a.shape == old.shape
        np.testing.assert_array_equal(getattr(some, field.name), old, "input is left alone")
