"""The reference convolution, on the CPU, against its formula in float64; folding keeps it."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
from cuda_shim import ShimBinding, error
from numpy.typing import NDArray

from handmesh.graph import Topology
from handmesh_converters.formats.cuda import sparse_rows
from handmesh_converters.forms import ConvSpec
from handmesh_kernels import twin
from handmesh_kernels.constants import Convolution
from handmesh_kernels.plan import Launch

Array = NDArray[np.float64]

PARAMS = np.dtype(
    [(n, "<u8") for n in ("neighbours", "weights", "theta", "bias", "terms", "output")]
    + [
        (n, "<i4")
        for n in (
            *("rows", "width", "order", "channels_in", "channels_out"),
            *("term", "relu", "unused"),
        )
    ]
)


def _chebyshev_convolution(
    laplacian: Array, x: Array, theta: Array, bias: Array, relu: bool
) -> Array:
    """The convolution as it is written down.

    Args:
        laplacian: (N, N), rescaled. x: (N, C_in). theta: (K, C_in, C_out). bias: (C_out,).

    Returns:
        (N, C_out).
    """
    terms = [x, laplacian @ x][: len(theta)]
    while len(terms) < len(theta):
        terms.append(2.0 * laplacian @ terms[-1] - terms[-2])
    y: Array = np.einsum("knc,kco->no", np.stack(terms), theta) + bias
    return np.maximum(y, 0.0) if relu else y


@pytest.mark.parametrize(
    ("level", "widths", "order"), [(2, (8, 5), 3), (0, (3, 4), 4), (2, (4, 4), 1)]
)
def test_reference_is_the_formula(
    libraries: dict[str, Path], level: int, widths: tuple[int, int], order: int
) -> None:
    graph, (inputs, outputs) = Topology.default().levels[level], widths
    rng = np.random.default_rng(order)
    n = graph.node_count
    terms = np.full((order, n, inputs), np.nan, np.float32)
    terms[0] = rng.normal(size=(n, inputs))
    theta = rng.normal(size=(order, inputs, outputs)).astype(np.float32)
    bias = rng.normal(size=outputs).astype(np.float32)
    output = np.full((n, outputs), np.nan, np.float32)
    params = np.zeros(1, PARAMS)
    arrays = {
        "neighbours": np.ascontiguousarray(graph.neighbours),
        "weights": np.ascontiguousarray(graph.weights),
        "theta": theta, "bias": bias, "terms": terms, "output": output,
    }  # fmt: skip
    for name, array in arrays.items():
        params[name] = array.ctypes.data
    sizes = (n, graph.neighbours.shape[1], order, inputs, outputs)
    for name, value in zip(
        ("rows", "width", "order", "channels_in", "channels_out"), sizes, strict=True
    ):
        params[name] = value
    params["relu"] = 1
    shim = ShimBinding(libraries["fp32"])
    for k in range(1, order):
        params["term"] = k
        blocks = -(-n * inputs // 128)
        shim.launch(shim.function(None, "hm_recurrence"), Launch("", (blocks, 1), 128), params, 0)
    blocks = -(-n * outputs // 128)
    shim.launch(shim.function(None, "hm_combine"), Launch("", (blocks, 1), 128), params, 0)

    exact: list[Array] = [a.astype(np.float64) for a in (terms[0], theta, bias)]
    wanted = _chebyshev_convolution(graph.dense(), *exact, relu=True)
    assert error(output, wanted) < 1e-5


def test_the_struct_is_the_one_in_the_source(libraries: dict[str, Path]) -> None:
    library = ctypes.CDLL(str(libraries["fp32"]))
    library.hm_params_size.restype = ctypes.c_int64
    assert library.hm_params_size(1) == PARAMS.itemsize


def test_folding_keeps_the_convolution() -> None:
    """gather(x theta) over T_k U is the recurrence after unpooling."""
    rng = np.random.default_rng(3)
    laplacian = Topology.default().levels[2].dense()[:40, :40]
    parents = np.sort(rng.integers(0, 11, 40))
    parents[-1] = 10
    theta, x = rng.normal(size=(3, 6, 4)), rng.normal(size=(11, 6))
    spec = ConvSpec(laplacian, theta, np.zeros(4), parents)
    rows = rng.permutation(40)
    columns, values, inputs = sparse_rows(spec, rows)
    conv = Convolution(columns, values, theta.astype(np.float32), np.zeros(4, np.float32), inputs)
    maps = np.einsum("nc,kco->nko", x, theta).reshape(1, -1, 4)

    found = twin.gather(conv, maps)[0]

    wanted = _chebyshev_convolution(laplacian, x[parents], theta, np.zeros(4), relu=False)
    assert error(found, wanted[rows]) < 1e-6
    assert error(conv.matrix() @ maps[0], wanted[rows]) < 1e-6
