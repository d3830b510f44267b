"""Decoding and cropping."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from handmesh import Box
from handmesh.imaging import Pyramid, crop, decode

PHOTO = Path(__file__).resolve().parents[2] / "examples" / "photos" / "pointing.jpg"


def test_decode_jpeg(benchmark: BenchmarkFixture) -> None:
    data = PHOTO.read_bytes()
    assert benchmark(decode, data).shape == (640, 480, 3)


@pytest.mark.parametrize("size", [128, 192, 256])
def test_crop(benchmark: BenchmarkFixture, photo: NDArray[np.uint8], box: Box, size: int) -> None:
    assert benchmark(crop, photo, box, size).shape == (size, size, 3)


def test_crop_turned(benchmark: BenchmarkFixture, photo: NDArray[np.uint8], box: Box) -> None:
    turned = Box(box.cx, box.cy, box.size, angle=0.5)
    assert benchmark(crop, photo, turned, 128).shape == (128, 128, 3)


def test_second_crop_of_a_photo(
    benchmark: BenchmarkFixture, photo: NDArray[np.uint8], box: Box
) -> None:
    pyramid = Pyramid(photo)
    pyramid.crop(box, 128)
    assert benchmark(pyramid.crop, box, 128).shape == (128, 128, 3)
