"""Random poses: within limits, in the stated shares, reproducible, and free of collisions."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from handmesh_training import poses
from handmesh_training.gestures.library import default_library
from handmesh_training.hand import FOREARM, PIVOT_COUNT, HandModel
from handmesh_training.limits import (
    ABDUCTION,
    FINGER_BASES,
    FLEXION,
    FLEXION_LIMITS_DEG,
    TWIST,
    angle_limits,
)
from handmesh_training.poses import (
    FREE_GESTURE,
    KIND_SHARES,
    SHARES,
    add_noise,
    capsules_of,
    choose_gestures,
    draw_poses,
    sample_shapes,
    self_collides,
    usual_shape,
)

Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def angles(hand_model: HandModel) -> Array:
    """(4000, 17, 3) degrees."""
    drawn = draw_poses(np.random.default_rng(0), hand_model, 4000)
    return np.rad2deg(drawn.angles.double().numpy())


def test_joints_keep_their_limits(angles: Array) -> None:
    assert angles.shape == (4000, PIVOT_COUNT, 3)
    limits = np.rad2deg(angle_limits())
    assert (angles >= limits[..., 0] - 1e-5).all()  # float32 radians
    assert (angles <= limits[..., 1] + 1e-5).all()
    for offset, joint in enumerate(FLEXION_LIMITS_DEG):
        low, high = FLEXION_LIMITS_DEG[joint]
        flexion = angles[:, FINGER_BASES + offset, FLEXION]
        # And they use them: nearly straight, half and nearly closed all occur.
        share = np.histogram(flexion, [low, 20, 50, high])[0] / flexion.size
        assert share.min() > 0.08
    only_flexion = np.concatenate([FINGER_BASES + 1, FINGER_BASES + 2, [3]])
    assert not angles[:, only_flexion][..., [TWIST, ABDUCTION]].any(), "hinges"
    assert not angles[:, 0].any(), "the wrist is turned by the view"
    assert angles[:, FOREARM, FLEXION].std() > 20


def test_bent_fingers_do_not_spread(angles: Array) -> None:
    bent = angles[:, FINGER_BASES, FLEXION] > 70
    spread = abs(angles[:, FINGER_BASES, ABDUCTION])

    assert np.quantile(spread[bent], 0.99) < 0.7 * np.quantile(spread[~bent], 0.99)


def test_noise_is_correlated_as_tendons_are() -> None:
    half = np.zeros((6000, PIVOT_COUNT, 3))
    half[:, 4:16, FLEXION] = 0.7

    noise = add_noise(np.random.default_rng(0), half, np.ones(len(half))) - half

    base, middle, end = (np.rad2deg(noise[:, FINGER_BASES + k, FLEXION]) for k in range(3))
    assert np.corrcoef(middle[:, 1], end[:, 1])[0, 1] > 0.75, "PIP and DIP bend together"
    near, far = (np.corrcoef(middle[:, 0], middle[:, k])[0, 1] for k in (1, 3))
    assert near > far > 0.3, "fingers follow their neighbours"
    assert (end.std() / middle.std()) == pytest.approx(0.75, abs=0.15)
    assert base.std() == pytest.approx(np.hypot(0.8 * np.hypot(4, 4.5), 3), rel=0.05)
    np.testing.assert_array_equal(add_noise(np.random.default_rng(0), half, np.zeros(6000)), half)


def test_kinds_come_in_their_shares() -> None:
    library = default_library()
    chosen = choose_gestures(np.random.default_rng(0), library, 40_000)

    assert sum(KIND_SHARES.values()) == pytest.approx(1)
    kinds = np.array(library.kinds)[chosen]
    for kind, share in KIND_SHARES.items():
        assert (kinds == kind).mean() == pytest.approx(share, abs=0.015)
    assert len(np.unique(chosen)) > 0.8 * len(library), "every gesture has its turn"


def test_rejection_leaves_the_shares(hand_model: HandModel) -> None:
    drawn = draw_poses(np.random.default_rng(2), hand_model, 1500)
    library = default_library()

    named = drawn.gesture != FREE_GESTURE
    assert named.mean() == pytest.approx(SHARES["gesture"], abs=0.05)
    kinds = np.array(library.kinds)[drawn.gesture[named]]
    # Fists touch themselves all over: a plain rejection would lose most of them.
    for kind in ("fist", "near_fist", "pinch"):
        assert (kinds == kind).mean() == pytest.approx(KIND_SHARES[kind], abs=0.035)


def test_named_hands_look_like_their_gesture(hand_model: HandModel) -> None:
    drawn = draw_poses(np.random.default_rng(3), hand_model, 300)
    library = torch.from_numpy(default_library().angles)
    named = np.flatnonzero(drawn.gesture != FREE_GESTURE)

    off = drawn.angles[named] - library[drawn.gesture[named]]

    degrees = np.rad2deg(off[:, 4:16, FLEXION].abs().numpy())
    assert 1 < np.median(degrees) < 8
    assert degrees.max() < 50


def test_drawn_hands_pass_and_many_others_do_not(
    hand_model: HandModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    capsules = capsules_of(hand_model)
    drawn = draw_poses(np.random.default_rng(4), hand_model, 400)

    passed = ~self_collides(
        hand_model, capsules, drawn.angles.double().numpy(), drawn.shape.double().numpy()
    )
    assert passed.mean() > 0.99

    monkeypatch.setattr(poses, "self_collides", lambda *a: np.zeros(len(a[2]), dtype=bool))
    tried = draw_poses(np.random.default_rng(5), hand_model, 400)  # the first draw of each
    refused = self_collides(
        hand_model, capsules, tried.angles.double().numpy(), tried.shape.double().numpy()
    )
    assert 0.1 < refused.mean() < 0.7


def test_every_gesture_passes_on_the_template(hand_model: HandModel) -> None:
    library = default_library()
    shape = np.zeros((len(library), hand_model.shape_count))

    hits = self_collides(
        hand_model, capsules_of(hand_model), library.angles.astype(np.float64), shape
    )

    assert not hits.any()


def test_the_same_generator_gives_the_same_poses(hand_model: HandModel) -> None:
    one, two, other = (
        draw_poses(np.random.default_rng(seed), hand_model, 20) for seed in (3, 3, 4)
    )

    torch.testing.assert_close(one.angles, two.angles, rtol=0, atol=0)
    torch.testing.assert_close(one.shape, two.shape, rtol=0, atol=0)
    np.testing.assert_array_equal(one.gesture, two.gesture)
    assert not torch.equal(one.angles, other.angles)


def test_drawing_ends_even_if_all_collide(
    hand_model: HandModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poses, "self_collides", lambda *a: np.ones(len(a[2]), dtype=bool))

    drawn = draw_poses(np.random.default_rng(0), hand_model, 30)

    library = torch.from_numpy(default_library().angles)
    fingers = slice(1, FOREARM)
    torch.testing.assert_close(
        drawn.angles[:, fingers], library[drawn.gesture][:, fingers], atol=1e-3, rtol=0
    )
    usual = torch.from_numpy(usual_shape(hand_model)).float()
    torch.testing.assert_close(drawn.shape, usual.expand_as(drawn.shape))


def test_drawing_is_quick(hand_model: HandModel) -> None:
    rng = np.random.default_rng(0)
    draw_poses(rng, hand_model, 256)
    spent = []
    for _ in range(5):
        start = time.process_time()
        draw_poses(rng, hand_model, 256)
        spent.append((time.process_time() - start) / 256)

    assert min(spent) < 0.5e-3


def test_shapes_are_those_of_people(hand_model: HandModel) -> None:
    shapes = sample_shapes(np.random.default_rng(0), hand_model, 2000)

    names = hand_model.shape_names
    assert shapes.shape == (2000, len(names))
    assert not shapes[:, names.index("height")].any(), "height alone changes no hand"
    spread = shapes.std(axis=0)
    reach = 0.5 * np.ptp(shapes, axis=0)
    assert reach == pytest.approx(2 * spread / 0.959, rel=0.06)  # cut at 2 sigma
    assert np.delete(spread, names.index("height")).min() > 0.2
    assert shapes.mean(axis=0) == pytest.approx(usual_shape(hand_model), abs=0.06)
    spreads = {"thumb_girth": 0.6, "little_girth": 0.4, "thumb_ball": 1.0, "first_web": 0.8}
    for name, expected in spreads.items():
        assert spread[names.index(name)] == pytest.approx(0.959 * expected, rel=0.05), name
    # The template has slender fingers and wrists, and little flesh between thumb and hand.
    for name in ("finger_diameter", "thumb_ball", "thumb_girth", "first_web", "wrist_girth"):
        assert usual_shape(hand_model)[names.index(name)] > 0.3


def test_wrists_are_as_thick_as_those_of_people(hand_model: HandModel) -> None:
    """Girth over length of the hand: 172 mm of 196 for men, 151 of 177 for women.

    Girths after Heinz et al., 2003; lengths of 1,950 truck drivers after Guan et al., Human Factors
    54(5), 2012.
    """
    shapes = torch.from_numpy(sample_shapes(np.random.default_rng(0), hand_model, 100)).float()
    flat = hand_model.rotations(torch.zeros(len(shapes), PIVOT_COUNT, 3))
    with torch.no_grad():
        vertices = hand_model(shapes, flat).vertices.numpy()
        joints = hand_model.pose_joints(shapes, flat).numpy()
    ratios = []
    for skin, chain in zip(vertices, joints[:, [0, 9, 10, 11, 12]], strict=True):
        along = (chain[1] - chain[0]) / np.linalg.norm(chain[1] - chain[0])
        place = (skin - chain[0]) @ along
        across = np.linalg.svd(np.outer(along, along) - np.eye(3))[0][:, :2]  # (3, 2), a plane
        girths = [
            cv2.arcLength(cv2.convexHull((skin[near] @ across).astype(np.float32)), closed=True)
            for near in (np.abs(place - at) < 0.008 for at in (-0.03, -0.02, -0.01, 0.0))
        ]
        ratios.append(min(girths) / np.linalg.norm(np.diff(chain, axis=0), axis=1).sum())

    assert 0.8 < np.mean(ratios) < 0.93
    assert np.quantile(ratios, 0.05) > 0.65


def test_the_usual_hand_makes_the_librarys_gestures(hand_model: HandModel) -> None:
    angles = default_library().angles.astype(np.float64)
    shapes = np.repeat(usual_shape(hand_model)[None], len(angles), axis=0)
    collide = self_collides(hand_model, capsules_of(hand_model), angles, shapes)
    assert collide.mean() < 0.005


def test_drawn_hands_run_into_themselves_within_bounds(hand_model: HandModel) -> None:
    """Of all their girth, nothing pressed flat: what is drawn."""
    drawn = draw_poses(np.random.default_rng(0), hand_model, 2000)
    bones = hand_model.pose_bones(drawn.shape, hand_model.rotations(drawn.angles))
    with torch.no_grad():
        deepest = capsules_of(hand_model).overlaps(drawn.shape, *bones).amax(dim=1).numpy()
    assert (deepest > 0.005).mean() < 0.1
    assert np.quantile(deepest, 0.99) < 0.009


# Of 943 firefighters, means of the sexes: breadth at the thumb's last joint and at the fingers'
# first over the length of the hand (Hsiao et al., 2015). Other people's are a little less.
BREADTHS = {"thumb": 0.1206, "index": 0.1135, "middle": 0.1122, "ring": 0.1080, "little": 0.0980}


def test_fingers_are_as_thick_as_those_of_people(hand_model: HandModel) -> None:
    shapes = np.stack([usual_shape(hand_model), np.zeros(hand_model.shape_count)])
    with torch.no_grad():
        posed = hand_model(
            torch.from_numpy(shapes).float(), hand_model.rotations(torch.zeros(2, PIVOT_COUNT, 3))
        )
    for skin, joints, least, most in zip(
        posed.vertices.numpy(), posed.joints.numpy(), (0.93, 0.7), (1.03, 0.95), strict=True
    ):
        length = np.linalg.norm(np.diff(joints[[0, 9, 10, 11, 12]], axis=0), axis=1).sum()
        for finger, (name, usual) in enumerate(BREADTHS.items()):
            knuckle = 3 if finger == 0 else 2 + 4 * finger  # thumb IP, finger PIP
            bones = hand_model.asset.weights[:, 1 + 3 * finger : 4 + 3 * finger].sum(axis=1) > 0.5
            share = _breadth(skin[bones], joints[knuckle - 1], joints[knuckle]) / length
            assert least < share / usual < most, name  # the usual hand, the slender template


def _breadth(skin: Array, before: Array, knuckle: Array) -> float:
    """Metres, the widest way across a bone about its end."""
    along = (knuckle - before) / np.linalg.norm(knuckle - before)
    near = skin[np.abs((skin - knuckle) @ along) < 0.006]
    plane = np.linalg.svd(np.outer(along, along) - np.eye(3))[0][:, :2]  # (3, 2)
    turns = np.linspace(0, np.pi, 60, endpoint=False)
    return float(np.ptp(near @ plane @ [np.cos(turns), np.sin(turns)], axis=0).max())


@pytest.mark.parametrize("name", ["finger_diameter", "thumb_girth", "thumb_ball"])
def test_closed_hands_are_as_thick_as_open_ones(hand_model: HandModel, name: str) -> None:
    drawn = draw_poses(np.random.default_rng(0), hand_model, 4000)
    kinds = np.array([*default_library().kinds, "free"])[drawn.gesture]
    thickness = drawn.shape[:, hand_model.shape_names.index(name)].numpy()
    closed = thickness[np.isin(kinds, ["fist", "near_fist", "thumb_before"])]
    opened = thickness[np.isin(kinds, ["open", "flat"])]

    assert closed.mean() > opened.mean() - 0.1
    assert np.quantile(closed, 0.95) > 0.75 * np.quantile(opened, 0.95)
