"""The mean of several looks at one hand."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handmesh.bundle import Bundle
from handmesh.cli_predict import add_predict
from handmesh.looks import LOOKS, MOST_LOOKS, look_again, mean_sighting
from handmesh.pipeline import Photo
from handmesh.predictor import Predictor, predict
from handmesh.search import Sighting, View
from handmesh.types import Box, Camera

CAMERA = Camera.default(640, 480)
Make = Callable[..., Any]
# A hand in pixels, and the depth of its points in bones.
RNG = np.random.default_rng(0)
JOINTS_PX, VERTICES_PX = RNG.uniform(100, 300, (21, 2)), RNG.uniform(100, 300, (50, 2))
DEPTHS = RNG.normal(0, 1, 50)


def seen_in(
    view: View, confidence: Any = 0.9, off: tuple[float, float] = (0.0, 0.0), deeper: float = 0.0
) -> Sighting:
    """What a network sees that is off by so many pixels, and by so much depth."""
    points = [
        np.column_stack([view.box.to_crop(px + off), DEPTHS[: len(px)] + deeper]).astype(np.float32)
        for px in (VERTICES_PX, JOINTS_PX)
    ]
    confidences = np.broadcast_to(np.float32(confidence), (21,)).copy()
    return Sighting(view, *points, confidences, presence=0.7, looks_right=0.8)


def test_looks_in_other_crops_at_one_place_agree_on_it() -> None:
    """Crops of other sizes and angles, of a left hand too, are brought to one frame."""
    boxes = [Box(200, 210, 300), Box(190, 205, 250, 0.4), Box(215, 190, 410, -2.0)]
    for mirrored in (False, True):
        mean = mean_sighting([seen_in(View(box, mirrored)) for box in boxes])
        np.testing.assert_allclose(mean.joints_px(), JOINTS_PX, atol=1e-3)
        vertices_px = mean.view.box.to_image(mean.vertices[:, :2])
        np.testing.assert_allclose(vertices_px, VERTICES_PX, atol=1e-3)
        np.testing.assert_allclose(mean.vertices[:, 2], DEPTHS, atol=1e-5)
        assert mean.view == View(boxes[0], mirrored)
        assert (mean.presence, mean.looks_right) == (0.7, 0.8)


def test_sure_looks_count_more() -> None:
    """By the third power of the geometric mean of their joints' confidence."""
    views = [View(Box(200, 200, 300, turn)) for turn in (0.0, 0.3)]
    unsure = np.r_[np.full(20, 0.8), 0.1]
    mean = mean_sighting(
        [seen_in(views[0], 0.9), seen_in(views[1], unsure, off=(30.0, -12.0), deeper=0.4)]
    )
    weights = np.array([0.9**3, (0.8**20 * 0.1) ** (3 / 21)])
    share = weights[1] / weights.sum()
    np.testing.assert_allclose(
        mean.joints_px() - JOINTS_PX, share * np.tile([30, -12], (21, 1)), atol=1e-3
    )
    np.testing.assert_allclose(mean.joints[:, 2], DEPTHS[:21] + share * 0.4, atol=1e-5)
    np.testing.assert_allclose(mean.confidence, 0.9 + share * (unsure - 0.9), rtol=1e-5)


def test_confidence_of_nothing_is_no_trouble() -> None:
    view = View(Box(200, 200, 300))
    mean = mean_sighting([seen_in(view, 0.0), seen_in(view, 0.0, off=(10, 0))])
    np.testing.assert_allclose(mean.joints_px() - JOINTS_PX, [[5, 0]] * 21, atol=1e-3)


@pytest.mark.parametrize("looks", range(1, MOST_LOOKS + 1))
def test_all_hands_are_shown_together_and_none_for_one_look(looks: int) -> None:
    """A right hand and a left one elsewhere, seen in further looks with errors of their own."""
    calls: list[Sequence[View]] = []
    errors = {False: (15.0, 0.0), True: (0.0, -8.0)}

    def look(views: Sequence[View]) -> list[Sighting]:
        calls.append(views)
        return [seen_in(view, off=errors[view.mirrored]) for view in views]

    boxes = {False: Box(200, 200, 300, 0.2), True: Box(180, 240, 350, -0.1)}
    firsts = [seen_in(View(box, left)) for left, box in boxes.items()]
    found = look_again(look, firsts, looks)
    assert [len(views) for views in calls] == ([] if looks == 1 else [2 * (looks - 1)])
    for first, mean in zip(firsts, found, strict=True):
        wanted = np.tile(errors[first.view.mirrored], (21, 1)) * (looks - 1) / looks
        np.testing.assert_allclose(mean.joints_px() - JOINTS_PX, wanted, atol=1e-3)
        assert mean.view == first.view
    for number, view in enumerate(calls[0] if calls else ()):
        assert view.mirrored == (number >= looks - 1)
        own = boxes[view.mirrored]
        assert (view.box.cx, view.box.cy) == (own.cx, own.cy)
        assert 0.8 < view.box.size / own.size < 1.2
        assert abs(view.box.angle - own.angle) < 0.21
        assert view.box != own
    assert look_again(look, [], looks) == []


def test_a_look_that_shows_another_hand_does_not_count() -> None:
    view = View(Box(200, 200, 300, 0.2))

    def look(views: Sequence[View]) -> list[Sighting]:
        return [seen_in(one, off=(150 if n == 1 else 9, 0)) for n, one in enumerate(views)]

    (mean,) = look_again(look, [seen_in(view)], 3)
    np.testing.assert_allclose(mean.joints_px() - JOINTS_PX, [[4.5, 0]] * 21, atol=1e-3)
    (alone,) = look_again(lambda views: [seen_in(views[0], off=(-150, 0))], [seen_in(view)], 2)
    np.testing.assert_allclose(alone.joints_px(), JOINTS_PX, atol=1e-3)


def test_a_photo_is_looked_at_so_often(
    bundle: Bundle, reading_backend: Make, make_hand: Make, paint: Make
) -> None:
    hand = make_hand((0, 0.05, 0.8))
    predictor = Predictor(bundle, reading_backend(hand))
    photo = paint(CAMERA, hand)
    box = Box.from_points(CAMERA.project(hand.joints_m))
    (once,) = predictor.predict(photo, box, looks=1)
    (often,) = predictor.predict(photo, box, looks=5)
    assert often.crops_seen == once.crops_seen + 4
    error = np.linalg.norm(often.joints_px - CAMERA.project(hand.joints_m), axis=1).max()
    assert error < 0.02 * box.size
    assert (often.handedness, often.presence, often.box) == (
        once.handedness,
        once.presence,
        once.box,
    )
    assert predictor.predict(np.zeros((480, 640, 3), np.uint8), looks=5) == []


def test_two_looks_are_the_default_everywhere() -> None:
    """Of the class, of the function, and of the command, which must not import this to say so."""
    for function in (Predictor.predict, predict):
        assert signature(function).parameters["looks"].default == LOOKS == 2
    parser = argparse.ArgumentParser()
    add_predict(parser.add_subparsers())
    assert parser.parse_args(["predict", "photo.jpg"]).looks == LOOKS


def test_the_second_look_is_turned(
    example_photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is what helps most on photos; the shipped network, asked as by default."""
    shown: list[list[View]] = []
    look = Photo.look

    def watched(photo: Photo, views: Sequence[View]) -> list[Sighting]:
        shown.append(list(views))
        return look(photo, views)

    monkeypatch.setattr(Photo, "look", watched)
    with Predictor() as predictor:
        (once,) = predictor.predict(example_photos["open"], looks=1)
        before = len(shown)
        (hand,) = predictor.predict(example_photos["open"])
    assert len(shown) == 2 * before + 1
    ((last,),) = shown[-1:]
    assert hand.box == once.box
    assert last.box == Box(hand.box.cx, hand.box.cy, hand.box.size, hand.box.angle - 0.2)
    assert 0 < np.abs(hand.joints_px - once.joints_px).max() < 0.05 * hand.box.size


def test_further_looks_come_in_their_order() -> None:
    """Turned, larger, smaller, turned the other way: fewer looks are the first of more."""
    shown: list[View] = []

    def look(views: Sequence[View]) -> list[Sighting]:
        shown.extend(views)
        return [seen_in(view) for view in views]

    box = Box(200, 200, 300, 0.1)
    look_again(look, [seen_in(View(box))], MOST_LOOKS)
    assert [
        (round(view.box.size / box.size, 6), round(view.box.angle - box.angle, 6)) for view in shown
    ] == [(1.0, -0.2), (1.15, 0.0), (0.87, 0.0), (1.0, 0.2)]
