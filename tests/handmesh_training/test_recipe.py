"""Learning rates in closed form, and optimisers as the recipes describe them."""

from __future__ import annotations

import argparse
import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from handmesh.errors import InputError
from handmesh_training.cli_train import add_train
from handmesh_training.muon import Muon
from handmesh_training.recipe import MODERN, MUON, PAPER, PROLONGABLE, RECIPES, Recipe


def test_a_trapezoid_warms_up_stays_and_falls() -> None:
    rate = Recipe(learning_rate=0.5, warmup=100, decay=0.4).rate

    assert rate(0, 1000) == pytest.approx(0.005)
    assert rate(49, 1000) == pytest.approx(0.25)
    assert [rate(step, 1000) for step in (99, 100, 599, 600)] == [0.5] * 4
    assert rate(700, 1000) == pytest.approx(0.5 * (1 - math.sqrt(0.25)))
    assert rate(936, 1000) == pytest.approx(0.5 * (1 - math.sqrt(336 / 400)))
    assert 0 < rate(999, 1000) < 0.001
    assert rate(1000, 1000) == 0
    falling = [rate(step, 1000) for step in range(600, 1001)]
    assert all(a > b for a, b in itertools.pairwise(falling))


def test_a_trapezoid_without_decay_stays() -> None:
    assert Recipe(learning_rate=0.5, warmup=0, decay=0).rate(999, 1000) == 0.5


def test_a_cosine_ends_at_nothing() -> None:
    rate = Recipe(learning_rate=0.5, warmup=0, schedule="cosine").rate
    assert rate(0, 100) == 0.5
    assert rate(25, 100) == pytest.approx(0.25 * (1 + math.sqrt(0.5)))
    assert rate(50, 100) == pytest.approx(0.25)
    assert rate(100, 100) == pytest.approx(0)


def test_the_paper_s_recipe_is_the_paper_s() -> None:
    """Section 5.1: RMSprop, mini-batches of 32, 1e-3, and 1e-4 for fine-tuning."""
    optimizer = PAPER.optimizer_of(nn.Linear(2, 2).parameters())
    assert isinstance(optimizer, torch.optim.RMSprop)
    assert PAPER.batch == 32
    for step in (0, 10, 99_999):
        assert PAPER.rate(step, 100_000) == 1e-3
        assert PAPER.rate(step, 100_000, fine_tuning=True) == 1e-4
    assert (PAPER.average, PAPER.clip, PAPER.precision) == (None, None, "fp32")


def test_norms_and_biases_do_not_decay() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    network[2].requires_grad_(False)
    for recipe in (MODERN, PROLONGABLE):
        optimizer = recipe.optimizer_of(network.parameters())
        assert isinstance(optimizer, torch.optim.AdamW)
        decayed, others = optimizer.param_groups
        assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3, 3, 3)]
        assert decayed["weight_decay"] == recipe.weight_decay > 0
        assert [tuple(p.shape) for p in others["params"]] == [(4,), (4,), (4,)]
        assert others["weight_decay"] == 0


def test_muon_moves_matrices_and_leaves_norms_and_biases_undecayed() -> None:
    network = nn.Sequential(
        nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.Conv2d(8, 16, 3), nn.Linear(16, 9)
    )
    network[3].requires_grad_(False)
    optimizer = MUON.optimizer_of(network.parameters())
    assert isinstance(optimizer, Muon)
    matrices, kernels, others = optimizer.param_groups
    assert [tuple(p.shape) for p in matrices["params"]] == [(16, 8, 3, 3)]
    assert [tuple(p.shape) for p in kernels["params"]] == [(8, 1, 3, 3)]
    assert [tuple(p.shape) for p in others["params"]] == [(8,), (8,), (8,), (16,)]
    decays = [group["weight_decay"] for group in optimizer.param_groups]
    assert decays == [MUON.weight_decay, MUON.weight_decay, 0]
    assert [group["lr"] for group in optimizer.param_groups] == [MUON.learning_rate] * 3


def test_the_command_takes_every_recipe_and_no_other() -> None:
    parser = argparse.ArgumentParser()
    add_train(parser.add_subparsers())
    for name in RECIPES:
        assert parser.parse_args(["train", "--out", "run", "--recipe", name]).recipe == name
    with pytest.raises(SystemExit):
        parser.parse_args(["train", "--out", "run", "--recipe", "another"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"batch": 0}, "batch must be above 0"),
        ({"clip": -1.0}, "clip must be above 0"),
        ({"decay": 1.5}, "share of all steps"),
        ({"average": 1.0}, "decay in"),
    ],
)
def test_values_that_cannot_work_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(MODERN, **change)
