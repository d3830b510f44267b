"""How a photo was taken: the pinhole camera, and the checks of what a caller hands over."""

from __future__ import annotations

import dataclasses
import math
import operator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import CameraError, InputError

__all__ = ["Camera", "counted", "finite", "numbers", "shown"]

# Focal length over the side of the picture: 0.05 would see 169 degrees, straight lines straight.
_SHORTEST = 0.05


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
    def from_fov(
        cls,
        width: int,
        height: int,
        fov_deg: float | None = None,
        *,
        horizontal_deg: float | None = None,
        diagonal_deg: float | None = None,
    ) -> Camera:
        """A centred camera with square pixels, from its field of view. Give one of the angles.

        Args:
            width, height: size of the image in pixels.
            fov_deg: degrees along the *longer* side, which is the sensor's however it was held.
            horizontal_deg: degrees along the width.
            diagonal_deg: degrees from corner to corner, as webcams are advertised.

        Raises:
            CameraError: not exactly one angle, one that is not between 0 and 180 degrees or so
                narrow that it was meant in radians, or a size that is not positive.
        """
        width, height = _pixels(width, "width"), _pixels(height, "height")
        spans = {
            "fov_deg": (fov_deg, max(width, height)),
            "horizontal_deg": (horizontal_deg, width),
            "diagonal_deg": (diagonal_deg, math.hypot(width, height)),
        }
        given = [(name, *pair) for name, pair in spans.items() if pair[0] is not None]
        if len(given) != 1:
            names = [name for name, *_ in given]
            raise CameraError(f"give one of {', '.join(spans)}, not {names or 'none'}")
        ((name, angle, span),) = given
        degrees = finite(angle, name, CameraError)
        if not 0 < degrees < 180:
            raise CameraError(f"{name} must lie between 0 and 180 degrees, not {angle!r}")
        across = 2 * math.tan(math.radians(degrees) / 2)
        if across == 0:  # an angle next to nothing is lost in rounding
            raise CameraError(f"{name} is too narrow for any lens: {angle!r} degrees")
        if degrees <= math.pi:
            raise CameraError(
                f"{name} is too narrow to photograph hands with: {angle!r} degrees; is it in "
                "radians? math.degrees() converts them"
            )
        focal = span / across
        return cls(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)

    @classmethod
    def from_exif(cls, photo: Any, width: int | None = None, height: int | None = None) -> Camera:
        """The camera that a photo's EXIF describes, centred; see `handmesh.exif` for the formulas.

        Taken from the focal length in 35 mm, known to about 2 %, or from the focal length and the
        resolution of the focal plane. The orientation is heeded: the camera is of the upright
        photo, as `handmesh.predict` sees it.

        Args:
            photo: the path, or the bytes, of a JPEG, PNG, WebP or TIFF file.
            width, height: size in pixels of the image that is handed to `predict`, where that is
                the photo reduced; by default the photo is decoded to learn its own.

        Raises:
            CameraError: one of width and height without the other, no EXIF, none that tells a focal
                length, one that is damaged or cannot be, or a photo that was cropped since.
            ImageError: the file cannot be read.
        """
        from .exif import camera_from_exif

        if (width is None) != (height is None):
            raise CameraError("give both width and height of the reduced photo, or neither")
        if width is not None:
            width = _pixels(width, "width")
        if height is not None:
            height = _pixels(height, "height")
        return camera_from_exif(photo, width, height)

    @classmethod
    def from_matrix(cls, matrix: ArrayLike, width: int, height: int) -> Camera:
        """From a 3x3 intrinsic matrix in pixels, without skew.

        Raises:
            CameraError: the matrix is not 3x3 numbers, or has skew or a last row other than
                (0, 0, 1), or focal lengths that no lens has, as where they are not in pixels.
        """
        k = numbers(matrix, "an intrinsic matrix", CameraError)
        if k.shape != (3, 3):
            raise CameraError(f"an intrinsic matrix has shape (3, 3), not {k.shape}")
        fixed = np.array([k[0, 1], k[1, 0], *k[2]])
        if not np.allclose(fixed, (0, 0, 0, 0, 1), atol=1e-6):
            raise CameraError(
                "an intrinsic matrix is [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels, "
                f"not {shown(k.tolist())}"
            )
        camera = cls(k[0, 0], k[1, 1], k[0, 2], k[1, 2], width, height)
        if min(camera.fx / camera.width, camera.fy / camera.height) < _SHORTEST:
            raise CameraError(
                f"focal lengths of {camera.fx:g} and {camera.fy:g} pixels see nearly half the "
                f"world in {camera.width} x {camera.height} pixels; where the matrix is "
                "normalised, multiply its first row by the width and its second by the height"
            )
        return camera

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


def finite(value: Any, name: str, error: type[InputError]) -> float:
    """A caller's number as a float; the error given if it is none, or NaN, or infinite."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as cause:
        raise error(f"{name} must be a number, not {shown(value)}") from cause
    if not math.isfinite(number):
        raise error(f"{name} must be finite, not {shown(value)}")
    return number


def counted(value: Any, name: str, most: int | None = None) -> int:
    """A caller's whole number from 1, where there is a most up to that; `InputError` if it is
    none."""
    try:
        if isinstance(value, bool):
            raise TypeError("True and False count nothing")
        count = operator.index(value)
    except TypeError as cause:
        raise InputError(f"{name} must be a whole number, not {shown(value)}") from cause
    if count < 1 or (most is not None and count > most):
        wanted = "at least 1" if most is None else f"from 1 to {most}"
        raise InputError(f"{name} must be {wanted}, not {shown(count)}")
    return count


def numbers(values: ArrayLike, name: str, error: type[InputError]) -> NDArray[np.float64]:
    """A caller's array as float64; the error given if it holds anything but numbers."""
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as cause:
        raise error(f"{name} must hold numbers, all rows alike, not {shown(values)}") from cause


def shown(value: Any) -> str:
    """A caller's value for a message: cut where it is long, its type where it cannot be written.

    Python refuses to write whole numbers of more than 4300 digits.
    """
    try:
        text = repr(value)
    except Exception:  # whatever a stranger's __repr__ raises
        return f"a {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:197]}..."


def _pixels(value: Any, name: str) -> int:
    """A side of an image: a positive whole number."""
    number = finite(value, f"Camera.{name}", CameraError)
    if number < 1 or number != int(number):
        raise CameraError(f"Camera.{name} must be a whole number of pixels, not {value!r}")
    return int(number)
