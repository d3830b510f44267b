"""What is drawn for the eye: the mesh over its photo, and from the side."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from handmesh import Box, Bundle, Hand, Predictor
from handmesh.draw import depth_map, overlay, side_view


@pytest.fixture(scope="module")
def hand(bundle: Bundle, photo: NDArray[np.uint8], box: Box) -> Hand:
    with Predictor(bundle, "onnx", threads=1) as predictor:
        return predictor.predict(photo, box=box)[0]


def test_overlay(benchmark: BenchmarkFixture, photo: NDArray[np.uint8], hand: Hand) -> None:
    drawn = benchmark(overlay, photo, [hand])
    assert drawn.shape == photo.shape
    assert (drawn != photo).any()


def test_side_view(benchmark: BenchmarkFixture, hand: Hand) -> None:
    assert benchmark(side_view, hand).shape == (512, 512, 3)


def test_depth_map(benchmark: BenchmarkFixture, photo: NDArray[np.uint8], hand: Hand) -> None:
    height, width = photo.shape[:2]
    assert (benchmark(depth_map, [hand], width, height) > 0).any()
