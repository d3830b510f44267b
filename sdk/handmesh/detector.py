"""Where hands are in a photo: a small network that sees all of it at once.

    for found in Detector().find("photo.jpg"):
        print(found.box, found.presence)

A `handmesh.Predictor` has one by default. What it finds is the box that the mesh network likes
best: around all joints, turned so that the hand points up.
"""

from __future__ import annotations

import dataclasses
import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import backends
from .bundle import DETECTOR, Bundle, shipped
from .closing import Closing
from .errors import BackendError, BundleError, InputError
from .imaging import ImageLike, Pyramid, decode
from .pipeline import Photo
from .types import Box, finite

__all__ = ["Detection", "Detector"]

_COLUMNS = 7


@dataclasses.dataclass(frozen=True)
class Detection:
    """A hand, or what looks like one.

    Attributes:
        box: around it, as `handmesh.Predictor.predict` takes one.
        presence: 0..1, how sure the detector is.
        looks_right: probability that the photo, as given, shows a right hand there.
    """

    box: Box
    presence: float
    looks_right: float


class Detector(Closing):
    """A trained detector in a runtime. Several threads may use one. Close it, or use it as a
    context manager.

    Args:
        bundle: a detector's `Bundle`, its path or name; by default the one that ships.
        backend: "auto", or the name of a backend. Nothing else is run instead.
        threads: CPU threads of the backend; by default those available, at most 4.
        device, precision, engine_cache: as `handmesh.Predictor` takes them.

    Raises:
        BundleError, IntegrityError: the bundle is missing, damaged, or of another network.
        BackendUnavailable, BackendError: the runtime is missing, or refuses the network.
    """

    def __init__(
        self,
        bundle: Bundle | str | os.PathLike[str] | None = None,
        backend: str = "auto",
        threads: int | None = None,
        device: str | None = None,
        precision: str | None = None,
        engine_cache: bool | str | os.PathLike[str] = False,
    ) -> None:
        # By its path: a folder of that name here is not meant.
        wanted = bundle or shipped().get(DETECTOR, DETECTOR)
        opened = wanted if isinstance(wanted, Bundle) else Bundle.load(wanted)
        if not opened.is_detector:
            raise BundleError(
                f"bundle {opened.name!r} holds a network {opened.manifest['network']!r}, which "
                "finds no hands: expected one of the network 'detector'"
            )
        self.bundle = opened
        self._backend: backends.NamedBackend | None = backends.create(
            backend, opened, threads, device, precision, engine_cache
        )

    @property
    def description(self) -> str:
        """What runs where, as "detector in onnxruntime 1.32.0, CPU, 2 threads".

        Raises:
            BackendError: the Detector was closed.
        """
        return f"{self.bundle.name} in {self._open_backend().description}"

    def find(self, image: ImageLike | Photo, min_presence: float = 0.3) -> list[Detection]:
        """The hands in a photo, the surest first.

        Args:
            image: as `handmesh.Predictor.predict` takes it; or a `Photo` that is open already.
            min_presence: less sure ones are left out.

        Raises:
            ImageError: the photo cannot be read or used. BackendError: the runtime failed.
            InputError: the presence is no probability.
        """
        # `arguments` cannot be asked: it imports what finds with this.
        if not 0 <= finite(min_presence, "min_presence", InputError) <= 1:
            raise InputError(f"min_presence is a probability, in 0..1, not {min_presence}")
        pixels = image if isinstance(image, Photo) else Pyramid(decode(image))
        square = letterbox(pixels.width, pixels.height)
        picture = pixels.crop(square, self.bundle.image_size)
        backend = self._open_backend()
        rows = hand_rows(backend.outputs(picture[None]), backend.description)
        # Rows of score 0 are places in the list that no peak took.
        return [
            _detection(row, square) for row in rows if row[0] >= float(min_presence) and row[0] > 0
        ]

    def _open_backend(self) -> backends.NamedBackend:
        if self._backend is None:
            raise BackendError("this Detector was closed: make a new one")
        return self._backend

    def close(self) -> None:
        """Let the runtime and its memory go."""
        self._backend = None


def letterbox(width: int, height: int) -> Box:
    """The square around a photo of that size in pixels; what it has beyond the photo is black."""
    return Box((width - 1) / 2, (height - 1) / 2, max(width, height))


def hand_rows(named: Any, source: str) -> NDArray[np.float32]:
    """The rows of one picture, (K, 7), of what a backend gave.

    Raises:
        BackendError: it gave something else.
    """
    hands = np.asarray(named.get("hands", ()), dtype=np.float32)
    if hands.ndim != 3 or hands.shape[0] != 1 or hands.shape[2] != _COLUMNS:
        raise BackendError(
            f"{source}: output 'hands' must have shape (1, K, {_COLUMNS}), not {hands.shape}"
        )
    if not np.isfinite(hands).all() or not (hands[..., 3] > 0).all():
        raise BackendError(
            f"{source}: output 'hands' holds NaN, infinity or boxes without size, so this runtime "
            "does not compute the network: choose another backend"
        )
    return np.asarray(hands[0])


def _detection(row: NDArray[np.float32], square: Box) -> Detection:
    score, x, y, size, cosine, sine, right = (float(value) for value in row)
    cx, cy = square.to_image([x, y])
    box = Box(float(cx), float(cy), size * square.size, math.atan2(sine, cosine))
    return Detection(box, score, right)
