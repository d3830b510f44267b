"""Sizes that files state, against the pictures that OpenCV and Pillow wrote into them."""

from __future__ import annotations

import io
import struct
from typing import Any

import cv2
import numpy as np
import pytest

from handmesh import ImageError
from handmesh.headers import stated_size
from handmesh.imaging import decode

WIDTH, HEIGHT = 77, 53
# What a few bytes claim to hold: 40,000 x 30,000 pixels are 3.6 GB.
HUGE = (40_000, 30_000)


def _encoded(suffix: str, *flags: int) -> bytes:
    picture: Any = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    if suffix in (".hdr", ".pfm"):
        picture = picture.astype(np.float32) / 255
    if suffix == ".pgm":
        picture = picture[..., 0]
    try:
        there, data = cv2.imencode(suffix, picture, list(flags))
    except cv2.error as error:
        pytest.skip(f"this OpenCV writes no {suffix}: {error.err}")
    assert there
    return data.tobytes()


FORMS = [".png", ".bmp", ".gif", ".tiff", ".ppm", ".pgm", ".pam", ".pfm", ".hdr"]


@pytest.mark.parametrize("suffix", [*FORMS, ".jp2", ".ras", ".avif"])
def test_sizes_that_opencv_wrote(suffix: str) -> None:
    assert stated_size(_encoded(suffix)) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiffs_of_either_byte_order(order: str) -> None:
    entries = struct.pack(order + "HHII", 0x0100, 4, 1, WIDTH)
    short = struct.pack(order + "HHI", 0x0101, 3, 1) + struct.pack(order + "HH", HEIGHT, 0)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    assert stated_size(mark + struct.pack(order + "IH", 8, 2) + entries + short) == (WIDTH, HEIGHT)


def test_a_bitmap_from_the_top_and_one_of_os2() -> None:
    windows = b"BM" + bytes(12) + struct.pack("<Iii", 40, WIDTH, -HEIGHT)
    os2 = b"BM" + bytes(12) + struct.pack("<IHH", 12, WIDTH, HEIGHT)
    assert stated_size(windows) == stated_size(os2) == (WIDTH, HEIGHT)


def test_an_animated_webp() -> None:
    image = pytest.importorskip("PIL.Image")
    frames = [image.fromarray(np.full((HEIGHT, WIDTH, 3), n, np.uint8)) for n in (0, 200)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], duration=40)
    assert stated_size(buffer.getvalue()) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("data", [b"", b"BM", b"GIF89a\1", b"II*\0\xff\xff\xff\xff", b"P6 x", b"?"])
def test_what_is_cut_short_states_nothing(data: bytes) -> None:
    assert stated_size(data) is None


def _claims() -> dict[str, bytes]:
    """Whole files whose header was changed to claim more."""
    width, height = HUGE
    bmp = bytearray(_encoded(".bmp"))
    bmp[18:26] = struct.pack("<ii", width, height)
    gif = bytearray(_encoded(".gif"))
    gif[6:10] = struct.pack("<HH", width, height)
    ppm = _encoded(".ppm").replace(b"%d %d" % (WIDTH, HEIGHT), b"%d %d" % HUGE)
    tiff = bytearray(_encoded(".tiff", cv2.IMWRITE_TIFF_COMPRESSION, 1))
    for tag, side in ((0x0100, width), (0x0101, height)):
        at = tiff.find(struct.pack("<H", tag), int.from_bytes(tiff[4:8], "little") + 2)
        tiff[at : at + 12] = struct.pack("<HHII", tag, 4, 1, side)
    return {"bmp": bytes(bmp), "gif": bytes(gif), "ppm": ppm, "tiff": bytes(tiff)}


@pytest.mark.parametrize("form", ["bmp", "gif", "ppm", "tiff"])
def test_a_small_file_that_claims_gigabytes_is_refused_unpacked(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unpack(*_: Any) -> Any:
        raise AssertionError("the pixels were unpacked")

    data = _claims()[form]
    assert len(data) < 20_000
    monkeypatch.setattr(cv2, "imdecode", unpack)
    with pytest.raises(ImageError, match="1200 megapixels"):
        decode(data)
