"""Composed scenes: labels lie on the hands, whatever was done to them."""

from __future__ import annotations

import numpy as np
import pytest
from red_hand import RED, flat_joints, red_layer

from handmesh.types import Box
from handmesh_training.detection import scenes
from handmesh_training.detection.layers import leaves_in_one_place
from handmesh_training.detection.photos import Photo, cut_out
from handmesh_training.detection.scenes import HAND, KIND, RIGHT, SIZE, Supplies, X, Y, box_of
from handmesh_training.seeds import Purpose, generator

SIDE = 96


def _red(image: np.ndarray) -> np.ndarray:
    values = image.astype(int)
    return (values[..., 0] > 90) & (values[..., 1] < 60) & (values[..., 2] < 60)


def _composed(
    supplies: Supplies, monkeypatch: pytest.MonkeyPatch, count: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    monkeypatch.setattr(scenes, "COMPOSED", 1.0)
    monkeypatch.setattr(scenes, "DEVELOPED", 0.0)
    monkeypatch.setattr(scenes, "COUNTS", (0.0, 1.0))
    monkeypatch.setattr(scenes.distractors, "draw_any", lambda rng, scene: scene[..., 0] * 0)
    monkeypatch.setattr(scenes.distractors, "body", lambda rng, scene, at, size: scene[..., 0] * 0)
    rngs = (generator(1, Purpose.COMPOSED, 0, 0, n) for n in range(count))
    return [scenes.compose(rng, supplies, SIDE) for rng in rngs]


def test_labels_lie_on_the_hands(supplies: Supplies, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [
        (image, row)
        for image, labels in _composed(supplies, monkeypatch, 60)
        for row in labels
        if row[KIND] == HAND
    ]

    assert len(made) > 30
    for image, row in made:
        x, y = row[X] * SIDE, row[Y] * SIDE
        near = _red(image)[max(0, int(y) - 1) : int(y) + 2, max(0, int(x) - 1) : int(x) + 2]
        assert near.any()


def test_a_box_turns_and_grows_with_its_hand() -> None:
    joints = flat_joints() * 200
    box, turned = box_of(joints)
    assert turned
    assert box.angle == pytest.approx(0.0, abs=0.02)

    c, s = np.cos(0.6), np.sin(0.6)
    moved = 1.7 * joints @ np.array([[c, -s], [s, c]]).T + (5, 9)
    other, _ = box_of(moved)

    assert other.angle == pytest.approx(box.angle + 0.6)
    assert other.size == pytest.approx(1.7 * box.size)
    np.testing.assert_allclose(
        other.corners(), 1.7 * box.corners() @ np.array([[c, -s], [s, c]]).T + (5, 9)
    )


def test_half_of_the_hands_are_left_ones(
    supplies: Supplies, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _composed(supplies, monkeypatch, 80)
    sides = [row[RIGHT] for _, labels in made for row in labels if row[KIND] == HAND]

    assert 0.3 < np.mean(sides) < 0.7


def test_arms_leave_the_scene(supplies: Supplies, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layer's arm ends at its border; in the scene it must go on to the frame's."""
    monkeypatch.setattr(scenes, "ASPECTS", (1.0,))
    seen = 0
    for image, labels in _composed(supplies, monkeypatch, 60):
        hands = labels[labels[:, KIND] == HAND]
        if len(hands) != 1 or not 0.25 < hands[0, SIZE] < 0.6:
            continue
        seen += 1
        red = _red(image)
        border = np.concatenate([red[0], red[-1], red[:, 0], red[:, -1]])
        assert border.any()
    assert seen > 10


def test_what_is_hidden_or_outside_is_not_asked_for() -> None:
    joints = flat_joints() * SIDE
    whole = scenes.labels([joints], [True], [1.0], SIDE)[0]
    half = scenes.labels([joints], [True], [0.4], SIDE)[0]
    gone = scenes.labels([joints], [True], [0.1], SIDE)[0]
    beyond = scenes.labels([joints + 2 * SIDE], [True], [0.3], SIDE)[0]

    assert [row[KIND] for row in (whole, half, gone, beyond)] == [1, -1, 0, -1]


def test_scenes_are_the_same_whenever_they_are_made(supplies: Supplies) -> None:
    first, again = (
        scenes.compose(generator(5, Purpose.COMPOSED, 0, 7, 3), supplies, SIDE) for _ in range(2)
    )

    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])


def test_arms_that_leave_through_a_corner_or_two_sides_are_not_used() -> None:
    alpha = np.zeros((40, 40), np.uint8)
    alpha[15:25, 10:] = 255
    assert leaves_in_one_place(alpha, must=True)
    alpha[15:25] = 255
    assert not leaves_in_one_place(alpha)
    corner = np.zeros((40, 40), np.uint8)
    corner[30:, 30:] = 255
    assert not leaves_in_one_place(corner)
    inside = np.zeros((40, 40), np.uint8)
    inside[10:20, 10:20] = 255
    assert leaves_in_one_place(inside)
    assert not leaves_in_one_place(inside, must=True)


def test_a_hand_is_cut_out_of_a_plain_ground_and_of_no_other() -> None:
    layer = red_layer(160)
    share = layer[..., 3:] / 255
    green = np.array([40, 160, 70])
    shown = (RED * share + green * (1 - share)).astype(np.uint8)
    photo = Photo(shown, flat_joints()[None] * 160 - 0.5, np.ones(1, bool))

    cut = cut_out(photo)

    assert cut is not None
    assert np.mean((cut.image[..., 3] > 127) == (layer[..., 3] > 127)) > 0.98
    noise = np.random.default_rng(0).integers(0, 255, (160, 160, 3))
    busy = (RED * share + noise * (1 - share)).astype(np.uint8)
    assert cut_out(Photo(busy, photo.joints_px, photo.is_right)) is None


def test_the_box_is_what_the_sdk_crops_by() -> None:
    joints = flat_joints() * 100
    box, _ = box_of(joints)
    assert box == Box.from_points(joints, angle=box.angle)


def test_some_hands_fill_their_photo(supplies: Supplies, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "CLOSE", 1.0)
    monkeypatch.setattr(scenes, "ASPECTS", (1.0,))
    rows = [
        row for _, labels in _composed(supplies, monkeypatch, 60) for row in labels if row[KIND]
    ]

    assert len(rows) == 60, "one hand each, asked for or, where much is cut off, not punished"
    sizes = np.array([row[SIZE] for row in rows])
    assert sizes.min() >= 0.79
    assert sizes.max() <= 1.61
    assert (sizes > 1.2).mean() == pytest.approx(0.5, abs=0.2)
    assert np.mean([row[KIND] == HAND for row in rows]) > 0.7
