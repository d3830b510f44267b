"""Metrics against cases worked out by hand, closed forms and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.transform import Rotation

from handmesh_training.metrics import (
    auc,
    box_normalised_error,
    mean_distance,
    pck,
    procrustes_align,
    procrustes_error,
    root_aligned_error,
)

Array = NDArray[np.float64]


def clouds(seed: int, noise: float = 0.3) -> tuple[Array, Array]:
    """Six hands (6, 21, 3), and the same turned, scaled, shifted and disturbed."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(6, 21, 3))
    turns = Rotation.random(6, random_state=seed).as_matrix()
    scale, shift = rng.uniform(0.2, 5, (6, 1, 1)), rng.normal(size=(6, 1, 3))
    moved = scale * truth @ turns.transpose(0, 2, 1) + shift
    return moved + noise * scale * rng.normal(size=truth.shape), truth


def test_mean_distance() -> None:
    a = [[[0, 0, 0], [1, 1, 1]], [[3, 4, 0], [0, 0, 0]]]
    b = [[[0, 0, 0], [1, 1, 3]], [[0, 0, 0], [0, 0, 12]]]

    np.testing.assert_array_equal(mean_distance(a, b), [1.0, 8.5])


def test_arithmetic_is_in_float64() -> None:
    a = np.full((1, 1, 3), 1000.0, dtype=np.float16)
    b = np.full((1, 1, 3), 400.0, dtype=np.float16)  # the square of the difference overflows

    assert mean_distance(a, b)[0] == pytest.approx(600 * np.sqrt(3))


def test_root_alignment_forgives_a_shift_and_nothing_else() -> None:
    _, truth = clouds(0)

    np.testing.assert_allclose(root_aligned_error(truth + [1.0, -2.0, 3.0], truth), 0, atol=1e-12)
    scaled = root_aligned_error(2 * truth, truth)
    expected = np.linalg.norm(truth - truth[:, :1], axis=-1).mean(axis=1)
    np.testing.assert_allclose(scaled, expected)
    # Aligned at another root it is another figure.
    moved = truth.copy()
    moved[:, 0] += 1.0
    np.testing.assert_allclose(root_aligned_error(moved, truth, root=5), np.sqrt(3) / 21)
    np.testing.assert_allclose(root_aligned_error(moved, truth), 20 * np.sqrt(3) / 21)


@pytest.mark.parametrize("seed", range(3))
def test_procrustes_undoes_every_similarity(seed: int) -> None:
    moved, truth = clouds(seed, noise=0.0)

    np.testing.assert_allclose(procrustes_align(moved, truth), truth, atol=1e-12)
    np.testing.assert_allclose(procrustes_error(moved, truth), 0, atol=1e-12)


def aligned_by_scipy(moved: Array, truth: Array) -> Array:
    a, b = moved - moved.mean(axis=0), truth - truth.mean(axis=0)
    rotation, _ = Rotation.align_vectors(b, a)  # never a reflection
    turned = rotation.apply(a)
    return (turned * b).sum() / (a**2).sum() * turned + truth.mean(axis=0)


@pytest.mark.parametrize("seed", range(3))
def test_procrustes_is_scipy_s(seed: int) -> None:
    moved, truth = clouds(seed)

    found = procrustes_align(moved, truth)

    for k in range(len(truth)):
        np.testing.assert_allclose(found[k], aligned_by_scipy(moved[k], truth[k]), atol=1e-6)
        a, b = moved[k] - moved[k].mean(axis=0), truth[k] - truth[k].mean(axis=0)
        matrix, trace = orthogonal_procrustes(a, b)
        if np.linalg.det(matrix) > 0:
            expected = trace / (a**2).sum() * a @ matrix + truth[k].mean(axis=0)
            np.testing.assert_allclose(found[k], expected, atol=1e-9)


def test_procrustes_is_the_least_squares_optimum() -> None:
    moved, truth = clouds(1)
    best = ((procrustes_align(moved, truth) - truth) ** 2).sum(axis=(1, 2))

    fitted = procrustes_align(moved, truth)
    centre = fitted.mean(axis=1, keepdims=True)
    rng = np.random.default_rng(0)
    for _ in range(50):
        turn = Rotation.from_rotvec(rng.normal(0, 0.05, 3)).as_matrix()
        scale, shift = np.exp(rng.normal(0, 0.05)), rng.normal(0, 0.05, 3)
        other = scale * (fitted - centre) @ turn.T + centre + shift
        assert (((other - truth) ** 2).sum(axis=(1, 2)) > best).all()


def test_procrustes_does_not_mirror() -> None:
    _, truth = clouds(2)
    mirrored = truth * [-1, 1, 1]

    found = procrustes_align(mirrored, truth)

    assert (procrustes_error(mirrored, truth) > 0.3).all(), "a left hand is no right hand"
    for k in range(len(truth)):
        np.testing.assert_allclose(found[k], aligned_by_scipy(mirrored[k], truth[k]), atol=1e-6)
        a = mirrored[k] - mirrored[k].mean(axis=0)
        b = found[k] - found[k].mean(axis=0)
        assert np.linalg.det(np.linalg.lstsq(a, b, rcond=None)[0]) > 0


def test_procrustes_of_degenerate_points_is_finite() -> None:
    _, truth = clouds(3)
    flat, line, point = truth * [1, 1, 0], truth * [1, 0, 0], truth * 0

    np.testing.assert_allclose(procrustes_align(2 * flat, flat), flat, atol=1e-12)
    for degenerate in (line, point):
        assert np.isfinite(procrustes_error(degenerate, truth)).all()
        assert np.isfinite(procrustes_error(truth, degenerate)).all()
    expected = np.linalg.norm(truth - truth.mean(axis=1, keepdims=True), axis=-1).mean(axis=1)
    np.testing.assert_allclose(procrustes_error(point, truth), expected)


def test_box_normalised_error() -> None:
    truth = np.array([[[10.0, 0.0], [30.0, 10.0]], [[0.0, 0.0], [1.0, 50.0]]])
    found = truth + [[[3.0, 4.0], [0.0, 0.0]], [[0.0, 5.0], [0.0, -5.0]]]

    np.testing.assert_allclose(box_normalised_error(found, truth), [2.5 / 20, 5 / 50])
    # The size of the picture does not matter, nor that of the prediction.
    np.testing.assert_allclose(
        box_normalised_error(3 * found, 3 * truth), box_normalised_error(found, truth)
    )


def test_pck() -> None:
    np.testing.assert_array_equal(
        pck([[1.0, 2.0], [3.0, 4.0]], [0.0, 1.0, 2.5, 4.0]), [0.0, 0.25, 0.5, 1.0]
    )


def test_auc_closed_forms() -> None:
    assert auc([0.0, 1.0], 20, 50) == 1
    assert auc([60.0, 70.0], 20, 50) == 0
    assert auc([10.0, 60.0], 20, 50) == pytest.approx(0.5)
    # One error e between the ends: the share of thresholds above it.
    assert auc([29.0], 20, 50) == pytest.approx(21 / 30, abs=0.01)
    assert auc([29.0], 20, 50, steps=10_000) == pytest.approx(21 / 30, abs=1e-4)
    # Errors spread evenly: half. Errors like sqrt of that (density 2x): a third.
    even = np.linspace(0, 1, 10_001)
    assert auc(even, 0, 1) == pytest.approx(1 / 2, abs=1e-3)
    assert auc(np.sqrt(even), 0, 1, steps=1000) == pytest.approx(1 / 3, abs=1e-3)
