"""Flesh between thumb and hand: where it grows, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from handmesh_training.flesh import BALL_M, FLESH_NAMES, WEB_M
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
    # Finger tips, the other fingers, the wrist and the arm do not know of it.
    weights = model.asset.weights
    others = weights[:, 7:].sum(axis=1) > 0.5  # middle, ring and little finger, forearm
    ends = weights[:, [3, 6]].sum(axis=1) > 0.5  # the last bones of thumb and index finger
    assert moved[others | ends].max() < 0.6e-3
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


def signed_volume(vertices: NDArray, faces: NDArray) -> float:
    return float(np.linalg.det(vertices[faces]).sum() / 6)


@pytest.mark.parametrize("name", FLESH_NAMES)
@pytest.mark.parametrize("amount", [-0.6, 2.0])
def test_no_skin_tears_or_turns_inside_out(model: HandModel, name: str, amount: float) -> None:
    """At the ends of what is drawn."""
    vertices, _ = grown(model, name, amount)
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
