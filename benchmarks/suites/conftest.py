"""Inputs that the suites share."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from handmesh import Box, Bundle, Camera
from handmesh.imaging import decode
from handmesh.types import CROP_MARGIN

PHOTOS = Path(__file__).resolve().parents[2] / "examples" / "photos"


@pytest.fixture(scope="session")
def photo() -> NDArray[np.uint8]:
    """(640, 480, 3) uint8 RGB."""
    return decode(PHOTOS / "pointing.jpg")


@pytest.fixture(scope="session")
def box() -> Box:
    """The hand in `photo`."""
    x0, y0, x1, y1 = json.loads((PHOTOS / "boxes.json").read_text())["pointing.jpg"]
    return Box.from_xyxy(x0, y0, x1, y1, margin=CROP_MARGIN)


@pytest.fixture(scope="session")
def camera(photo: NDArray[np.uint8]) -> Camera:
    return Camera.default(photo.shape[1], photo.shape[0])


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The one that ships."""
    return Bundle.load()
