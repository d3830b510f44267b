"""What the scaling run measures is what it says: graphs, products, powers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from handmesh import Bundle
from handmesh_benchmarks import scaling
from handmesh_benchmarks.scaling import AXES, candidates, curves, exponent, laplacian


@pytest.mark.parametrize("faces", [320, 1280])
def test_graph_is_a_sphere_s(faces: int) -> None:
    neighbours, weights = laplacian(faces)

    assert neighbours.shape == weights.shape == (faces, 3)
    dense = np.zeros((faces, faces))
    dense[np.arange(faces)[:, None], neighbours] = weights
    assert np.array_equal(dense, dense.T)
    assert ((dense != 0).sum(axis=1) == 3).all()
    values = np.linalg.eigvalsh(dense)
    # -A / 3 of a connected graph with three neighbours each: one eigenvalue -1, the rest within 1.
    assert values[0] == pytest.approx(-1, abs=1e-6)
    assert values[1] > -1 + 1e-6
    assert values[-1] <= 1 + 1e-6


@pytest.mark.parametrize("form", ["dense", "sparse", "neighbours"])
def test_products_agree_with_float64(form: str) -> None:
    neighbours, weights = laplacian(320)
    signal = np.random.default_rng(0).standard_normal((320, 5))
    expected = (weights[..., None].astype(np.float64) * signal[neighbours]).sum(axis=1)

    product = scaling._product(neighbours, weights, form)
    found = product(torch.from_numpy(signal.astype(np.float32)))

    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_every_axis_has_rows_of_growing_numbers() -> None:
    rows = candidates(Bundle.load())

    for axis in AXES:
        xs = [c.facts["x"] for c in rows if c.facts["task"] == f"scaling {axis}"]
        assert len(xs) >= 1
        assert xs == sorted(xs)
    nodes = {c.facts["x"] for c in rows if c.facts["task"] == "scaling vertices"}
    assert (min(nodes), max(nodes)) == (320, 20480)
    assert len({c.name for c in rows}) == len(rows)


def test_power_is_the_slope_of_the_logarithms() -> None:
    assert exponent([(1, 9), (320, 2.0), (1280, 32.0)]) == pytest.approx(2)
    assert exponent([(320, 2.0), (1280, 8.0)]) == pytest.approx(1)


def test_a_small_graph_and_a_batch_are_measured_and_drawn(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from handmesh_benchmarks.protocol import Protocol, measure
    from handmesh_benchmarks.results import Results

    chosen = [c for c in candidates(Bundle.load()) if c.facts["x"] in (1, 2, 320, 1280)]
    results = Results({"processor": "x"})
    protocol = Protocol(min_runs=1, min_seconds=0, warmup_runs=0, rounds=1, pause_s=0)
    results.measurements = measure([c for c in chosen if "torch" not in c.name], protocol)

    for axis in ("batch", "hands"):
        assert [x for x, _ in curves(results, axis)[0].points] == [1, 2]
    assert {line.name for line in curves(results, "vertices")} == {"dense", "sparse", "neighbours"}
    assert "grows with the power" in scaling.to_text(results)
    written = scaling.write_charts(results, tmp_path)
    assert "scaling_vertices.svg" in {path.name for path in written}
