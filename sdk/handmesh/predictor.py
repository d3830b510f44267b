"""A photo in, hands out: crop, run the network, lift to camera space."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

import numpy as np

from . import backends, search
from .arguments import (
    BoxLike,
    checked_boxes,
    checked_camera,
    checked_finder,
    checked_looks,
    checked_presence,
    listed_boxes,
    wanted_sides,
)
from .bundle import Bundle
from .camera import counted
from .closing import Closing
from .errors import BackendError, InputError
from .finding import DetectedHands, Finder, default_finder
from .geometry import checked_lengths
from .imaging import ImageLike
from .looks import LOOKS, look_again
from .pipeline import Photo
from .search import Sighting, View
from .types import Box, Camera, Hand, Handedness

__all__ = ["BoxLike", "Predictor", "load", "predict"]


class Predictor(Closing):
    """A trained network in a runtime, ready for photos. Close it, or use it as a context manager.

    Several threads may use one Predictor; each photo is one thread's work.

    Args:
        bundle: a `Bundle`, the path of one, or the name of one that ships with handmesh; by
            default the one that ships as "light".
        backend: "auto", the name of a backend, or a `handmesh.backends.Backend`.
        threads: CPU threads of the backend; by default those available, at most 4.
        device: where it runs, as "cuda" or "cuda:1"; by default the backend's first, mostly "cpu".
            docs/backends.md lists them. What is not there is refused; nothing else runs instead.
        precision: "fp32", "fp16" or "int8": that of the artifact's large weights; by default
            whatever the bundle has.
        find: what searches photos for hands: a `handmesh.finding.Finder`, as `DetectedHands` of a
            detector of your own; by default the shipped detector, loaded when first needed.
        engine_cache: keep the engine that device "tensorrt" builds, for minutes, whenever it is
            loaded: True for the folder `.engines` in the bundle, or a folder.

    Attributes:
        bundle: the trained model.
        chosen: why this backend runs, a line for each candidate.

    Raises:
        BundleError, IntegrityError: the bundle is missing or damaged.
        InputError: there is no such backend, device, precision or number of threads, or nothing to
            keep in an engine cache.
        BackendUnavailable, BackendError: the runtime, the artifact or the device is missing, or the
            runtime refuses the network.
    """

    def __init__(
        self,
        bundle: Bundle | str | os.PathLike[str] | None = None,
        backend: str | backends.Backend = "auto",
        threads: int | None = None,
        device: str | None = None,
        precision: str | None = None,
        find: Finder | None = None,
        engine_cache: bool | str | os.PathLike[str] = False,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        _ = self.bundle.topology  # what is wrong with it is told now, not at the first photo
        if isinstance(backend, str):
            choice = backends.choose(backend, self.bundle, threads, device, precision, engine_cache)
            self._backend: backends.Backend | None = choice.backend
            self.chosen = choice.reasons
        elif not callable(getattr(backend, "run", None)):
            raise InputError(
                "backend is 'auto', the name of one, or a handmesh.backends.Backend, not "
                f"{type(backend).__name__}"
            )
        elif lacking := [name for name in ("name", "description") if not hasattr(backend, name)]:
            raise InputError(
                f"a handmesh.backends.Backend has a {' and a '.join(lacking)} beside run, and this "
                f"{type(backend).__name__} has none: add what the protocol tells"
            )
        elif (threads, device, precision, engine_cache) == (None, None, None, False):
            self._backend, self.chosen = backend, (f"{backend.name}: handed over",)
        else:
            raise InputError(
                "a backend that is handed over has its threads, device and precision already: "
                "give it these when it is made"
            )
        self._threads, self._find = threads, checked_finder(find)
        self._find_given = find is not None
        self._find_lock = threading.Lock()

    @property
    def find(self) -> Finder:
        """What searches photos for hands.

        Raises:
            BundleError, IntegrityError, BackendUnavailable, BackendError: the shipped detector
                cannot be used, or the Predictor was closed.
        """
        with self._find_lock:
            # Asked within the lock: what is loaded after `close` nobody would let go.
            _ = self.backend
            if self._find is None:
                self._find = default_finder(self._threads)
            return self._find

    @property
    def backend(self) -> backends.Backend:
        """What runs the network.

        Raises:
            BackendError: the Predictor was closed.
        """
        if self._backend is None:
            raise BackendError("this Predictor was closed: make a new one")
        return self._backend

    def predict(
        self,
        image: ImageLike,
        box: BoxLike | Sequence[BoxLike] | None = None,
        camera: Camera | None = None,
        handedness: Handedness | Sequence[Handedness | None] | None = None,
        bone_length_m: float | None = None,
        root_depth_m: float | None = None,
        mirrored: bool = False,
        max_hands: int = 1,
        min_presence: float = 0.5,
        looks: int = LOOKS,
    ) -> list[Hand]:
        """The hands in a photo, the surest first; with boxes, one for each box, in their order.

        Args:
            image: a path, an image file's bytes, or an (H, W, 3) uint8 RGB array; see
                `handmesh.imaging.decode`.
            box: where the hand is: a `Box` (1.5 times as large as the tight square around its
                joints), or (x0, y0, x1, y1) in pixels around the visible hand, of which
                `Box.from_xyxy` makes one. With it, that one hand is returned whatever its presence;
                without it, hands are searched for. Or a list of such boxes, or an (N, 4) array, as
                a detector of one's own gives: all their crops go to the network together. An empty
                list is no hand; one box that cannot be used fails the list, before
                the network runs. Which way a hand points in its box need not be known: a doubtful
                one is seen turned, too.
            camera: intrinsics of this photo; by default `Camera.default` of its size.
            handedness: the person's own hand, when known; by default the network decides. With
                several boxes one for all of them, or a list with one for each.
            bone_length_m: length of the middle finger from knuckle (MCP) to next joint (PIP), in
                metres. With a camera it makes the result metric.
            root_depth_m: depth of the wrist in metres, when known. With a camera it makes the
                result metric too: the size of the hand follows. With a bone length beside it both
                are believed, and a hand that they do not fit comes out flat or deep.
            mirrored: the photo is left-right mirrored, as selfie video is. It decides what
                `Hand.handedness` says; the geometry stays that of the photo as given.
            max_hands: how many hands to search for.
            min_presence: hands that the networks are less sure of are left out of a search.
            looks: from 1 to 5 at each hand, where it was found, in crops that differ a little; by
                default 2. Joints, mesh and confidence are their mean, weighted by confidence;
                presence, handedness and box are the first one's. More are mostly more accurate
                (docs/models.md), for the time of a crop more each; 1 is fastest. Video is for a
                `Tracker`, which looks once.

        Returns:
            Up to ``max_hands`` hands, or as many as there are boxes. Empty when there is none.
            `Hand.timings_ms` and `Hand.crops_seen` are of the whole photo.

        Raises:
            ImageError: the photo cannot be read or used.
            BoxError, CameraError, InputError: another argument cannot be used. Of several boxes it
                says which, as "box[2] of 5 boxes".
            BackendError: the runtime failed.
        """
        boxes = None if box is None else listed_boxes(box)
        sides = wanted_sides(handedness, mirrored, boxes)
        max_hands = counted(max_hands, "max_hands")
        min_presence = checked_presence(min_presence)
        looks = checked_looks(looks)
        checked_lengths(bone_length_m, root_depth_m)  # before the work, not after
        photo = self.open(image)
        known = camera is not None and (bone_length_m is not None or root_depth_m is not None)
        camera = checked_camera(camera, photo.width, photo.height)

        if boxes is None:
            found = self.find(photo, sides[0], max_hands, min_presence)
        else:
            found = _look_in(photo, checked_boxes(boxes, photo.width, photo.height), sides)
        found = look_again(photo.look, found, looks)

        return photo.hands(
            [
                (
                    sighting,
                    photo.measure(sighting, camera),
                    "left" if sighting.view.mirrored != mirrored else "right",
                )
                for sighting in found
            ],
            camera,
            bone_length_m,
            root_depth_m,
            known,
        )

    def warm_up(self, crops: int = 1) -> None:
        """Run the network once on black crops: what a runtime does at its first run, it does now.

        The shipped detector is loaded and run as well, unless the Predictor has a finder of its
        caller's.

        Args:
            crops: how many at once. GPUs may prepare for each number anew: `predict` with one box
                takes 1, with N boxes N, and 2 for each that is doubtful, a search up to 16; further
                looks at N hands N times as many as there are beside the first, 16 at a time.

        Raises:
            InputError: the number is not from 1.
            BackendError: the runtime failed.
            BundleError, IntegrityError, BackendUnavailable: the shipped detector cannot be used.
        """
        size, count = self.bundle.image_size, counted(crops, "crops")
        self.backend.run(np.zeros((count, size, size, 3), dtype=np.uint8))
        if not self._find_given and isinstance(find := self.find, DetectedHands):
            find.detector.find(np.zeros((size, size, 3), dtype=np.uint8))

    def open(self, image: ImageLike) -> Photo:
        """A photo that the network can be shown crops of: for searches of one's own.

        Raises:
            ImageError: the photo cannot be read or used.
        """
        return Photo(image, self.bundle, self.backend)

    def close(self) -> None:
        """Let the runtimes and their memory go, the detector's with the network's."""
        self._backend = None
        with self._find_lock:
            self._find = None


def load(
    bundle: Bundle | str | os.PathLike[str] | None = None,
    backend: str | backends.Backend = "auto",
    threads: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    find: Finder | None = None,
    engine_cache: bool | str | os.PathLike[str] = False,
) -> Predictor:
    """A `Predictor`, for those who run more than one photo or choose the runtime."""
    return Predictor(bundle, backend, threads, device, precision, find, engine_cache)


def predict(
    image: ImageLike,
    box: BoxLike | Sequence[BoxLike] | None = None,
    camera: Camera | None = None,
    handedness: Handedness | Sequence[Handedness | None] | None = None,
    bone_length_m: float | None = None,
    root_depth_m: float | None = None,
    mirrored: bool = False,
    max_hands: int = 1,
    min_presence: float = 0.5,
    looks: int = LOOKS,
) -> list[Hand]:
    """The hands in a photo, the surest first: `Predictor.predict`, where the arguments are told.

    The shipped bundle is loaded on the first call and kept.
    """
    global _default
    with _default_lock:
        if _default is None:
            _default = Predictor()
    return _default.predict(
        image,
        box=box,
        camera=camera,
        handedness=handedness,
        bone_length_m=bone_length_m,
        root_depth_m=root_depth_m,
        mirrored=mirrored,
        max_hands=max_hands,
        min_presence=min_presence,
        looks=looks,
    )


_default: Predictor | None = None
_default_lock = threading.Lock()


def _look_in(photo: Photo, boxes: Sequence[Box], sides: Sequence[bool | None]) -> list[Sighting]:
    """What the network sees in each box: one run where that is clear and the box fits, one more
    where it is doubtful, one where the box does not fit and another where the looks contradict each
    other, those of all boxes together."""
    views = [View(box, bool(side)) for box, side in zip(boxes, sides, strict=True)]
    first = search.first_looks(photo.look, views)
    return search.follow(photo.look, first, sides, rounds=1)
