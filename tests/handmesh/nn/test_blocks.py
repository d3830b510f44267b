"""Soft-argmax against closed forms and float64 sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from handmesh.nn.blocks import HighestPoints, soft_argmax


def test_one_hot_map_gives_the_cell_centre() -> None:
    maps = torch.zeros(1, 2, 8, 16)
    maps[0, 0, 3, 10] = 1.0
    maps[0, 1, 7, 0] = 1.0
    uv, weights = soft_argmax(maps, 1000.0)
    expected = [[10.5 / 16, 3.5 / 8], [0.5 / 16, 7.5 / 8]]
    np.testing.assert_allclose(uv[0].numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(weights.sum(-1).numpy(), 1.0, rtol=1e-6)


def test_two_peaks_share_by_their_exponentials() -> None:
    maps = torch.full((1, 1, 4, 4), -1e4, dtype=torch.float64)
    maps[0, 0, 1, 0], maps[0, 0, 1, 3] = 0.2, 0.5
    share = 1 / (1 + np.exp(-5.0 * 0.3))
    uv, _ = soft_argmax(maps, 5.0)
    expected = [(1 - share) * 0.125 + share * 0.875, 0.375]
    np.testing.assert_allclose(uv[0, 0].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("shape", [(32, 32), (5, 7)])
def test_general_map_against_numpy(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(2, 3, *shape))
    weights = np.exp(4.0 * maps)
    weights /= weights.sum(axis=(2, 3), keepdims=True)
    v, u = [(index + 0.5) / n for index, n in zip(np.indices(shape), shape, strict=True)]
    expected = np.stack([(weights * u).sum((2, 3)), (weights * v).sum((2, 3))], axis=-1)
    uv, flat = soft_argmax(torch.from_numpy(maps), torch.tensor(4.0, dtype=torch.float64))
    np.testing.assert_allclose(uv.numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(flat.numpy(), weights.reshape(2, 3, -1), atol=1e-12)


def test_highest_point_is_that_of_the_enlarged_map() -> None:
    torch.manual_seed(0)
    maps = torch.rand(4, 21, 16, 16, dtype=torch.float64)
    maps = F.pad(maps, (1, 1, 1, 1))  # nothing in the outer cells, where pixels are equal
    enlarged = F.interpolate(maps, size=(72, 72), mode="bilinear").flatten(2)
    at = enlarged.argmax(2)
    expected = torch.stack([at % 72, at // 72], dim=-1).double() / 72
    torch.testing.assert_close(HighestPoints(18, 72).double()(maps), expected)


def test_equal_pixels_give_the_first() -> None:
    maps = torch.zeros(1, 3, 8, 8)
    maps[0, 0, 0, 0] = maps[0, 1, 7, 7] = 0.3  # maps[0, 2] is 0 everywhere
    uv = HighestPoints(8, 32)(maps)
    # The outer cells' centres lie between pixels 1 and 2, and 29 and 30: beyond, all are equal.
    expected = torch.tensor([[[0.0, 0.0], [30.0, 30.0], [0.0, 0.0]]]) / 32
    torch.testing.assert_close(uv, expected)
