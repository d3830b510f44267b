"""A photo in, hands out: crop, run the network, lift to camera space."""

from __future__ import annotations

import operator
import os
import threading
from types import TracebackType
from typing import Any

from . import backends, search
from .bundle import Bundle
from .camera import shown
from .errors import BackendError, BoxError, CameraError, InputError
from .geometry import place
from .imaging import ImageLike
from .pipeline import Photo
from .search import View
from .types import Box, Camera, Hand, Handedness, finite

__all__ = [
    "BoxLike",
    "Predictor",
    "checked_camera",
    "checked_count",
    "checked_presence",
    "load",
    "predict",
    "wanted_side",
]

# A Box, or (x0, y0, x1, y1) in pixels around the visible hand.
BoxLike = Any


class Predictor:
    """A trained network in a runtime, ready for photos. Close it, or use it as a context manager.

    Several threads may use one Predictor; each photo is one thread's work.

    Args:
        bundle: a `Bundle`, the path of one, or the name of one that ships with handmesh; by
            default the one that ships as "light".
        backend: "auto", the name of a backend, or a `handmesh.backends.Backend`.
        threads: CPU threads of the backend; by default those available, at most 4.

    Raises:
        BundleError, IntegrityError: the bundle is missing or damaged.
        BackendUnavailable, BackendError: the runtime is missing, or refuses the network.
    """

    def __init__(
        self,
        bundle: Bundle | str | os.PathLike[str] | None = None,
        backend: str | backends.Backend = "auto",
        threads: int | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        _ = self.bundle.topology  # what is wrong with it is told now, not at the first photo
        if isinstance(backend, str):
            backend = backends.create(backend, self.bundle, threads)
        self._backend: backends.Backend | None = backend

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
        box: BoxLike | None = None,
        camera: Camera | None = None,
        handedness: Handedness | None = None,
        bone_length_m: float | None = None,
        root_depth_m: float | None = None,
        mirrored: bool = False,
        max_hands: int = 1,
        min_presence: float = 0.5,
    ) -> list[Hand]:
        """The hands in a photo, the surest first.

        Args:
            image: a path, an image file's bytes, or an (H, W, 3) uint8 RGB array; see
                `handmesh.imaging.decode`.
            box: where the hand is: a `Box` (1.5 times as large as the tight square around its
                joints), or (x0, y0, x1, y1) in pixels around the visible hand, of which
                `Box.from_xyxy` makes one. With it, that one hand is returned whatever its presence;
                without it, hands are searched for.
            camera: intrinsics of this photo; by default `Camera.default` of its size.
            handedness: the person's own hand, when known; by default the network decides.
            bone_length_m: length of the middle finger from knuckle (MCP) to next joint (PIP), in
                metres. With a camera it makes the result metric.
            root_depth_m: depth of the wrist in metres, when known. With a camera it makes the
                result metric too: the size of the hand follows.
            mirrored: the photo is left-right mirrored, as selfie video is. It decides what
                `Hand.handedness` says; the geometry stays that of the photo as given.
            max_hands: how many hands to search for. A photo without a second hand takes longer to
                search for two.
            min_presence: hands that the network is less sure of are left out of a search; with 0
                the most likely place is returned even when there is no hand.

        Returns:
            Up to ``max_hands`` hands. Empty when there is none.

        Raises:
            ImageError: the photo cannot be read or used.
            BoxError, CameraError, InputError: another argument cannot be used.
            BackendError: the runtime failed.
        """
        looks_left = wanted_side(handedness, mirrored)
        max_hands = checked_count(max_hands)
        min_presence = checked_presence(min_presence)
        place(1.0, bone_length_m, root_depth_m)  # refuse bad lengths before the work, not after
        photo = self.open(image)
        known = camera is not None and (bone_length_m is not None or root_depth_m is not None)
        camera = checked_camera(camera, photo.width, photo.height)

        if box is None:
            found = search.find(
                photo.look, photo.width, photo.height, looks_left, max_hands, min_presence
            )
        else:
            start = View(_checked_box(box, photo.width, photo.height), bool(looks_left))
            # One run of the network where that is clear and the box fits, two at most.
            found = search.follow(photo.look, photo.look([start]), looks_left, rounds=1)

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

    def open(self, image: ImageLike) -> Photo:
        """A photo that the network can be shown crops of: for searches of one's own.

        Raises:
            ImageError: the photo cannot be read or used.
        """
        return Photo(image, self.bundle, self.backend)

    def close(self) -> None:
        """Let the runtime and its memory go."""
        self._backend = None

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def load(
    bundle: Bundle | str | os.PathLike[str] | None = None,
    backend: str | backends.Backend = "auto",
    threads: int | None = None,
) -> Predictor:
    """A `Predictor`, for those who run more than one photo or choose the runtime."""
    return Predictor(bundle, backend, threads)


def predict(
    image: ImageLike,
    box: BoxLike | None = None,
    camera: Camera | None = None,
    handedness: Handedness | None = None,
    bone_length_m: float | None = None,
    root_depth_m: float | None = None,
    mirrored: bool = False,
    max_hands: int = 1,
    min_presence: float = 0.5,
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
    )


_default: Predictor | None = None
_default_lock = threading.Lock()


def wanted_side(handedness: Handedness | None, mirrored: bool) -> bool | None:
    """Whether the hand looks like a left one in the photo as given; None if nobody knows.

    Raises:
        InputError: the handedness is none.
    """
    if handedness is None:
        return None
    if handedness not in ("left", "right"):
        raise InputError(f"handedness must be 'left', 'right' or None, not {shown(handedness)}")
    return (handedness == "left") != mirrored


def checked_presence(min_presence: float) -> float:
    """A caller's least presence.

    Raises:
        InputError: it is not a probability.
    """
    if not 0 <= finite(min_presence, "min_presence", InputError) <= 1:
        raise InputError(f"min_presence is a probability, in 0..1, not {min_presence}")
    return float(min_presence)


def checked_count(max_hands: int) -> int:
    """A caller's number of hands.

    Raises:
        InputError: it is not a whole number from 1.
    """
    try:
        count = operator.index(max_hands)
    except TypeError as cause:
        raise InputError(f"max_hands must be a whole number, not {shown(max_hands)}") from cause
    if count < 1:
        raise InputError(f"max_hands must be at least 1, not {shown(count)}")
    return count


def checked_camera(camera: Camera | None, width: int, height: int) -> Camera:
    """The camera of images of that size in pixels, the default one if None.

    Raises:
        CameraError: it is none, or of images of another size.
    """
    if camera is None:
        return Camera.default(width, height)
    if not isinstance(camera, Camera):
        raise CameraError(
            f"camera must be a handmesh.Camera, not {type(camera).__name__}: "
            "make one with Camera.from_matrix(K, width, height)"
        )
    if (camera.width, camera.height) != (width, height):
        raise CameraError(
            f"the camera is of {camera.width} x {camera.height} images and this one has "
            f"{width} x {height} pixels: focal lengths scale with the image"
        )
    return camera


def _checked_box(box: BoxLike, width: int, height: int) -> Box:
    if not isinstance(box, Box):
        try:
            x0, y0, x1, y1 = (float(value) for value in box)
        except (TypeError, ValueError, OverflowError) as cause:
            raise BoxError(
                f"box must be a handmesh.Box, or (x0, y0, x1, y1) in pixels, not {shown(box)}"
            ) from cause
        box = Box.from_xyxy(x0, y0, x1, y1)
    if not (-0.5 <= box.cx <= width - 0.5 and -0.5 <= box.cy <= height - 0.5):
        raise BoxError(
            f"the centre of the box, ({box.cx:g}, {box.cy:g}), lies outside the image of "
            f"{width} x {height} pixels"
        )
    if not 4 <= box.size <= 8 * max(width, height):
        raise BoxError(
            f"the box has a side of {box.size:g} pixels: expected at least 4, and at most 8 times "
            f"the longer side of the image of {width} x {height} pixels"
        )
    return box
