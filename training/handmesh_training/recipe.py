"""How weights are moved: optimiser, learning rate over time, averaging, precision.

`PAPER` is what Ge et al. state (section 5.1); `MODERN` is what reaches a lower error in less time.
`docs/training.md` shows them side by side.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from handmesh.errors import InputError

from .muon import Muon

Schedule = Literal["constant", "cosine", "trapezoid"]


@dataclass(frozen=True)
class Recipe:
    """Every choice of an optimisation.

    Attributes:
        optimizer: "rmsprop", "adamw", or "muon" (see `muon`).
        learning_rate: its peak. fine_tuning_rate: the same where trained weights are adapted to
            real data.
        batch: crops a step, over all processes.
        weight_decay: of matrices and convolutions; norms and biases are left alone.
        warmup: steps over which the rate rises from nothing.
        schedule: "constant" after that; "cosine" down to nothing at the last step; "trapezoid",
            constant until the last `decay` steps, then 1 - sqrt to nothing (Hägele et al. 2024),
            which lets a run be prolonged.
        decay: steps of the trapezoid's end, as a share of all.
        average: decay of the weights' moving average, which is then what is evaluated and shipped;
            None, the weights themselves are.
        clip: largest norm of the gradient; None for any.
        precision: of convolutions: "fp32", or "bf16" under autocast.
        channels_last: memory layout of convolutions.
        compile: run the network through ``torch.compile``; None, on a GPU only, for on a CPU it
            gains nothing.
    """

    optimizer: Literal["rmsprop", "adamw", "muon"] = "adamw"
    learning_rate: float = 2e-3
    fine_tuning_rate: float = 5e-4
    batch: int = 64
    weight_decay: float = 0.02
    warmup: int = 500
    schedule: Schedule = "trapezoid"
    decay: float = 1 / 3
    average: float | None = 0.999
    clip: float | None = 10.0
    precision: Literal["fp32", "bf16"] = "bf16"
    channels_last: bool = True
    compile: bool | None = None

    def __post_init__(self) -> None:
        positive = {
            "learning_rate": self.learning_rate,
            "fine_tuning_rate": self.fine_tuning_rate,
            "batch": self.batch,
            **({} if self.clip is None else {"clip": self.clip}),
        }
        for name, value in positive.items():
            if not value > 0:
                raise InputError(f"{name} must be above 0, not {value}")
        if not 0 <= self.decay <= 1:
            raise InputError(f"decay is a share of all steps, in 0..1, not {self.decay}")
        if self.average is not None and not 0 <= self.average < 1:
            raise InputError(f"average is a decay in 0..1 (1 excluded), not {self.average}")

    def rate(self, step: int, steps: int, fine_tuning: bool = False) -> float:
        """Learning rate of step number ``step`` (from 0) of ``steps``."""
        peak = self.fine_tuning_rate if fine_tuning else self.learning_rate
        rate = peak * min(1.0, (step + 1) / max(self.warmup, 1))
        if self.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1.0)))
        elif self.schedule == "trapezoid":
            end, left = round(self.decay * steps), steps - step
            if left < end:
                rate *= 1 - math.sqrt(1 - max(left, 0) / end)
        return rate

    def optimizer_of(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """An optimiser of those parameters that want a gradient."""
        wanted = [p for p in parameters if p.requires_grad]
        if self.optimizer == "muon":
            return Muon(wanted, self.learning_rate, self.weight_decay)
        groups = [
            {"params": [p for p in wanted if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in wanted if p.ndim <= 1], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        if self.optimizer == "rmsprop":
            return torch.optim.RMSprop(groups, lr=self.learning_rate)
        return torch.optim.AdamW(groups, lr=self.learning_rate, betas=(0.9, 0.98))


# "RMSprop with mini-batches of size 32; 10^-3 when pretraining, 10^-4 when fine-tuning."
PAPER = Recipe(
    optimizer="rmsprop",
    learning_rate=1e-3,
    fine_tuning_rate=1e-4,
    batch=32,
    weight_decay=0.0,
    warmup=0,
    schedule="constant",
    average=None,
    clip=None,
    precision="fp32",
    channels_last=False,
    compile=False,
)
MODERN = Recipe(schedule="cosine")
# For runs that may be prolonged: the default of `handmesh train`.
PROLONGABLE = Recipe()
# The same by Muon.
MUON = Recipe(optimizer="muon")
RECIPES = {"paper": PAPER, "modern": MODERN, "prolongable": PROLONGABLE, "muon": MUON}
