"""Steps of Muon against the singular value decomposition, and of the rest against torch's AdamW."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from handmesh_training.muon import STEP, Muon, is_matrix, orthogonalized


def gradient_of(rows: int, columns: int, weakest: float = 1e-2) -> tuple[Tensor, Tensor]:
    """A matrix with singular values from ``weakest`` to 1, and U V^T, both in float64."""
    generator = torch.Generator().manual_seed(rows)
    drawn = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    u, _, vt = torch.linalg.svd(drawn, full_matrices=False)
    values = torch.logspace(0, math.log10(weakest), min(rows, columns), dtype=torch.float64)
    return u * values @ vt, u @ vt


@pytest.mark.parametrize("shape", [(16, 16), (24, 100), (100, 24)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_all_directions_become_alike(shape: tuple[int, int], scale: float) -> None:
    matrix, exact = gradient_of(*shape)
    found = orthogonalized((scale * matrix).float()).double()
    assert found.shape == matrix.shape
    # Before, the weakest direction is a hundredth of the strongest.
    values = torch.linalg.svdvals(found)
    assert float(values.min()) > 0.5
    assert float(values.max()) < 1.3
    # Each direction goes its own way: along that of U V^T, and along no other.
    along = (found * exact).sum() / (found.norm() * exact.norm())
    assert float(along) > 0.97


def test_steps_are_as_large_as_adamws() -> None:
    for shape in ((32, 48, 3, 3), (256, 64), (8, 512)):
        parameter = nn.Parameter(torch.zeros(shape))
        optimizer = Muon([parameter], lr=1e-3)
        parameter.grad = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 1e-5
        optimizer.step()
        size = float(parameter.detach().square().mean().sqrt())
        assert size == pytest.approx(STEP * 1e-3, rel=0.2)


def test_a_kernel_moves_as_the_matrix_that_it_is() -> None:
    kernel = nn.Parameter(torch.randn(16, 12, 3, 3).to(memory_format=torch.channels_last))
    matrix = nn.Parameter(kernel.detach().flatten(1).clone())
    optimizers = [Muon([p], lr=0.1, weight_decay=0.1) for p in (kernel, matrix)]
    for seed in range(3):
        gradient = torch.randn(16, 12, 3, 3, generator=torch.Generator().manual_seed(seed))
        kernel.grad, matrix.grad = gradient, gradient.flatten(1)
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(kernel.detach().flatten(1), matrix.detach())


def test_what_is_no_matrix_moves_as_by_adamw() -> None:
    network = nn.Sequential(
        nn.Conv2d(16, 16, 3, groups=16), nn.BatchNorm2d(16), nn.Conv2d(16, 3, 1)
    )
    parameters = list(network.parameters())
    assert not any(is_matrix(p) for p in parameters)
    copies = [nn.Parameter(p.detach().clone()) for p in parameters]
    ours = Muon(parameters, lr=1e-2, weight_decay=0.1)
    groups = [
        {"params": [p for p in copies if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in copies if p.ndim <= 1], "weight_decay": 0.0},
    ]
    theirs = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.98))
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        for mine, other in zip(parameters, copies, strict=True):
            mine.grad = torch.randn(mine.shape, generator=generator)
            other.grad = mine.grad.clone()
        ours.step()
        theirs.step()
    for mine, other in zip(parameters, copies, strict=True):
        assert torch.allclose(mine, other, rtol=1e-5, atol=1e-6)


def test_momentum_looks_ahead_and_weights_decay() -> None:
    """Two steps in closed form, with gradients that are orthogonal already."""
    start, rate, decay, momentum = torch.eye(8) * 2, 0.1, 0.5, 0.95
    parameter = nn.Parameter(start.clone())
    optimizer = Muon([parameter], lr=rate, weight_decay=decay, momentum=momentum)
    for sign in (1.0, -0.5):
        parameter.grad = sign * torch.eye(8)
        optimizer.step()
    mean = 1 - momentum
    first = mean * momentum + 1 - momentum  # > 0
    mean = momentum * mean - 0.5 * (1 - momentum)
    second = momentum * mean - 0.5 * (1 - momentum)  # < 0
    assert first > 0 > second
    size = rate * STEP * math.sqrt(8)
    unit = orthogonalized(torch.eye(8))
    kept = 1 - rate * decay
    wanted = (start * kept - size * unit) * kept + size * unit
    assert torch.allclose(parameter.detach(), wanted, atol=1e-4)


def test_the_smallest_matrices_and_vectors_are_none() -> None:
    shapes = {
        (8, 8): True, (64, 8, 3, 3): True, (3, 64): False, (64, 1, 3, 3): False, (64,): False,
    }  # fmt: skip
    assert {shape: is_matrix(torch.zeros(shape)) for shape in shapes} == shapes


def test_what_has_no_gradient_stays() -> None:
    parameters = [nn.Parameter(torch.ones(8, 8)), nn.Parameter(torch.ones(8))]
    optimizer = Muon(parameters, lr=0.1, weight_decay=0.1)
    assert optimizer.step(lambda: 3.0) == 3.0
    assert all(torch.equal(p.detach(), torch.ones_like(p)) for p in parameters)
