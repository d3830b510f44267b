"""Cameras from EXIF, against files that Pillow writes and closed forms of the focal length."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handmesh.errors import CameraError, ImageError
from handmesh.imaging import decode
from handmesh.types import Camera

Image = pytest.importorskip("PIL.Image")
IFDRational = pytest.importorskip("PIL.TiffImagePlugin").IFDRational

ORIENTATION, FOCAL, FOCAL_35MM = 0x0112, 0x920A, 0xA405
PIXELS_X, PIXELS_Y, PLANE_X, PLANE_Y, PLANE_UNIT = 0xA002, 0xA003, 0xA20E, 0xA20F, 0xA210
WIDTH, HEIGHT = 400, 300


def photo(
    exif: dict[int, Any] | None = None,
    orientation: int | None = None,
    form: str = "JPEG",
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> bytes:
    image = Image.fromarray(np.full((size[1], size[0], 3), 90, np.uint8))
    tags = Image.Exif()
    if orientation is not None:
        tags[ORIENTATION] = orientation
    for tag, value in (exif or {}).items():
        # Whole numbers are written as such, others as the rationals that the standard asks for.
        rational = IFDRational(value) if isinstance(value, float) else value
        tags.get_ifd(0x8769)[tag] = rational
    buffer = io.BytesIO()
    image.save(buffer, form, exif=tags.tobytes())
    return buffer.getvalue()


@pytest.mark.parametrize("size", [{"width": 320}, {"height": 240}])
def test_a_side_without_the_other_is_refused(size: dict[str, int]) -> None:
    with pytest.raises(CameraError, match="both width and height"):
        Camera.from_exif(photo({FOCAL_35MM: 26}), **size)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_focal_length_in_35_mm_is_by_the_diagonal(form: str) -> None:
    camera = Camera.from_exif(photo({FOCAL_35MM: 26}, form=form))
    # A 500 px diagonal, seen as 43.27 mm of film are through a lens of 26 mm.
    expected = 26 * 500 / math.hypot(36, 24)
    assert (camera.fx, camera.fy) == (pytest.approx(expected), pytest.approx(expected))
    assert (camera.cx, camera.cy, camera.width, camera.height) == (199.5, 149.5, 400, 300)
    assert camera == Camera.from_fov(
        400, 300, diagonal_deg=math.degrees(2 * math.atan(math.hypot(36, 24) / 52))
    )


def test_focal_length_and_plane_resolution() -> None:
    # A 36 mm wide sensor of 6000 pixels behind 50 mm; the photo was reduced to 400.
    tags = {FOCAL: 50.0, PLANE_X: 6000 / 36 * 25.4, PLANE_Y: 6000 / 36 * 25.4, PLANE_UNIT: 2}
    size = {PIXELS_X: 6000, PIXELS_Y: 4500}
    camera = Camera.from_exif(photo(tags | size))
    assert camera.fx == pytest.approx(50 / 36 * 400, rel=1e-5)
    assert camera.fy == pytest.approx(50 / 36 * 400, rel=1e-5)
    in_cm = tags | size | {PLANE_X: 6000 / 3.6, PLANE_Y: 6000 / 3.6, PLANE_UNIT: 3}
    assert Camera.from_exif(photo(in_cm)).fx == pytest.approx(camera.fx, rel=1e-5)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_camera_is_of_the_upright_photo(orientation: int) -> None:
    # Twice as many pixels a mm along the sensor's x as along its y.
    tags = {FOCAL: 5.0, PLANE_X: 100.0, PLANE_Y: 50.0, PLANE_UNIT: 4}
    data = photo(tags, orientation)
    camera = Camera.from_exif(data)
    assert (camera.height, camera.width) == decode(data).shape[:2]
    along_x = camera.fx if camera.width == WIDTH else camera.fy
    assert along_x == pytest.approx(500)
    assert camera.fx + camera.fy == pytest.approx(750)


def test_35_mm_comes_before_the_focal_plane() -> None:
    both = {FOCAL_35MM: 26, FOCAL: 5.0, PLANE_X: 100.0, PLANE_UNIT: 4}
    assert Camera.from_exif(photo(both)) == Camera.from_exif(photo({FOCAL_35MM: 26}))
    unknown = both | {FOCAL_35MM: 0}
    assert Camera.from_exif(photo(unknown)).fx == pytest.approx(500)


def test_a_size_stands_for_a_photo_that_was_reduced(tmp_path: Path) -> None:
    (path := tmp_path / "photo.jpg").write_bytes(photo({FOCAL_35MM: 26}))
    whole, half = Camera.from_exif(path), Camera.from_exif(path, 200, 150)
    assert half.fx == pytest.approx(whole.fx / 2)
    assert (half.width, half.height) == (200, 150)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (photo(), "carries no EXIF|tells no focal length"),
        (photo({FOCAL: 4.2}), "tells no focal length"),
        (photo({FOCAL_35MM: 0}), "tells no focal length"),
        (photo({FOCAL_35MM: 20000}), "cannot be"),
        (photo({FOCAL_35MM: 26, PIXELS_X: 4000, PIXELS_Y: 2000}), "cropped"),
        (np.zeros((64, 64, 3), np.uint8), "pixels carry no EXIF"),
        (None, "pixels carry no EXIF"),
    ],
)
def test_what_exif_cannot_tell_is_said(data: Any, message: str) -> None:
    with pytest.raises(CameraError, match=message) as told:
        Camera.from_exif(data)
    # It is told of a call in Python and of an option alike.
    assert str(told.value).endswith("give the camera's field of view instead, or leave the camera "
                                    "to be assumed")  # fmt: skip
    assert "--" not in str(told.value)
    assert "from_fov" not in str(told.value)


def test_a_missing_photo_is_an_image_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot read"):
        Camera.from_exif(tmp_path / "missing.jpg")


def test_damaged_exif_gives_typed_errors_only() -> None:
    data = photo({FOCAL_35MM: 26, FOCAL: 5.0, PLANE_X: 100.0}, 6)
    start, end = data.index(b"Exif\0\0") + 6, data.index(b"\xff\xdb")
    rng = np.random.default_rng(0)
    read = 0
    for _ in range(3000):
        broken = bytearray(data)
        for _ in range(rng.integers(1, 6)):
            broken[rng.integers(start, end)] = rng.integers(256)
        try:
            Camera.from_exif(bytes(broken), WIDTH, HEIGHT)
            read += 1
        except CameraError:
            pass
    assert 0 < read < 3000
    for length in range(len(data) // 2):
        with pytest.raises((CameraError, ImageError)):
            Camera.from_exif(data[:length] if length < end else b"")
