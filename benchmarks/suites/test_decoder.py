"""The graph decoder alone by the form of its graph convolutions, in ONNX Runtime at one thread."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from handmesh import Bundle
from handmesh_benchmarks.decoders import graph_constants, loader
from handmesh_converters.export import load_bundle
from handmesh_converters.fold import fold
from handmesh_converters.forms import Dense, GraphForm, Polynomials, Recurrence

FORMS: dict[str, GraphForm] = {
    "dense": Dense(),
    "ell": Polynomials(),
    "recurrence": Recurrence(),
}


@pytest.mark.parametrize("form", list(FORMS))
def test_graph_decoder(benchmark: BenchmarkFixture, bundle: Bundle, form: str) -> None:
    network = load_bundle(bundle)
    head = fold(network, FORMS[form]).head
    run = loader(head, bool(getattr(network.config, "anchor_to_heatmaps", False)))()
    benchmark.extra_info["constants_bytes"] = sum(graph_constants(head))

    assert benchmark(run) is None
