"""Labels on the detector's grid against closed forms, and back again."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from handmesh.nn.detector import decode
from handmesh_training.detection.scenes import MOST
from handmesh_training.detection.targets import DetectionWeights, detection_loss, targets
from handmesh_training.detection.validate import score

SIDE = 24


def _label(*rows: tuple[float, ...]) -> torch.Tensor:
    table = torch.zeros(1, MOST, 8)
    for i, row in enumerate(rows):
        table[0, i] = torch.tensor(row)
    return table


def _hand(x: float, y: float, size: float, angle: float, right: float, kind: float = 1.0):
    return (x, y, size, math.cos(angle), math.sin(angle), right, 1.0, kind)


def _perfect(labels: torch.Tensor) -> torch.Tensor:
    """A grid that says what the targets do; presence far from every doubt."""
    true = targets(labels, SIDE)
    grid = torch.zeros(len(labels), 7, SIDE, SIDE)
    grid[:, 0] = torch.where(true.heat == 1, 12.0, -12.0)
    grid[:, 1:3], grid[:, 3], grid[:, 4:6] = true.offset, true.log_size, true.direction
    grid[:, 6] = true.right * 40 - 20
    return grid


def test_a_hand_is_said_in_the_cell_of_its_centre() -> None:
    label = _hand(0.40, 0.26, 0.5, 0.7, 1.0)

    true = targets(_label(label), SIDE)

    row, column = int(0.26 * SIDE), int(0.40 * SIDE)
    assert (true.heat[0] == 1).nonzero().tolist() == [[row, column]]
    assert true.offset[0, :, row, column].tolist() == pytest.approx(
        [0.40 * SIDE - column - 0.5, 0.26 * SIDE - row - 0.5], abs=1e-5
    )
    assert float(true.log_size[0, row, column]) == pytest.approx(math.log(0.5 / 0.25))
    assert true.direction[0, :, row, column].tolist() == pytest.approx(
        [math.cos(0.7), math.sin(0.7)]
    )
    # The heat falls as a Gaussian of 7 % of the box: one cell away, exp(-1 / (2 sigma^2)).
    sigma = 0.07 * 0.5 * SIDE
    assert float(true.heat[0, row, column + 1]) == pytest.approx(math.exp(-0.5 / sigma**2))
    assert int((true.near > 0).sum()) == 9


def test_decoding_a_perfect_grid_gives_the_hands_back() -> None:
    rng = np.random.default_rng(3)
    rows = [
        _hand(x, y, float(rng.uniform(0.08, 0.9)), float(rng.uniform(-3, 3)), float(i % 2))
        for i, (x, y) in enumerate([(0.1, 0.2), (0.52, 0.49), (0.9, 0.11), (0.3, 0.93)])
    ]
    labels = _label(*rows)

    hands = decode(_perfect(labels), 16)[0].numpy()

    sure = hands[hands[:, 0] > 0.5]
    assert len(sure) == len(rows)
    for row in rows:
        nearest = sure[np.abs(sure[:, 1:3] - row[:2]).sum(axis=1).argmin()]
        np.testing.assert_allclose(nearest[1:4], row[:3], atol=1e-5)
        np.testing.assert_allclose(nearest[4:6], row[3:5], atol=1e-5)
        assert (nearest[6] > 0.5) == bool(row[5])
    assert hands[len(rows) :, 0].max() < 1e-4


def test_of_neighbouring_peaks_the_surer_one_is_kept() -> None:
    grid = torch.full((1, 7, SIDE, SIDE), -8.0)
    grid[0, 0, 5, 5], grid[0, 0, 5, 6], grid[0, 0, 5, 8] = 3.0, 2.0, 1.0

    hands = decode(grid, 16)[0]

    surest = torch.tensor([3.0, 1.0]).sigmoid()
    assert torch.allclose(hands[:2, 0], surest)
    assert float(hands[2, 0]) < 0.01


def test_the_loss_of_a_perfect_grid_is_nothing_and_grows_with_each_error() -> None:
    labels = _label(_hand(0.4, 0.3, 0.4, 0.2, 1.0), _hand(0.8, 0.7, 0.2, -1.0, 0.0))
    perfect = _perfect(labels)
    weights = DetectionWeights()

    best, _ = detection_loss(perfect, labels, weights)

    assert float(best) < 0.01
    for channel, name in ((1, "offset"), (3, "size"), (5, "direction")):
        wrong = perfect.clone()
        wrong[:, channel] += 0.5
        _, terms = detection_loss(wrong, labels, weights)
        assert float(terms[name]) == pytest.approx(0.5, abs=1e-4)
    unsure = perfect.clone()
    unsure[:, 0] = 0.0
    assert float(detection_loss(unsure, labels, weights)[1]["presence"]) > 1.0


def test_presence_is_not_judged_around_a_hand_in_doubt() -> None:
    labels = _label(_hand(0.5, 0.5, 0.5, 0.0, 1.0, kind=-1.0))
    empty = torch.full((1, 7, SIDE, SIDE), -12.0)
    sure = empty.clone()
    sure[0, 0, 12, 12] = 6.0
    far = empty.clone()
    far[0, 0, 1, 1] = 6.0

    def loss(grid: torch.Tensor) -> float:
        return float(detection_loss(grid, labels, DetectionWeights())[0])

    assert loss(sure) == pytest.approx(loss(empty), abs=1e-4)
    assert loss(far) > 1.0


def test_gradients_are_those_of_finite_differences() -> None:
    labels = _label(_hand(0.4, 0.3, 0.4, 0.2, 1.0)).double()
    grid = torch.randn(1, 7, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    grid.requires_grad_()

    assert torch.autograd.gradcheck(
        lambda g: detection_loss(g, labels, DetectionWeights())[0], (grid,)
    )


def test_scores_count_hands_and_false_alarms() -> None:
    labels = _label(_hand(0.4, 0.3, 0.4, 0.2, 1.0), _hand(0.8, 0.7, 0.2, -1.0, 0.0)).numpy()
    hands = np.zeros((1, 16, 7), dtype=np.float32)
    hands[0, 0] = (0.9, 0.41, 0.3, 0.44, math.cos(0.3), math.sin(0.3), 0.8)
    hands[0, 1] = (0.8, 0.1, 0.9, 0.2, 1, 0, 0.8)  # of no hand

    figures = score(hands, labels)

    assert figures["found"] == 0.5
    assert figures["false"] == 1.0
    assert figures["centre"] == pytest.approx(0.01 / 0.4, abs=1e-3)
    assert figures["size"] == pytest.approx(0.1, abs=1e-3)
    assert figures["angle"] == pytest.approx(math.degrees(0.1), abs=1e-2)
    assert figures["side"] == 0.0
