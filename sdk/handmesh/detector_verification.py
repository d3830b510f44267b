"""Proof that a detector's bundle computes, on this machine, what its network computed.

Its `reference.npz` holds whole pictures, `images` (N, S, S, 3) uint8, and what the torch network
gave for them, `hands` (N, K, 7) float32, see `handmesh.nn.detector.decode`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import backends
from .archive import read_arrays
from .bundle import Bundle
from .errors import BundleError, InputError

__all__ = ["DETECTOR_TOLERANCE", "DetectorDifference", "compare_hands", "verify_detector"]

# What an artifact may differ by. Of a hand whose direction the network does not know, (cos, sin) is
# the direction of a vector of almost no length, which rounding turns.
DETECTOR_TOLERANCE: Mapping[str, float] = {"missing": 0, "score": 1e-3, "px": 0.05, "degrees": 2.0}

# Pictures shown at once.
_BATCH = 8
# Hands that are less sure than this may come and go with rounding: they are not compared.
_SURE = 0.05
# A hand of one list is that of the other within this share of the picture.
_SAME = 0.02


@dataclasses.dataclass(frozen=True)
class DetectorDifference:
    """How far an artifact is from the torch network, at worst, over all sure hands.

    Attributes:
        pictures: compared. hands: in them. missing: hands that only one of both gives.
        score: of scores and sides. px: of centres and sizes, pixels of the input.
        degrees: of directions.
        backend: what ran, as `Backend.description`.
    """

    pictures: int
    hands: int
    missing: int
    score: float
    px: float
    degrees: float
    backend: str = ""

    def over(self, tolerance: Mapping[str, float]) -> dict[str, float]:
        """Figures that are more than is allowed, or no numbers."""
        found = dataclasses.asdict(self)
        return {k: found[k] for k, most in tolerance.items() if not found[k] <= most}

    @property
    def passed(self) -> bool:
        return not self.over(DETECTOR_TOLERANCE)

    def render(self) -> str:
        """For a reader."""
        return (
            f"{self.pictures} pictures, {self.hands} hands, {self.missing} missing; off by at most "
            f"{self.score:.2e} in scores, {self.px:.2e} px, {self.degrees:.2e} degrees"
        )


def verify_detector(
    bundle: Bundle,
    names: list[str] | None = None,
    device: str | None = None,
    threads: int | None = None,
) -> list[DetectorDifference]:
    """`handmesh.verification.verify` for a detector's bundle.

    Raises:
        BundleError, IntegrityError: a file is missing or damaged.
        BackendUnavailable: a backend that was asked for cannot run, or none can.
        BackendError: a runtime failed.
    """
    bundle.check()
    path = bundle.file("reference.npz")
    arrays: dict[str, NDArray[Any]] = dict(read_arrays(path, "make it again"))
    images, expected = arrays.get("images"), arrays.get("hands")
    if images is None or expected is None or expected.ndim != 3 or len(images) != len(expected):
        raise BundleError(f"{path} is not a detector's reference file; make it again")
    try:
        backends.check_images(images, bundle.image_size)
    except InputError as cause:
        raise BundleError(f"{path} is not a reference file: {cause}; make it again") from cause
    if names is None:
        names = [n for n in backends.names() if backends.unavailable(n, bundle, device) is None]
    differences = []
    for name in names or ["auto"]:
        backend = backends.create(name, bundle, threads, device)
        parts = [
            backend.outputs(images[start : start + _BATCH])["hands"]
            for start in range(0, len(images), _BATCH)
        ]
        found = compare_hands(np.concatenate(parts), expected, bundle.image_size)
        differences.append(dataclasses.replace(found, backend=backend.description))
    return differences


def compare_hands(
    hands: NDArray[np.float32], expected: NDArray[np.float32], size: int
) -> DetectorDifference:
    """Two lists of hands (N, K, 7) of the same pictures of ``size`` pixels."""
    missing, count = 0, 0
    worst = np.zeros(3)  # score, px, degrees
    for got, wanted in zip(hands, expected, strict=True):
        apart = np.abs(got[:, None, 1:3] - wanted[None, :, 1:3]).max(axis=-1)  # (K, K)
        apart[(got[:, 0] <= 0)[:, None] | (wanted[:, 0] <= 0)[None]] = np.inf
        missing += int(((apart.min(axis=1) > _SAME) & (got[:, 0] > _SURE)).sum())
        for row in np.flatnonzero(wanted[:, 0] > _SURE):
            count += 1
            other = int(apart[:, row].argmin())
            if apart[other, row] > _SAME:
                missing += 1
                continue
            a, b = got[other].astype(np.float64), wanted[row].astype(np.float64)
            turn = np.arctan2(a[5] * b[4] - a[4] * b[5], a[4] * b[4] + a[5] * b[5])
            score = np.abs(a[[0, 6]] - b[[0, 6]]).max()
            here = (score, np.abs(a[1:4] - b[1:4]).max() * size, abs(np.degrees(turn)))
            worst = np.maximum(worst, here)
    score, px, degrees = (float(value) for value in worst)
    return DetectorDifference(len(hands), count, missing, score, px, degrees)
