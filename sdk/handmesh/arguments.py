"""What callers hand over, checked: the arguments of `Predictor`, `Tracker` and the command."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from .camera import counted, shown
from .errors import BoxError, CameraError, InputError
from .finding import Finder
from .looks import MOST_LOOKS
from .smoothing import HandSmoother
from .types import Box, Camera, Handedness, finite

__all__ = [
    "BoxLike",
    "checked_boxes",
    "checked_camera",
    "checked_finder",
    "checked_looks",
    "checked_presence",
    "checked_smoother",
    "listed_boxes",
    "wanted_side",
    "wanted_sides",
]

# A Box, or (x0, y0, x1, y1) in pixels around the visible hand.
BoxLike: TypeAlias = Box | Sequence[float] | NDArray[Any]


def wanted_side(handedness: Handedness | None, mirrored: bool) -> bool | None:
    """Whether the hand looks like a left one in the photo as given; None if nobody knows.

    Raises:
        InputError: the handedness is none, or ``mirrored`` neither true nor false.
    """
    if not isinstance(mirrored, (bool, np.bool_)):
        raise InputError(f"mirrored must be True or False, not {shown(mirrored)}")
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


def checked_looks(looks: int) -> int:
    """How many looks at each hand.

    Raises:
        InputError: not a whole number, or not one from 1 to `MOST_LOOKS`.
    """
    return counted(looks, "looks", MOST_LOOKS)


def checked_finder(find: Finder | None) -> Finder | None:
    """What a caller searches with.

    Raises:
        InputError: it cannot be called.
    """
    if find is not None and not callable(find):
        raise InputError(
            "find is a function as handmesh.finding.Finder describes it, as "
            f"DetectedHands(Detector(...)), not {type(find).__name__}"
        )
    return find


def checked_smoother(make: Callable[[], HandSmoother] | None) -> Callable[[], HandSmoother] | None:
    """What makes a caller's filters, one for each hand.

    Raises:
        InputError: it is a filter itself, or cannot be called.
    """
    given: Any = make
    if given is not None and (isinstance(given, HandSmoother) or not callable(given)):
        got = "one" if isinstance(given, HandSmoother) else type(given).__name__
        raise InputError(
            "smoother makes a filter for each hand: pass the class HandSmoother, or a function "
            f"that returns one, as lambda: HandSmoother(...), not {got}; None for no filter"
        )
    return make


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


def listed_boxes(box: Any) -> list[BoxLike]:
    """One box or several as a list; whether they are boxes is for `checked_boxes` to say.

    Raises:
        BoxError: they have no order, or are named: an empty dict is no empty list of boxes.
    """
    if isinstance(box, (Mapping, Set)):
        raise BoxError(
            "box must be a handmesh.Box, (x0, y0, x1, y1) in pixels, or a list of such boxes, not "
            f"{shown(box)}: pass a list"
        )
    if isinstance(box, Box | str | bytes | bytearray):
        return [cast("BoxLike", box)]
    try:
        parts = list(box)
    except TypeError:
        return [box]
    several = any(isinstance(p, (Box, list, tuple)) or getattr(p, "ndim", 0) > 0 for p in parts)
    return parts if several or not parts else [box]


def wanted_sides(
    handedness: Handedness | Sequence[Handedness | None] | None,
    mirrored: bool,
    boxes: list[BoxLike] | None,
) -> list[bool | None]:
    """`wanted_side` for each box, or one for a whole photo.

    Raises:
        InputError: a handedness is none, or there are not as many as boxes; or ``mirrored`` is
            neither true nor false.
    """
    count = 1 if boxes is None else len(boxes)
    if handedness is None or isinstance(handedness, str):
        return [wanted_side(handedness, mirrored)] * count
    if not isinstance(handedness, Sequence) or boxes is None or len(handedness) != count:
        raise InputError(
            "handedness must be 'left', 'right' or None, or with several boxes a list with one for "
            f"each; not {shown(handedness)}" + ("" if boxes is None else f" for {count} boxes")
        )
    every: Sequence[Any] = handedness
    return [wanted_side(each, mirrored) for each in every]


def checked_boxes(boxes: Sequence[BoxLike], width: int, height: int) -> list[Box]:
    """Boxes of an image of that size in pixels.

    Raises:
        BoxError: one is none, or not one of this image. Among several it is named.
    """
    checked = []
    for index, box in enumerate(boxes):
        try:
            checked.append(_checked_box(box, width, height))
        except BoxError as error:
            if len(boxes) == 1:
                raise
            raise BoxError(f"box[{index}] of {len(boxes)} boxes: {error}") from error
    return checked


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
