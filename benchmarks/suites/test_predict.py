"""`predict()` by backend, with a box given and without."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from handmesh import Box, Bundle, Predictor, backends


@pytest.fixture(scope="module", params=backends.names())
def predictor(request: pytest.FixtureRequest, bundle: Bundle) -> Iterator[Predictor]:
    reason = backends.unavailable(request.param, bundle)
    if reason is not None:
        pytest.skip(reason)
    with Predictor(bundle, request.param, threads=1) as predictor:
        yield predictor


def test_predict_in_a_box(
    benchmark: BenchmarkFixture, predictor: Predictor, photo: NDArray[np.uint8], box: Box
) -> None:
    (hand,) = benchmark(predictor.predict, photo, box=box, handedness="left", looks=1)
    assert hand.handedness == "left"


def test_predict_with_a_search(
    benchmark: BenchmarkFixture, predictor: Predictor, photo: NDArray[np.uint8]
) -> None:
    hands = benchmark(predictor.predict, photo, min_presence=0.0)
    assert len(hands) == 1


def test_network_alone(
    benchmark: BenchmarkFixture, predictor: Predictor, photo: NDArray[np.uint8], bundle: Bundle
) -> None:
    size = bundle.image_size
    images = np.ascontiguousarray(photo[None, 100 : 100 + size, 100 : 100 + size])
    raw = benchmark(predictor.backend.run, images)
    assert raw.joints.shape == (1, 21, 3)
