"""Outlines of hands: found on drawn hands whose mask is known, and kept in a file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from handmesh.errors import ImageError, InputError
from handmesh_training import outline_cache, outlines
from handmesh_training.outline_cache import open_outlines
from handmesh_training.outlines import Outline, find_outline, outward_normals
from handmesh_training.photos import LabelledHand
from handmesh_training.record import HandRecord, to_crops
from handmesh_training.rendered import HandRenderer, RenderSettings
from handmesh_training.samples import OUTLINE_POINTS

SIDE = 256
Joints = NDArray[np.float64]


@pytest.fixture(scope="module")
def drawn() -> list[tuple[HandRecord, Joints]]:
    """Hands with nothing beside them, and their joints in pixels."""
    settings = RenderSettings(crop_px=SIDE, margin=2.2, empty=0.0, things=frozenset())
    records = HandRenderer(settings, 7).records(range(24))
    joints = to_crops(records).joints[..., :2].astype(np.float64) * SIDE - 0.5
    return list(zip(records, joints, strict=True))


@pytest.fixture(scope="module")
def found(drawn: list[tuple[HandRecord, Joints]]) -> list[Outline | None]:
    return [find_outline(record.image, joints) for record, joints in drawn]


def depth_inside(mask: NDArray[np.uint8], points: NDArray[np.float64]) -> NDArray[np.float32]:
    """Distance in pixels from points to a mask's border, positive inside."""
    inside = (mask > 127).astype(np.uint8)
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    distance -= cv2.distanceTransform(1 - inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    x, y = points.astype(np.float32).T
    return np.asarray(cv2.remap(distance, x[None], y[None], cv2.INTER_LINEAR)[0])


@pytest.mark.slow
def test_known_points_lie_on_the_hands_border(
    drawn: list[tuple[HandRecord, Joints]], found: list[Outline | None]
) -> None:
    offsets = [
        depth_inside(record.mask, outline.points[outline.known])
        for (record, _), outline in zip(drawn, found, strict=True)
        if outline is not None
    ]
    assert len(offsets) >= 0.75 * len(drawn)  # of skin and ground of one colour there are some
    each = np.array([np.median(offset) for offset in offsets])
    assert abs(np.median(each)) < 0.7
    assert np.median([np.quantile(abs(offset), 0.9) for offset in offsets]) < 2.0


@pytest.mark.slow
def test_forearms_and_borders_are_not_known(
    drawn: list[tuple[HandRecord, Joints]], found: list[Outline | None]
) -> None:
    for (_, joints), outline in zip(drawn, found, strict=True):
        if outline is None:
            continue
        points = outline.points[outline.known]
        knuckles = joints[[5, 9, 13, 17]].mean(axis=0) - joints[0]
        if np.linalg.norm(knuckles) > 0.2 * np.ptp(joints, axis=0).max():
            assert ((points - joints[0]) @ knuckles > 0).all()
        assert (points > 3).all()
        assert (points < SIDE - 4).all()
        assert not outline.known.all()  # the forearm hangs together with the hand


def test_an_outline_is_closed_even_and_goes_with_its_picture(
    drawn: list[tuple[HandRecord, Joints]],
) -> None:
    record, joints = drawn[0]
    outline = find_outline(record.image, joints)
    assert outline is not None
    assert outline.points.shape == (OUTLINE_POINTS, 2)
    steps = np.linalg.norm(outline.points - np.roll(outline.points, 1, axis=0), axis=1)
    assert steps.max() < 1.6 * np.median(steps)

    again = find_outline(record.image, joints)
    assert again is not None
    np.testing.assert_array_equal(again.points, outline.points)  # GrabCut begins at random

    wide = cv2.copyMakeBorder(record.image, 31, 3, 17, 5, cv2.BORDER_REPLICATE)
    moved = find_outline(np.asarray(wide), joints + [17, 31])
    assert moved is not None
    off = depth_inside(np.pad(record.mask, ((31, 3), (17, 5))), moved.points[moved.known])
    assert abs(np.median(off)) < 1.5


def test_what_has_no_outline_has_none(drawn: list[tuple[HandRecord, Joints]]) -> None:
    record, joints = drawn[0]
    assert find_outline(np.full_like(record.image, 127), joints) is None
    ramp = np.linspace(60, 200, SIDE).astype(np.uint8)
    wall = np.ascontiguousarray(np.broadcast_to(ramp[None, :, None], record.image.shape))
    assert find_outline(wall, joints) is None  # light that falls off, and no step of colour
    # A picture of skin alone: the hand fills it.
    inner = record.image[120:150, 110:140]
    assert find_outline(inner, (joints - joints.mean(axis=0)) * 0.2 + 15) is None
    assert find_outline(record.image, joints + 10 * SIDE) is None  # beside the picture


@pytest.mark.parametrize("cut", [(70, 0), (0, 70), (60, 60)])
def test_where_the_photo_ends_nothing_is_known(
    drawn: list[tuple[HandRecord, Joints]], cut: tuple[int, int]
) -> None:
    """Hands near the photo's left and upper border: their box reaches beyond it."""
    offsets = []
    for record, joints in drawn:
        x, y = (min(c, int(low) - 6) for c, low in zip(cut, joints.min(axis=0), strict=True))
        x, y = max(x, 0), max(y, 0)
        outline = find_outline(np.ascontiguousarray(record.image[y:, x:]), joints - [x, y])
        if outline is None:
            continue
        points = outline.points[outline.known]
        assert (points > 2).all()
        offsets.append(np.median(depth_inside(record.mask[y:, x:], points)))
    assert len(offsets) > 0.5 * len(drawn)
    assert abs(np.median(offsets)) < 0.7


def test_hands_partly_outside_the_photo_have_none(drawn: list[tuple[HandRecord, Joints]]) -> None:
    record, joints = drawn[0]
    for x, y in ((120, 0), (0, 120), (-120, 0), (0, -120), (150, 150), (-180, 180)):
        assert find_outline(record.image, joints + [x, y]) is None


def test_normals_point_outwards_either_way_round() -> None:
    turn = np.arange(64) / 64 * 2 * np.pi
    ring = np.stack([3 * np.cos(turn), 3 * np.sin(turn)], axis=1)
    np.testing.assert_allclose(outward_normals(ring), ring / 3, atol=1e-12)
    np.testing.assert_allclose(outward_normals(ring[::-1]), ring[::-1] / 3, atol=1e-12)


@pytest.fixture
def hands(tmp_path: Path) -> list[LabelledHand]:
    """Three photos, the same joints."""
    made = []
    for k in range(3):
        path = tmp_path / f"{k}.png"
        cv2.imwrite(str(path), np.full((40, 40, 3), 50 * k, dtype=np.uint8))
        joints = np.random.default_rng(k).uniform(5, 35, (21, 2))
        made.append(LabelledHand(path, joints, np.zeros((21, 3)), is_right=True))
    return made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grey levels of the photos whose outline was looked for; that of level 50 is not found."""
    levels: list[int] = []

    def find(image: NDArray[np.uint8], joints_px: Joints) -> Outline | None:
        levels.append(int(image[0, 0, 0]))
        points = np.resize(joints_px, (OUTLINE_POINTS, 2))
        known = np.arange(OUTLINE_POINTS) < len(levels)
        return None if levels[-1] == 50 else Outline(points, known)

    monkeypatch.setattr(outline_cache, "find_outline", find)
    return levels


def test_outlines_are_found_once(hands: list[LabelledHand], asked: list[int]) -> None:
    first, second = open_outlines(hands), open_outlines(hands)

    assert asked == [0, 50, 100]
    for outlines_ in (first, second):
        assert [outline is None for outline in outlines_] == [False, True, False]
    for one, other in zip(first, second, strict=True):
        if one is not None and other is not None:
            np.testing.assert_array_equal(one.points, other.points)
            np.testing.assert_array_equal(one.known, other.known)
    assert open_outlines([]) == []


@pytest.mark.parametrize("change", ["joints", "photo", "revision"])
def test_outlines_are_found_anew_when_what_decides_them_changes(
    hands: list[LabelledHand], asked: list[int], change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_outlines(hands)
    if change == "joints":
        hands[2].joints_px[3, 0] += 0.5
    elif change == "photo":
        cv2.imwrite(str(hands[2].path), np.full((41, 40, 3), 100, dtype=np.uint8))
    else:
        monkeypatch.setattr(outline_cache, "REVISION", outlines.REVISION + 1)
    open_outlines(hands)
    assert asked == [0, 50, 100] * 2


def test_a_damaged_file_is_made_anew_and_a_place_without_room_is_told(
    hands: list[LabelledHand], asked: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = tmp_path / "kept"
    monkeypatch.setattr(outline_cache, "cache_folder", lambda: place)
    open_outlines(hands)
    (kept,) = place.iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    open_outlines(hands)
    assert asked == [0, 50, 100] * 2
    open_outlines(hands)
    assert asked == [0, 50, 100] * 2

    hands[1].path.unlink()
    with pytest.raises(ImageError, match=r"1\.png"):
        open_outlines(hands)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(outline_cache, "cache_folder", lambda: tmp_path / "file")
    with pytest.raises(InputError, match="XDG_CACHE_HOME"):
        open_outlines(hands[:1])
    assert asked == [0, 50, 100] * 2  # told before the work
