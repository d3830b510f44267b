"""Steps of Muon against the singular value decomposition, and of the rest against torch's AdamW."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from handmesh.errors import InputError
from handmesh_training.muon import UPDATE_RMS, Muon, is_matrix, orthogonalized


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
    """On gradients without any order, where AdamW's are as small as they get."""
    for shape in ((32, 48, 3, 3), (256, 64), (8, 512)):
        mine, other = (nn.Parameter(torch.zeros(shape)) for _ in range(2))
        ours, theirs = Muon([mine], lr=1e-3), torch.optim.AdamW([other], lr=1e-3, weight_decay=0)
        generator = torch.Generator().manual_seed(1)
        sizes = []
        for _ in range(40):
            before = [p.detach().clone() for p in (mine, other)]
            mine.grad = other.grad = torch.randn(shape, generator=generator) * 1e-5
            ours.step()
            theirs.step()
            moved = [p.detach() - b for p, b in zip((mine, other), before, strict=True)]
            sizes.append([float(move.square().mean().sqrt()) for move in moved])
        assert sizes[-1][0] == pytest.approx(UPDATE_RMS * 1e-3, rel=0.2)
        assert sizes[-1][0] == pytest.approx(sizes[-1][1], rel=0.5)


def test_the_rate_is_the_groups_own() -> None:
    """A schedule sets it before each step."""
    parameters = [nn.Parameter(torch.ones(8, 8)), nn.Parameter(torch.ones(8))]
    optimizer = Muon(parameters, lr=0.1, weight_decay=0.1)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape)
    optimizer.step()
    assert all(torch.equal(p.detach(), torch.ones_like(p)) for p in parameters)


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
    size = rate * UPDATE_RMS * math.sqrt(8)
    unit = orthogonalized(torch.eye(8))
    kept = 1 - rate * decay
    wanted = (start * kept - size * unit) * kept + size * unit
    assert torch.allclose(parameter.detach(), wanted, atol=1e-4)


def test_the_smallest_matrices_and_vectors_are_none() -> None:
    shapes = {
        (8, 8): True, (64, 8, 3, 3): True, (7, 64): False, (64, 7): False,
        (64, 1, 3, 3): False, (64,): False,
    }  # fmt: skip
    assert {shape: is_matrix(torch.zeros(shape)) for shape in shapes} == shapes


def test_what_has_no_gradient_stays() -> None:
    parameters = [nn.Parameter(torch.ones(8, 8)), nn.Parameter(torch.ones(8))]
    optimizer = Muon(parameters, lr=0.1, weight_decay=0.1)
    assert optimizer.step(lambda: 3.0) == 3.0
    assert all(torch.equal(p.detach(), torch.ones_like(p)) for p in parameters)

    def closure() -> float:
        loss = parameters[1].square().sum()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) == 8.0
    assert (parameters[1] < 1).all()
    assert torch.equal(parameters[0].detach(), torch.ones(8, 8))


@pytest.mark.parametrize(
    "wrong", [{"lr": -1.0}, {"weight_decay": -1.0}, {"momentum": 1.0}, {"betas": (0.9, 2.0)}]
)
def test_values_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="not"):
        Muon([nn.Parameter(torch.ones(8, 8))], **({"lr": 0.1} | wrong))
