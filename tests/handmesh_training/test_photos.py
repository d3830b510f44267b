"""Photo sets: which hands are read, how they are cut out and mirrored, what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from handmesh.errors import ImageError, InputError
from handmesh.types import FINGERS, Box
from handmesh_training.cropped_set import build
from handmesh_training.datasets.crops import to_crops
from handmesh_training.datasets.photos import Photos
from handmesh_training.outlines import Outline
from handmesh_training.photos import (
    LABELS,
    LabelledHand,
    check_photo_sets,
    load_crops,
    one_hand,
    points,
    read_labels,
    thumb_before_palm,
    trained_on,
)
from handmesh_training.samples import OUTLINE_POINTS

WIDTH, HEIGHT = 120, 90


def painted_hand(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """A dark picture (RGB) with a bright dot on the wrist, and joints (21, 2) from its corner."""
    rng = np.random.default_rng(seed)
    joints = rng.uniform([30, 20], [90, 70], (21, 2))
    picture = np.full((HEIGHT, WIDTH, 3), 20, dtype=np.uint8)
    rows, columns = np.indices((HEIGHT, WIDTH))
    # The teacher counts from the image's corner: column c spans c to c + 1.
    squared = (columns + 0.5 - joints[0, 0]) ** 2 + (rows + 0.5 - joints[0, 1]) ** 2
    picture[..., 0] = np.round(20 + 220 * np.exp(-squared / 8))
    return picture, joints


def entry(joints: NDArray[np.float64], handedness: str = "Left", **more: Any) -> dict[str, Any]:
    world = np.arange(63).reshape(21, 3) / 1000
    hand = {
        "uv": joints.tolist(),
        "world_m": world.tolist(),
        "handedness_as_reported": handedness,
        **more,
    }
    return {"hands": [hand]}


@pytest.fixture
def photo_set(tmp_path: Path) -> Path:
    """Two right hands, one left, one that is doubtful, one picture with two hands, one without."""
    labels: dict[str, Any] = {}
    for seed, (name, handedness, more) in enumerate(
        [
            ("right.png", "Left", {"ok": True}),
            ("left.png", "Right", {"ok": True}),
            ("unmarked.png", "Left", {}),
            ("doubtful.png", "Left", {"ok": False}),
            ("two.png", "Left", {"ok": True}),
        ]
    ):
        picture, joints = painted_hand(seed)
        cv2.imwrite(str(tmp_path / name), picture[..., ::-1])
        labels[name] = entry(joints, handedness, **more)
    labels["two.png"]["hands"] *= 2
    labels["none.png"] = {"hands": []}
    (tmp_path / LABELS).write_text(json.dumps(labels))
    return tmp_path


def test_single_trusted_hands_are_read_in_order(photo_set: Path) -> None:
    hands = list(read_labels(photo_set))

    assert [hand.path.name for hand in hands] == ["right.png", "left.png", "unmarked.png"]
    assert [hand.is_right for hand in hands] == [True, False, True], "the teacher looks in a mirror"
    # A tip lies on the line from the joint before it, three tenths of the bone farther.
    given = np.asarray(painted_hand(0)[1], dtype=np.float64)
    for tip in (4, 8, 12, 16, 20):
        given[tip] = 1.3 * given[tip] - 0.3 * given[tip - 1]
    np.testing.assert_allclose(hands[0].joints_px, given - 0.5)
    # Not so in metres.
    np.testing.assert_allclose(hands[0].joints_m[19], [0.057, 0.058, 0.059])
    np.testing.assert_allclose(hands[0].joints_m[20], [0.060, 0.061, 0.062])


def test_a_folder_may_be_a_string(photo_set: Path) -> None:
    assert len(list(read_labels(str(photo_set)))) == 3


def test_parts_of_a_set_share_no_photo_and_follow_the_numbers(tmp_path: Path) -> None:
    """As cameras name them, digits first: neighbours by number are of one person."""
    names = [f"{number % 3}_IMG_{number}.jpg" for number in range(98, 113)]
    (tmp_path / LABELS).write_text(json.dumps({name: entry(painted_hand(0)[1]) for name in names}))

    train, held = ([h.path for h in read_labels(f"{tmp_path}:{p}")] for p in ("train", "held-out"))

    assert [path.name for path in held] == names[-3:]
    assert train + held == [hand.path for hand in read_labels(tmp_path)]


def test_a_folder_may_end_in_a_colon_and_a_word(tmp_path: Path) -> None:
    folder = tmp_path / "photos:mine"
    folder.mkdir()
    (folder / LABELS).write_text(json.dumps({"1.jpg": entry(painted_hand(0)[1])}))
    assert len(list(read_labels(folder))) == 1


def found_dot(crop: NDArray[np.uint8]) -> NDArray[np.float64]:
    red = crop[..., 0].astype(np.float64) - crop[..., 1]
    red[red < 5] = 0
    rows, columns = np.indices(red.shape)
    return np.array([(red * (columns + 0.5)).sum(), (red * (rows + 0.5)).sum()]) / (
        red.sum() * len(crop)
    )


def test_crops_are_of_right_hands_with_joints_where_the_pixels_are(photo_set: Path) -> None:
    crops = load_crops([photo_set], side=96, margin=1.9, vertex_count=7)

    assert crops.images.shape == (3, 96, 96, 3)
    assert crops.vertices.shape == (3, 7, 3)
    for i in range(3):
        np.testing.assert_allclose(
            found_dot(crops.images[i]), crops.joints[i, 0, :2], atol=0.5 / 96
        )
    for name in ("has_hand", "has_joints", "is_right"):
        assert getattr(crops, name).all()
    assert not crops.has_depth.any()
    assert not crops.joints[..., 2].any()
    # The side is the tight box's larger one times the margin, the hand in the middle.
    low, high = crops.joints[..., :2].min(axis=1), crops.joints[..., :2].max(axis=1)
    np.testing.assert_allclose((high - low).max(axis=1), 1 / 1.9, atol=1e-5)
    np.testing.assert_allclose(0.5 * (low + high), 0.5, atol=1e-5)


def bent_hand(**degrees: float) -> NDArray[np.float64]:
    """(21, 3): straight fingers, side by side, but those that turn so far at each joint."""
    joints = np.zeros((21, 3))
    for x, (name, chain) in enumerate(FINGERS.items()):
        angle, place = 0.0, np.array([0.02 * x, 0.08, 0.0])
        for joint in chain:
            joints[joint] = place
            place = place + 0.025 * np.array([0.0, np.cos(angle), np.sin(angle)])
            angle += np.deg2rad(degrees.get(name, 0.0))
    return joints


@pytest.mark.parametrize(
    ("degrees", "before"),
    [
        ({"ring": 75, "little": 75}, True),
        ({"thumb": 75, "middle": 75, "ring": 75, "little": 75}, True),
        ({"index": 35, "ring": 55, "little": 55}, True),  # cosines of 1.64 and 1.15
        ({"index": 39, "ring": 55, "little": 55}, False),  # 1.55
        ({"index": 35, "ring": 51, "little": 55}, False),  # 1.26
        ({}, False),
        ({"little": 75}, False),
        ({"middle": 75, "ring": 75}, False),
        ({"index": 75, "middle": 75, "ring": 75, "little": 75}, False),
    ],
)
def test_hands_that_point_or_count(degrees: dict[str, float], before: bool) -> None:
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    assert thumb_before_palm(bent_hand(**degrees) @ turn.T + 0.3) == before


@pytest.mark.parametrize(
    ("degrees", "alone"),
    [
        ({"middle": 75, "ring": 75, "little": 75}, True),
        ({"thumb": 75, "middle": 55, "ring": 55, "little": 55}, True),  # cosines of 1.15
        ({"index": 35, "middle": 75, "ring": 75, "little": 75}, True),  # 1.64
        ({"index": 39, "middle": 75, "ring": 75, "little": 75}, False),  # 1.55
        ({"middle": 51, "ring": 75, "little": 75}, False),  # 1.26
        ({"ring": 75, "little": 75}, False),
        ({"middle": 75, "little": 75}, False),
        ({"middle": 75, "ring": 75}, False),
        ({}, False),
    ],
)
def test_hands_that_point(degrees: dict[str, float], alone: bool) -> None:
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    assert points(bent_hand(**degrees) @ turn.T - 0.2) == alone


def test_hands_that_point_are_read_but_not_trained_on(photo_set: Path) -> None:
    labels = json.loads((photo_set / LABELS).read_text())
    pointing = bent_hand(middle=75, ring=75, little=75).tolist()
    labels["left.png"]["hands"][0]["world_m"] = pointing
    (photo_set / LABELS).write_text(json.dumps(labels))
    names = [hand.path.name for hand in read_labels(photo_set)]
    every = to_crops(Photos(photo_set, "all"), 32, 1.9, 3)
    asked: list[str] = []

    def outlines(hands: Sequence[LabelledHand]) -> list[Outline | None]:
        asked.extend(hand.path.name for hand in hands)
        return [None] * len(hands)

    crops = load_crops([photo_set], 32, 1.9, 3, outlines)

    others = [i for i, name in enumerate(names) if name != "left.png"]
    assert len(others) == len(names) - 1
    assert len(every) == len(names)
    np.testing.assert_array_equal(crops.images, every.images[others])
    assert asked == [names[i] for i in others]


def test_blank_joints_are_no_such_hand() -> None:
    assert not thumb_before_palm(np.zeros((21, 3)))
    assert not points(np.zeros((21, 3)))
    joints = bent_hand(ring=75, little=75)
    joints[[17, 18, 19, 20]] = 0
    assert not thumb_before_palm(joints)


def test_thumbs_of_such_hands_are_not_taught(photo_set: Path, tmp_path_factory: Any) -> None:
    """Whichever way they are read; nothing else of them is left out, and they lie as before."""
    before = load_crops([photo_set], 48, 1.9, 3)
    assert before.taught.all()
    labels = json.loads((photo_set / LABELS).read_text())
    labels["left.png"]["hands"][0]["world_m"] = bent_hand(ring=75, little=75).tolist()
    (photo_set / LABELS).write_text(json.dumps(labels))
    row = [hand.path.name for hand in read_labels(photo_set)].index("left.png")
    wanted = np.ones((3, 21), dtype=bool)
    wanted[row, 2:5] = False

    data = Photos(photo_set, "all")
    cut = build([data], tmp_path_factory.mktemp("cut") / "set", 48, 1.9, 8, 3)
    ways = (load_crops([photo_set], 48, 1.9, 3), to_crops(data, 48, 1.9, 3), cut.crops)
    for crops in ways:
        np.testing.assert_array_equal(crops.taught, wanted)
        np.testing.assert_array_equal(crops.joints, before.joints)


def test_a_left_hand_is_mirrored(photo_set: Path) -> None:
    """The same photo read as either hand: pictures and labels are mirror images."""
    as_left = load_crops([photo_set], 64, 1.5, 3).take(np.array([1]))
    labels = json.loads((photo_set / LABELS).read_text())
    labels["left.png"]["hands"][0]["handedness_as_reported"] = "Left"
    (photo_set / LABELS).write_text(json.dumps(labels))
    as_right = load_crops([photo_set], 64, 1.5, 3).take(np.array([1]))

    np.testing.assert_array_equal(as_left.images, as_right.images[:, :, ::-1])
    np.testing.assert_allclose(as_left.joints[..., 0], 1 - as_right.joints[..., 0], atol=1e-6)
    np.testing.assert_array_equal(as_left.joints[..., 1], as_right.joints[..., 1])


@pytest.mark.parametrize("which", [0, 1])
def test_outlines_come_with_their_crops(photo_set: Path, which: int) -> None:
    hands = list(read_labels(photo_set))
    turn = np.arange(OUTLINE_POINTS) / OUTLINE_POINTS * 2 * np.pi
    ring = np.array([60.0, 45.0]) + 20 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    known = np.arange(OUTLINE_POINTS) < 50

    def outlines(asked: Sequence[LabelledHand]) -> list[Outline | None]:
        assert [hand.path for hand in asked] == [hand.path for hand in hands]
        return [Outline(ring, known) if i == which else None for i in range(len(asked))]

    crops = load_crops([photo_set], 64, 1.5, 3, outlines)

    assert crops.outline_known.any(axis=1).tolist() == [i == which for i in range(len(hands))]
    np.testing.assert_array_equal(crops.outline_known[which], known)
    hand = hands[which]
    box = Box.from_points(hand.joints_px, margin=1.5)
    expected = box.to_crop(ring)
    if not hand.is_right:
        expected[:, 0] = 1 - expected[:, 0]
    np.testing.assert_allclose(crops.outline[which], expected, atol=1e-6)
    assert not load_crops([photo_set], 64, 1.5, 3).outline_known.any()


def test_several_sets_follow_each_other_and_none_is_empty(photo_set: Path) -> None:
    assert len(load_crops([photo_set, photo_set], 32, 1.5, 3)) == 6
    assert len(load_crops([], 32, 1.5, 3)) == 0


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "3", "null"])
def test_label_files_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / LABELS).write_text(text)
    with pytest.raises(InputError, match="pseudo_labels"):
        list(read_labels(tmp_path))


def test_sets_without_a_hand_that_is_of_use_are_refused(photo_set: Path) -> None:
    check_photo_sets([photo_set, f"{photo_set}:train"], one_hand)
    labels = json.loads((photo_set / LABELS).read_text())
    hand = next(iter(labels.values()))["hands"][0]
    (photo_set / LABELS).write_text(json.dumps({"two.png": {"hands": [hand, hand]}}))
    check_photo_sets([photo_set], bool)
    with pytest.raises(InputError, match="holds no labelled hand"):
        check_photo_sets([photo_set], one_hand)
    alone = {**hand, "world_m": bent_hand(middle=75, ring=75, little=75).tolist()}
    (photo_set / LABELS).write_text(json.dumps({"pointing.png": {"hands": [alone]}}))
    check_photo_sets([photo_set], one_hand)
    with pytest.raises(InputError, match="holds no labelled hand that is of use"):
        check_photo_sets([photo_set], trained_on)
    (photo_set / LABELS).write_text(json.dumps({"doubtful.png": {"hands": [hand | {"ok": False}]}}))
    with pytest.raises(InputError, match="holds no labelled hand"):
        check_photo_sets([photo_set], bool)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no folder .*nowhere: a photo set is"):
        list(read_labels(tmp_path / "nowhere"))


def test_a_folder_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a photo set is a folder of images"):
        list(read_labels(tmp_path))


GOOD = entry(painted_hand(0)[1])["hands"][0]


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"hands": 3},
        {"hands": [3]},
        [],
        {"hands": [{}]},
        {"hands": [GOOD | {"uv": GOOD["uv"][:20]}]},
        {"hands": [GOOD | {"uv": "here"}]},
        {"hands": [GOOD | {"world_m": [[0, 0]] * 21}]},
        {"hands": [GOOD | {"handedness_as_reported": "both"}]},
    ],
)
def test_entries_that_are_no_hands_are_refused_by_name(tmp_path: Path, bad: Any) -> None:
    (tmp_path / LABELS).write_text(json.dumps({"photo.jpg": bad}))
    with pytest.raises(InputError, match=r"photo\.jpg"):
        list(read_labels(tmp_path))


def test_photos_that_cannot_be_used_are_told(photo_set: Path) -> None:
    (photo_set / "left.png").write_text("no picture")
    with pytest.raises(ImageError, match=r"left\.png"):
        load_crops([photo_set], 32, 1.5, 3)
    (photo_set / LABELS).write_text(json.dumps({"right.png": entry(np.full((21, 2), 5.0))}))
    with pytest.raises(InputError):
        load_crops([photo_set], 32, 1.5, 3)
