"""How well hands are found in whole photos, by anything that finds them, and how long it takes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from handmesh import Hand, Predictor
from handmesh.imaging import decode

from .. import metrics
from ..evaluation_sets import spread
from ..finding import FOUND_WITHIN
from ..opencv import cv2
from ..photos import LabelledHand, read_labels
from ..seeds import Purpose, generator
from .grounds import Grounds

Image = NDArray[np.uint8]

# Size of the pictures that are timed and searched, pixels: photos are fitted into them.
WIDTH, HEIGHT = 640, 480
# Seed of what photos and panoramas are chosen for a composite or a view.
_SEED = 4


@dataclass(frozen=True)
class FindingFigures:
    """Of one finder. What there was nothing to measure for is None.

    Attributes:
        photos: of one hand each. found, found_twins: share in which the hand is found at its place,
            as taken and left-right mirrored.
        sides, side_twins: share of those found whose side is right; of the twins, the other one.
        extra: hands reported beside it, per photo.
        pairs: pictures of two photos side by side. both: share in which both hands are found.
        empty: pictures without hands. false_alarms: hands reported, per picture.
        ms_p50, ms_p90: milliseconds for a photo, found and measured, of those with one hand.
        empty_ms_p50: the same of pictures without.
    """

    photos: int
    found: float | None
    found_twins: float | None
    sides: float | None
    side_twins: float | None
    extra: float
    pairs: int
    both: float | None
    empty: int
    false_alarms: float | None
    ms_p50: float | None
    ms_p90: float | None
    empty_ms_p50: float | None

    def to_table(self, name: str) -> str:
        """For a reader."""
        rows = [
            f"{key:<14}{'-' if value is None else format(value, '.3f'):>10}"
            for key, value in asdict(self).items()
        ]
        return "\n  ".join([f"found by {name}", *rows])


def measure(
    predictor: Predictor,
    photos: Iterable[Path],
    grounds: Grounds | None,
    limit: int = 200,
    min_presence: float = 0.5,
) -> FindingFigures:
    """Search photos, their mirrored twins, pairs of them, and views of places without hands.

    Args:
        predictor: with the finder that is measured. photos: labelled sets, see `photos`.
        grounds: places without hands; None for none. limit: pictures of each kind.
        min_presence: as `Predictor.predict` takes it.

    Raises:
        InputError, ImageError: a set that cannot be read.
    """
    labels = [label for folder in photos for label in read_labels(folder)]
    labels = [labels[i] for i in spread(len(labels), limit)]
    timings: list[float] = []
    extra = 0
    found: tuple[list[bool], list[bool]] = ([], [])  # as taken, mirrored
    sides: tuple[list[bool], list[bool]] = ([], [])
    for label in tqdm(labels, desc="photos", unit="photo"):
        image, joints = _fitted(label)
        for twin in (False, True):
            shown = np.ascontiguousarray(image[:, ::-1]) if twin else image
            at = joints * (-1, 1) + (WIDTH - 1, 0) if twin else joints
            began = time.perf_counter()
            hands = predictor.predict(shown, max_hands=2, min_presence=min_presence, looks=1)
            timings.append((time.perf_counter() - began) * 1e3)
            hit = _hit(hands, at)
            found[twin].append(hit is not None)
            extra += len(hands) - (hit is not None)
            if hit is not None:
                sides[twin].append((hit.handedness == "right") == (label.is_right != twin))
    both = _pairs(predictor, labels, min_presence)
    alarms, empty_ms = _empty(predictor, grounds, limit, min_presence)
    return FindingFigures(
        photos=len(labels),
        found=_mean(found[0]),
        found_twins=_mean(found[1]),
        sides=_mean(sides[0]),
        side_twins=_mean(sides[1]),
        extra=extra / max(2 * len(labels), 1),
        pairs=len(both),
        both=_mean(both),
        empty=len(alarms),
        false_alarms=_mean(alarms),
        ms_p50=_quantile(timings, 0.5),
        ms_p90=_quantile(timings, 0.9),
        empty_ms_p50=_quantile(empty_ms, 0.5),
    )


def _fitted(
    label: LabelledHand, width: int = WIDTH, height: int = HEIGHT
) -> tuple[Image, NDArray[np.float64]]:
    """A photo in the middle of a picture of that size, on its own mean colour, and its joints."""
    image = decode(label.path)
    old = np.array([image.shape[1], image.shape[0]])
    zoom = float(min(width / old[0], height / old[1]))
    size = np.maximum(np.round(old * zoom), 1).astype(int)
    way = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
    small = cv2.resize(image, tuple(size.tolist()), interpolation=way)
    x, y = (width - size[0]) // 2, (height - size[1]) // 2
    made = np.empty((height, width, 3), dtype=np.uint8)
    made[:] = image.reshape(-1, 3).mean(axis=0).astype(np.uint8)
    made[y : y + size[1], x : x + size[0]] = small
    return made, (label.joints_px + 0.5) * (size / old) - 0.5 + (x, y)


def _hit(hands: Sequence[Hand], joints_px: NDArray[np.float64]) -> Hand | None:
    """The hand that is at those joints."""
    for hand in hands:
        if metrics.box_normalised_error(hand.joints_px[None], joints_px[None])[0] < FOUND_WITHIN:
            return hand
    return None


def _pairs(predictor: Predictor, labels: Sequence[LabelledHand], least: float) -> list[bool]:
    """Of two photos side by side, whether both hands are found."""
    both = []
    order = generator(_SEED, Purpose.COMPOSED, 0, 0, 0).permutation(len(labels))
    for first, second in tqdm(list(zip(order[::2], order[1::2], strict=False)), desc="pairs"):
        half = WIDTH // 2
        left, at_left = _fitted(labels[first], half)
        right, at_right = _fitted(labels[second], half)
        hands = predictor.predict(
            np.concatenate([left, right], axis=1), max_hands=2, min_presence=least, looks=1
        )
        at = (at_left, at_right + (half, 0))
        both.append(all(_hit(hands, joints) is not None for joints in at))
    return both


def _empty(
    predictor: Predictor, grounds: Grounds | None, count: int, least: float
) -> tuple[list[float], list[float]]:
    """Hands reported in views of places without any, and milliseconds."""
    alarms: list[float] = []
    timings: list[float] = []
    if grounds is None:
        return alarms, timings
    rng = generator(_SEED, Purpose.GROUNDS)
    for _ in tqdm(range(count), desc="without hands", unit="picture"):
        view = grounds.look_around(rng, WIDTH)[(WIDTH - HEIGHT) // 2 :][:HEIGHT]
        began = time.perf_counter()
        hands = predictor.predict(
            np.ascontiguousarray(view), max_hands=2, min_presence=least, looks=1
        )
        timings.append((time.perf_counter() - began) * 1e3)
        alarms.append(len(hands))
    return alarms, timings


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _quantile(values: Sequence[float], share: float) -> float | None:
    return float(np.quantile(values, share)) if len(values) else None
