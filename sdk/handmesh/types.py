"""The values that cross the public face: boxes, cameras, hands, and the names of the joints.

Frames and units, everywhere in handmesh: metres and pixels. The camera looks along +z, +x is
right, +y is down. The centre of an image's top-left pixel is (0, 0). A crop fraction (u, v) runs
from (0, 0), the outer corner of the crop's first pixel, to (1, 1), the outer corner of its last.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .camera import Camera, finite, numbers, shown
from .errors import BoxError, InputError
from .styles import Style

if TYPE_CHECKING:
    from .rig import Pose

__all__ = [
    "BONES",
    "CROP_MARGIN",
    "FINGERS",
    "JOINT_NAMES",
    "JOINT_PARENTS",
    "RECTANGLE_MARGIN",
    "ROOT_JOINT",
    "UNIT_BONE",
    "Box",
    "Camera",
    "Depth",
    "Hand",
    "Handedness",
    "Style",
    "finite",
]

Handedness = Literal["left", "right"]
Depth = Literal["metric", "assumed"]

JOINT_NAMES: tuple[str, ...] = (
    "wrist",
    *("thumb_cmc", "thumb_mcp", "thumb_ip", "thumb_tip"),
    *("index_mcp", "index_pip", "index_dip", "index_tip"),
    *("middle_mcp", "middle_pip", "middle_dip", "middle_tip"),
    *("ring_mcp", "ring_pip", "ring_dip", "ring_tip"),
    *("little_mcp", "little_pip", "little_dip", "little_tip"),
)
FINGERS: Mapping[str, tuple[int, int, int, int]] = MappingProxyType(
    {
        "thumb": (1, 2, 3, 4),
        "index": (5, 6, 7, 8),
        "middle": (9, 10, 11, 12),
        "ring": (13, 14, 15, 16),
        "little": (17, 18, 19, 20),
    }
)
# The parent of each joint; the wrist has none (-1).
JOINT_PARENTS: tuple[int, ...] = (-1, *(0 if j % 4 == 1 else j - 1 for j in range(1, 21)))
# (parent, child) of the 20 bones, ordered by child joint 1..20.
BONES: tuple[tuple[int, int], ...] = tuple((JOINT_PARENTS[j], j) for j in range(1, 21))
ROOT_JOINT = 0
# Depths and lengths are measured in units of this bone: the middle finger's MCP to PIP.
UNIT_BONE: tuple[int, int] = (9, 10)
# Side of a crop over the larger side of the tight box around the joints in it.
CROP_MARGIN = 1.5
# The same over a detector's rectangle. That holds the visible hand, a little more than its joints.
RECTANGLE_MARGIN = CROP_MARGIN / 1.1


@dataclasses.dataclass(frozen=True)
class Box:
    """A square region of an image, possibly turned: where a crop is taken from.

    The crop fraction (u, v) lies at pixel ``(cx, cy) + R(angle) @ ((u, v) - 0.5) * size``.

    Attributes:
        cx, cy: centre, in pixels.
        size: side, in pixels.
        angle: radians from the image's x axis to the crop's x axis, towards +y (clockwise as seen).

    Raises:
        BoxError: a value is not finite, or ``size`` is not positive.
    """

    cx: float
    cy: float
    size: float
    angle: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(
                self, field.name, finite(getattr(self, field.name), f"Box.{field.name}", BoxError)
            )
        if self.size <= 0:
            raise BoxError(f"Box.size must be a positive number of pixels, not {self.size:g}")

    @classmethod
    def from_points(
        cls, points_px: ArrayLike, margin: float = CROP_MARGIN, angle: float = 0.0
    ) -> Box:
        """The square around points, ``margin`` times as large as their tight box.

        Args:
            points_px: (N, 2) image points in pixels.
            margin: side of the result over the larger side of the tight box; at least 1.
            angle: the result's angle in radians; the tight box is measured at that angle.

        Raises:
            BoxError: no points, points that are not finite or all the same, or a margin below 1.
        """
        points = numbers(points_px, "points_px", BoxError)
        margin = finite(margin, "margin", BoxError)
        angle = finite(angle, "angle", BoxError)
        if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
            raise BoxError(f"points_px must have shape (N, 2) with N > 0, not {points.shape}")
        if not np.isfinite(points).all():
            raise BoxError("points_px must be finite; it holds NaN or infinity")
        if margin < 1:
            raise BoxError(f"margin must be at least 1 (the network expects 1.5), not {margin}")
        turned = points @ _rotation(angle)  # (N, 2), coordinates along the box's own axes
        low, high = turned.min(axis=0), turned.max(axis=0)
        side = float((high - low).max())
        if side <= 0:
            raise BoxError("points_px must not all be the same point: their box has no size")
        centre = _rotation(angle) @ ((low + high) / 2)
        return cls(float(centre[0]), float(centre[1]), side * margin, angle)

    @classmethod
    def from_xyxy(
        cls, x0: float, y0: float, x1: float, y1: float, margin: float = RECTANGLE_MARGIN
    ) -> Box:
        """The upright square around the rectangle from (x0, y0) to (x1, y1), in pixels.

        By default it is as much larger as the network expects of a crop around a visible hand:
        what ``predict(box=(x0, y0, x1, y1))`` uses.

        Args:
            x0, y0, x1, y1: the rectangle, as a detector gives it.
            margin: side of the result over the rectangle's longer side; at least 1.

        Raises:
            BoxError: a value is not a finite number, the rectangle is empty or turned inside out,
                or the margin is below 1.
        """
        corners = numbers([[x0, y0], [x1, y1]], "a box (x0, y0, x1, y1)", BoxError)
        if (
            corners.shape != (2, 2)
            or not np.isfinite(corners).all()
            or not (corners[0] < corners[1]).all()
        ):
            raise BoxError(
                "a box is (x0, y0, x1, y1) in pixels with x0 < x1 and y0 < y1, "
                f"not {shown((x0, y0, x1, y1))}"
            )
        return cls.from_points(corners, margin)

    def to_image(self, uv: ArrayLike) -> NDArray[np.float64]:
        """Crop fractions (..., 2) to image pixels (..., 2)."""
        offset = (np.asarray(uv, dtype=np.float64) - 0.5) * self.size
        return offset @ _rotation(self.angle).T + (self.cx, self.cy)

    def to_crop(self, points_px: ArrayLike) -> NDArray[np.float64]:
        """Image pixels (..., 2) to crop fractions (..., 2): the inverse of `to_image`."""
        offset = np.asarray(points_px, dtype=np.float64) - (self.cx, self.cy)
        return offset @ _rotation(self.angle) / self.size + 0.5

    def corners(self) -> NDArray[np.float64]:
        """(4, 2) pixels: the crop's top-left, top-right, bottom-right, bottom-left."""
        return self.to_image([[0, 0], [1, 0], [1, 1], [0, 1]])

    def contains(self, points_px: ArrayLike) -> NDArray[np.bool_]:
        """Which of the points (..., 2), in pixels, lie in the box: (...) bool."""
        uv = self.to_crop(points_px)
        return np.asarray(((uv >= 0) & (uv <= 1)).all(axis=-1), dtype=np.bool_)

    def mirrored(self, width: int) -> Box:
        """The same region in the left-right mirrored image of that width in pixels."""
        return Box(width - 1 - self.cx, self.cy, self.size, -self.angle)

    def scaled(self, factor: float) -> Box:
        """The region with the same centre and angle, ``factor`` times as large."""
        return dataclasses.replace(self, size=self.size * factor)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Hand:
    """One hand in one photo. Arrays are read-only; those that came read-only are shared.

    Attributes:
        vertices_m: (V, 3) float32, mesh vertices in camera space, metres.
        faces: (F, 3) int32, triangles, counter-clockwise seen from outside the hand (for left
            hands too: their template is mirrored and so is its winding).
        joints_m: (21, 3) float32, camera space, metres, in the order of `JOINT_NAMES`.
        joints_px: (21, 2) float32, pixels of the photo.
        vertices_px: (V, 2) float32, pixels of the photo.
        confidence: (21,) float32 in 0..1: how sure the network is of each joint; of several looks
            the mean.
        presence: 0..1, how sure the network is that this is a hand. Found by a search, it is lower
            than in a given box, because a search looks in so many places.
        handedness: the person's own left or right.
        depth: "metric" when a camera and the bone length or the wrist's depth were given, else
            "assumed": then the scale and the distance follow from a default camera, an adult's
            hand, or both.
        box: the square region of the photo in which the network saw the hand; of several looks
            the first's.
        camera: the intrinsics used.
        backend: what ran, as "onnxruntime 1.32.0, CPU, 2 threads".
        timings_ms: milliseconds spent on this photo by stage ("decode", "crop", "network",
            "geometry").
        crops_seen: how many crops of this photo were shown to the network, for all its hands.
        bone_length_m: length of the middle finger's MCP to PIP, metres, that the scale follows
            from: what was given, or is assumed, or follows from the wrist's depth. None in a hand
            that did not come from a photo.

    Raises:
        InputError: an array has another shape, or holds values that are not finite.
    """

    vertices_m: NDArray[np.float32]
    faces: NDArray[np.int32]
    joints_m: NDArray[np.float32]
    joints_px: NDArray[np.float32]
    vertices_px: NDArray[np.float32]
    confidence: NDArray[np.float32]
    presence: float
    handedness: Handedness
    depth: Depth
    box: Box
    camera: Camera
    backend: str = ""
    timings_ms: Mapping[str, float] = dataclasses.field(default_factory=dict)
    crops_seen: int = 0
    bone_length_m: float | None = None

    def __post_init__(self) -> None:
        arrays = {name: _array(getattr(self, name), name) for name in _ARRAYS}
        vertex_count = len(np.atleast_1d(arrays["vertices_m"]))
        sizes = {"V": vertex_count, "F": len(np.atleast_1d(arrays["faces"])), "J": len(JOINT_NAMES)}
        for name, array in arrays.items():
            shape = tuple(sizes[n] if isinstance(n, str) else n for n in _ARRAYS[name])
            if array.shape != shape:
                raise InputError(f"Hand.{name} must have shape {shape}, not {array.shape}")
            if not np.isfinite(array).all():
                raise InputError(f"Hand.{name} must be finite; it holds NaN or infinity")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if len(self.faces) and (self.faces.min() < 0 or self.faces.max() >= vertex_count):
            raise InputError(f"Hand.faces must hold vertex indices in 0..{vertex_count - 1}")
        object.__setattr__(self, "presence", finite(self.presence, "Hand.presence", InputError))
        for name, allowed in (("handedness", get_args(Handedness)), ("depth", get_args(Depth))):
            value = getattr(self, name)
            if value not in allowed:
                raise InputError(f"Hand.{name} must be one of {allowed}, not {shown(value)}")
        object.__setattr__(self, "timings_ms", MappingProxyType(dict(self.timings_ms)))
        if self.bone_length_m is not None:
            length = finite(self.bone_length_m, "Hand.bone_length_m", InputError)
            object.__setattr__(self, "bone_length_m", length)

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return _hand, (fields | {"timings_ms": dict(self.timings_ms)},)

    def __repr__(self) -> str:
        """On one line: arrays are asked for by name."""
        x, y, z = self.joints_m[ROOT_JOINT]
        return (
            f"Hand({self.handedness}, presence {self.presence:.2f}, wrist at ({x:.3f}, {y:.3f}, "
            f"{z:.3f}) m, depth {self.depth}, {len(self.vertices_m)} vertices)"
        )

    def draw(self, image: Any, style: Style = "full") -> NDArray[np.uint8]:
        """The hand over a copy of the photo.

        Args:
            image: the photo, as `handmesh.predict` takes it.
            style: "full" (shaded mesh and skeleton), "mesh", "skeleton", "wireframe", "depth"
                (near parts bright, far ones dark), or "side" (full, and beside the photo the hand
                from its side).

        Returns:
            (H, W, 3) uint8 RGB; with "side" (H, W + H, 3).

        Raises:
            ImageError: the photo cannot be used.
            InputError: another style, or a photo of another size.
        """
        from .draw import overlay

        return overlay(image, [self], style)

    def pose(self) -> Pose:
        """Joint rotations for rigs, relative to a rest skeleton: see `handmesh.rig.Pose`.

        Raises:
            InputError: the hand has another mesh than the one that ships with the package.
        """
        from .rig import pose_of

        return pose_of(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the hand in the format that the suffix names: .obj, .glb, .ply or .json.

        Raises:
            InputError: the suffix is none of these, or the folder does not exist.
        """
        from .files import save

        return save(self, path)

    def to_dict(self, arrays: bool = False, mesh: bool = True) -> dict[str, Any]:
        """Everything as a dict with the keys of the JSON file; `from_dict` takes it back.

        Args:
            arrays: False: plain numbers, strings and lists, ready for JSON, metres to the
                micrometre and pixels to the thousandth. True: NumPy arrays of full precision.
            mesh: False: without the vertices and faces, which are most of it; `from_dict` does not
                take that back.
        """
        from .files import to_dict

        return to_dict(self, arrays, mesh)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Hand:
        """The hand that `to_dict` or a JSON file describes.

        Raises:
            InputError: a field is missing or of another kind, or the schema is a newer one.
        """
        from .files import from_dict

        return from_dict(data)


# Shapes, V vertices, F faces and J joints.
_ARRAYS: dict[str, tuple[str | int, ...]] = {
    "vertices_m": ("V", 3),
    "vertices_px": ("V", 2),
    "faces": ("F", 3),
    "joints_m": ("J", 3),
    "joints_px": ("J", 2),
    "confidence": ("J",),
}


def _array(value: Any, name: str) -> NDArray[Any]:
    """A field of `Hand` as float32, or int32 of faces; a copy, unless nobody can change it."""
    dtype = np.int32 if name == "faces" else np.float32
    if _is_constant(value, dtype):
        return np.asarray(value)
    try:
        given = np.asarray(value)
        if given.dtype.kind not in "iufO":  # digits in text are no numbers, nor is True
            raise TypeError(given.dtype.name)
        with np.errstate(all="ignore"):  # what does not fit is told below, not by a warning
            array = np.array(given, dtype=dtype)
    except (TypeError, ValueError, OverflowError) as cause:
        raise InputError(
            f"Hand.{name} cannot be read as an array of numbers, all rows alike: {shown(value)}"
        ) from cause
    if name == "faces" and not np.array_equal(array, given):
        raise InputError("Hand.faces must hold whole numbers, the indices of vertices")
    return array


def _is_constant(array: Any, dtype: type[np.generic]) -> bool:
    """Whether nobody can change an array of that type, neither itself nor by what it is a view of:
    the faces, more than half of a hand's memory, are the same of all hands."""
    if not (isinstance(array, np.ndarray) and array.dtype == dtype and array.flags.c_contiguous):
        return False
    owner: Any = array
    while isinstance(owner, np.ndarray):
        if owner.flags.writeable:
            return False
        owner = owner.base
    return owner is None


def _hand(fields: Mapping[str, Any]) -> Hand:
    """What a pickle calls: a mapping of fields, since a proxy of a dict cannot be pickled."""
    return Hand(**fields)


def _rotation(angle: float) -> NDArray[np.float64]:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])
