from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from handmesh.errors import InputError
from handmesh.smoothing import HandPoints, HandSmoother, OneEuro, Smoothing


def _scalar_one_euro(
    values: list[float], times: list[float], mincutoff: float, beta: float, dcutoff: float
) -> Iterator[float]:
    """The algorithm of the paper for one number, in its words, on the raw difference."""
    x_hat = dx_hat = x_last = t_last = None
    for x, t in zip(values, times, strict=True):
        if x_hat is None:
            x_hat, dx_hat = x, 0.0
        else:
            te = t - t_last

            def alpha(cutoff: float, te: float = te) -> float:
                tau = 1.0 / (2 * math.pi * cutoff)
                return 1.0 / (1.0 + tau / te)

            dx = (x - x_last) / te
            dx_hat = alpha(dcutoff) * dx + (1 - alpha(dcutoff)) * dx_hat
            a = alpha(mincutoff + beta * abs(dx_hat))
            x_hat = a * x + (1 - a) * x_hat
        x_last, t_last = x, t
        yield x_hat


def _uneven_times(count: int, seed: int) -> list[float]:
    return np.cumsum(np.random.default_rng(seed).uniform(0.005, 0.12, count)).tolist()


@pytest.mark.parametrize(("mincutoff", "beta", "dcutoff"), [(1, 0, 1), (0.5, 3, 2), (4, 40, 0.7)])
def test_each_number_is_filtered_as_in_the_paper(
    mincutoff: float, beta: float, dcutoff: float
) -> None:
    rng = np.random.default_rng(1)
    times = _uneven_times(60, 2)
    values = np.cumsum(rng.normal(0, 1, (60, 5)), axis=0)
    one_euro = OneEuro(Smoothing(mincutoff, beta, dcutoff))
    seen = np.array([one_euro(v[:, None], t)[:, 0] for v, t in zip(values, times, strict=True)])
    expected = [
        list(_scalar_one_euro(column.tolist(), times, mincutoff, beta, dcutoff))
        for column in values.T
    ]
    np.testing.assert_allclose(seen, np.transpose(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("speed", [0.3, 2.0, 50.0])
def test_the_lag_at_constant_speed_is_the_stated_one_at_any_frame_rate(speed: float) -> None:
    smoothing = Smoothing(1.0, 0.5, 1.0)
    way = np.array([3.0, 4.0]) / 5 * speed
    one_euro = OneEuro(smoothing)
    for t in _uneven_times(2000, 3):
        seen = one_euro(way[None] * t, t)
    late = np.linalg.norm(way * t - seen[0]) / speed
    assert late == pytest.approx(1 / (2 * math.pi * (1.0 + 0.5 * speed)), rel=1e-6)
    assert late == pytest.approx(smoothing.lag_s(speed), rel=1e-6)


def test_noise_of_a_still_point_shrinks_by_the_closed_form() -> None:
    rng = np.random.default_rng(4)
    one_euro = OneEuro(Smoothing(2.0, 0.0))
    noise = rng.normal(0, 1, (3000, 50, 1))
    seen = np.array([one_euro(values, n / 30) for n, values in enumerate(noise)])[100:]
    a = (1 / 30) / (1 / 30 + 1 / (2 * math.pi * 2.0))
    assert seen.std() == pytest.approx(math.sqrt(a / (2 - a)), rel=0.02)


def test_no_direction_and_no_unit_is_preferred() -> None:
    points = np.cumsum(np.random.default_rng(5).normal(0, 1, (40, 7, 2)), axis=0)
    turn = np.array([[math.cos(0.7), -math.sin(0.7)], [math.sin(0.7), math.cos(0.7)]])
    plain, other = OneEuro(Smoothing(1, 2)), OneEuro(Smoothing(1, 2))
    for n, values in enumerate(points):
        expected = plain(values, n / 30)
        seen = other(100 * values @ turn, n / 30, scale=100)
        np.testing.assert_allclose(seen, 100 * expected @ turn, atol=1e-9)


def test_time_goes_on() -> None:
    one_euro = OneEuro(Smoothing(1, 0))
    one_euro(np.zeros((1, 1)), 1.0)
    for earlier in (1.0, 0.5):
        with pytest.raises(InputError, match="not later than 1 s"):
            one_euro(np.zeros((1, 1)), earlier)
    with pytest.raises(InputError, match="shape"):
        one_euro(np.zeros((2, 1)), 2.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1), "min_cutoff_hz"),
        ((1, -1), "beta"),
        ((1, 1, 0), "derivative_cutoff_hz"),
        ((math.nan, 1), "finite"),
    ],
)
def test_impossible_parameters_are_refused(arguments: tuple[float, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Smoothing(*arguments)


def test_the_wrist_stays_the_origin_of_depths_and_each_part_has_its_own_filter() -> None:
    rng = np.random.default_rng(6)
    smoother = HandSmoother(Smoothing(3, 0), Smoothing(2, 0), Smoothing(0.5, 0))
    distances, places = [], []
    for n in range(30):
        depth = rng.normal(0, 1, 21)
        depth[0] = 0
        px = rng.normal(100, 5, (21, 2))
        distances.append(math.exp(rng.normal(2, 0.1)))
        places.append(px[3, 1])
        points = HandPoints(px, px[:4], depth, depth[:4], distances[-1])
        seen = smoother(points, n / 30, 200.0)
        assert seen.joints_depth[0] == 0
        np.testing.assert_array_equal(seen.vertices_px, seen.joints_px[:4])
    times = [n / 30 for n in range(30)]
    logs = [math.log(distance) for distance in distances]
    expected = list(_scalar_one_euro(logs, times, 0.5, 0, 1))[-1]
    assert seen.root_depth == pytest.approx(math.exp(expected), rel=1e-12)
    expected = list(_scalar_one_euro(places, times, 3, 0, 1))[-1]
    assert seen.joints_px[3, 1] == pytest.approx(expected, rel=1e-12)


def test_speeds_in_the_picture_are_in_crops() -> None:
    """A picture twice as large, with crops twice as large, is filtered alike."""
    rng = np.random.default_rng(3)
    path = [rng.normal(100, 5, (21, 2)) + 20 * n for n in range(12)]
    filtered = []
    for zoom in (1.0, 7.0):
        smoother = HandSmoother()
        for n, px in enumerate(path):
            points = HandPoints(zoom * px, zoom * px[:4], np.zeros(21), np.zeros(4), 10.0)
            seen = smoother(points, n / 30, zoom * 200.0)
        filtered.append(seen.joints_px / zoom)
    np.testing.assert_allclose(filtered[0], filtered[1], rtol=1e-9)
