"""One product with a Laplacian, forward and backward, in the three ways that torch offers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from handmesh import Bundle
from handmesh.nn.graph_layers import NodeLevel, symmetric_product

BATCH = 32


def _gather(laplacian: Tensor) -> Callable[[Tensor], Tensor]:
    """Rows padded to the longest: (N, K) neighbours and weights."""
    count = int((laplacian != 0).sum(1).max())
    weights, columns = laplacian.abs().topk(count, dim=1)
    weights = laplacian.gather(1, columns)
    return lambda x: (weights[..., None] * x[columns]).sum(1)  # (N, M)


def _products(laplacian: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    sparse = laplacian.to_sparse_csr()
    return {
        "csr": lambda x: symmetric_product(sparse, x),
        "dense": lambda x: symmetric_product(laplacian, x),
        "gather": _gather(laplacian),
    }


@pytest.mark.parametrize("way", ["csr", "dense", "gather"])
@pytest.mark.parametrize(("level", "channels"), [(2, 64), (0, 32), (0, 3)])
def test_laplacian_product(
    benchmark: BenchmarkFixture, bundle: Bundle, level: int, channels: int, way: str
) -> None:
    laplacian = NodeLevel(bundle.topology.levels[level]).laplacian().to_dense()
    product = _products(laplacian)[way]
    torch.manual_seed(0)
    signal = torch.randn(len(laplacian), BATCH * channels, requires_grad=True)

    def forward_and_backward() -> Tensor:
        signal.grad = None
        out = product(signal)
        out.sum().backward()
        return out

    torch.testing.assert_close(benchmark(forward_and_backward), laplacian @ signal)
