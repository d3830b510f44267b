"""Second hands beside rendered ones: left ones, as large, touching, and without labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from handmesh.errors import InputError
from handmesh_training import partners
from handmesh_training.hand import HandModel
from handmesh_training.partners import (
    FACING,
    KINDS,
    first_touch,
    hidden_share,
    nobody,
    sample_partners,
)
from handmesh_training.rendered import BLOCK, HandRenderer, RenderSettings
from handmesh_training.rendering.grounds import GROUND_FLOATS
from handmesh_training.rendering.renderer import Renderer
from handmesh_training.rendering.scene import SHARES
from handmesh_training.rendering.skins import SkinSet, hand_region
from handmesh_training.sampling import ARM_FROM_M, HandViews, sample_views

Array = NDArray[np.float64]
CROP_PX, COUNT = 64, 60


@pytest.fixture(scope="module")
def views(hand_model: HandModel) -> HandViews:
    return sample_views(np.random.default_rng(1), hand_model, COUNT, CROP_PX, 1.9)


ALL, NO_GROUND = np.ones(COUNT, dtype=bool), np.zeros((COUNT, GROUND_FLOATS))


def drawn(
    model: HandModel,
    views: HandViews,
    seed: int = 2,
    grounds: Array = NO_GROUND,
    shift: tuple[tuple[str, float], ...] = (),
    **only: object,
) -> Array:
    """(B, V, 3) a partner for each hand that has room for one.

    Args:
        only: what is set otherwise in `partners`.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ({"SHARE": 1.0} | only).items():
            patch.setattr(partners, name, value)
        made = sample_partners(
            np.random.default_rng(seed), model, views, ALL, grounds, CROP_PX, shift
        )
    return made.astype(np.float64)


@pytest.fixture(scope="module")
def every(hand_model: HandModel, views: HandViews) -> Array:
    return drawn(hand_model, views)


def there(vertices: Array) -> NDArray[np.bool_]:
    return np.asarray(np.ptp(vertices, axis=1).max(axis=1) > 0)


def joints_of(model: HandModel, vertices: Array) -> Array:
    """(B, 21, 3) regressed from posed skin: near enough to tell hands and their sides."""
    return np.asarray(np.einsum("jv,bvc->bjc", model.asset.joint_regressor, vertices))


def test_nearly_all_hands_have_room_for_a_partner(every: Array) -> None:
    assert np.isfinite(every).all()
    assert there(every).mean() > 0.85
    assert (every[..., 2] > 0.04).all(), "behind the camera"


def test_a_share_of_the_hands_that_are_shown_has_one(
    hand_model: HandModel, views: HandViews
) -> None:
    shown = np.arange(COUNT) % 2 == 0
    rngs = [np.random.default_rng(seed) for seed in range(6)]
    made = [
        there(sample_partners(rng, hand_model, views, shown, NO_GROUND, CROP_PX)) for rng in rngs
    ]
    assert not np.stack(made)[:, ~shown].any()
    assert np.stack(made)[:, shown].mean() == pytest.approx(partners.SHARE, abs=0.07)
    settings = RenderSettings(crop_px=CROP_PX, empty=0.0)
    for share, least, most in ((None, 0.1, 0.35), (0.0, 0.0, 0.0), (1.0, 0.85, 1.0)):
        scene = HandRenderer(replace(settings, partners=share), seed=3).draw(range(BLOCK))
        count = scene.vertices_m.shape[1] // 2
        assert least <= there(scene.vertices_m[:, count:]).mean() <= most
    # One that is not there is a point of the hand itself.
    rng = np.random.default_rng(0)
    none = sample_partners(rng, hand_model, views, ~ALL, NO_GROUND, CROP_PX)
    np.testing.assert_array_equal(none, nobody(views.vertices_m))
    np.testing.assert_array_equal(none, np.broadcast_to(views.vertices_m[:, :1], none.shape))


@pytest.mark.parametrize("mirrored", [0.0, 1.0])
def test_they_are_left_hands_of_the_same_size(
    hand_model: HandModel, views: HandViews, mirrored: float
) -> None:
    made = drawn(hand_model, views, MIRRORED=mirrored)
    found, own = joints_of(hand_model, made)[there(made)], np.float64(views.joints_m)

    def thumb_side(joints: Array) -> Array:
        """Positive where the thumb's base lies on the palm's side, were it a right hand."""
        wrist, index, little, thumb = (joints[:, k] for k in (0, 5, 17, 2))
        out = np.cross(index - wrist, little - wrist)
        return np.asarray(np.einsum("bi,bi->b", thumb - 0.5 * (wrist + index), out))

    assert (thumb_side(own) > 0).mean() > 0.9
    assert (thumb_side(found) < 0).mean() > 0.9
    bone = np.linalg.norm(found[:, 10] - found[:, 9], axis=1)
    ratio = bone / np.linalg.norm(own[there(made), 10] - own[there(made), 9], axis=1)
    assert np.median(ratio) == pytest.approx(1.0, abs=0.04)


def test_mirror_images_face_the_hand(hand_model: HandModel, views: HandViews) -> None:
    """Palm to palm, back to back, or edge to edge."""
    own = np.float64(views.joints_m)

    def outward(joints: Array) -> Array:
        """(B, 3) out of a right hand's palm, into a left one's."""
        wrist, index, little = (joints[:, k] for k in (0, 5, 17))
        out = np.cross(index - wrist, little - wrist)
        return np.asarray(out / np.linalg.norm(out, axis=1, keepdims=True))

    for kind in FACING:
        made = drawn(hand_model, views, MIRRORED=1.0, FACING={kind: 1.0})
        rows = there(made)
        found = joints_of(hand_model, made)[rows]
        way = found[:, [0, 5, 9, 17]].mean(axis=1) - own[rows][:, [0, 5, 9, 17]].mean(axis=1)
        way /= np.linalg.norm(way, axis=1, keepdims=True)
        side = np.einsum("bi,bi->b", way, outward(own)[rows])
        across = {"palm": side > 0.3, "back": side < -0.3, "edge": abs(side) < 0.7}
        assert across[kind].mean() > 0.8, kind
        # Palms that face each other: the mirror image's looks the other way.
        facing = np.einsum("bi,bi->b", -outward(found), outward(own)[rows])
        assert (facing < 0).mean() > 0.8 if kind != "edge" else (facing > 0).mean() > 0.8


def test_they_touch_are_folded_or_apart(hand_model: HandModel, views: HandViews) -> None:
    rest = np.flatnonzero(hand_model.asset.vertices_m[:, 1] < ARM_FROM_M)[::2]
    own = torch.from_numpy(views.vertices_m[:, rest]).double()

    def near(made: Array) -> Array:
        """Of hands, the share of a partner's vertices within 8 mm."""
        gaps = torch.cdist(own, torch.from_numpy(made[:, rest])).amin(dim=1).numpy()
        return np.asarray((gaps[there(made)] < 0.008).mean(axis=1))

    # Mirror images come straight at the hand; arms are in the way of some others.
    touching, folded, apart = (
        near(drawn(hand_model, views, MIRRORED=1.0, KINDS={kind: 1.0})) for kind in KINDS
    )
    assert (touching > 0).mean() > 0.7
    assert np.median(folded) > 1.5 * np.median(touching)
    assert (apart > 0).mean() < 0.35


@pytest.mark.usefixtures("quick_surroundings")
def test_the_labelled_hand_is_seen(hand_model: HandModel) -> None:
    """By its mask, with and without the partner."""
    renderer = HandRenderer(RenderSettings(crop_px=96, empty=0.0, things=frozenset()), seed=5)
    scene = renderer.draw(range(BLOCK))
    count = renderer.mesh.vertex_count
    own = scene.vertices_m[:, :count]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partners, "SHARE", 1.0)
        besides = [
            sample_partners(
                np.random.default_rng(seed), hand_model, scene.views, np.ones(BLOCK, dtype=bool),
                np.zeros((BLOCK, GROUND_FLOATS)), 96,
            )
            for seed in (1, 2)
        ]  # fmt: skip
    masks = [
        renderer.render(replace(scene, vertices_m=np.concatenate([own, other], axis=1))).mask
        for other in (nobody(own), *besides)
    ]
    bare, *left = (mask.astype(float).sum(axis=(1, 2)) for mask in masks)
    seen = np.array(left) / bare  # (2, BLOCK)
    assert seen.min() > 0.2
    assert np.mean(seen < 0.5) < 0.05
    assert np.mean(seen < 0.98) > 0.1


def test_they_are_not_behind_the_surface_behind_the_hand(
    hand_model: HandModel, views: HandViews
) -> None:
    """A wall right behind each hand's farthest point."""
    depth = views.vertices_m[..., 2].max(axis=1) + 0.01
    grounds = NO_GROUND.copy()
    grounds[:, 0], grounds[:, 3], grounds[:, 4] = 1, -1, -depth
    rest = hand_model.asset.vertices_m[:, 1] < ARM_FROM_M
    made = drawn(hand_model, views, grounds=grounds)[:, rest]
    behind = (made[..., 2] > depth[:, None]).mean(axis=1)
    assert behind.max() <= partners.MOST_BEHIND
    free = drawn(hand_model, views)[:, rest]
    assert ((free[..., 2] > depth[:, None]).mean(axis=1) > partners.MOST_BEHIND).mean() > 0.1


def test_other_people_have_other_partners(hand_model: HandModel, views: HandViews) -> None:
    """`shape_shift` reaches them: thick fingers."""
    shift = (("finger_diameter", 3.0),)
    plain, thick = (drawn(hand_model, views, MIRRORED=0.0, shift=each)[:20] for each in ((), shift))
    names = hand_model.shape_names
    moved = hand_model.directions[names.index("finger_diameter")].norm(dim=-1).numpy()
    fingers = moved > 0.5 * moved.max()

    def girth(made: Array) -> float:
        """Of the middle finger's first bone, over its length."""
        weights = hand_model.asset.weights[:, 7] > 0.9
        found = joints_of(hand_model, made)
        rows = there(made)
        skin, base, end = made[rows][:, weights & fingers], found[rows, 9], found[rows, 10]
        axis = (end - base) / np.linalg.norm(end - base, axis=1, keepdims=True)
        offset = skin - base[:, None]
        offset = offset - np.einsum("bvi,bi->bv", offset, axis)[..., None] * axis[:, None]
        return float(np.median(np.linalg.norm(offset, axis=-1)))

    assert girth(thick) > 1.1 * girth(plain)


def test_where_arms_end_is_not_in_the_picture(
    hand_model: HandModel, views: HandViews, every: Array
) -> None:
    height = hand_model.asset.vertices_m[:, 1]
    end = height > height.max() - 0.01
    fx, fy, cx, cy = views.intrinsics.T.astype(np.float64)[:, :, None]
    x, y, z = every[:, end].transpose(2, 0, 1)
    px, py = fx * x / z + cx, fy * y / z + cy
    inside = ((px > 0) & (px < CROP_PX - 1) & (py > 0) & (py < CROP_PX - 1)).any(axis=1)
    assert inside[there(every)].mean() < 0.05


def test_first_touch_of_two_points_and_of_none() -> None:
    """Points on one line, then beside each other: what geometry says."""
    way = np.array([1.0, 0.0, 0.0])
    own = np.zeros((1, 3))
    found = first_touch(own, np.array([[-0.3, 0.0, 0.0]]), way)
    assert found == pytest.approx(0.3 + partners.TOUCH_M)
    beside = 0.6 * partners.TOUCH_M
    found = first_touch(own, np.array([[0.05, beside, 0.0]]), way)
    assert found == pytest.approx(-0.05 + 0.8 * partners.TOUCH_M)
    assert first_touch(own, np.array([[0.0, 2 * partners.TOUCH_M, 0.0]]), way) is None


def test_first_touch_is_the_last_on_the_way_out() -> None:
    """Against small steps from far off."""
    rng = np.random.default_rng(0)
    own, other = rng.normal(0, 0.02, (2, 200, 3))
    way = np.array([0.6, 0.0, 0.8])
    found = first_touch(own, other, way)
    assert found is not None
    steps = found + np.linspace(1e-5, 0.3, 400)
    gaps = [np.linalg.norm(own[:, None] - other - t * way, axis=-1).min() for t in (found, *steps)]
    assert gaps[0] == pytest.approx(partners.TOUCH_M)
    assert min(gaps[1:]) > partners.TOUCH_M


def test_hidden_is_what_lies_behind_for_the_camera() -> None:
    joints = np.array([[0.0, 0.0, 0.5], [0.1, 0.0, 0.5], [0.0, 0.1, 0.3], [0.0, 0.0, 0.2]])
    small = np.full(4, 0.006)
    assert hidden_share(joints, np.array([[0.0, 0.0, 0.3]]), small[:1]) == 0.25  # the first alone
    assert hidden_share(joints, np.array([[0.0, 0.0, -0.3]]), small[:1]) == 0  # behind the camera
    assert hidden_share(joints, 0.5 * joints, small) == 1
    aside = np.array([[0.009, 0.0, 0.3]])
    assert hidden_share(joints[:1], aside, small[:1]) == 0
    assert hidden_share(joints[:1], aside, 2 * small[:1]) == 1


@pytest.mark.usefixtures("quick_surroundings")
def test_empty_pictures_show_no_partner() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partners, "SHARE", 1.0)
        scene = HandRenderer(RenderSettings(crop_px=32, empty=0.5), seed=3).draw(range(BLOCK))
    shown = scene.views.in_view
    assert 16 < shown.sum() < 48
    assert not scene.has_partner[~shown].any()
    assert scene.has_partner[shown].mean() > 0.85


@pytest.mark.usefixtures("quick_surroundings")
def test_things_that_there_are_not() -> None:
    with pytest.raises(InputError, match="rabbit"):
        HandRenderer(RenderSettings(things=frozenset({"rabbit", "held"})), seed=0)


@pytest.mark.usefixtures("quick_surroundings")
def test_pictures_without_a_partner_are_what_they_were() -> None:
    settings = RenderSettings(crop_px=48, empty=0.1)
    renderer = HandRenderer(settings, seed=3)
    scene = renderer.draw(range(BLOCK))
    count = renderer.mesh.vertex_count
    # A renderer that knows of one hand alone.
    single = Renderer(renderer.mesh, renderer.skins, renderer.environments, size=48)
    company = scene.has_partner
    assert 3 < company.sum() < 28
    both = renderer.render(scene, depth=True)
    bare = single.render(
        scene.vertices_m[:, :count], scene.views.intrinsics, scene.look, depth=True
    )
    same = (both.image == bare.image).all(axis=(1, 2, 3))
    assert same[~company].all()
    assert (~same[company]).mean() > 0.7  # some lie outside the picture
    # It hides what is behind it, and is no part of the hand itself.
    assert (both.mask <= bare.mask).all()
    assert (both.mask < bare.mask).any()
    assert both.depth is not None
    assert bare.depth is not None
    seen = both.depth > 0
    # What is hidden of a pixel may be its nearest part.
    farther = both.depth[seen] / bare.depth[seen] - 1
    assert farther.min() > -1e-5
    assert (farther > 1e-5).mean() < 0.01
    # Nor do partners change what else is drawn by chance.
    alone = HandRenderer(replace(settings, things=frozenset(SHARES)), seed=3).draw(range(BLOCK))
    assert not alone.has_partner.any()
    np.testing.assert_array_equal(scene.views.joints, alone.views.joints)
    np.testing.assert_array_equal(scene.look.solids, alone.look.solids)


@pytest.mark.usefixtures("quick_surroundings")
def test_a_mirrored_hand_makes_the_mirrored_picture() -> None:
    """Faces the wrong way round, or a texture not mirrored with them, would differ: a skin of small
    cells, light and dark."""
    settings = RenderSettings(crop_px=64, empty=0.0, things=frozenset())
    renderer = HandRenderer(settings, seed=1)
    scene = renderer.draw(range(8))
    cells = np.random.default_rng(0).uniform(0.05, 0.9, (48, 48, 1)).astype(np.float32)
    atlas = np.kron(np.repeat(cells, 3, axis=2), np.ones((8, 8, 1), dtype=np.float32))
    skins = SkinSet.from_images([atlas], renderer.mesh, hand_region(renderer.mesh))
    pair = Renderer(renderer.mesh.with_partner(), skins, renderer.environments, size=64)
    own, flip = scene.vertices_m[:, : renderer.mesh.vertex_count], np.float32([-1, 1, 1])
    lens = scene.views.intrinsics
    mirrored_lens = lens * np.float32([1, 1, -1, 1]) + np.float32([0, 0, 63, 0])
    # Even light, from all sides alike.
    look = replace(
        scene.look,
        skin=np.zeros_like(scene.look.skin),
        key_light=np.zeros_like(scene.look.key_light),
        irradiance=scene.look.irradiance * (np.arange(9) == 0)[:, None].astype(np.float32),
        relief=np.zeros_like(scene.look.relief),
    )
    alone = pair.render(np.concatenate([own, nobody(own)], axis=1), lens, look, parts=True)
    image = np.concatenate([nobody(own) * flip, own * flip], axis=1)
    partner = pair.render(image, mirrored_lens, look, parts=True)
    assert alone.parts is not None
    assert partner.parts is not None
    on_hand = alone.parts != 255
    assert on_hand.mean() > 0.1
    agree = (partner.parts[:, :, ::-1] != 255) == on_hand
    assert agree.mean() > 0.99
    difference = np.abs(partner.image[:, :, ::-1].astype(int) - alone.image.astype(int))
    assert np.median(difference[on_hand]) <= 2
    assert np.quantile(difference[on_hand], 0.9) <= 8
    assert not partner.mask.any()
