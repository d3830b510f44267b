"""A hand whose every joint is known, and what must hold of any sample whatever set it is from."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from handmesh import FINGERS, JOINT_NAMES
from handmesh_training.datasets import Sample

Array = NDArray[np.float64]
Hand = dict[str, Array]


def _known_hand(is_right: bool, seed: int) -> Hand:
    """Joints by name in the camera frame, metres, about 0.5 m away, palm roughly to the camera."""
    rng = np.random.default_rng(seed)
    hand = {"wrist": np.zeros(3)}
    thumb = [(30, -25, -10), (52, -48, -16), (68, -72, -22), (79, -92, -28)]
    for name, place in zip(("cmc", "mcp", "ip", "tip"), thumb, strict=True):
        hand[f"thumb_{name}"] = np.array(place) / 1000.0
    knuckles = {"index": (24, -88), "middle": (3, -92), "ring": (-17, -86), "little": (-34, -76)}
    for finger, (x, y) in knuckles.items():
        place, angle = np.array([x, y, 0]) / 1000.0, 0.0
        hand[f"{finger}_mcp"] = place
        for name, length in (("pip", 0.044), ("dip", 0.027), ("tip", 0.022)):
            angle += rng.uniform(0.1, 0.5)  # towards the palm, which faces -z
            place = place + length * np.array([0.0, -np.cos(angle), -np.sin(angle)])
            hand[f"{finger}_{name}"] = place
    turn = cv2.Rodrigues(rng.uniform(-0.5, 0.5, 3))[0]
    away = np.array([rng.uniform(-0.03, 0.03), 0.05, rng.uniform(0.45, 0.55)])
    sign = np.array([1.0 if is_right else -1.0, 1.0, 1.0])
    return {name: turn @ (place * sign) + away for name, place in hand.items()}


@pytest.fixture(scope="session")
def known_hand() -> Callable[[bool, int], Hand]:
    return _known_hand


def bend(joints_m: Array) -> float:
    """How far four fingers bend in their own joints the way a right hand's do, -4 to 4.

    Fingers bend about the line through the knuckles, towards the palm: a mirrored hand bends about
    it the other way. Near zero, where fingers are straight, it says nothing.
    """
    across = joints_m[17] - joints_m[5]  # knuckle of the index to that of the little finger
    across /= np.linalg.norm(across)
    total = 0.0
    for mcp, pip, _, tip in (FINGERS[name] for name in ("index", "middle", "ring", "little")):
        first, rest = joints_m[pip] - joints_m[mcp], joints_m[tip] - joints_m[pip]
        axis = np.cross(first / np.linalg.norm(first), rest / np.linalg.norm(rest))
        total -= float(axis @ across)
    return total


@pytest.fixture
def assert_sound() -> Callable[[Sample], None]:
    """A sample's labels agree with each other and with anatomy, of the side it says."""

    def check(sample: Sample) -> None:
        assert sample.joints_m is not None
        assert sample.intrinsics is not None
        joints = sample.joints_m
        assert 0.1 < joints[0, 2] < 3, "metres, before the camera"
        fx, fy = sample.intrinsics[0, 0], sample.intrinsics[1, 1]
        cx, cy = sample.intrinsics[0, 2], sample.intrinsics[1, 2]
        u = fx * joints[:, 0] / joints[:, 2] + cx
        v = fy * joints[:, 1] / joints[:, 2] + cy
        # Some sets round their labels to a tenth of a pixel.
        np.testing.assert_allclose(sample.joints_px, np.stack([u, v], axis=1), atol=0.1)

        def length(a: str, b: str) -> float:
            rows = JOINT_NAMES.index(a), JOINT_NAMES.index(b)
            return float(np.linalg.norm(joints[rows[0]] - joints[rows[1]]))

        assert 0.02 < length("middle_mcp", "middle_pip") < 0.07
        for finger in ("index", "middle", "ring", "little"):
            assert length(f"{finger}_mcp", f"{finger}_pip") > length(
                f"{finger}_dip", f"{finger}_tip"
            )
            assert length("wrist", f"{finger}_mcp") > length(f"{finger}_mcp", f"{finger}_pip")
            assert length("wrist", "thumb_cmc") < length("wrist", f"{finger}_mcp")
        reach = [length("index_mcp", f"{finger}_mcp") for finger in ("middle", "ring", "little")]
        assert reach == sorted(reach)
        assert length("thumb_cmc", "index_mcp") < length("thumb_cmc", "little_mcp")
        assert (bend(joints) > 0) == sample.is_right or abs(bend(joints)) < 0.5

    return check


@pytest.fixture
def assets() -> Path:
    """The folder of sample files that are no part of the project; HANDMESH_ASSETS names it."""
    folder = os.environ.get("HANDMESH_ASSETS")
    if not folder:
        pytest.skip("HANDMESH_ASSETS names no folder with labelled samples of other data sets")
    return Path(folder)


def _write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """RGB, RGBA or grey, in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if picture.ndim == 3:
        picture = picture[..., [2, 1, 0, 3][: picture.shape[2]]]
    assert cv2.imwrite(str(path), picture)


@pytest.fixture(scope="session")
def write_picture() -> Callable[[Path, NDArray[np.uint8]], None]:
    return _write_picture
