"""What a form of a graph convolution is made from, and what it has to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from torch import nn

__all__ = ["ConvSpec", "GraphForm", "polynomials"]


@dataclass(frozen=True, eq=False)
class ConvSpec:
    """One Chebyshev convolution as numbers, its batch norm folded in.

    Attributes:
        laplacian: (N, N) float64, rescaled, over the output's real nodes.
        theta: (K, C_in, C_out) float64.
        bias: (C_out,) float64.
        parents: (N,) int64, input node of each output node when unpooling comes first; None
            where input and output live on the same nodes.
    """

    laplacian: NDArray[np.float64]
    theta: NDArray[np.float64]
    bias: NDArray[np.float64]
    parents: NDArray[np.int64] | None

    @property
    def unpooling(self) -> NDArray[np.float64] | None:
        """U (N, N_parents) of zeros and ones; None where there is nothing to unpool."""
        if self.parents is None:
            return None
        matrix = np.zeros((len(self.parents), self.parents.max() + 1))
        matrix[np.arange(len(self.parents)), self.parents] = 1.0
        return matrix


class GraphForm(Protocol):
    """How the graph convolutions of an export are computed."""

    @property
    def name(self) -> str:
        """Short, as it stands in a manifest."""

    def describe(self) -> str:
        """The same for a reader, with parameters."""

    def convolution(self, spec: ConvSpec) -> nn.Module:
        """A module from (B, M_in, C_in) to (B, M_out, C_out) float32.

        The first rows are the nodes; M may exceed their number by filler rows of any finite
        value, which nothing may read. Convolutions of one form on one graph agree in M.
        """


def polynomials(spec: ConvSpec) -> NDArray[np.float64]:
    """T_k(L) for k < K, from T_k = 2 L T_(k-1) - T_(k-2): (K, N, N) float64."""
    order, identity = len(spec.theta), np.eye(len(spec.laplacian))
    terms = [identity, spec.laplacian][:order]
    while len(terms) < order:
        terms.append(2 * spec.laplacian @ terms[-1] - terms[-2])
    return np.stack(terms)


def in_powers(theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients of sum_k T_k(L) theta_k (K, C_in, C_out) in powers of L, same shape."""
    order = len(theta)
    change = np.zeros((order, order))  # row k: T_k in powers
    for k in range(order):
        change[k, : k + 1] = chebyshev.cheb2poly(np.eye(order)[k, : k + 1])
    return np.einsum("kp,kio->pio", change, theta)
