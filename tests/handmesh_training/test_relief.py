"""The random field by which drawn skin rises and falls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from handmesh.geometry import vertex_normals
from handmesh.graph import Topology
from handmesh_training import relief
from handmesh_training.hand import PIVOT_COUNT, HandModel
from handmesh_training.relief import LONGEST_M, SHORTEST_M, STEEPEST, sample_relief
from handmesh_training.sampling import sample_views

HANDS = 200


def test_fields_are_as_steep_as_they_should_be() -> None:
    """Slopes by finite differences, in all three directions of space."""
    rng = np.random.default_rng(0)
    points, step = rng.uniform(-0.1, 0.1, (300, 3)), 1e-5
    moved = [points + step * axis for axis in np.eye(3)]
    heights = sample_relief(rng, np.concatenate([points, *moved]), HANDS).double().numpy()
    here, *there = np.split(heights, 4, axis=1)  # (HANDS, 300) each
    slopes = np.sqrt(sum(((h - here) / step) ** 2 for h in there).mean(axis=1))
    assert slopes.max() < 1.1 * STEEPEST
    # From smooth skin to the steepest, evenly.
    np.testing.assert_allclose(slopes.mean(), STEEPEST / 2, rtol=0.15)
    np.testing.assert_allclose(np.quantile(slopes, 0.25), STEEPEST / 4, rtol=0.25)


def test_fields_are_odd_about_no_point() -> None:
    """Waves start anywhere: at the template's wrist skin is as high or low as elsewhere."""
    rng = np.random.default_rng(4)
    heights = sample_relief(rng, np.array([[0.0, 0.0, 0.0], [0.05, 0.08, 0.03]]), 1000).numpy()
    wrist, elsewhere = heights.std(axis=0)
    assert wrist == pytest.approx(elsewhere, rel=0.15)


def test_few_triangles_turn_over(hand_model: HandModel) -> None:
    """In creases alone, where normals meet."""
    asset = hand_model.asset
    relief_m = sample_relief(np.random.default_rng(5), asset.vertices_m, 64)
    smooth = hand_model.vertices[None].expand(64, -1, -1)
    raised = smooth + relief_m[..., None] * hand_model.normals
    subset, faces = asset.template_subset, Topology.default().faces
    before, after = (_face_normals(x[:, subset].numpy(), faces) for x in (smooth, raised))
    turned = (before * after).sum(axis=-1) < 0
    assert turned.mean() < 2e-3


def _face_normals(points: NDArray[np.float32], faces: NDArray[np.int32]) -> NDArray[np.float32]:
    """(B, F, 3), as long as twice the triangles' areas."""
    a, b, c = (points[:, faces[:, k]] for k in range(3))
    return np.cross(b - a, c - a)


def test_fields_are_smooth_and_differ_from_hand_to_hand() -> None:
    rng = np.random.default_rng(1)
    line = np.linspace(0, 8 * LONGEST_M, 4096)[:, None] * [1.0, 0.0, 0.0]
    heights = sample_relief(rng, line, HANDS).double().numpy()
    power = (np.abs(np.fft.rfft(heights * np.hanning(len(line)))) ** 2).sum(axis=0)
    waves_a_metre = np.fft.rfftfreq(len(line), line[1, 0])
    assert power[waves_a_metre > 1.1 / SHORTEST_M].sum() < 1e-3 * power.sum()
    assert np.abs(np.corrcoef(heights) - np.eye(HANDS)).mean() < 0.35
    # Millimetres at the most.
    assert 0.1e-3 < np.abs(heights).mean() < 1e-3
    assert np.abs(heights).max() < 6e-3


@pytest.mark.parametrize("blending", ["dual_quaternion", "linear"])
def test_skin_stands_out_along_its_normals_and_joints_stay(blending: str) -> None:
    model = HandModel(blending=blending).double()
    asset = model.asset
    out = torch.from_numpy(np.random.default_rng(2).normal(0, 1e-3, (1, len(asset.vertices_m))))
    shape = torch.zeros(1, model.shape_count, dtype=torch.float64)
    angles = torch.zeros(1, PIVOT_COUNT, 3, dtype=torch.float64)
    angles[..., 2] = model.rest_flexion
    plain, raised = (model(shape, model.rotations(angles), r) for r in (None, out))
    np.testing.assert_array_equal(raised.joints, plain.joints)
    normals = vertex_normals(plain.vertices[0].numpy(), asset.faces)
    moved = (raised.vertices - plain.vertices)[0].numpy()
    np.testing.assert_allclose(moved, out[0].numpy()[:, None] * normals, atol=1e-8)


def test_drawn_hands_have_relief_and_their_labels_with_them(
    hand_model: HandModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sample_views(np.random.default_rng(3), hand_model, 16, 160, 1.9)
    monkeypatch.setattr(relief, "STEEPEST", 0.0)
    smooth = sample_views(np.random.default_rng(3), hand_model, 16, 160, 1.9)
    np.testing.assert_array_equal(made.joints_m, smooth.joints_m)
    off = np.linalg.norm(made.vertices_m - smooth.vertices_m, axis=-1)
    off = off[:, hand_model.asset.template_subset]  # (16, V_t)
    assert 0.1e-3 < off.mean() < 1e-3
    assert (np.linalg.norm(made.vertices - smooth.vertices, axis=-1).mean(axis=1) > 0).all()
