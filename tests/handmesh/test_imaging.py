from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import handmesh.imaging as imaging
from handmesh.errors import ImageError, InputError
from handmesh.imaging import Pyramid, crop, decode
from handmesh.types import Box, Camera

Photo = NDArray[np.uint8]


@pytest.fixture(scope="module")
def photo() -> Photo:
    """Smooth, with different channels, and no symmetry."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 3) * 1.0, dtype=np.uint8)


def _encoded(photo: NDArray[np.generic], suffix: str, *options: int) -> bytes:
    bgr = photo[..., ::-1] if photo.ndim == 3 else photo
    _, data = cv2.imencode(suffix, np.ascontiguousarray(bgr), list(options))
    return bytes(data.tobytes())


def _with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """Put an EXIF block that holds nothing but the orientation into a JPEG."""
    tiff = b"II*\0" + struct.pack("<IHHHII", 8, 1, 0x0112, 3, 1, orientation) + b"\0\0\0\0"
    block = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


def test_path_bytes_and_array_give_the_same_pixels(photo: Photo, tmp_path: Path) -> None:
    data = _encoded(photo, ".png")
    path = tmp_path / "ünïcode name.png"
    path.write_bytes(data)
    for source in (path, str(path), data, bytearray(data), memoryview(data), photo):
        np.testing.assert_array_equal(decode(source), photo)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff"])
def test_lossless_formats_arrive_as_rgb(photo: Photo, suffix: str) -> None:
    np.testing.assert_array_equal(decode(_encoded(photo, suffix)), photo)


def test_jpeg_arrives_as_rgb(photo: Photo) -> None:
    decoded = decode(_encoded(photo, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 98))
    wrong = np.abs(decoded.astype(int) - photo[..., ::-1]).mean()
    assert np.abs(decoded.astype(int) - photo).mean() < wrong / 3


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda stored: stored),
        (2, lambda stored: stored[:, ::-1]),
        (3, lambda stored: stored[::-1, ::-1]),
        (4, lambda stored: stored[::-1]),
        (5, lambda stored: stored.transpose(1, 0, 2)),
        (6, lambda stored: np.rot90(stored, -1)),
        (7, lambda stored: np.rot90(stored, 2).transpose(1, 0, 2)),
        (8, lambda stored: np.rot90(stored, 1)),
    ],
)
def test_exif_orientation_is_honoured(
    photo: Photo, orientation: int, upright: Callable[[Photo], Photo]
) -> None:
    jpeg = _encoded(photo, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 98)
    decoded = decode(_with_orientation(jpeg, orientation))
    np.testing.assert_array_equal(decoded, upright(decode(jpeg)))


def test_grey_becomes_rgb(photo: Photo) -> None:
    grey = photo[..., 0].copy()
    expected = np.stack([grey] * 3, axis=-1)
    for source in (grey, grey[..., None], _encoded(grey, ".png")):
        np.testing.assert_array_equal(decode(source), expected)


def test_transparency_is_ignored(photo: Photo) -> None:
    rgba = np.dstack([photo, np.arange(photo[..., 0].size).reshape(48, 64) % 256]).astype(np.uint8)
    bgra = np.ascontiguousarray(rgba[..., [2, 1, 0, 3]])
    _, data = cv2.imencode(".png", bgra)
    np.testing.assert_array_equal(decode(rgba), photo)
    np.testing.assert_array_equal(decode(data.tobytes()), photo)


def test_sixteen_bits_are_reduced(photo: Photo) -> None:
    deep = photo.astype(np.uint16) * 257
    np.testing.assert_array_equal(decode(deep), photo)
    assert np.abs(decode(_encoded(deep, ".png")).astype(int) - photo).max() <= 1


def test_views_of_arrays_are_read_in_their_own_order(photo: Photo) -> None:
    decoded = decode(photo[::-1, ::2])
    np.testing.assert_array_equal(decoded, photo[::-1, ::2])
    assert decoded.flags.c_contiguous


def test_what_numpy_can_convert_is_taken(photo: Photo) -> None:
    class Picture:
        def __array__(self, dtype: object = None, copy: object = None) -> Photo:
            return photo

    np.testing.assert_array_equal(decode(Picture()), photo)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "YCbCr", "RGBX", "L", "LA", "1"])
def test_pil_images_of_every_mode_are_read_as_their_colours(mode: str) -> None:
    pil = pytest.importorskip("PIL.Image")
    color = np.zeros((32, 40, 3), np.uint8)
    color[:, :20], color[:, 20:] = (255, 0, 51), (0, 204, 51)  # also in the palette
    image = pil.fromarray(color).convert(mode)
    expected = np.asarray(image.convert("RGB"))
    decoded = decode(image)
    np.testing.assert_array_equal(decoded, expected)
    if mode not in ("L", "LA", "1"):  # which have no colours
        assert np.abs(decoded.astype(int) - color).max() <= 8


def test_pil_images_of_sixteen_bits_are_reduced_and_others_refused(photo: Photo) -> None:
    pil = pytest.importorskip("PIL.Image")
    grey = photo[..., 0].astype(np.uint16) * 257
    np.testing.assert_array_equal(decode(pil.fromarray(grey))[..., 0], photo[..., 0])
    with pytest.raises(ImageError, match="int32"):
        decode(pil.fromarray(grey.astype(np.int32)))


def test_pil_images_that_cannot_be_converted_are_refused() -> None:
    class Truncated:
        mode = "P"

        def convert(self, mode: str) -> None:
            raise OSError(f"image file is truncated, no {mode}")

    with pytest.raises(ImageError, match="truncated"):
        decode(Truncated())


def test_text_named_jpg_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_text("These are not the pixels you are looking for.")
    with pytest.raises(ImageError, match=r"photo\.jpg is not a complete image"):
        decode(path)


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9, 0.999])
def test_truncated_jpeg_is_refused(photo: Photo, keep: float) -> None:
    large = cv2.resize(photo, (640, 480))
    data = _encoded(large, ".jpg")
    with pytest.raises(ImageError, match="truncated JPEG"):
        decode(data[: int(len(data) * keep)])


def test_truncated_jpeg_with_a_whole_thumbnail_is_refused(photo: Photo) -> None:
    # The end marker of a thumbnail inside the EXIF block is not the photo's.
    data = _encoded(cv2.resize(photo, (320, 240)), ".jpg")
    thumbnail = b"Exif\0\0" + _encoded(photo, ".jpg")
    block = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = data[:2] + block + data[2:]
    assert decode(whole).shape == (240, 320, 3)
    with pytest.raises(ImageError, match="truncated JPEG"):
        decode(whole[:-200])


@pytest.mark.parametrize(
    "options",
    [
        (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        (cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
        (cv2.IMWRITE_JPEG_OPTIMIZE, 1),
    ],
)
def test_whole_jpegs_of_all_kinds_are_read(photo: Photo, options: tuple[int, int]) -> None:
    data = _encoded(photo, ".jpg", *options)
    assert decode(data).shape == photo.shape
    assert decode(data + b"appended by a phone").shape == photo.shape


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff"])
def test_other_truncated_files_are_refused(photo: Photo, suffix: str) -> None:
    data = _encoded(photo, suffix)
    with pytest.raises(ImageError):
        decode(data[: len(data) // 2])


def test_heic_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="HEIC"):
        decode(b"\0\0\0\x18ftypheic" + bytes(64))


@pytest.mark.parametrize("source", [b"", Path("no/such/photo.jpg"), Path("/"), None, 5, [[1, 2]]])
def test_what_is_no_image_is_refused(source: object) -> None:
    with pytest.raises(ImageError):
        decode(source)


def test_missing_file_is_named() -> None:
    with pytest.raises(ImageError, match=r"cannot read the image file no/such/photo\.jpg: No such"):
        decode("no/such/photo.jpg")


@pytest.mark.parametrize(
    ("array", "advice"),
    [
        (np.full((32, 32, 3), 0.5, dtype=np.float32), r"pass \(image \* 255\)\.round\(\)"),
        (np.full((32, 32, 3), 99.0), r"pass \(image\)\.round\(\)"),
        (np.full((32, 32, 3), np.nan), "NaN or infinity"),
        (np.zeros((32, 32, 3), dtype=np.int64), "astype"),
        (np.zeros((32, 32, 3), dtype=bool), "astype"),
        (np.zeros((3, 32, 32), dtype=np.uint8), r"transpose\(1, 2, 0\)"),
        (np.zeros((1, 32, 32, 3), dtype=np.uint8), "one image at a time"),
        (np.zeros((32, 32, 2), dtype=np.uint8), r"not \(32, 32, 2\)"),
        (np.zeros((32,), dtype=np.uint8), r"not \(32,\)"),
        (np.zeros((0, 32, 3), dtype=np.uint8), "at least 16"),
    ],
)
def test_wrong_arrays_are_refused_with_advice(array: np.ndarray, advice: str) -> None:
    with pytest.raises(ImageError, match=advice):
        decode(array)


def test_one_pixel_is_refused_in_every_form() -> None:
    dot = np.zeros((1, 1, 3), dtype=np.uint8)
    for source in (dot, _encoded(dot, ".png"), _encoded(dot, ".jpg"), _encoded(dot, ".bmp")):
        with pytest.raises(ImageError, match="1 x 1 pixels: a hand needs at least 16"):
            decode(source)


def test_all_image_errors_are_value_errors() -> None:
    with pytest.raises(ValueError):
        decode(b"nothing")
    with pytest.raises(InputError):
        decode(b"nothing")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_too_many_pixels_are_refused(
    photo: Photo, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = _encoded(photo, suffix)
    monkeypatch.setattr(imaging, "MAX_PIXELS", 48 * 64 - 1)
    with pytest.raises(ImageError, match="megapixels"):
        decode(data)


def test_a_png_bomb_is_refused_before_it_is_unpacked() -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 10**6, 10**6, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + bytes(100)
    with pytest.raises(ImageError, match="1000000 megapixels"):
        decode(data)


def _area_mean(photo: Photo, box: Box, size: int, samples: int = 24) -> NDArray[np.float64]:
    """Each crop pixel as the mean of many bilinear samples in it, black outside: the slow truth."""
    grid = (np.arange(size * samples) + 0.5) / (size * samples)
    u, v = np.meshgrid(grid, grid)
    points = box.to_image(np.stack([u, v], axis=-1))  # (S*n, S*n, 2)
    padded = np.pad(photo.astype(np.float64), ((1, 1), (1, 1), (0, 0)))
    x = np.clip(points[..., 0] + 1, 0, photo.shape[1] + 1 - 1e-9)
    y = np.clip(points[..., 1] + 1, 0, photo.shape[0] + 1 - 1e-9)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = (x - left)[..., None], (y - top)[..., None]
    upper = padded[top, left] * (1 - fx) + padded[top, left + 1] * fx
    lower = padded[top + 1, left] * (1 - fx) + padded[top + 1, left + 1] * fx
    values = upper * (1 - fy) + lower * fy
    return values.reshape(size, samples, size, samples, 3).mean(axis=(1, 3))


@pytest.mark.parametrize(
    ("box", "tolerance"),
    [
        (Box(31.5, 23.5, 32), 1.0),  # one crop pixel is one pixel
        (Box(30, 20, 13.7, 0.5), 2.0),  # enlarged: 0.43 pixels a crop pixel
        (Box(33, 22, 47, -0.4), 2.0),  # 1.5
        (Box(31.5, 23.5, 64), 1.0),  # 2
        (Box(30.2, 24.9, 150, 2.0), 5.0),  # 4.7
        (Box(55, 40, 60, 0.2), 2.0),  # over the edge
        (Box(31.5, 23.5, 250, 0.1), 5.0),  # 7.8
    ],
)
def test_crop_is_the_mean_over_each_pixel(photo: Photo, box: Box, tolerance: float) -> None:
    difference = np.abs(crop(photo, box, 32) - _area_mean(photo, box, 32))
    # At the photo's edge, where it fades into black, half a pixel more or less is in the average.
    covered = _area_mean(np.full_like(photo, 255), box, 32)[..., 0]
    inside = cv2.erode((covered > 254.9).astype(np.uint8), np.ones((3, 3))) > 0
    assert inside.any()
    assert difference[inside].max() <= tolerance
    assert difference.max() <= 25


def test_crop_does_not_alias() -> None:
    # Stripes of one pixel, reduced 10 times, are grey; plain bilinear sampling keeps stripes.
    stripes = np.zeros((700, 700, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    result = crop(stripes, Box(349.5, 349.5, 640), 64)
    assert abs(result.astype(int) - 127).max() <= 3


@pytest.mark.parametrize("angle", [0.0, 0.9])
@pytest.mark.parametrize("side", [30, 100, 333, 1000])
def test_crop_keeps_things_where_the_box_says(side: float, angle: float) -> None:
    # A blob's centre of mass in the crop, at any reduction, is where Box.to_crop puts it.
    photo = np.zeros((1001, 903, 3), dtype=np.uint8)
    point = np.array([417.3, 605.8])
    box = Box(point[0] + 0.11 * side, point[1] - 0.17 * side, side, angle)
    y, x = np.mgrid[:1001, :903]
    blob = 255 * np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * (side / 20) ** 2))
    photo[:] = blob[..., None].round()
    result = crop(photo, box, 64)[..., 0].astype(float)
    rows, columns = np.mgrid[:64, :64]
    centre = np.array([(columns * result).sum(), (rows * result).sum()]) / result.sum()
    assert (centre + 0.5) / 64 == pytest.approx(box.to_crop(point), abs=0.1 / 64)


def test_crop_outside_the_photo_is_black(photo: Photo) -> None:
    assert crop(photo, Box(-500, -500, 40), 32).max() == 0
    beside = crop(photo, Box(-20 - 0.5, 23.5, 40), 40)
    assert beside[:, :38].max() == 0


def test_a_hundred_megapixels_cost_little_more_than_their_pixels() -> None:
    # 10000 x 10000; stored with stride 0, so only the pyramid's levels are allocated.
    huge = np.broadcast_to(np.array([10, 20, 30], dtype=np.uint8), (10_000, 10_000, 3))
    pyramid = Pyramid(huge)
    near = pyramid.crop(Box(5000, 5000, 200), 128)
    assert len(pyramid.levels) == 1
    far = pyramid.crop(Box(5000, 5000, 9000), 128)
    assert (near == [10, 20, 30]).all()
    assert (far == [10, 20, 30]).all()
    assert sum(level.nbytes for level in pyramid.levels[1:]) < huge.nbytes / 2


def test_panoramas_wider_than_opencv_warps_are_cropped() -> None:
    wide = np.zeros((20, 40_000, 3), dtype=np.uint8)
    wide[:, 39_000:39_010] = 255
    result = crop(wide, Box(39_004.5, 9.5, 20), 20)
    assert (result[10, 5:15] == 255).all()
    assert result[10, :5].max() == 0


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bits_of_either_byte_order(photo: Photo, order: str) -> None:
    np.testing.assert_array_equal(decode((photo.astype(np.uint16) * 257).astype(order)), photo)


def test_brands_tell_avif_from_heic(photo: Photo) -> None:
    try:
        avif = _encoded(photo, ".avif")
    except cv2.error as error:
        pytest.skip(f"this OpenCV writes no AVIF: {error.err}")
    assert avif[4:12] == b"ftypavif"
    length = int.from_bytes(avif[:4], "big")
    assert b"mif1" in avif[16:length]
    assert b"avif" in avif[16:length]
    as_image_file = avif[:8] + b"mif1" + avif[12:]
    assert decode(as_image_file).shape == photo.shape
    with pytest.raises(ImageError, match="HEIC"):
        decode(as_image_file[:16] + as_image_file[16:length].replace(b"avif", b"heic"))


@pytest.mark.parametrize("suffix", ["webp", "png", "tiff"])
def test_exif_orientation_of_other_files_is_honoured(photo: Photo, suffix: str) -> None:
    image = pytest.importorskip("PIL.Image")
    exif, file = image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    options = {"lossless": True} if suffix == "webp" else {}
    image.fromarray(photo).save(file, suffix, exif=exif, **options)
    np.testing.assert_array_equal(decode(file.getvalue()), np.rot90(photo, -1))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "the path is empty"),
        ("https://example.org/a.jpg", "https://example.org/a.jpg: addresses are not opened: down"),
        (Path("s3://photos/a.jpg"), "cannot read s3://photos/a.jpg: addresses are not opened"),
        ("c:/none.jpg", "cannot read the image file c:/none.jpg"),
    ],
)
def test_a_path_that_leads_to_no_file_is_told_as_what_it_is(path: str | Path, said: str) -> None:
    for read in (decode, Camera.from_exif):
        with pytest.raises(ImageError, match=said):
            read(path)
