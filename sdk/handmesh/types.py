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
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import BoxError, CameraError, InputError

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
        points = _numbers(points_px, "points_px", BoxError)
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
        corners = _numbers([[x0, y0], [x1, y1]], "a box (x0, y0, x1, y1)", BoxError)
        if not np.isfinite(corners).all() or x1 <= x0 or y1 <= y0:
            raise BoxError(
                "a box is (x0, y0, x1, y1) in pixels with x0 < x1 and y0 < y1, "
                f"not ({x0}, {y0}, {x1}, {y1})"
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


@dataclasses.dataclass(frozen=True)
class Camera:
    """A pinhole camera: how camera space (metres) projects to pixels.

    ``u = fx * x / z + cx`` and ``v = fy * y / z + cy``. No lens distortion: undistort first.

    Attributes:
        fx, fy: focal lengths in pixels *of this image*. They scale with it: a photo at half the
            width has half the focal length. ``fx = width / (2 tan(horizontal field of view / 2))``.
        cx, cy: principal point in pixels.
        width, height: size of the image in pixels.

    Raises:
        CameraError: a focal length or the size is not positive, or a value is not finite.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    # Degrees along the longer side, assumed of a camera nobody described. The main camera of a
    # phone (24 to 26 mm equivalent, 4:3) covers 67 to 72, a webcam (78 diagonal, 16:9) 70, the one
    # in a laptop's lid 55 to 65. A wrong guess scales the depth of the hand, hardly its shape.
    DEFAULT_FOV_DEG = 65.0

    def __post_init__(self) -> None:
        for name in ("fx", "fy", "cx", "cy"):
            object.__setattr__(
                self, name, finite(getattr(self, name), f"Camera.{name}", CameraError)
            )
        for name in ("fx", "fy"):
            if getattr(self, name) <= 0:
                raise CameraError(
                    f"Camera.{name} must be a positive focal length in pixels, "
                    f"not {getattr(self, name):g}"
                )
        for name in ("width", "height"):
            object.__setattr__(self, name, _pixels(getattr(self, name), name))

    @classmethod
    def from_fov(cls, width: int, height: int, fov_deg: float) -> Camera:
        """A centred camera with square pixels and ``fov_deg`` along the *longer* side.

        Raises:
            CameraError: the angle is not between 0 and 180 degrees, or the size not positive.
        """
        width, height = _pixels(width, "width"), _pixels(height, "height")
        try:
            possible = 0 < fov_deg < 180
        except TypeError:
            possible = False
        if not possible:
            raise CameraError(f"fov_deg must lie between 0 and 180 degrees, not {fov_deg!r}")
        focal = max(width, height) / (2 * math.tan(math.radians(fov_deg) / 2))
        return cls(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)

    @classmethod
    def from_matrix(cls, matrix: ArrayLike, width: int, height: int) -> Camera:
        """From a 3x3 intrinsic matrix in pixels, without skew.

        Raises:
            CameraError: the matrix is not 3x3 numbers, or has skew or a last row other than
                (0, 0, 1).
        """
        k = _numbers(matrix, "an intrinsic matrix", CameraError)
        if k.shape != (3, 3):
            raise CameraError(f"an intrinsic matrix has shape (3, 3), not {k.shape}")
        fixed = np.array([k[0, 1], k[1, 0], *k[2]])
        if not np.allclose(fixed, (0, 0, 0, 0, 1), atol=1e-6):
            raise CameraError(
                "an intrinsic matrix is [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels, "
                f"not {k.tolist()}"
            )
        return cls(k[0, 0], k[1, 1], k[0, 2], k[1, 2], width, height)

    @classmethod
    def default(cls, width: int, height: int) -> Camera:
        """The camera assumed of a photo that nobody described: `DEFAULT_FOV_DEG`, centred."""
        return cls.from_fov(width, height, cls.DEFAULT_FOV_DEG)

    def matrix(self) -> NDArray[np.float64]:
        """The (3, 3) intrinsic matrix, in pixels."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], dtype=np.float64)

    def project(self, points_m: ArrayLike) -> NDArray[np.float64]:
        """Camera space (..., 3), metres, to image points (..., 2), pixels."""
        points = np.asarray(points_m, dtype=np.float64)
        return points[..., :2] / points[..., 2:] * (self.fx, self.fy) + (self.cx, self.cy)

    def rays(self, points_px: ArrayLike) -> NDArray[np.float64]:
        """Image points (..., 2), pixels, to where their rays cross the plane z = 1: (..., 3)."""
        xy = (np.asarray(points_px, dtype=np.float64) - (self.cx, self.cy)) / (self.fx, self.fy)
        return np.concatenate([xy, np.ones_like(xy[..., :1])], axis=-1)  # (..., 3)

    def unproject(self, points_px: ArrayLike, depth_m: ArrayLike) -> NDArray[np.float64]:
        """Image points (..., 2), pixels, at depths z (...), metres, to camera space (..., 3)."""
        return self.rays(points_px) * np.asarray(depth_m, dtype=np.float64)[..., None]

    def mirrored(self) -> Camera:
        """The camera that sees the left-right mirrored image."""
        return dataclasses.replace(self, cx=self.width - 1 - self.cx)


@dataclasses.dataclass(frozen=True, eq=False)
class Hand:
    """One hand in one photo. Arrays are read-only.

    Attributes:
        vertices_m: (V, 3) float32, mesh vertices in camera space, metres.
        faces: (F, 3) int32, triangles, counter-clockwise seen from outside the hand (for left
            hands too: their template is mirrored and so is its winding).
        joints_m: (21, 3) float32, camera space, metres, in the order of `JOINT_NAMES`.
        joints_px: (21, 2) float32, pixels of the photo.
        vertices_px: (V, 2) float32, pixels of the photo.
        confidence: (21,) float32 in 0..1: how sure the network is of each joint.
        presence: 0..1, how sure the network is that this is a hand. Found by a search, it is lower
            than in a given box, because a search looks in so many places.
        handedness: the person's own left or right.
        depth: "metric" when a camera and the bone length or the wrist's depth were given, else
            "assumed": then the scale and the distance follow from a default camera, an adult's
            hand, or both.
        box: the square region of the photo that the network saw last.
        camera: the intrinsics used.
        backend: what ran, as "onnxruntime 1.32.0, CPU, 2 threads".
        timings_ms: milliseconds spent on this photo by stage ("decode", "crop", "network",
            "geometry").
        crops_seen: how many crops of this photo were shown to the network, for all its hands.

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

    def __post_init__(self) -> None:
        vertex_count = len(self.vertices_m)
        joint_count = len(JOINT_NAMES)
        shapes: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {
            "vertices_m": ((vertex_count, 3), np.float32),
            "vertices_px": ((vertex_count, 2), np.float32),
            "faces": ((len(self.faces), 3), np.int32),
            "joints_m": ((joint_count, 3), np.float32),
            "joints_px": ((joint_count, 2), np.float32),
            "confidence": ((joint_count,), np.float32),
        }
        for name, (shape, dtype) in shapes.items():
            array = np.array(getattr(self, name), dtype=dtype)  # a copy: the caller's stays theirs
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
                raise InputError(f"Hand.{name} must be one of {allowed}, not {value!r}")
        object.__setattr__(self, "timings_ms", MappingProxyType(dict(self.timings_ms)))

    def __reduce__(self) -> tuple[Any, ...]:
        # A read-only view of a dict cannot be pickled: a copy of the dict goes in its place.
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return _hand, (values | {"timings_ms": dict(self.timings_ms)},)

    def draw(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The mesh and the skeleton over a copy of the photo: HWC uint8 RGB in and out."""
        from .draw import overlay

        return overlay(image, [self])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the hand in the format that the suffix names: .obj, .glb, .ply or .json.

        Raises:
            InputError: the suffix is none of these, or the folder does not exist.
        """
        from .files import save

        return save(self, path)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the faces' buffers as plain numbers and strings, ready for JSON."""
        from .files import to_dict

        return to_dict(self)


def _hand(values: dict[str, Any]) -> Hand:
    """What `pickle` makes a hand with."""
    return Hand(**values)


def _rotation(angle: float) -> NDArray[np.float64]:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def finite(value: Any, name: str, error: type[InputError]) -> float:
    """A caller's number as a float; the error given if it is none, or NaN, or infinite."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as cause:
        raise error(f"{name} must be a number, not {value!r}") from cause
    if not math.isfinite(number):
        raise error(f"{name} must be finite, not {value!r}")
    return number


def _pixels(value: Any, name: str) -> int:
    """A side of an image: a positive whole number."""
    number = finite(value, f"Camera.{name}", CameraError)
    if number < 1 or number != int(number):
        raise CameraError(f"Camera.{name} must be a whole number of pixels, not {value!r}")
    return int(number)


def _numbers(values: ArrayLike, name: str, error: type[InputError]) -> NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as cause:
        raise error(f"{name} must hold numbers, all rows alike, not {values!r}") from cause
