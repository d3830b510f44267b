"""Several looks at one hand, in crops that differ a little, and the mean of what was seen.

The errors of a network change with trifles of the crop, and partly cancel in a mean: for photos,
where a few crops more are soon done, that is worth more than a larger network's time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .search import Look, Sighting, View, hand_confidence, is_same_hand
from .types import Box

__all__ = ["LOOKS", "MOST_LOOKS", "look_again", "mean_sighting"]

# Crops beside the first: factors of its size, and turns in radians, in the order in which they are
# taken. Larger changes than these, and more of them, gain little more.
_VARIATIONS = ((1.0, -0.2), (1.15, 0.0), (0.87, 0.0), (1.0, 0.2))
MOST_LOOKS = 1 + len(_VARIATIONS)
# Where nothing else is asked for.
LOOKS = 2
# A further look whose joints lie farther from the first one's than this share of the box, on
# average, shows another hand.
_ANOTHER_HAND = 0.3
# Looks count by this power of the geometric mean of their joints' confidence.
_SHARPNESS = 3.0


def look_again(look: Look, sightings: Sequence[Sighting], looks: int) -> list[Sighting]:
    """Each hand by the mean of so many looks, from 1 to `MOST_LOOKS`, the one at hand among them.

    All hands' crops are shown to the network together. Where one shows another hand instead, as of
    two that are close to each other, that look does not count.
    """
    more = _VARIATIONS[: looks - 1]
    views = [
        View(Box(box.cx, box.cy, box.size * size, box.angle + turn), sighting.view.mirrored)
        for sighting in sightings
        for box in [sighting.view.box]
        for size, turn in more
    ]
    if not views:
        return list(sightings)
    seen = look(views)
    each = [seen[n : n + len(more)] for n in range(0, len(seen), len(more))]
    return [
        mean_sighting([first, *(one for one in rest if is_same_hand(first, one, _ANOTHER_HAND))])
        for first, rest in zip(sightings, each, strict=True)
    ]


def mean_sighting(looks: Sequence[Sighting]) -> Sighting:
    """The mean of looks at one hand of one side, weighted by confidence, in the first one's crop.

    `presence`, `looks_right` and the crop are the first one's: they have been judged already.
    """
    confidence = np.stack([one.confidence for one in looks]).astype(np.float64)  # (N, 21)
    sure = np.array([hand_confidence(one) for one in looks])  # (N,)
    weights = (sure / sure.max()) ** _SHARPNESS
    weights /= weights.sum()
    first = looks[0]

    def mean(points: list[NDArray[np.floating]]) -> NDArray[np.float32]:
        """Of (P, 3) of each look, (u, v, d) in its own crop."""
        moved = []
        for one, seen in zip(looks, points, strict=True):
            uv = first.view.box.to_crop(one.view.box.to_image(seen[:, :2]))  # (P, 2)
            moved.append(np.column_stack([uv, seen[:, 2]]))  # depth is in bones, of no crop
        return np.tensordot(weights, np.stack(moved), axes=1).astype(np.float32)  # (P, 3)

    return dataclasses.replace(
        first,
        vertices=mean([one.vertices for one in looks]),
        joints=mean([one.joints for one in looks]),
        confidence=(weights @ confidence).astype(np.float32),
    )
