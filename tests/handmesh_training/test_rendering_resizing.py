"""Resizing without OpenCV, against OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from handmesh_training.rendering.resizing import enlarge, fill, shrink


@pytest.mark.parametrize("size", [(32, 24), (16, 12), (31, 23), (7, 5), (1, 1), (32, 12)])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_shrinking_is_opencvs(size: tuple[int, int], channels: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).random((24, 32, *channels), dtype=np.float32)
    want = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(
        shrink(image, *size), want.reshape(size[1], size[0], *channels), atol=2e-6
    )


@pytest.mark.parametrize("cubic", [False, True])
@pytest.mark.parametrize("size", [(64, 48), (37, 29), (8, 6)])
def test_enlarging_is_opencvs(cubic: bool, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random((6, 8, 3), dtype=np.float32)
    kind = cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR
    want = cv2.resize(image, size, interpolation=kind)
    np.testing.assert_allclose(enlarge(image, *size, cubic=cubic), want, atol=1e-5)


def test_filled_triangles_are_those_of_opencv_but_for_a_pixel_of_border() -> None:
    rng = np.random.default_rng(0)
    kernel = np.ones((3, 3), np.uint8)
    for _ in range(50):
        triangle = rng.integers(2, 38, (3, 2))
        want = np.zeros((40, 40), np.uint8)
        cv2.fillConvexPoly(want, triangle.astype(np.int32), 1)
        got = fill(triangle[None], 40, 40).astype(np.uint8)
        assert not (cv2.erode(want, kernel) & ~got & 1).any()
        assert not (got & ~cv2.dilate(want, kernel) & 1).any()
        assert int((got != want).sum()) <= 12


def test_all_triangles_are_filled() -> None:
    two = np.array([[[1, 1], [5, 1], [1, 5]], [[20, 20], [24, 20], [20, 24]]])
    mask = fill(two, 30, 30)
    assert mask[2, 2]
    assert mask[21, 21]
    assert not mask[10, 10]
