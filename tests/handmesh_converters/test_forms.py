"""Folded convolutions against the spectral definition: T_k(L) = V cos(k arccos(lambda)) V^T."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from handmesh_converters.forms import ConvSpec, GraphForm, Recurrence

NODES, PARENTS, WIDTH_IN, WIDTH_OUT = 23, 6, 4, 3


def _spec(order: int, unpool: bool) -> ConvSpec:
    rng = np.random.default_rng(order)
    dense = rng.normal(size=(NODES, NODES)) * (rng.random((NODES, NODES)) < 0.15)
    symmetric = dense + dense.T
    # As a rescaled Laplacian, with its eigenvalues in [-1, 1].
    laplacian = symmetric / np.abs(np.linalg.eigvalsh(symmetric)).max()
    theta = rng.normal(size=(order, WIDTH_IN, WIDTH_OUT))
    parents = rng.permutation(np.arange(NODES) % PARENTS) if unpool else None
    return ConvSpec(laplacian, theta, rng.normal(size=WIDTH_OUT), parents)


def _by_spectrum(spec: ConvSpec, x: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(spec.laplacian)
    if spec.parents is not None:
        x = x[:, spec.parents]
    total = np.zeros((len(x), NODES, WIDTH_OUT))
    for k, theta in enumerate(spec.theta):
        polynomial = vectors @ np.diag(np.cos(k * np.arccos(np.clip(values, -1, 1)))) @ vectors.T
        total += polynomial @ x @ theta
    return total + spec.bias


@pytest.mark.parametrize("unpool", [False, True])
@pytest.mark.parametrize("order", [1, 2, 3, 6])
@pytest.mark.parametrize("rows", [1, 7, NODES, NODES + 5])
def test_recurrence_is_the_chebyshev_convolution(rows: int, order: int, unpool: bool) -> None:
    spec = _spec(order, unpool)
    x = np.random.default_rng(0).normal(size=(2, PARENTS if unpool else NODES, WIDTH_IN))

    form: GraphForm = Recurrence(rows)
    module = form.convolution(spec)
    padded = x
    if not unpool:  # filler rows, as a convolution of the same form would hand them on
        filler = -(-NODES // rows) * rows - NODES if order > 1 else 0
        padded = np.concatenate([x, np.full((2, filler, WIDTH_IN), 1e3)], axis=1)
    found = module(torch.from_numpy(padded).float()).detach().numpy()

    np.testing.assert_allclose(found[:, :NODES], _by_spectrum(spec, x), atol=2e-5)


def test_rows_of_all_convolutions_on_a_graph_agree() -> None:
    form = Recurrence(7)
    first = form.convolution(_spec(3, unpool=True))
    second = form.convolution(_spec(3, unpool=False))

    y = first(torch.ones(1, PARENTS, WIDTH_IN))

    assert second(torch.ones(1, y.shape[1], WIDTH_IN)).shape == y.shape
    assert y.shape[1] == 28
