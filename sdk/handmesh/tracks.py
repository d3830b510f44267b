"""Hands from frame to frame: where each is looked for next, which is which, and whose it is.

A hand that is seen is looked at once a frame, in the box around its last joints. One that is not
seen is hidden: it is still looked for where it would be by now, and known again when it is back,
there or in a search, until it has been away for too long.

Where two hands cross, the crop of the one behind comes to show the one before it. Two tracks that
see the same hand are told apart by which of the person's hands it looks like, else by whose way it
goes on; the other one is hidden until it shows again.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .search import Look, Sighting, View, is_near, is_same_hand, log_odds, next_box
from .types import Box

__all__ = ["Track", "Tracks"]

# A look that is not part of a search needs no more than this to show a hand. To know a hidden hand
# again takes more: it is looked for in every frame, where mostly nothing is.
KEPT_PRESENCE, RETURN_PRESENCE = 0.5, 0.9
# Log-odds of right against left: one look counts at most so much, as the next is much the same
# picture, and all of them at most so much, so that a mistake can be mended.
ONE_LOOK, ALL_LOOKS = 3.0, 15.0
# Below this evidence both ways round are looked at; and every so often in any case, for a network
# in doubt tends to believe what it is shown.
DOUBT, COMPARE_S = 3.0, 1.0
# Time constant of the velocity by which a hand is expected, and for how long it is believed.
VELOCITY_S, EXTRAPOLATED_S = 0.12, 0.4
# A hand found again is the one that was lost if it is not farther away than so many boxes,
# whichever hand it looks like; farther away, if it looks like the same one.
NEAR_RETURN = 0.35
# Two tracks whose joints are closer than this share of a box see one hand; a hidden hand is not
# back before it is so far from all others.
COLLIDED, CLEAR_OF = 0.2, 0.3
# Within this share of a box of a surer one, a hand whose joints are less sure than this on average
# is half hidden by it, and where it is said to be is mostly wrong.
CROWDED, CROWDED_CONFIDENCE = 0.45, 0.75


class Track:
    """One hand over time.

    Attributes:
        id: its number, from 1.
        last: the last sighting of it.
        seen_s: when that was. first_s: when it was first seen.
        visible: whether it was seen in the latest frame.
        side: whether it looks like a left hand, by all that was seen of it.
    """

    def __init__(self, number: int, sighting: Sighting, time_s: float, known: bool | None) -> None:
        self.id = number
        self.last = sighting
        self.first_s = self.seen_s = time_s
        self.visible = True
        self._known = known
        self._evidence = _bounded(log_odds(sighting.looks_right), ALL_LOOKS)
        self.side = sighting.view.mirrored if known is None else known
        self._velocity = np.zeros(2)
        self._compared_s = time_s

    def moved(self, time_s: float) -> NDArray[np.float64]:
        """(2,) pixels that it should have gone since it was seen."""
        return self._velocity * min(time_s - self.seen_s, EXTRAPOLATED_S)

    def views(self, time_s: float, width: int, height: int) -> list[View]:
        """Where to look for it: once, or both ways round. The last one decides."""
        old, box = self.last.view.box, next_box(self.last)
        dx, dy = self.moved(time_s)
        box = Box(
            float(np.clip(box.cx + dx, 0, width - 1)),
            float(np.clip(box.cy + dy, 0, height - 1)),
            box.size,
            box.angle,
        )
        # A hand at rest is shown in the same crop again: a new one would shake the result.
        if self.visible and is_near(old, box):
            box = old
        view = View(box, self.side)
        if self._known is not None or not self.visible:
            return [view]
        sure = abs(self._evidence) >= DOUBT and (self._evidence < 0) == self.side
        if sure and time_s - self._compared_s < COMPARE_S:
            return [view]
        return [View(box, not self.side), view]

    def weigh(self, sightings: Sequence[Sighting], time_s: float) -> Sighting:
        """Take in what looks at `views` say of left and right; the sighting that counts."""
        if len(sightings) > 1:
            self._compared_s = time_s
        for sighting in sightings:
            self._evidence += _bounded(log_odds(sighting.looks_right), ONE_LOOK)
        self._evidence = _bounded(self._evidence, ALL_LOOKS)
        # It changes sides only with a sighting of the new one, whose surface is wound that way.
        wanted = self._evidence < 0 if self._known is None else self._known
        best = next((s for s in sightings if s.view.mirrored == wanted), sightings[-1])
        self.side = best.view.mirrored
        return best

    def see(self, sighting: Sighting, time_s: float) -> None:
        """It is there."""
        step = time_s - self.seen_s
        if self.visible and step > 0:
            way = (sighting.joints_px() - self.last.joints_px()).mean(axis=0)
            share = step / (step + VELOCITY_S)
            self._velocity = self._velocity + share * (way / step - self._velocity)
        else:
            self._velocity = np.zeros(2)
        self.last, self.seen_s, self.visible = sighting, time_s, True
        # Its surface is wound as this sighting's; where evidence says otherwise, the next frame is
        # looked at both ways round.
        self.side = sighting.view.mirrored

    def hide(self) -> None:
        """It is not to be seen."""
        self.visible = False

    def distance(self, sighting: Sighting, time_s: float) -> float:
        """How far from where it should be now a sighting is, in sides of the crop."""
        expected = self.last.joints_px() + self.moved(time_s)  # (21, 2)
        apart = np.linalg.norm(sighting.joints_px() - expected, axis=1).mean()
        return float(apart / max(self.last.view.box.size, sighting.view.box.size))

    def looks_like(self, sighting: Sighting) -> bool:
        """Whether a sighting is of the same side as this hand; all are where that is known."""
        return self._known is not None or (sighting.looks_right < 0.5) == self.side


class Tracks:
    """All hands of a video.

    Args:
        max_hands: how many are followed at once.
        remember_s: seconds for which a hand that is not seen is remembered.
        known: True if all look like left hands, False if like right ones, None if that is to be
            found out.
    """

    def __init__(self, max_hands: int, remember_s: float, known: bool | None = None) -> None:
        self._max_hands, self._remember_s, self._known = max_hands, remember_s, known
        self._tracks: list[Track] = []
        self._next_id = 1

    @property
    def visible(self) -> list[Track]:
        """Those seen in the latest frame, by number."""
        return [track for track in self._tracks if track.visible]

    @property
    def hidden(self) -> list[Track]:
        """Those remembered, by number."""
        return [track for track in self._tracks if not track.visible]

    def copy(self) -> Tracks:
        """The same hands, which what is done to these leaves as they are."""
        copied = copy.copy(self)
        copied._tracks = [copy.copy(track) for track in self._tracks]
        return copied

    def step(self, look: Look, time_s: float, width: int, height: int) -> None:
        """Look for every hand in the next frame, in one batch.

        Args:
            look: shows crops of that frame to the network.
            time_s: when it was taken. width, height: its size in pixels.
        """
        self._tracks = [
            t for t in self._tracks if t.visible or time_s - t.seen_s <= self._remember_s
        ]
        views = [track.views(time_s, width, height) for track in self._tracks]
        if not views:
            return
        seen = iter(look([view for own in views for view in own]))
        shown = {}
        for track, own in zip(self._tracks, views, strict=True):
            sightings = [next(seen) for _ in own]
            shown[track] = track.weigh(sightings, time_s) if track.visible else sightings[-1]
        following = {
            track: sighting
            for track, sighting in shown.items()
            if track.visible
            and sighting.presence >= KEPT_PRESENCE
            and _is_inside(sighting, width, height)
        }
        for track in self._beaten(following, time_s):
            del following[track]
        others = list(following.values())
        following = {t: s for t, s in following.items() if not _is_half_hidden(s, others)}
        for track in self.visible:
            if track in following:
                track.see(following[track], time_s)
            else:
                track.hide()
        for track in self.hidden:
            inside = _is_inside(shown[track], width, height)
            if inside and self._is_back(track, shown[track]):
                track.see(shown[track], time_s)

    def _is_back(self, track: Track, sighting: Sighting) -> bool:
        """Whether a look for a hidden hand shows it, and not another one."""
        return (
            len(self.visible) < self._max_hands
            and sighting.presence >= RETURN_PRESENCE
            and track.looks_like(sighting)
            and self._is_clear(sighting)
        )

    def _is_clear(self, sighting: Sighting) -> bool:
        """Whether it is not, and not just behind, a hand in view."""
        others = [track.last for track in self.visible]
        apart = not any(is_same_hand(sighting, other, CLEAR_OF) for other in others)
        return apart and not _is_half_hidden(sighting, others)

    def admit(self, found: Sequence[Sighting], time_s: float) -> None:
        """Take in what a search of the latest frame has found, the surest first."""
        for sighting in found:
            if not self._is_clear(sighting):
                continue
            if len(self.visible) >= self._max_hands:
                return
            returned = min(
                (t for t in self.hidden if self._could_be(t, sighting, time_s)),
                key=lambda t: t.distance(sighting, time_s),
                default=None,
            )
            if returned is not None:
                returned.see(sighting, time_s)
            else:
                self._tracks.append(Track(self._next_id, sighting, time_s, self._known))
                self._next_id += 1

    @staticmethod
    def _could_be(track: Track, sighting: Sighting, time_s: float) -> bool:
        return track.looks_like(sighting) or track.distance(sighting, time_s) < NEAR_RETURN

    @staticmethod
    def _beaten(shown: dict[Track, Sighting], time_s: float) -> set[Track]:
        """Those that see the hand of another one."""
        beaten: set[Track] = set()
        tracks = list(shown)
        for i, one in enumerate(tracks):
            for other in tracks[i + 1 :]:
                if {one, other} & beaten or not is_same_hand(shown[one], shown[other], COLLIDED):
                    continue
                right = sum(log_odds(shown[track].looks_right) for track in (one, other))
                if one.side != other.side and abs(right) > DOUBT:
                    loser = one if one.side != (right < 0) else other
                else:
                    loser = max(one, other, key=lambda t: t.distance(shown[t], time_s))
                beaten.add(loser)
        return beaten


def _bounded(value: float, limit: float) -> float:
    return math.copysign(min(abs(value), limit), value)


def _is_half_hidden(sighting: Sighting, others: Sequence[Sighting]) -> bool:
    """Whether a surer one is so near that little of it can be seen."""
    sure = float(sighting.confidence.mean())
    return sure < CROWDED_CONFIDENCE and any(
        float(other.confidence.mean()) > sure and is_same_hand(sighting, other, CROWDED)
        for other in others
    )


def _is_inside(sighting: Sighting, width: int, height: int) -> bool:
    """Whether the middle of the joints lies in the picture."""
    x, y = sighting.joints_px().mean(axis=0)
    return bool(-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5)
