"""What is placed around real hands: how often, where, and that the hand stays in view."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from handmesh.errors import InputError
from handmesh_training.hand import HandModel
from handmesh_training.rendering import (
    Appearance,
    EnvironmentSet,
    Hands,
    Renderer,
    RenderMesh,
    SkinSet,
    sample_appearance,
)
from handmesh_training.rendering.held import sample_rings, sample_watch
from handmesh_training.rendering.scene import SHARES
from handmesh_training.sampling import sample_views

SIZE, COUNT = 64, 160
MODEL = HandModel()
ASSET = MODEL.asset
MESH = RenderMesh(
    ASSET.faces, ASSET.corner_uv, ASSET.weights.argmax(axis=1).astype(np.uint8),
    ASSET.vertices_m[:, 1].copy(),
)  # fmt: skip
SKINS = SkinSet.procedural(0, 2, MESH, size=32)
PLACES = EnvironmentSet.procedural(0, count=3, height=32)


def hands(seed: int, present: bool = True) -> Hands:
    views = sample_views(np.random.default_rng(seed), MODEL, COUNT, SIZE, 1.9)
    return Hands(
        views.vertices_m, views.joints_m, views.intrinsics, SIZE, ASSET.vertices_m[:, 1],
        np.full(COUNT, present),
    )  # fmt: skip


HANDS = hands(1)


def looks(seed: int = 2, given: Hands = HANDS) -> Appearance:
    return sample_appearance(np.random.default_rng(seed), COUNT, SKINS, PLACES, hands=given)


LOOK = looks()


def test_scenes_come_from_the_seed_alone() -> None:
    again, other = looks(), looks(3)
    for name in ("solids", "ground", "ground_texture"):
        np.testing.assert_array_equal(getattr(LOOK, name), getattr(again, name))
        assert not np.array_equal(getattr(LOOK, name), getattr(other, name))


def test_shares_are_about_those_declared() -> None:
    grounds = (LOOK.ground[:, 0] > 0).mean()
    assert grounds == pytest.approx(SHARES["ground"], abs=0.12)
    busy = (LOOK.solids[:, :, 0] > 0).any(axis=1).mean()
    # Declared shares are of tries: a few things do not fit the hand.
    none = np.prod([1 - share for name, share in SHARES.items() if name != "ground"])
    assert 1 - none - 0.25 < busy <= 1 - none + 0.1
    heads = (LOOK.solids[:, :, 24] == 16).any(axis=1).mean()
    assert heads == pytest.approx(SHARES["person"], abs=0.12)


def test_the_ground_lies_behind_all_of_the_hand_that_shows() -> None:
    chosen = np.flatnonzero(LOOK.ground[:, 0] > 0)
    gaps = []
    for i in chosen:
        normal, offset = LOOK.ground[i, 1:4].astype(float), float(LOOK.ground[i, 4])
        assert np.linalg.norm(normal) == pytest.approx(1, abs=1e-5)
        fx, fy, cx, cy = HANDS.camera[i].astype(float)
        points = HANDS.vertices[i].astype(float)
        u, v = fx * points[:, 0] / points[:, 2] + cx, fy * points[:, 1] / points[:, 2] + cy
        shown = (u > 0) & (v > 0) & (u < SIZE) & (v < SIZE)
        gaps.append((points[shown] @ normal - offset).min())
        assert normal @ HANDS.joints[i].mean(0) < 0  # it faces the camera
        assert LOOK.key_direction[i] @ normal > 0.05  # and the light
    assert min(gaps) > 0
    assert np.mean(np.array(gaps) < 0.1) > 0.5


def test_at_least_about_half_of_the_hand_stays_in_view() -> None:
    bare = replace(LOOK, solids=np.zeros_like(LOOK.solids))
    draw = Renderer(MESH, SKINS, PLACES, size=SIZE)
    all_of_it = draw.render(HANDS.vertices, HANDS.camera, bare, parts=True)
    rest = draw.render(HANDS.vertices, HANDS.camera, LOOK, parts=True)
    assert all_of_it.parts is not None
    assert rest.parts is not None
    hand = (all_of_it.parts != 255) & (all_of_it.parts != 16)  # 16: the forearm
    kept = (hand & (rest.parts != 255)).sum((1, 2)) / hand.sum((1, 2))
    assert np.sort(kept)[1] > 0.5  # of one hand, 0.38
    assert kept.min() > 0.3
    assert (kept < 0.95).mean() > 0.05  # about an eighth: there are things before hands


def test_rings_and_watches_sit_on_the_hand() -> None:
    rng = np.random.default_rng(0)
    rings = watches = 0
    for i in range(40):
        hand = HANDS.frame(i)
        for row in sample_rings(rng, hand):
            starts, ends = hand.joints[[5, 9, 13, 17]], hand.joints[[6, 10, 14, 18]]
            along = ((row[1:4] - starts) * (ends - starts)).sum(1) / ((ends - starts) ** 2).sum(1)
            foot = starts + np.clip(along, 0, 1)[:, None] * (ends - starts)
            assert np.linalg.norm(row[1:4] - foot, axis=1).min() < 0.005
            assert 0.004 < row[13] < 0.016
            rings += 1
        for row in sample_watch(rng, hand)[:1]:
            near = np.abs(HANDS.arm - 0.03) < 0.03
            assert np.linalg.norm(hand.vertices[near].mean(0) - row[1:4]) < 0.04
            assert 0.015 < row[13] < 0.05
            # Most of the arm under the strap lies inside it.
            local = (hand.vertices - row[1:4]) @ row[4:13].reshape(3, 3).T
            under = (np.abs(local[:, 1]) < row[14]) & near
            if under.sum() > 6:
                radius = np.hypot(local[under, 0] / row[13], local[under, 2] / row[15])
                assert np.quantile(radius, 0.9) < 1.02
            watches += 1
    assert rings > 40
    assert watches > 30


def test_pictures_without_a_hand_have_no_rings_about() -> None:
    given = hands(4, present=False)
    look = looks(5, given)
    small = (look.solids[:, :, 0] == 3) & (look.solids[:, :, 14] < 0.0033)
    assert not small.any()


def test_bytes_do_not_depend_on_threads_nor_batch() -> None:
    inputs = (HANDS.vertices, HANDS.camera, LOOK)
    one = Renderer(MESH, SKINS, PLACES, size=SIZE).render(*inputs)
    three = Renderer(MESH, SKINS, PLACES, size=SIZE, threads=3).render(*inputs)
    np.testing.assert_array_equal(one.image, three.image)
    np.testing.assert_array_equal(one.mask, three.mask)
    part = Renderer(MESH, SKINS, PLACES, size=SIZE).render(
        HANDS.vertices[40:50], HANDS.camera[40:50], LOOK[40:50]
    )
    np.testing.assert_array_equal(one.image[40:50], part.image)


@pytest.mark.parametrize("name", ["vertices", "joints", "camera", "present"])
def test_bad_hands_are_refused(name: str) -> None:
    value: npt.NDArray[np.generic] = getattr(HANDS, name)
    with pytest.raises(InputError, match=name):
        replace(HANDS, **{name: value[1:]} if name != "vertices" else {name: value[:, 1:]})


def test_another_number_of_hands_is_refused() -> None:
    with pytest.raises(InputError, match="hands"):
        sample_appearance(np.random.default_rng(0), 3, SKINS, PLACES, hands=HANDS)
