"""Second hands beside rendered ones: left ones, as large, touching, and without labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from handmesh_training import partners
from handmesh_training.hand import HandModel
from handmesh_training.partners import first_touch, hidden_share, sample_partners
from handmesh_training.rendered import BLOCK, HandRenderer, RenderSettings
from handmesh_training.rendering.scene import SHARES
from handmesh_training.sampling import ARM_FROM_M, HandViews, sample_views

Array = NDArray[np.float64]
CROP_PX, COUNT = 64, 60


@pytest.fixture(scope="module")
def views(hand_model: HandModel) -> HandViews:
    return sample_views(np.random.default_rng(1), hand_model, COUNT, CROP_PX, 1.9)


@pytest.fixture(scope="module")
def every(hand_model: HandModel, views: HandViews) -> Array:
    """(B, V, 3) a partner for each hand that has room for one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partners, "SHARE", 1.0)
        drawn = sample_partners(
            np.random.default_rng(2), hand_model, views, np.ones(COUNT, dtype=bool), CROP_PX
        )
    return drawn.astype(np.float64)


def there(vertices: Array) -> NDArray[np.bool_]:
    return np.asarray(np.ptp(vertices, axis=1).max(axis=1) > 0)


def test_nearly_all_hands_have_room_for_a_partner(every: Array) -> None:
    assert every.dtype == np.float64
    assert np.isfinite(every).all()
    assert there(every).mean() > 0.9
    assert (every[..., 2] > 0.04).all(), "behind the camera"


def test_a_share_of_the_hands_that_are_shown_has_one(
    hand_model: HandModel, views: HandViews
) -> None:
    shown = np.arange(COUNT) % 2 == 0
    drawn = [
        there(sample_partners(np.random.default_rng(seed), hand_model, views, shown, CROP_PX))
        for seed in range(6)
    ]
    assert not np.stack(drawn)[:, ~shown].any()
    assert np.stack(drawn)[:, shown].mean() == pytest.approx(partners.SHARE, abs=0.07)
    # One that is not there is a point of the hand itself.
    nobody = sample_partners(
        np.random.default_rng(0), hand_model, views, np.zeros(COUNT, dtype=bool), CROP_PX
    )
    np.testing.assert_array_equal(nobody, np.broadcast_to(views.vertices_m[:, :1], nobody.shape))


def test_they_are_left_hands_of_the_same_size(
    hand_model: HandModel, views: HandViews, every: Array
) -> None:
    asset = hand_model.asset
    joints = np.einsum("jv,bvc->bjc", asset.joint_regressor, every)[there(every)]
    # Joints regressed from posed skin are near enough to tell hands and their sides.
    wrist, index, middle, little, thumb = (joints[:, k] for k in (0, 5, 9, 17, 2))

    def palm_side(*points: Array) -> Array:
        """Positive where the thumb's base lies on the palm's side of a right hand."""
        start, one, two, other = points
        out = np.cross(one - start, two - start)
        return np.asarray(np.einsum("bi,bi->b", other - 0.5 * (one + start), out))

    own = np.float64(views.joints_m)
    right = palm_side(own[:, 0], own[:, 5], own[:, 17], own[:, 2])
    left = palm_side(wrist, index, little, thumb)
    assert (right > 0).mean() > 0.9
    assert (left < 0).mean() > 0.9
    palm = np.linalg.norm(middle - wrist, axis=1)
    ratio = palm / np.linalg.norm(own[there(every), 9] - own[there(every), 0], axis=1)
    assert np.median(ratio) == pytest.approx(1.0, abs=0.03)
    assert (abs(ratio - 1) < 0.35).all()


def test_most_touch_and_none_is_far(hand_model: HandModel, views: HandViews, every: Array) -> None:
    rest = hand_model.asset.vertices_m[:, 1] < ARM_FROM_M
    own = torch.from_numpy(views.vertices_m[:, rest]).double()
    gaps = torch.cdist(own, torch.from_numpy(every[:, rest])).amin(dim=(1, 2)).numpy()
    gaps = gaps[there(every)]
    touching = gaps < 0.012  # arms are looked at as well, so a few hands touch nothing
    assert touching.mean() == pytest.approx(1 - partners.SHARES["apart"], abs=0.2)
    assert (gaps < 0.2).all()


def test_the_labelled_hand_is_seen(views: HandViews, every: Array) -> None:
    hidden = [
        hidden_share(np.float64(joints), other)
        for joints, other in zip(views.joints_m, every, strict=True)
        if np.ptp(other)
    ]
    # Of every fourth vertex at most `MOST_HIDDEN` was asked; all of them hide a little more.
    assert max(hidden) < partners.MOST_HIDDEN + 0.3
    assert np.median(hidden) < 0.3


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
    assert hidden_share(joints, np.array([[0.0, 0.0, 0.3]])) == 0.25  # the first alone
    assert hidden_share(joints, np.array([[0.0, 0.0, -0.3]])) == 0  # behind the camera
    assert hidden_share(joints, 0.5 * joints) == 1
    aside = np.array([[partners.HIDES_M * 1.5, 0.0, 0.3]])
    assert hidden_share(joints[:1], aside) == 0


@pytest.mark.usefixtures("quick_surroundings")
def test_pictures_without_a_partner_are_what_they_were() -> None:
    settings = RenderSettings(crop_px=48, empty=0.1)
    renderer = HandRenderer(settings, seed=3)
    alone = HandRenderer(replace(settings, things=frozenset(SHARES)), seed=3)
    scene, without = renderer.draw(range(BLOCK)), alone.draw(range(BLOCK))
    company = scene.has_partner
    assert 4 < company.sum() < 28
    assert not company[~scene.views.in_view].any()
    assert not without.has_partner.any()
    with_partner, bare = (
        each.render(drawn, depth=True) for each, drawn in ((renderer, scene), (alone, without))
    )
    same = (with_partner.image == bare.image).all(axis=(1, 2, 3))
    assert same[~company].all()
    assert (~same[company]).mean() > 0.8  # some lie outside the picture
    # It hides what is behind it, and is no part of the hand itself.
    assert (with_partner.mask <= bare.mask).all()
    assert (with_partner.mask < bare.mask).any()
    assert with_partner.depth is not None
    assert bare.depth is not None
    seen = with_partner.depth > 0
    # What is hidden of a pixel may be its nearest part.
    farther = with_partner.depth[seen] / bare.depth[seen] - 1
    assert farther.min() > -1e-5
    assert (farther > 1e-5).mean() < 0.01
    np.testing.assert_array_equal(scene.views.joints, without.views.joints)


@pytest.mark.usefixtures("quick_surroundings")
def test_a_partners_skin_is_lit_as_the_hands_own() -> None:
    """The mirror image of a hand before the camera's axis is the mirrored picture of it: faces the
    wrong way round, or textures not mirrored with them, would differ."""
    settings = RenderSettings(crop_px=64, empty=0.0, things=frozenset())
    renderer = HandRenderer(settings, seed=1)
    scene = renderer.draw(range(8))
    own, flip = scene.vertices_m[:, : renderer.mesh.vertex_count], np.float32([-1, 1, 1])
    nowhere = np.broadcast_to(own[:, :1], own.shape)
    lens = scene.views.intrinsics
    mirrored_lens = lens * np.float32([1, 1, -1, 1]) + np.float32([0, 0, 63, 0])
    # Even light, from all sides alike.
    look = replace(
        scene.look,
        key_light=np.zeros_like(scene.look.key_light),
        irradiance=scene.look.irradiance * (np.arange(9) == 0)[:, None].astype(np.float32),
        relief=np.zeros_like(scene.look.relief),
    )
    alone = renderer.renderer.render(np.concatenate([own, nowhere], axis=1), lens, look, parts=True)
    image = np.concatenate([np.broadcast_to(own[:, :1] * flip, own.shape), own * flip], axis=1)
    partner = renderer.renderer.render(image, mirrored_lens, look, parts=True)
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
