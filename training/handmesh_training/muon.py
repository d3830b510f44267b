"""Muon: matrices move by nearly orthogonal steps, all else by Adam's.

The steps of a matrix have a few large singular values, and what is seen in few pictures may lie in
the directions of the many small ones. Muon makes nearly all of them alike (Jordan et al., Muon: An
optimizer for hidden layers in neural networks, 2024). Its steps are as large as AdamW's usually
are, so that learning rates and weight decay of AdamW hold (Liu et al., Muon is Scalable for LLM
Training, arXiv 2502.16982, section 2.2).

`torch.optim.Muon` takes matrices alone. Here a convolution's kernel is a matrix too, of its outputs
by all that it reads, and one optimiser holds the state of a whole network. Unlike in the reference
first and last layers are no exceptions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from handmesh.errors import InputError

# Jordan's quintic: five iterations bring singular values from 0.01 of the Frobenius norm on to
# 0.67 to 1.2.
QUINTIC = (3.4445, -4.7750, 2.0315)
NS_STEPS = 5
# Root mean square of an update over the rate. AdamW's is 0.2 to 0.4, says Liu et al., who take 0.2.
UPDATE_RMS = 0.2
# What has fewer rows or columns has no directions to speak of.
MIN_DIM = 8


def is_matrix(parameter: Tensor) -> bool:
    """Whether it moves by orthogonal steps: no norm, no bias, nothing narrow, no depthwise kernel.

    Of a depthwise kernel, (C, 1, K, K), each row reads a channel of its own.
    """
    if parameter.ndim < 2 or parameter.shape[1] == 1:
        return False
    return min(parameter.flatten(1).shape) >= MIN_DIM


def orthogonalized(matrix: Tensor) -> Tensor:
    """About U V^T of the singular value decomposition U S V^T of (R, C), by Newton-Schulz.

    In bfloat16: singular values are near 1 afterwards, not exactly 1, and need not be. Rounding
    grows in the weakest directions, so that two machines may differ there.
    """
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T.bfloat16() if tall else matrix.bfloat16()  # (R, C) with R <= C
    x = x / (x.norm() + 1e-7)
    for _ in range(NS_STEPS):
        gram = x @ x.T  # (R, R)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """The optimiser of those of a network's parameters that want a gradient.

    Args:
        parameters: float32 or bfloat16, no groups of them.
        lr: rate; a matrix's update has the root mean square 0.2 lr.
        weight_decay: of what has two axes or more, decoupled as AdamW's.
        momentum: of matrices, Nesterov's. betas, eps: of all else, as in Adam.

    Raises:
        InputError: a rate or decay below 0, or a momentum or beta outside 0..1 (1 excluded).
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
    ) -> None:
        if lr < 0 or weight_decay < 0:
            raise InputError(f"rate and weight decay are 0 or more, not {lr} and {weight_decay}")
        if not all(0 <= share < 1 for share in (momentum, *betas)):
            raise InputError(
                f"momentum and betas are in 0..1 (1 excluded), not {momentum} and {betas}"
            )
        wanted = [p for p in parameters if p.requires_grad]
        rest = [p for p in wanted if not is_matrix(p)]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in wanted if is_matrix(p)], "orthogonal": True},
            {"params": [p for p in rest if p.ndim > 1]},
            {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
        ]
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "betas": betas,
            "eps": eps,
            "orthogonal": False,
        }
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step along the gradients that there are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            move = self._orthogonal if group["orthogonal"] else self._adam
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    move(parameter, parameter.grad, group)
        return loss

    def _orthogonal(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, momentum = self.state[parameter], group["momentum"]
        if not state:
            state["mean"] = torch.zeros_like(parameter)
        state["mean"].lerp_(gradient, 1 - momentum)
        ahead = gradient.lerp(state["mean"], momentum).flatten(1)  # (R, C)
        # An orthogonal (R, C) has a root mean square of max(R, C) ** -0.5.
        size = UPDATE_RMS * math.sqrt(max(ahead.shape))
        parameter.add_(orthogonalized(ahead).view(parameter.shape), alpha=-group["lr"] * size)

    def _adam(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (first, second) = self.state[parameter], group["betas"]
        if not state:
            state["mean"], state["square"] = (torch.zeros_like(parameter) for _ in range(2))
            state["step"] = torch.zeros(())
        state["step"] += 1
        count = float(state["step"])
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        size = (state["square"] / (1 - second**count)).sqrt_().add_(group["eps"])
        parameter.addcdiv_(state["mean"], size, value=-group["lr"] / (1 - first**count))
