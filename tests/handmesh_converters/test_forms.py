"""Folded convolutions against the spectral definition: T_k(L) = V cos(k arccos(lambda)) V^T."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from handmesh_converters.forms import ConvSpec, Dense, GraphForm, Polynomials, Recurrence

NODES, PARENTS = 23, 6
# theta first, and last.
WIDTHS = ((4, 3), (2, 5))


def _spec(order: int, unpool: bool, widths: tuple[int, int] = WIDTHS[0]) -> ConvSpec:
    rng = np.random.default_rng(order)
    dense = rng.normal(size=(NODES, NODES)) * (rng.random((NODES, NODES)) < 0.15)
    symmetric = dense + dense.T
    # As a rescaled Laplacian, with its eigenvalues in [-1, 1].
    laplacian = symmetric / np.abs(np.linalg.eigvalsh(symmetric)).max()
    theta = rng.normal(size=(order, *widths))
    parents = rng.permutation(np.arange(NODES) % PARENTS) if unpool else None
    return ConvSpec(laplacian, theta, rng.normal(size=widths[1]), parents)


def _by_spectrum(spec: ConvSpec, x: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(spec.laplacian)
    if spec.parents is not None:
        x = x[:, spec.parents]
    total = np.zeros((len(x), NODES, len(spec.bias)))
    for k, theta in enumerate(spec.theta):
        polynomial = vectors @ np.diag(np.cos(k * np.arccos(np.clip(values, -1, 1)))) @ vectors.T
        total += polynomial @ x @ theta
    return total + spec.bias


def _filled(form: GraphForm, order: int) -> int:
    """Rows that a convolution of this form gives, filler included."""
    y: torch.Tensor = form.convolution(_spec(order, unpool=True))(torch.ones(1, PARENTS, 4))
    return y.shape[1]


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("unpool", [False, True])
@pytest.mark.parametrize("order", [1, 2, 3, 6])
@pytest.mark.parametrize(
    "form",
    [
        *(Recurrence(rows) for rows in (1, 7, NODES, NODES + 5)),
        *(Polynomials(rows, merge) for rows in (1, 7) for merge in (False, True)),
        Dense(False),
        Dense(True),
    ],
    ids=str,
)
def test_every_form_is_the_chebyshev_convolution(
    form: GraphForm, order: int, unpool: bool, widths: tuple[int, int]
) -> None:
    spec = _spec(order, unpool, widths)
    x = np.random.default_rng(0).normal(size=(2, PARENTS if unpool else NODES, widths[0]))

    # Filler rows, as a convolution of the same form would hand them on, for coarse nodes too.
    rows = PARENTS + 2 if unpool else _filled(form, order)
    if isinstance(form, Dense):
        rows = x.shape[1]
    padded = np.concatenate([x, np.full((2, rows - x.shape[1], widths[0]), 1e3)], axis=1)
    found = form.convolution(spec)(torch.from_numpy(padded).float()).detach().numpy()

    np.testing.assert_allclose(found[:, :NODES], _by_spectrum(spec, x), atol=5e-5)


@pytest.mark.parametrize("form", [Recurrence(7), Polynomials(7), Polynomials(7, False)], ids=str)
def test_rows_of_all_convolutions_on_a_graph_agree(form: GraphForm) -> None:
    first = form.convolution(_spec(3, unpool=True))
    second = form.convolution(_spec(3, unpool=False))

    y = first(torch.ones(1, PARENTS, WIDTHS[0][0]))

    assert second(torch.ones(1, y.shape[1], WIDTHS[0][0])).shape == y.shape
    assert y.shape[1] == 28
