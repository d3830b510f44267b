"""Hands in a video: found once, then followed."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arguments import (
    checked_camera,
    checked_finder,
    checked_presence,
    checked_smoother,
    wanted_side,
)
from .camera import counted
from .closing import Closing
from .errors import InputError
from .finding import Finder, search_windows
from .geometry import place
from .imaging import ImageLike
from .pipeline import Photo
from .predictor import Predictor
from .smoothing import HandSmoother
from .tracks import Track, Tracks
from .types import Camera, Hand, Handedness, finite

__all__ = ["Finder", "TrackedFrame", "TrackedHand", "Tracker", "search_windows"]

# While some hand is followed, each search in vain doubles the time to the next, up to this factor.
_LONGEST_WAIT = 8
# A hand that has just been lost is looked for where it was before all of the picture is searched.
_GRACE_S = 0.2
# After that long out of sight, a hand is not drawn from where it was to where it is.
_RESTART_S = 0.2


@dataclasses.dataclass(frozen=True, eq=False)
class TrackedHand:
    """A hand in one frame of a video. What is asked for most is here as well as in ``hand``.

    Attributes:
        id: the hand's number in this video, from 1; it keeps it.
        hand: the hand, smoothed if the tracker smooths. Its ``presence`` is the network's for that
            crop, its handedness by all frames so far; its timings are those of the whole frame.
        first_s: time of the first frame that it was seen in, seconds.
    """

    id: int
    hand: Hand
    first_s: float

    @property
    def joints_m(self) -> NDArray[np.float32]:
        """(21, 3) float32, camera space, metres: `Hand.joints_m`."""
        return self.hand.joints_m

    @property
    def joints_px(self) -> NDArray[np.float32]:
        """(21, 2) float32, pixels of the frame: `Hand.joints_px`."""
        return self.hand.joints_px

    @property
    def handedness(self) -> Handedness:
        """The person's own left or right: `Hand.handedness`."""
        return self.hand.handedness

    @property
    def presence(self) -> float:
        """0..1: `Hand.presence`."""
        return self.hand.presence


@dataclasses.dataclass(frozen=True, eq=False)
class TrackedFrame:
    """What one frame of a video shows.

    Attributes:
        time_s: when it was taken, seconds.
        hands: those seen in it, by id.
        searched: whether all of the picture was searched.
        crops_seen: crops shown to the network.
        timings_ms: milliseconds by stage, as `Hand.timings_ms`, and "total".
    """

    time_s: float
    hands: tuple[TrackedHand, ...]
    searched: bool
    crops_seen: int
    timings_ms: Mapping[str, float]

    def to_dict(self, mesh: bool = False) -> dict[str, Any]:
        """Plain numbers and strings, ready for JSON.

        Args:
            mesh: with the vertices and faces of each hand, which are most of it.
        """
        return {
            "time_s": round(self.time_s, 6),
            "searched": self.searched,
            "crops_seen": self.crops_seen,
            "timings_ms": {stage: round(value, 3) for stage, value in self.timings_ms.items()},
            "hands": [
                {"id": tracked.id, "first_s": round(tracked.first_s, 6)}
                | tracked.hand.to_dict(mesh=mesh)
                for tracked in self.hands
            ],
        }


class Tracker(Closing):
    """Follows hands through a video. Close it, or use it as a context manager.

    Frames are handed over one by one, in the order of their times. The whole picture is searched
    only where a hand is missing; a hand once found is followed by its own last joints, which takes
    one run of the network, one look at each hand. One Tracker is for one video, and for one
    thread; several may share a `Predictor`.

    Args:
        predictor: the network; by default the shipped one is loaded, and closed with the tracker.
        camera: intrinsics of the frames; by default `Camera.default` of their size.
        handedness: of all hands, when known; by default it is decided by all frames of a hand.
        bone_length_m: length of the middle finger from knuckle (MCP) to next joint (PIP), in
            metres. With a camera it makes the result metric.
        mirrored: the video is left-right mirrored, as a selfie preview is; as in
            `Predictor.predict`.
        max_hands: how many hands to follow.
        min_presence: hands that the network is less sure of are left out of a search.
        search_every_s: seconds of video between two searches while a hand is missing. With some
            other hand in view, searches in vain make it up to 8 times as long.
        remember_s: seconds after which a hand that is not seen gets a new id when it returns.
        smoother: makes the filter of each hand, `handmesh.smoothing.HandSmoother` or a function
            that returns one with other parameters, not a filter itself; None for results as they
            are measured.
        find: what searches a whole picture, by default what the predictor searches with.

    Raises:
        InputError, BundleError, BackendUnavailable, BackendError: as in `Predictor`.
    """

    def __init__(
        self,
        predictor: Predictor | None = None,
        camera: Camera | None = None,
        handedness: Handedness | None = None,
        bone_length_m: float | None = None,
        mirrored: bool = False,
        max_hands: int = 2,
        min_presence: float = 0.5,
        search_every_s: float = 0.5,
        remember_s: float = 3.0,
        smoother: Callable[[], HandSmoother] | None = HandSmoother,
        find: Finder | None = None,
    ) -> None:
        self._side = wanted_side(handedness, mirrored)
        self._max_hands = counted(max_hands, "max_hands")
        self._min_presence = checked_presence(min_presence)
        place(1.0, bone_length_m)  # refuses bad lengths
        for name, seconds in (("search_every_s", search_every_s), ("remember_s", remember_s)):
            if finite(seconds, name, InputError) < 0:
                raise InputError(f"{name} must be 0 or more seconds, not {seconds}")
        self._search_every_s, self._remember_s = float(search_every_s), float(remember_s)
        self._camera, self._bone_length_m, self._mirrored = camera, bone_length_m, mirrored
        if not isinstance(predictor, (Predictor, type(None))):
            raise InputError(
                "predictor must be a handmesh.Predictor, as handmesh.load() gives one, not "
                f"{type(predictor).__name__}"
            )
        self._smoother, self._find = checked_smoother(smoother), checked_finder(find)
        self._owned = predictor is None
        self._predictor = Predictor() if predictor is None else predictor
        self.reset()

    def reset(self) -> None:
        """Forget all hands and times: the next frame is the first of another video."""
        self._tracks = Tracks(self._max_hands, self._remember_s, self._side)
        self._smoothers: dict[int, tuple[HandSmoother, float]] = {}
        self._time_s = -math.inf
        self._searched_s, self._wait, self._lost_s = -math.inf, 1, -math.inf
        self._size: tuple[int, int] | None = None

    def update(self, image: ImageLike, time_s: float | None = None) -> TrackedFrame:
        """The hands in the next frame.

        Args:
            image: the frame, as `Predictor.predict` takes a photo: an (H, W, 3) uint8 RGB array.
                OpenCV gives BGR: hand over ``frame[..., ::-1]``.
            time_s: when it was taken, seconds from any moment; by default now. Frames need not be
                evenly spaced, but later than the ones before. A frame that failed leaves no trace
                and may be handed over again.

        Raises:
            InputError: the time is not later than that of the last frame, or the frame of another
                size.
            ImageError, CameraError, BackendError: as in `Predictor.predict`.
        """
        began = time.perf_counter()
        now = self._checked_time(time.perf_counter() if time_s is None else time_s)
        photo = self._predictor.open(image)
        if self._size not in (None, (photo.width, photo.height)):
            raise InputError(
                f"the frames of a video have one size: expected {self._size}, got "
                f"{(photo.width, photo.height)}; call reset() before another video"
            )
        camera = checked_camera(self._camera, photo.width, photo.height)
        with self._undone_where_it_fails():
            before = len(self._tracks.visible)
            self._tracks.step(photo.look, now, photo.width, photo.height)
            if len(self._tracks.visible) < before:
                self._lost_s, self._wait = now, 1
            searched = self._search_is_due(now)
            if searched:
                self._search(photo, now)
            hands = self._hands(photo, camera, now)
        self._size, self._time_s = (photo.width, photo.height), now
        timings = dict(photo.clock.milliseconds) | {"total": (time.perf_counter() - began) * 1e3}
        return TrackedFrame(now, hands, searched, photo.clock.crops_seen, timings)

    @contextlib.contextmanager
    def _undone_where_it_fails(self) -> Iterator[None]:
        """All of a frame or nothing: what it said before a runtime failed would count twice."""
        kept = self._tracks.copy(), self._searched_s, self._wait, self._lost_s
        # Filters, a caller's as well, change in themselves from one frame to the next. Those that
        # cannot be copied begin anew after a frame that failed.
        try:
            smoothers = copy.deepcopy(self._smoothers)
        except Exception:  # whatever a stranger's attributes raise: a lock is a TypeError
            smoothers = {}
        try:
            yield
        except BaseException:
            self._tracks, self._searched_s, self._wait, self._lost_s = kept
            self._smoothers = smoothers
            raise

    def _search_is_due(self, now: float) -> bool:
        if len(self._tracks.visible) >= self._max_hands or now < self._lost_s + _GRACE_S:
            return False
        wait = self._wait if self._tracks.visible else 1
        return now >= self._searched_s + wait * self._search_every_s

    def _search(self, photo: Photo, now: float) -> None:
        before = len(self._tracks.visible)
        find = self._predictor.find if self._find is None else self._find
        found = find(photo, self._side, self._max_hands, self._min_presence)
        self._tracks.admit(found, now)
        in_vain = len(self._tracks.visible) == before
        self._wait = min(2 * self._wait, _LONGEST_WAIT) if in_vain else 1
        self._searched_s = now

    def _hands(self, photo: Photo, camera: Camera, now: float) -> tuple[TrackedHand, ...]:
        tracks = self._tracks.visible
        remembered = {track.id for track in [*tracks, *self._tracks.hidden]}
        self._smoothers = {k: v for k, v in self._smoothers.items() if k in remembered}
        measured = [photo.measure(track.last, camera) for track in tracks]
        if self._smoother is not None:
            with photo.clock("geometry"):
                smoothers = [self._smoother_of(track, now, self._smoother) for track in tracks]
                measured = [
                    smooth(points, now, track.last.view.box.size)
                    for smooth, points, track in zip(smoothers, measured, tracks, strict=True)
                ]
        sides: list[Handedness] = [
            "left" if track.side != self._mirrored else "right" for track in tracks
        ]
        hands = photo.hands(
            list(zip((track.last for track in tracks), measured, sides, strict=True)),
            camera,
            self._bone_length_m,
            None,
            self._camera is not None and self._bone_length_m is not None,
        )
        return tuple(
            TrackedHand(track.id, hand, track.first_s)
            for track, hand in zip(tracks, hands, strict=True)
        )

    def _smoother_of(
        self, track: Track, now: float, make: Callable[[], HandSmoother]
    ) -> HandSmoother:
        smoother, used_s = self._smoothers.get(track.id, (None, -math.inf))
        missed = used_s < self._time_s and now - used_s > _RESTART_S
        if smoother is None or missed:
            smoother = make()
        self._smoothers[track.id] = smoother, now
        return smoother

    def _checked_time(self, time_s: float) -> float:
        now = finite(time_s, "time_s", InputError)
        if now <= self._time_s:
            raise InputError(
                f"frames are handed over in the order of their times: {now:g} s is not later than "
                f"{self._time_s:g} s; leave out late frames, or call reset() before another video"
            )
        return now

    def close(self) -> None:
        """Let the network go, if it was loaded for this tracker."""
        if self._owned:
            self._predictor.close()
