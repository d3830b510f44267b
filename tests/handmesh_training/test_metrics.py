"""Metrics against cases worked out by hand, closed forms and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import orthogonal_procrustes
from scipy.spatial import procrustes
from scipy.spatial.transform import Rotation

from handmesh.errors import InputError
from handmesh_training.metrics import (
    auc,
    best_similarity,
    box_normalised_error,
    box_sides,
    by_box_side,
    f_score,
    mean_distance,
    pck,
    point_distances,
    procrustes_align,
    procrustes_error,
    root_aligned_error,
    root_error,
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


def test_the_similarity_itself_is_told() -> None:
    """Applied to other points than those it was fitted to, as vertices by joints."""
    rng = np.random.default_rng(5)
    truth, others = rng.normal(size=(2, 21, 3)), rng.normal(size=(2, 30, 3))
    turn = Rotation.from_rotvec([0.4, -1.2, 2.0])
    moved, moved_others = (
        np.stack([2.5 * turn.apply(x) + [1, 2, 3] for x in points]) for points in (truth, others)
    )

    fit = best_similarity(moved, truth)

    np.testing.assert_allclose(fit.scale, 1 / 2.5)
    np.testing.assert_allclose(fit.rotation, [turn.inv().as_matrix()] * 2, atol=1e-12)
    np.testing.assert_allclose(fit.apply(moved_others), others, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_procrustes_error_is_scipy_spatial_s(seed: int) -> None:
    """`scipy.spatial.procrustes` scales the truth to norm 1 and may mirror: noise is kept small."""
    moved, truth = clouds(seed, noise=0.05)
    for k in range(len(truth)):
        unit = np.linalg.norm(truth[k] - truth[k].mean(axis=0))
        reference, fitted, _ = procrustes(truth[k], moved[k])
        expected = np.linalg.norm(reference - fitted, axis=1).mean() * unit
        found = procrustes_error(moved[k : k + 1], truth[k : k + 1])[0]
        assert found == pytest.approx(expected, rel=1e-9)


def f_by_brute_force(a: Array, b: Array, threshold: float) -> float:
    distances = np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=-1))
    precision = float((distances.min(axis=1) < threshold).mean())
    recall = float((distances.min(axis=0) < threshold).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def test_f_score_is_brute_force_s() -> None:
    rng = np.random.default_rng(7)
    truth = rng.normal(0, 30, (200, 3))
    for noise, count in ((1.0, 200), (6.0, 150), (40.0, 90), (1000.0, 200)):
        found = truth[:count] + rng.normal(0, noise, (count, 3))
        expected = [f_by_brute_force(found, truth, t) for t in (5.0, 15.0)]
        np.testing.assert_allclose(f_score(found, truth, (5.0, 15.0)), expected)


def test_f_score_by_hand() -> None:
    truth = np.array([[0.0, 0, 0], [100, 0, 0], [200, 0, 0], [300, 0, 0]])
    # One of two is near a true vertex, one of four true ones is near a found one.
    found = np.array([[4.0, 0, 0], [150, 0, 0]])
    np.testing.assert_allclose(f_score(found, truth, (5.0,)), [2 * 0.5 * 0.25 / 0.75])
    np.testing.assert_allclose(f_score(truth, truth, (5.0, 15.0)), [1, 1])
    np.testing.assert_array_equal(f_score(truth + [0, 50, 0], truth, (5.0, 15.0)), [0, 0])
    # The distance must be below the threshold, not at it.
    np.testing.assert_array_equal(f_score(truth + [0, 5, 0], truth, (5.0, 5.001)), [0, 1])
    with pytest.raises(InputError, match="0 and 4"):
        f_score(np.empty((0, 3)), truth, (5.0,))


def test_errors_by_the_side_of_the_box() -> None:
    rows = by_box_side([1.0, 3.0, 10.0, 7.0], [10.0, 47.9, 48.0, 1000.0])

    assert [(row.low_px, row.hands) for row in rows] == [
        (0, 2), (48, 1), (96, 0), (192, 0), (384, 1)
    ]  # fmt: skip
    np.testing.assert_array_equal([row.error for row in rows], [2, 10, np.nan, np.nan, 7])
    assert rows[-1].high_px == float("inf")
    points = [[[0, 0], [10, 3]], [[-5, 2], [-1, 50]]]
    np.testing.assert_array_equal(box_sides(points), [10, 48])


def test_root_error() -> None:
    distance, share = root_error([[0.03, 0, 0.54], [0, 0, 0.9]], [[0, 0, 0.5], [0, 0, 1.0]])
    np.testing.assert_allclose(distance, [0.05, 0.1])
    np.testing.assert_allclose(share, [0.08, 0.1])


def test_the_paper_s_errors_by_hand() -> None:
    """Two hands of three points, off by 3-4-5 triangles, in the camera's frame."""
    truth = np.array([[[0.0, 0, 500], [10, 0, 500], [20, 0, 500]]] * 2)
    found = truth + [[[0, 0, 0], [3, 4, 0], [0, 0, 10]], [[0, 0, 30]] * 3]
    np.testing.assert_allclose(point_distances(found, truth), [[0, 5, 10], [30, 30, 30]])
    np.testing.assert_allclose(mean_distance(found, truth), [5, 30])
    np.testing.assert_allclose(root_aligned_error(found, truth), [5, 0])
    each = point_distances(found, truth)
    np.testing.assert_allclose(pck(each, [0, 5, 10, 20, 30, 50]), np.array([1, 2, 3, 3, 6, 6]) / 6)
    # Area by rectangles: half of the joints are right up to 30 mm, then all.
    assert auc(each, 20, 50, steps=30_001) == pytest.approx((10 * 0.5 + 20 * 1) / 30, abs=1e-4)
    expected = (5 * 1 / 6 + 5 * 2 / 6 + 20 * 3 / 6 + 20) / 50
    assert auc(each, 0, 50, steps=50_001) == pytest.approx(expected, abs=1e-4)


def test_no_errors_have_no_curve() -> None:
    for function in (lambda: pck([], [1.0]), lambda: auc([], 20, 50)):
        with pytest.raises(InputError, match="at least one"):
            function()
    # What is not a number is no hit.
    np.testing.assert_array_equal(pck([1.0, np.nan], [0.0, 2.0, 1e9]), [0, 0.5, 0.5])
