"""Files and arrays that are no photos, or damaged ones: the decoder, EXIF, and video files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fuzzing import ANY_NUMBER, damaged, fuzz, only_our_errors
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from handmesh import Box, Camera, ImageError, InputError, open_video
from handmesh.imaging import MIN_SIDE, Pyramid, decode

Image = pytest.importorskip("PIL.Image")
IFDRational = pytest.importorskip("PIL.TiffImagePlugin").IFDRational

WIDTH, HEIGHT = 24, 20
FOCAL, FOCAL_35MM = 0x920A, 0xA405
PIXELS_X, PIXELS_Y, PLANE_X, PLANE_Y, PLANE_UNIT = 0xA002, 0xA003, 0xA20E, 0xA20F, 0xA210


def _picture() -> np.ndarray:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (WIDTH, HEIGHT)), dtype=np.uint8)


def _encoded() -> list[bytes]:
    """The picture in every format that OpenCV writes here, and in some of their kinds."""
    kinds: list[tuple[str, list[int]]] = [
        (".jpg", []),
        (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2]),
        (".png", []),
        (".webp", []),
        (".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]),
        (".bmp", []),
        (".gif", []),
        (".tiff", [cv2.IMWRITE_TIFF_COMPRESSION, 1]),
        (".tiff", [cv2.IMWRITE_TIFF_COMPRESSION, 5]),
        (".ppm", []),
        (".jp2", []),
        (".hdr", []),
        (".pfm", []),
        (".avif", []),
    ]
    made = []
    for suffix, flags in kinds:
        picture: Any = _picture()
        if suffix in (".hdr", ".pfm"):
            picture = picture.astype(np.float32) / 255
        try:
            there, data = cv2.imencode(suffix, picture, flags)
        except cv2.error:  # this OpenCV was built without it
            continue
        made += [data.tobytes()] if there else []
    return made


def _with_exif() -> list[bytes]:
    image = Image.fromarray(_picture())
    made = []
    for form in ("JPEG", "PNG", "WEBP", "TIFF"):
        for orientation in (1, 6):
            tags = Image.Exif()
            tags[0x0112] = orientation
            inner: dict[int, Any] = {FOCAL: IFDRational(4.2), FOCAL_35MM: 26}
            if orientation == 6:  # a sensor 36 mm wide, and the photo's pixels spread over it
                across = WIDTH / 36 * 25.4
                inner = {FOCAL: IFDRational(50.0), PLANE_X: IFDRational(across)}
                inner |= {PLANE_Y: IFDRational(across), PLANE_UNIT: 2}
                inner |= {PIXELS_X: WIDTH, PIXELS_Y: HEIGHT}
            tags.get_ifd(0x8769).update(inner)
            buffer = io.BytesIO()
            image.save(buffer, form, exif=tags.tobytes())
            made.append(buffer.getvalue())
    return made


ENCODED = _encoded()
WITH_EXIF = _with_exif()


def _check_pixels(pixels: np.ndarray) -> None:
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert min(pixels.shape[:2]) >= MIN_SIDE
    assert pixels.flags.c_contiguous


def test_the_seeds_are_photos() -> None:
    for data in [*ENCODED, *WITH_EXIF]:
        _check_pixels(decode(data))
    assert len(ENCODED) >= 9
    for data in WITH_EXIF:
        assert Camera.from_exif(data).fx > 0


@fuzz(4)
@given(damaged([*ENCODED, *WITH_EXIF]))
def test_damaged_files(data: bytes) -> None:
    with only_our_errors():
        _check_pixels(decode(data))


@fuzz()
@given(st.binary(max_size=300), st.sampled_from([data[:12] for data in ENCODED] + [b""]))
def test_bytes_that_begin_as_a_photo(data: bytes, start: bytes) -> None:
    with only_our_errors():
        _check_pixels(decode(start + data))


@fuzz(2)
@given(
    damaged(WITH_EXIF, header=150),
    st.sampled_from([(None, None), (WIDTH, HEIGHT), (HEIGHT, WIDTH), (12, 10)]),
)
def test_damaged_exif(data: bytes, size: tuple[int | None, int | None]) -> None:
    with only_our_errors():
        camera = Camera.from_exif(data, *size)
        assert camera.fx > 0
        assert camera.width > 0


@fuzz(0.3)
@given(st.sampled_from(WITH_EXIF), ANY_NUMBER, ANY_NUMBER)
def test_exif_at_any_size(data: bytes, width: Any, height: Any) -> None:
    with only_our_errors():
        Camera.from_exif(data, width, height)


SIDES = st.sampled_from([0, 1, 2, 3, 4, 15, 16, 17, 40])
SHAPES = st.one_of(
    st.tuples(SIDES, SIDES, st.sampled_from([1, 3, 4])),
    st.lists(SIDES, max_size=5).map(tuple),
)
DTYPES = st.one_of(
    st.sampled_from([np.dtype("u1"), np.dtype("<u2"), np.dtype(">u2")]),
    arrays.scalar_dtypes(),
    st.sampled_from([np.dtype(object), np.dtype("U3"), np.dtype("u1,f4"), np.dtype("S0")]),
)


def _viewed(array: np.ndarray, view: str) -> Any:
    if view == "backward" and array.ndim:
        return array[::-1]
    if view == "stepped" and array.ndim:
        return array[::2]
    if view == "turned":
        return array.T
    if view == "repeated" and array.ndim:
        return np.broadcast_to(array[:1], array.shape) if len(array) else array
    if view == "masked":
        return np.ma.masked_array(array)
    if view == "matrix" and array.ndim == 2 and array.dtype.kind != "V":
        return np.asmatrix(array)
    if view == "list":
        return array.tolist()
    if view == "memory" and array.dtype.kind in "uif":
        return memoryview(np.ascontiguousarray(array))
    if view == "locked":
        array.flags.writeable = False
    return array


VIEWS = ["", "backward", "stepped", "turned", "repeated", "masked", "matrix", "list", "memory"]


@fuzz(3)
@given(DTYPES, SHAPES, st.sampled_from([*VIEWS, "locked"]), st.integers(0, 255))
def test_arrays(dtype: np.dtype[Any], shape: tuple[int, ...], view: str, seed: int) -> None:
    if dtype.itemsize and not dtype.hasobject:
        size = int(np.prod(shape)) * dtype.itemsize
        raw = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
        array = np.ndarray(shape, dtype, raw.tobytes()) if size else np.zeros(shape, dtype)
        array = array.copy()
    else:
        array = np.full(shape, seed if dtype.hasobject else "x", dtype)
    if view == "list" and dtype.kind == "U":
        return  # characters beyond Unicode cannot become Python's
    with only_our_errors():
        _check_pixels(decode(_viewed(array, view)))


class _Failing:
    """Claims to be an array."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __array__(self, *_: object, **__: object) -> Any:
        raise self.error


@fuzz(0.5)
@given(
    st.one_of(
        ANY_NUMBER,
        st.text(max_size=20),
        st.text(max_size=20).map(Path),
        st.sampled_from(["\0", "a\0b", "\ud800", "x" * 5000, "", ".", "/", "/dev/null"]),
        st.sampled_from([RuntimeError("a GPU's"), TypeError("no"), MemoryError(), KeyError(1)]).map(
            _Failing
        ),
        st.dictionaries(st.text(), st.integers(), max_size=2),
    )
)
def test_things_that_are_no_photo(thing: Any) -> None:
    with only_our_errors():
        _check_pixels(decode(thing))
    with only_our_errors():
        Camera.from_exif(thing)


@fuzz(2)
@given(
    st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 2),
    st.floats(4, 8 * 100),
    st.floats(allow_nan=False, allow_infinity=False),
    st.tuples(st.integers(1, 100), st.integers(1, 100)),
    st.sampled_from([8, 128]),
)
def test_crops_of_any_box(
    centre: tuple[float, float], size: float, angle: float, photo: tuple[int, int], side: int
) -> None:
    """Any box that `predict` lets through, its centre in the photo or not."""
    image = np.full((*photo, 3), 255, np.uint8)
    for cx, cy in (centre, (centre[0] % photo[1], centre[1] % photo[0])):
        with only_our_errors():
            crop = Pyramid(image).crop(Box(cx, cy, size, angle), side)
            assert crop.shape == (side, side, 3)
            assert crop.dtype == np.uint8


def _videos() -> list[tuple[str, bytes]]:
    import tempfile

    made = []
    with tempfile.TemporaryDirectory() as folder:
        for suffix, code in ((".avi", "MJPG"), (".mp4", "mp4v"), (".webm", "VP80")):
            path = Path(folder) / f"clip{suffix}"
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), 25, (32, 32))
            for level in range(0, 200, 40):
                writer.write(np.full((32, 32, 3), level, np.uint8))
            writer.release()
            if path.is_file() and path.stat().st_size:
                made.append((suffix, path.read_bytes()))
    return made


VIDEOS = _videos()


@fuzz(0.2)
@given(st.data())
def test_damaged_videos(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    suffix, seed = data.draw(st.sampled_from(VIDEOS))
    path = tmp_path_factory.getbasetemp() / f"damaged{suffix}"
    path.write_bytes(data.draw(damaged([seed], most=6, header=600)))
    with only_our_errors(), open_video(path) as video:
        assert 1 <= video.fps <= 1000
        last_s = -1.0
        for number, frame in enumerate(video):
            assert frame.pixels.dtype == np.uint8
            assert frame.pixels.shape[2] == 3
            assert frame.time_s > last_s
            last_s = frame.time_s
            if number == 20:
                break


@fuzz(0.3)
@given(
    st.one_of(
        ANY_NUMBER.filter(lambda x: not isinstance(x, int)),
        st.text(max_size=20),
        st.sampled_from(["\0", "\ud800", "x" * 5000, "", ".", "/dev/null", -1, 10**30]),
    )
)
def test_things_that_are_no_video(thing: Any) -> None:
    with only_our_errors(), open_video(thing):
        pass


def test_errors_name_what_came() -> None:
    with pytest.raises(ImageError, match="NoneType"):
        decode(None)
    with pytest.raises(InputError, match="no video file"):
        open_video("nothing.mp4")
