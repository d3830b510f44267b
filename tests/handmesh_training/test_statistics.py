"""What samples cover: angles, views and tones on hands whose answer is known."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from handmesh.cli import main
from handmesh.errors import InputError
from handmesh_training import statistics
from handmesh_training.rendered import HandRenderer, RenderSettings
from handmesh_training.rendering.skins import skin_tones
from handmesh_training.statistics import CELLS, cell_counts, cover, summary
from handmesh_training.tones import nearest_monk

pytestmark = pytest.mark.usefixtures("quick_surroundings")


def flat_hand() -> np.ndarray:
    """(21, 3) a right hand in the camera frame: palm to the viewer, fingers up, thumb right."""
    joints = np.zeros((21, 3))
    for finger in range(5):
        across = (0.04, 0.025, 0.0, -0.02, -0.04)[finger]
        for k in range(4):
            joints[1 + 4 * finger + k] = (across, -0.08 - 0.03 * k, 0)
    return joints


def turned(joints: np.ndarray, axis: int, degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[a, a] = matrix[b, b] = np.cos(angle)
    matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
    return joints @ matrix.T


def before_the_camera(joints: np.ndarray) -> np.ndarray:
    return (joints - joints.mean(axis=0) + [0, 0, 0.5])[None]


@pytest.mark.parametrize(
    ("axis", "degrees", "view"),
    [
        (0, 0, (0, 0)),  # the palm
        (1, 180, (180, 0)),  # the back
        (1, 90, (90, 0)),  # the thumb comes to the front
        (1, -90, (-90, 0)),
        (0, 50, (0, 50)),  # the finger tips come to the front
        (0, -50, (0, -50)),
    ],
)
def test_views_are_told_as_the_hand_sees_them(
    axis: int, degrees: float, view: tuple[float, float]
) -> None:
    found = statistics._directions(before_the_camera(turned(flat_hand(), axis, degrees)))[0]
    assert found[1] == pytest.approx(view[1], abs=1e-6)
    assert (found[0] - view[0] + 180) % 360 - 180 == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("degrees", [-120, -30, 0, 45, 170])
def test_rolls_go_clockwise(degrees: float) -> None:
    """About the camera's axis, which points away: clockwise as the viewer sees it."""
    joints = before_the_camera(turned(flat_hand(), 2, degrees))
    middle = (joints[:, 9] - joints[:, 0])[0]
    assert statistics._rolls(joints)[0] == pytest.approx(
        np.rad2deg(np.arctan2(middle[0], -middle[1])), abs=1e-6
    )
    assert statistics._rolls(joints)[0] == pytest.approx(degrees, abs=1e-6)


def test_bends_are_angles_between_bones() -> None:
    joints = flat_hand()
    joints[8] = joints[7] + turned(np.array([0, -0.03, 0]), 0, 70)  # the index finger's end
    bends = statistics._bends(before_the_camera(joints))[0]

    assert bends[1, 2] == pytest.approx(70)
    assert bends[2].tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert bends[1, 1] == pytest.approx(0, abs=1e-5)
    assert statistics._lengths(joints[None])[0] == pytest.approx(0.08 + 0.09)


def test_cells_are_of_equal_area() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(288 * 200, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    view = np.rad2deg(
        np.stack([np.arctan2(points[:, 0], points[:, 2]), np.arcsin(points[:, 1])], axis=1)
    )
    counts = cell_counts(view)
    assert counts.shape == CELLS
    assert counts.sum() == len(points)
    # Poisson: six standard deviations about 200.
    assert 200 - 85 < counts.min() < counts.max() < 200 + 85


def test_the_nearest_tone_of_a_tone_is_itself() -> None:
    tones = skin_tones().astype(np.float64)
    assert nearest_monk(tones).tolist() == list(range(1, 11))
    assert nearest_monk(tones * 1.03).tolist() == list(range(1, 11))
    assert nearest_monk(np.array([[0.001, 0.001, 0.001]])).tolist() == [10]


def test_lab_is_cies() -> None:
    """sRGB's red and blue, after Lindbloom's calculator."""
    from handmesh_training.tones import _lab

    found = _lab(np.array([[1.0, 0, 0], [0, 0, 1.0], [1, 1, 1]]))
    expected = [[53.24, 80.09, 67.20], [32.30, 79.19, -107.86], [100, 0, 0]]
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_coverage_of_samples_is_that_of_their_labels() -> None:
    renderer = HandRenderer(RenderSettings(crop_px=32, empty=0.3), seed=1)
    coverage = cover(renderer, 150)
    views = renderer.draw(range(150)).views
    seen = views.in_view

    assert len(coverage) == seen.sum()
    assert coverage.empty_share == pytest.approx(1 - seen.mean())
    np.testing.assert_array_equal(coverage.gesture, views.gesture[seen])
    tones = [record.skin_tone for record in renderer.records(range(20)) if record.has_hand]
    assert coverage.skin_tone[: len(tones)].tolist() == tones
    middle = views.joints_m[seen].mean(axis=1).astype(np.float64)
    np.testing.assert_allclose(coverage.distance_m, np.linalg.norm(middle, axis=1), rtol=1e-5)
    # A crop's edges are half a field of view off its middle.
    width = 32 / views.intrinsics[seen, 0]
    np.testing.assert_allclose(np.tan(np.deg2rad(coverage.crop_fov_deg / 2)), width / 2, rtol=1e-5)
    figures = summary(coverage)
    assert sum(figures["monk_tones"]) == figures["hands"] == len(coverage)
    assert figures["percentiles"]["distance_m"]["50"] == pytest.approx(
        float(np.median(coverage.distance_m)), abs=1e-4
    )
    with pytest.raises(InputError, match="at least one"):
        cover(renderer, 0)
    with pytest.raises(InputError, match="no sample shows a hand"):
        cover(HandRenderer(RenderSettings(empty=1.0), seed=1), 3)


def test_the_command_plots_without_rendering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    monkeypatch.setattr(HandRenderer, "render", lambda *_: pytest.fail("nothing is rendered"))
    out = tmp_path / "cover.png"
    assert main(["render", "--statistics", str(out), "--count", "70"]) == 0
    picture = cv2.imread(str(out))
    assert picture is not None
    assert picture.std() > 20
    assert 60 <= json.loads((tmp_path / "cover.json").read_text())["hands"] <= 70
    assert main(["render", "--statistics", str(tmp_path / "a.json")]) == 2
