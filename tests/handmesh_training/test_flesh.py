"""Flesh between thumb and hand: where it grows, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from handmesh_training.flesh import BALL_M, FLESH_NAMES, GIRTH_M, WEB_M
from handmesh_training.hand import PIVOT_COUNT, HandModel


@pytest.fixture(scope="module")
def model() -> HandModel:
    return HandModel().double()


def grown(model: HandModel, name: str, amount: float = 1.0) -> tuple[NDArray, NDArray]:
    """Vertices and joints at rest, one hand as the template and one with this much flesh."""
    shape = torch.zeros(2, model.shape_count, dtype=torch.float64)
    shape[1, model.shape_names.index(name)] = amount
    angles = torch.zeros(2, PIVOT_COUNT, 3, dtype=torch.float64)
    angles[..., 2] = model.rest_flexion
    posed = model(shape, model.rotations(angles))
    return posed.vertices.numpy(), posed.joints.numpy()


@pytest.mark.parametrize(("name", "most"), [("thumb_ball", BALL_M), ("first_web", WEB_M)])
def test_flesh_grows_between_thumb_and_hand_alone(model: HandModel, name: str, most: float) -> None:
    vertices, joints = grown(model, name)
    moved = np.linalg.norm(vertices[1] - vertices[0], axis=1)
    assert 0.7 * most < moved.max() <= most * (1 + 1e-6)
    np.testing.assert_array_equal(joints[1], joints[0])
    # The ends of both, the other fingers and the arm do not know of it, nor the palm's other edge.
    weights = model.asset.weights
    others = weights[:, 7:].sum(axis=1) > 0.5  # middle, ring and little finger, forearm
    ends = weights[:, [3, 6]].sum(axis=1) > 0.5  # the last bones of thumb and index finger
    assert moved[others | ends].max() < 0.6e-3
    far = np.linalg.norm(vertices[0] - joints[0, 17], axis=1) < 0.03
    assert moved[far].max() < 0.1e-3
    # It is the thumb's side that grows: nearer to its knuckle than to the little finger's.
    skin = vertices[0][moved > 0.5 * most]
    to_thumb = np.linalg.norm(skin - joints[0, 2], axis=1)
    to_little = np.linalg.norm(skin - joints[0, 17], axis=1)
    assert len(skin) >= 8
    assert (to_thumb < to_little).all()


def test_the_ball_is_thicker_and_the_web_reaches_further(model: HandModel) -> None:
    vertices, joints = grown(model, "thumb_ball")
    volumes = [signed_volume(v, model.asset.faces) for v in vertices]
    assert 1e-6 < volumes[1] - volumes[0] < 15e-6, "some millilitres"

    vertices, joints = grown(model, "first_web")
    fold = np.linalg.norm(vertices[0] - 0.5 * (joints[0, 2] + joints[0, 5]), axis=1) < 0.012
    away = vertices[:, fold] - joints[0, 0]
    assert (np.linalg.norm(away[1], axis=1) >= np.linalg.norm(away[0], axis=1) - 1e-9).all()
    assert np.linalg.norm(vertices[1, fold] - vertices[0, fold], axis=1).mean() > 0.4 * WEB_M


def test_the_edge_of_the_web_moves_more_than_its_sides(model: HandModel) -> None:
    """What looks to palm and back follows the fold by the share that keeps the skin whole."""
    vertices, joints = grown(model, "first_web")
    thumb, hand = joints[0, 2] - joints[0, 1], joints[0, 5] - joints[0, 0]
    outward = thumb / np.linalg.norm(thumb) + hand / np.linalg.norm(hand)
    outward /= np.linalg.norm(outward)
    corners = vertices[0][model.asset.faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(vertices[0])
    for k in range(3):
        np.add.at(normals, model.asset.faces[:, k], across)
    looks = normals @ outward / np.linalg.norm(normals, axis=1)
    moved = np.linalg.norm(vertices[1] - vertices[0], axis=1) / WEB_M
    assert moved[looks > 0.7].max() > 0.7
    assert (moved <= np.clip(looks + 0.3, 0, 1) + 1e-6).all()


@pytest.mark.parametrize(("name", "finger"), [("thumb_girth", 0), ("little_girth", 4)])
def test_a_finger_grows_thicker_and_no_longer(model: HandModel, name: str, finger: int) -> None:
    vertices, joints = grown(model, name)
    np.testing.assert_array_equal(joints[1], joints[0])
    moved = vertices[1] - vertices[0]
    bones = slice(1 + 3 * finger, 4 + 3 * finger)
    own = model.asset.weights[:, bones].sum(axis=1)
    assert np.linalg.norm(moved[own < 0.01], axis=1).max() < 0.05 * GIRTH_M
    # Every bone's skin moves, that of the palm's end of the first bone the least.
    for pivot in range(2 if finger == 0 else 1 + 3 * finger, 4 + 3 * finger):
        on_bone = model.asset.weights[:, pivot] > 0.9
        assert np.median(np.linalg.norm(moved[on_bone], axis=1)) > 0.6 * GIRTH_M, pivot
    # Away from the bone between the last two joints by that much, all around, and not along it.
    start, end = joints[0, 3 + 4 * finger], joints[0, 4 + 4 * finger]
    along = (end - start) / np.linalg.norm(end - start)
    place = (vertices[0] - start) @ along
    last = (own > 0.99) & (place > 0) & (place < np.linalg.norm(end - start) - 0.004)
    radii = [
        np.linalg.norm(v - start - ((v - start) @ along)[:, None] * along, axis=1) for v in vertices
    ]
    assert last.sum() >= 20
    thicker = (radii[1] - radii[0])[last] / GIRTH_M
    assert np.median(thicker) == pytest.approx(1, abs=0.05)
    assert thicker.min() > 0.3, "what lies close to the bone, as at the dome, moves less"
    assert np.abs(moved[last] @ along).max() < 0.15 * GIRTH_M
    assert ((vertices[1] - start) @ along)[own > 0.5].max() < place[own > 0.5].max() + 0.1e-3


def test_where_the_web_moves_the_thumb_hardly_thickens(model: HandModel) -> None:
    web, _ = grown(model, "first_web")
    thumb, _ = grown(model, "thumb_girth")
    moved = [np.linalg.norm(v[1] - v[0], axis=1) for v in (web, thumb)]
    fold = moved[0] > 0.6 * WEB_M
    assert fold.sum() >= 4
    assert (moved[1][fold] <= GIRTH_M * (1 - moved[0][fold] / WEB_M) + 1e-9).all()


def signed_volume(vertices: NDArray, faces: NDArray) -> float:
    return float(np.linalg.det(vertices[faces]).sum() / 6)


@pytest.mark.parametrize("amounts", [
    (-0.6, 0, 0, 0), (2.2, 0, 0, 0), (0, -0.4, 0, 0), (0, 2.0, 0, 0), (0, 0, -0.4, 0),
    (0, 0, 2.0, 0), (0, 0, 0, 1.8), (-0.6, -0.4, -0.4, 0.2), (1.8, 1.5, 2.0, 1.8),
])  # fmt: skip
def test_no_skin_tears_or_turns_inside_out(model: HandModel, amounts: tuple[float, ...]) -> None:
    """At the ends of what is drawn, each alone and nearly so together. Two in a thousand hands
    have ball, web and thumb so full that a face of the web turns over, or three.
    """
    vertices = grown(model, FLESH_NAMES[0], 0.0)[0]
    for name, amount in zip(FLESH_NAMES, amounts, strict=True):
        vertices[1] += grown(model, name, amount)[0][1] - vertices[0]
    faces = model.asset.faces
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    spans = np.linalg.norm(vertices[:, edges[:, 0]] - vertices[:, edges[:, 1]], axis=2)
    assert (spans[1] / spans[0]).min() > 0.4
    assert (spans[1] / spans[0]).max() < 2.5
    corners = vertices[:, faces]  # (2, F, 3, 3)
    across = np.cross(
        corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :]
    )
    across /= np.linalg.norm(across, axis=-1, keepdims=True)
    assert (across[0] * across[1]).sum(axis=-1).min() > 0, "a face turned by more than 90 degrees"
