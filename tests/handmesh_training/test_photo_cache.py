"""Photos behind hands: memory that does not grow with them, pictures that do not change with it."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest

from handmesh.errors import ImageError, InputError
from handmesh_training.rendered import HandRenderer, RenderSettings
from handmesh_training.rendering import BackgroundSet
from handmesh_training.rendering.textures import srgb_to_linear

COUNT, SIZE = 24, (400, 500)
# What one photo takes with its mip levels, each of a quarter of the one before.
BYTES = 4 * SIZE[0] * SIZE[1] * 4 / 3


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for k in range(COUNT):
        coarse = rng.integers(0, 256, (8, 10, 3)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"{k:02d}.png"), cv2.resize(coarse, SIZE[::-1]))
    return tmp_path


def no_decoding(*_: object) -> None:
    raise AssertionError("decoded again")


@pytest.mark.usefixtures("quick_surroundings")
def test_memory_does_not_grow_with_the_photos(photos: Path) -> None:
    """From the first look at the folder to the picture; what is mapped is not the process's own."""
    settings = RenderSettings(crop_px=32, backgrounds=photos)
    HandRenderer(RenderSettings(crop_px=32), 0).crops(range(4))  # whatever else is kept
    tracemalloc.start()
    try:
        crops = HandRenderer(settings, 0).crops(range(32))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(crops) == 32
    assert peak < 0.7 * COUNT * BYTES  # held once, they would take 1


def test_photos_are_those_of_the_folder_shrunk(photos: Path) -> None:
    opened = BackgroundSet.from_folder(photos, side=SIZE[0])
    images = [
        srgb_to_linear(cv2.imread(str(path))[..., ::-1] / np.float32(255))
        for path in sorted(photos.glob("*.png"))
    ]
    expected = BackgroundSet.from_images(images)
    for name in ("texels", "offset", "extent"):
        np.testing.assert_array_equal(
            getattr(opened.textures, name), getattr(expected.textures, name)
        )
    np.testing.assert_array_equal(opened.brightness, expected.brightness)
    small = BackgroundSet.from_folder(photos, side=100)
    assert small.textures.extent[3, 0].tolist() == [100, 125]
    np.testing.assert_allclose(
        small.textures.image(3).mean((0, 1)), images[3].mean((0, 1)), rtol=0.05
    )


def test_they_are_decoded_once_and_again_when_they_change(
    photos: Path, photo_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = BackgroundSet.from_folder(photos)
    before = sorted(photo_cache.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(cv2, "imread", no_decoding)
        again = BackgroundSet.from_folder(photos)
    np.testing.assert_array_equal(first.textures.texels, again.textures.texels)
    assert sorted(photo_cache.iterdir()) == before, "nothing half-made is left"

    cv2.imwrite(str(photos / "05.png"), np.full((*SIZE, 3), 255, dtype=np.uint8))
    changed = BackgroundSet.from_folder(photos)
    assert changed.textures.image(5).min() > 0.99
    np.testing.assert_array_equal(changed.textures.image(6), first.textures.image(6))


@pytest.mark.usefixtures("quick_surroundings")
def test_pictures_do_not_depend_on_where_photos_are_held(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = RenderSettings(crop_px=32, backgrounds=photos)
    mapped = HandRenderer(settings, 0).crops(range(40)).images

    def in_memory(folder: Path) -> BackgroundSet:
        opened = BackgroundSet.from_folder(folder)
        count = range(len(opened))
        return BackgroundSet.from_images([opened.textures.image(i) for i in count])

    renderer = HandRenderer(settings, 0)
    renderer.backgrounds = in_memory(photos)
    difference = np.abs(renderer.crops(range(40)).images.astype(int) - mapped)
    assert difference.mean() < 0.1  # texels are rounded a second time, and so are coarser levels
    bare = HandRenderer(RenderSettings(crop_px=32), 0).crops(range(40)).images
    assert (bare != mapped).any(axis=(1, 2, 3)).mean() > 0.2, "photos are seen"


def test_what_cannot_be_kept_is_told(
    photos: Path, photo_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "07.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"07\.png: not an image"):
        BackgroundSet.from_folder(photos)
    (photos / "07.png").unlink()
    (tmp_path / "file").touch()
    monkeypatch.setattr(
        "handmesh_training.rendering.photo_cache.cache_folder", lambda: tmp_path / "file"
    )
    with pytest.raises(InputError, match="XDG_CACHE_HOME"):
        BackgroundSet.from_folder(photos)
