"""What searches a whole photo for hands: a detector, or windows shown to the mesh network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from . import search
from .bundle import DETECTOR, Bundle
from .detector import Detector
from .pipeline import Photo
from .search import Sighting, View, log_odds, probability

__all__ = ["DetectedHands", "Finder", "default_finder", "search_windows"]

# Finds hands in a whole photo, the surest first: (photo, side, max_hands, min_presence) to
# sightings, where side is True for left hands only, False for right ones, None for both. `predict`
# takes their mean with its further looks, at crops about their boxes.
Finder = Callable[[Photo, bool | None, int, float], list[Sighting]]

# Detections that are less sure than this are not looked at.
LEAST_SCORE = 0.2
# Log-odds of a hand before both networks have their say: each by itself believes in hands too
# easily. Chosen for a false alarm in about one of twenty pictures without hands.
PRIOR = -3.3
# Neither network is ever surer than this.
_SUREST = 1e-4
# How many are looked at, beside twice the hands that are wanted.
_MORE = 2


def search_windows(
    photo: Photo, side: bool | None, max_hands: int, min_presence: float
) -> list[Sighting]:
    """A `Finder` without a detector: windows over the photo, by the mesh network itself."""
    return search.find(photo.look, photo.width, photo.height, side, max_hands, min_presence)


class DetectedHands:
    """A `Finder` by a detector. The mesh network looks at what it finds, and both have a say.

    Args:
        detector: finds boxes.
    """

    def __init__(self, detector: Detector) -> None:
        self.detector = detector

    def __call__(
        self, photo: Photo, side: bool | None, max_hands: int, min_presence: float
    ) -> list[Sighting]:
        with photo.clock("detector"):
            found = self.detector.find(photo, LEAST_SCORE)[: 2 * max_hands + _MORE]
        if not found:
            return []
        # Those that are surely a left hand are shown mirrored at once.
        sides = [one.looks_right < 0.5 if side is None else side for one in found]
        seen = photo.look([View(one.box, left) for one, left in zip(found, sides, strict=True)])
        # The detector's opinion of the side counts as a look of its own.
        seen = [
            dataclasses.replace(
                look,
                looks_right=probability(log_odds(look.looks_right) + log_odds(one.looks_right)),
            )
            for look, one in zip(seen, found, strict=True)
        ]
        followed = search.follow(photo.look, seen, side, rounds=1)
        judged = [
            dataclasses.replace(
                last, presence=_presence(one.presence, first.presence, last.presence)
            )
            for last, first, one in zip(followed, seen, found, strict=True)
        ]
        kept = search.separate([look for look in judged if look.presence >= min_presence])
        kept = kept[:max_hands]
        return search.judge_sides(photo.look, kept) if side is None else kept


def _presence(detected: float, *looks: float) -> float:
    """What the detector and the mesh network think of it together.

    Looks at one hand are hardly independent, so they count as one, by the mean of their log-odds.
    """
    mesh = sum(log_odds(look, _SUREST) for look in looks) / len(looks)
    return probability(PRIOR + log_odds(detected, _SUREST) + mesh)


def default_finder(threads: int | None = None) -> Finder:
    """The shipped detector; windows in a handmesh that ships none.

    Raises:
        BundleError, IntegrityError: its bundle is damaged.
        BackendUnavailable, BackendError: no runtime for it.
    """
    if not Bundle.ships(DETECTOR):
        return search_windows
    return DetectedHands(Detector(threads=threads))
