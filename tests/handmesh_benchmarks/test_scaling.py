"""What the scaling run measures is what it says: graphs, products, powers."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from handmesh import Bundle, Predictor
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


def test_a_small_graph_and_a_batch_are_measured_and_drawn() -> None:
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
    assert {"batch", "hands", "vertices"} <= scaling.charts_of(results).keys()
    providers = {m.facts["backend"]: m.facts["provider"] for m in results.measurements}
    assert providers["torch"].endswith("CPU, 1 thread")
    assert "onnxruntime" in providers["onnx"]


def _of(axis: str, curve: str = "") -> dict[int, Any]:
    """Candidates of an axis by what is varied."""
    return {
        c.facts["x"]: c
        for c in candidates(Bundle.load())
        if c.facts["task"] == f"scaling {axis}" and curve in c.facts["network"]
    }


@dataclasses.dataclass
class Spy:
    """A network that tells what it was asked for."""

    asked: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    description: str = "a spy"

    def create(self, name: str, bundle: Bundle, threads: int) -> Spy:
        assert name == "onnx"
        self.threads = threads
        return self

    def run(self, images: Any) -> None:
        self.asked.append((self.threads, len(images)))


def test_batches_and_threads_are_those_of_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy()
    monkeypatch.setattr(scaling, "create", spy.create)
    monkeypatch.setattr(scaling, "describe", lambda: {"cores_usable": 8})

    for rows, expected in (
        (_of("batch"), {n: (1, n) for n in (1, 2, 4, 8, 16)}),
        (_of("threads"), {n: (n, 1) for n in (1, 2, 4, 8)}),
    ):
        found = {}
        for x, candidate in rows.items():
            candidate.load()()
            found[x] = spy.asked[-1]
            assert (candidate.facts["threads"], candidate.facts["batch"]) == expected[x]
        assert found == expected


def test_as_many_hands_are_found_as_boxes_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []

    class Told(Predictor):
        def predict(self, *arguments: Any, **options: Any) -> Any:
            assert options["looks"] == 1
            hands = super().predict(*arguments, **options)
            found.append(len(hands))
            return hands

    monkeypatch.setattr(scaling, "Predictor", Told)
    rows = _of("hands")
    for candidate in rows.values():
        candidate.load()()

    assert found == list(rows) == [1, 2, 4, 8]


def test_input_is_as_large_as_the_row_says(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[Any, ...]] = []
    make = scaling.build

    def told(config: Any, topology: Any) -> Any:
        network = make(config, topology)

        def look(_: Any, inputs: Any) -> None:
            found.append((config.input_size, *inputs[0].shape, torch.get_num_threads()))

        network.register_forward_pre_hook(look)
        return network

    monkeypatch.setattr(scaling, "build", told)
    for candidate in _of("input size").values():
        candidate.load()()

    assert found == [(n, 1, 3, n, n, 1) for n in (64, 96, 128, 192, 256)]


class Products(TorchDispatchMode):
    """Layouts of what is multiplied with something of as many rows as it has columns."""

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.nodes, self.layouts, self.gathered = nodes, set[torch.layout](), 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), options: Any = None
    ) -> Any:
        for value in arguments:
            if isinstance(value, torch.Tensor) and value.shape == (self.nodes, self.nodes):
                self.layouts.add(value.layout)
        self.gathered += function is torch.ops.aten.index.Tensor
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize(
    ("form", "layouts", "gathered"),
    [
        ("dense", {torch.strided}, False),
        ("sparse", {torch.sparse_csr}, False),
        ("neighbours", set(), True),
    ],
)
def test_graph_layers_run_in_the_form_of_their_row(
    form: str, layouts: set[torch.layout], gathered: bool
) -> None:
    run = _of("vertices", form)[320].load()
    with Products(320) as seen:
        run()

    assert seen.layouts == layouts
    assert (seen.gathered > 0) == gathered


def test_curves_are_of_medians(made: Any) -> None:
    row = made.row("scaling batch", p50=4.0)  # p90 and p99 are 5 and 6
    row.facts["x"] = 3
    assert curves(made.results(row), "batch")[0].points == [(3.0, 4.0)]
