"""Finding hands in a whole photo with nothing but the mesh network.

Windows of decreasing size are shown to the network, in batches; the most promising are followed:
the joints found in a crop say where the next, better crop is, and how to turn it so that the hand
points up, as the network knows hands best. A window that held a hand ends up on it, whatever its
first position, and its `presence` says whether there was one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from .geometry import upright_angle
from .types import CROP_MARGIN, Box

__all__ = [
    "Look",
    "Sighting",
    "View",
    "find",
    "first_looks",
    "follow",
    "hand_confidence",
    "is_near",
    "is_same_hand",
    "judge_sides",
    "log_odds",
    "next_box",
    "probability",
    "separate",
    "windows",
]

# Each size of window is this much smaller than the one before; neighbours are this share of their
# size apart. Both lie within what the network was trained to tolerate in a crop.
_SHRINK, _STRIDE = 1.4, 0.35
# Windows of one size, at most: panoramas have very many places to look at.
_MAX_WINDOWS = 256
# How many windows of each round are followed, for each hand that is wanted.
_FOLLOWED = 4
# A crop whose hand is less sure than this (`hand_confidence`) may hold one that points aside or
# down, and is shown turned as well. A turned look has to be so many times as sure to count instead.
_DOUBTFUL, _SURER = 0.6, 1.1
_TURNS = (math.pi / 2, -math.pi / 2)
# Rounds of following, and the changes of a box below which it has settled: of place and size, as a
# share of its size, and of its angle, in radians.
_REFINEMENTS, _SETTLED, _SETTLED_ANGLE = 2, 0.06, 0.3
# Log-odds of a hand in a window before it is looked at, against those in the training pictures. A
# search looks at a hundred places of which one at most is right, and where the network saw little
# but hands it believes in them too easily. Chosen for about one false alarm in ten photos without
# hands; where windows are searched, `handmesh evaluate --negatives` says what to add for another.
_PRIOR = -6.1
# A presence at which smaller windows are not looked at any more, if that many hands are there.
_CONFIDENT = 0.5
# Log-odds of handedness below which both sides are looked at, here at 95 %. Trained on more right
# than left hands, a head in doubt says "right"; a crop and its mirror image together have no such
# leaning. A single look is never surer than `_SUREST` allows.
_DOUBT, _SUREST = math.log(19), 1e-4
# Log-odds of all looks below which the side is still in doubt, and what is looked at then: the same
# hand in crops changed in size, in place (both as shares of the size) and angle (radians), each as
# it is and mirrored. One look's opinion changes with such trifles; that of twelve, hardly.
_UNSETTLED = 3.0
_VARIATIONS = (
    (1.0, 0.0, 0.0, 0.2), (1.0, 0.0, 0.0, -0.2), (0.9, 0.03, 0.0, 0.0),
    (1.12, -0.03, 0.03, 0.0), (1.0, 0.04, -0.04, 0.1), (1.05, -0.04, -0.03, -0.1),
)  # fmt: skip
# Two sightings are of one hand when their joints lie closer than this share of a box, on average.
_SAME_HAND = 0.15
# A sighting most of whose joints lie within a surer hand is a misreading of that hand's parts.
_WITHIN = 0.8


@dataclasses.dataclass(frozen=True)
class View:
    """A crop to be shown to the network, left-right mirrored or as it is."""

    box: Box
    mirrored: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Sighting:
    """What the network saw in one view. The mirroring is undone: all is in the photo's own frame.

    Attributes:
        view: the crop.
        vertices, joints: (V, 3) and (21, 3) float32, (u, v, d) in the un-mirrored crop.
        confidence: (21,) float32 in 0..1.
        presence: 0..1.
        looks_right: probability that the photo shows a right hand there; of a hand that does not
            point up in the crop nearer to a half than the network has it, see `pipeline`.
    """

    view: View
    vertices: NDArray[np.float32]
    joints: NDArray[np.float32]
    confidence: NDArray[np.float32]
    presence: float
    looks_right: float

    def joints_px(self) -> NDArray[np.float64]:
        """(21, 2) pixels of the photo."""
        return self.view.box.to_image(self.joints[:, :2])


# Shows views to the network, and gives a sighting for each.
Look = Callable[[Sequence[View]], list[Sighting]]


def find(
    look: Look,
    width: int,
    height: int,
    mirrored: bool | None = None,
    max_hands: int = 1,
    min_presence: float = 0.5,
) -> list[Sighting]:
    """Hands anywhere in a photo, the surest first.

    Args:
        look: shows crops to the network.
        width, height: size of the photo in pixels.
        mirrored: False for right hands only, True for left hands only, None for both.
        max_hands: how many, at most. The search goes on to smaller windows until it has them.
        min_presence: what is less sure than this is not a hand.

    Returns:
        Sightings whose ``presence`` takes into account in how many places a search looks: lower
        than the network's for that crop.
    """
    found: list[Sighting] = []
    for boxes in windows(width, height):
        seen = look([View(box, bool(mirrored)) for box in boxes])
        promising = _distinct(_surest_first(seen))[: _FOLLOWED * max_hands]
        followed = [_with_prior(sighting) for sighting in follow(look, promising, mirrored)]
        found = found + followed
        found = separate([sighting for sighting in found if sighting.presence >= min_presence])
        if sum(sighting.presence >= _CONFIDENT for sighting in found) >= max_hands:
            break
    return found[:max_hands]


def first_looks(look: Look, views: Sequence[View]) -> list[Sighting]:
    """A sighting for each view of a hand whose direction in the picture is not known.

    How a hand points in a first look decides how the next is turned, so that what is misread there
    stays misread. Views in which the joints are doubtful are therefore shown turned by a quarter
    either way, too, and the surest of the three looks is taken; its ``looks_right`` is by all.
    """
    seen = look(views)
    doubtful = [n for n, one in enumerate(seen) if hand_confidence(one) < _DOUBTFUL]
    if not doubtful:
        return seen
    turned = look([view for n in doubtful for view in _turned(views[n])])
    for place, n in enumerate(doubtful):
        others = turned[place * len(_TURNS) : (place + 1) * len(_TURNS)]
        odds = sum(log_odds(one.looks_right, _SUREST) for one in (seen[n], *others))
        surest = max(others, key=hand_confidence)
        if hand_confidence(surest) <= _SURER * hand_confidence(seen[n]):
            surest = seen[n]
        seen[n] = dataclasses.replace(surest, looks_right=probability(odds))
    return seen


def _turned(view: View) -> Iterator[View]:
    for turn in _TURNS:
        yield View(dataclasses.replace(view.box, angle=view.box.angle + turn), view.mirrored)


def hand_confidence(sighting: Sighting) -> float:
    """How sure the joints are of where they lie: the geometric mean of theirs, 0..1."""
    sure = np.maximum(sighting.confidence.astype(np.float64), 1e-6)
    return float(np.exp(np.log(sure).mean()))


def follow(
    look: Look,
    sightings: list[Sighting],
    mirrored: bool | Sequence[bool | None] | None = None,
    rounds: int = _REFINEMENTS,
) -> list[Sighting]:
    """Move each view to where its joints are, and look again, until it settles.

    The handedness head decides which way round a crop is shown next, by its log-odds summed over
    all looks at that hand. Where they leave doubt, both ways are shown, once: the last crop the
    other way round, and the next one both ways. ``mirrored`` decides instead, unless None.

    Args:
        look: shows crops to the network.
        sightings: first looks.
        mirrored: as in `find`, of all hands or of each.
        rounds: further looks at most, and after them one more at hands of which all looks together
            contradict the way that the last one showed them.

    Returns:
        The last look at each hand. Its ``looks_right`` is by all looks.
    """
    sides = mirrored if isinstance(mirrored, Sequence) else [mirrored] * len(sightings)
    tracks = [_Track(sighting, side) for sighting, side in zip(sightings, sides, strict=True)]
    for round_ in range(rounds + 1):
        moving = [t for t in tracks if not t.settled and (round_ < rounds or t.contradicted)]
        next_views = [track.next_views() for track in moving]
        if not next_views:
            break
        seen = iter(look([view for views in next_views for view in views]))
        for track, views in zip(moving, next_views, strict=True):
            track.add([next(seen) for _ in views])
    return [track.result() for track in tracks]


def judge_sides(look: Look, sightings: list[Sighting]) -> list[Sighting]:
    """Look again at hands of which it is in doubt whether they are left or right.

    Args:
        look: shows crops to the network. sightings: last looks, ``looks_right`` by all of them.

    Returns:
        The same hands; those in doubt with ``looks_right`` by all looks, and shown once more where
        these speak for the other side.
    """
    judged = list(sightings)
    for n, sighting in enumerate(sightings):
        odds = log_odds(sighting.looks_right, _SUREST)
        if abs(odds) >= _UNSETTLED:
            continue
        views = [
            View(box, mirrored) for box in _varied(sighting.view.box) for mirrored in (False, True)
        ]
        odds += sum(log_odds(each.looks_right, _SUREST) for each in look(views))
        if (odds < 0) != sighting.view.mirrored:
            (other,) = look([View(sighting.view.box, odds < 0)])
            sighting = dataclasses.replace(other, presence=sighting.presence)
        judged[n] = dataclasses.replace(sighting, looks_right=probability(odds))
    return judged


def _varied(box: Box) -> Iterator[Box]:
    for size, right, down, turn in _VARIATIONS:
        moved = box.cx + right * box.size, box.cy + down * box.size
        yield Box(*moved, box.size * size, box.angle + turn)


class _Track:
    """One hand through several looks."""

    def __init__(self, sighting: Sighting, mirrored: bool | None) -> None:
        self.last = sighting
        self.known = mirrored
        self.log_odds = log_odds(sighting.looks_right, _SUREST)
        self.compared = False

    @property
    def side(self) -> bool:
        """Whether to show the hand mirrored."""
        return self.log_odds < 0 if self.known is None else self.known

    @property
    def contradicted(self) -> bool:
        """Whether the last look was at the wrong side."""
        return self.side != self.last.view.mirrored

    @property
    def in_doubt(self) -> bool:
        return self.known is None and not self.compared and abs(self.log_odds) < _DOUBT

    @property
    def settled(self) -> bool:
        """Whether nothing speaks for another look."""
        near = is_near(self.last.view.box, next_box(self.last))
        return near and not (self.in_doubt or self.contradicted)

    def next_views(self) -> list[View]:
        following = next_box(self.last)
        if not self.in_doubt:
            return [View(following, self.side)]
        self.compared = True
        # The network's opinions of a crop and of its mirror image err apart: all of them count.
        other = View(self.last.view.box, not self.last.view.mirrored)
        return [other, View(following, False), View(following, True)]

    def add(self, sightings: list[Sighting]) -> None:
        """Take in the looks at `next_views`."""
        # Bounded, so that no single look outweighs all others.
        self.log_odds += sum(log_odds(sighting.looks_right, _SUREST) for sighting in sightings)
        if len(sightings) == 1:
            (self.last,) = sightings
        else:
            _, plain, mirrored = sightings
            self.last = mirrored if self.side else plain

    def result(self) -> Sighting:
        return dataclasses.replace(self.last, looks_right=probability(self.log_odds))


def log_odds(probability: float, surest: float = 1e-7) -> float:
    """Bounded by those of `surest`, also where a float32 has come to be exactly 0 or 1."""
    bounded = min(max(probability, surest), 1 - surest)
    return math.log(bounded / (1 - bounded))


def probability(log_odds: float) -> float:
    """In 0..1, of log-odds."""
    return 1 / (1 + math.exp(-log_odds))


def windows(width: int, height: int) -> Iterator[list[Box]]:
    """Rounds of windows over a photo, the large ones first. The first covers hands that fill the
    photo to those of half its shorter side; each later one, hands 1.4 times smaller."""
    longer, shorter = max(width, height), min(width, height)
    first = [longer * 1.25, float(longer), float(shorter), shorter / _SHRINK]
    rounds = [first, [shorter / _SHRINK**2], [shorter / _SHRINK**3]]
    for sizes in rounds:
        yield [box for size in sizes for box in _grid(width, height, size)]


def _grid(width: int, height: int, size: float) -> list[Box]:
    """Windows of one size that cover the photo; one in its middle where they are larger."""
    columns, rows = (
        math.ceil(max(0.0, side - size) / (_STRIDE * size)) + 1 for side in (width, height)
    )
    columns, rows = min(columns, max(1, _MAX_WINDOWS // rows)), min(rows, _MAX_WINDOWS)
    return [
        Box(cx, cy, size)
        for cy in _centres(height, size, rows)
        for cx in _centres(width, size, columns)
    ]


def _centres(side: int, size: float, count: int) -> list[float]:
    middle, reach = (side - 1) / 2, max(0.0, side - size) / 2
    return (
        [float(c) for c in np.linspace(middle - reach, middle + reach, count)]
        if count > 1
        else [middle]
    )


def next_box(sighting: Sighting) -> Box:
    """The box around the joints that were seen, turned so that the hand points up in it."""
    old, points = sighting.view.box, sighting.joints_px()
    angle = upright_angle(points)
    frame = Box(0, 0, 1, old.angle if angle is None else angle)
    along = frame.to_crop(points)  # (21, 2), along the new box's axes
    low, high = along.min(axis=0), along.max(axis=0)
    cx, cy = frame.to_image((low + high) / 2)
    # A wild guess may not throw the view out of all proportion.
    size = np.clip(CROP_MARGIN * (high - low).max(), old.size / 2, old.size * 2)
    return Box(float(cx), float(cy), float(size), frame.angle)


def is_near(old: Box, new: Box) -> bool:
    """Whether two boxes are so alike that the network would see the same in both."""
    if abs(math.remainder(new.angle - old.angle, math.tau)) > _SETTLED_ANGLE:
        return False
    moved = math.hypot(new.cx - old.cx, new.cy - old.cy)
    return max(moved, abs(new.size - old.size)) < _SETTLED * old.size


def separate(sightings: list[Sighting]) -> list[Sighting]:
    """One sighting of each hand, the surest first: without doubles, and without those that lie
    within a surer one."""
    return _apart(_distinct(_surest_first(sightings)))


def _with_prior(sighting: Sighting) -> Sighting:
    return dataclasses.replace(sighting, presence=probability(log_odds(sighting.presence) + _PRIOR))


def _surest_first(sightings: list[Sighting]) -> list[Sighting]:
    return sorted(sightings, key=lambda sighting: sighting.presence, reverse=True)


def is_same_hand(one: Sighting, other: Sighting, within: float = _SAME_HAND) -> bool:
    """Whether two sightings in one photo show the same hand: their joints are, on average, no
    farther apart than a share ``within`` of a box."""
    apart = np.linalg.norm(one.joints_px() - other.joints_px(), axis=1).mean()
    return bool(apart <= within * max(one.view.box.size, other.view.box.size))


def _distinct(sightings: list[Sighting]) -> list[Sighting]:
    """Without those that show the same hand as an earlier one in the list."""
    kept: list[Sighting] = []
    for sighting in sightings:
        if not any(is_same_hand(sighting, other) for other in kept):
            kept.append(sighting)
    return kept


def _apart(sightings: list[Sighting]) -> list[Sighting]:
    """Without those that lie within an earlier one in the list."""
    kept: list[Sighting] = []
    for sighting in sightings:
        if not any(_share_within(sighting, other) >= _WITHIN for other in kept):
            kept.append(sighting)
    return kept


def _share_within(one: Sighting, other: Sighting) -> float:
    """Share of the joints of ``one`` in the tight box, turned as its crop is, of ``other``."""
    joints, inner = other.joints[:, :2], other.view.box.to_crop(one.joints_px())
    inside = (inner >= joints.min(axis=0)) & (inner <= joints.max(axis=0))
    return float(inside.all(axis=1).mean())
