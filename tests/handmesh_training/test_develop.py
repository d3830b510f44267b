"""What light and a camera do to a picture, by OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from handmesh_training import develop as steps
from handmesh_training import develop_torch
from handmesh_training.develop import compress, develop


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    """(160, 160, 3) uint8, black but for a soft dot."""
    rows, columns = np.mgrid[:160, :160]
    dot = np.exp(-((columns - 70) ** 2 + (rows - 90) ** 2) / (2 * 2.5**2))
    return np.repeat(np.round(250 * dot).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_development_keeps_type_and_looks_like_the_picture(level: int) -> None:
    rng = np.random.default_rng(9)
    noise = rng.normal(0, 1, (256, 256, 3)).astype(np.float32)
    image = np.full((64, 64, 3), level, dtype=np.uint8)
    image[16:48, 16:48] = np.clip(level + 90, 0, 255) if level < 200 else level - 90
    before = image.copy()

    results = [develop(rng, image, noise) for _ in range(200)]

    np.testing.assert_array_equal(image, before)
    brighter = 0
    for result in results:
        assert result.dtype == np.uint8
        assert result.shape == image.shape
        inner, outer = result[20:44, 20:44].mean(), result[:8].mean()
        brighter += (inner > outer) == (image[32, 32, 0] > level)
    assert brighter > 180, "the order of bright and dark survives but for rare extremes"
    assert len({result.tobytes() for result in results}) > 190, "but for overexposed ones"
    means = np.array([result.mean() for result in results])
    assert abs(means.mean() - image.mean()) < 25
    assert means.std() > 3


@pytest.mark.parametrize("quality", [20, 50, 84])
def test_compression_is_of_red_green_and_blue_in_this_order(quality: int) -> None:
    # Saturated reds and blues: JPEG keeps the brightness of the one far better than the other's.
    rng = np.random.default_rng(10)
    image = np.zeros((96, 96, 3), dtype=np.uint8)
    image[..., 0] = cv2.resize(rng.uniform(0, 255, (24, 24)), (96, 96))
    image[..., 2] = cv2.resize(rng.uniform(0, 255, (24, 24)), (96, 96))

    of_tables = develop_torch.compress(
        torch.from_numpy(image).permute(2, 0, 1)[None].float(), torch.tensor([quality])
    )
    want = of_tables[0].permute(1, 2, 0).numpy()

    ours, artefacts = compress(image, quality) - want, want - image
    assert np.sqrt((ours**2).mean()) < 0.35 * np.sqrt((artefacts**2).mean()), "the same artefacts"


def test_random_filters_change_colours_and_keep_outlines() -> None:
    """What is told apart by light alone before is told apart after, in other colours at times."""
    image = np.full((64, 64, 3), (90, 110, 130), dtype=np.uint8)
    cv2.circle(image, (30, 34), 14, (210, 150, 120), -1)
    mask = image[..., 0] == 210
    away, inside = [], []
    for seed in range(60):
        made = steps._filter_at_random(np.random.default_rng(seed), image)
        assert made.shape == image.shape
        assert made.dtype == np.uint8
        inside.append(made[mask].astype(float).mean(axis=0))
        away.append(made[~mask].astype(float).mean(axis=0))
        # Within the disc, away from its edge, nothing but the disc's own colour.
        deep = cv2.erode(mask.astype(np.uint8), np.ones((9, 9))) > 0
        assert made[deep].std(axis=0).max() < 1
    contrast = np.abs(np.array(inside) - np.array(away)).max(axis=1)
    assert np.median(contrast) > 25, "the disc is still seen"
    hues = np.array(inside) - np.array(inside).mean(axis=1, keepdims=True)
    assert (hues[:, 2] > hues[:, 0]).mean() > 0.1, "a reddish disc is bluish at times"


def test_a_filter_of_one_is_the_picture(picture: NDArray[np.uint8]) -> None:
    itself = np.zeros((3, 3, 1, 1))
    itself[range(3), range(3)] = 1
    np.testing.assert_array_equal(steps.filtered(picture, itself), picture)


def test_a_fifth_of_the_pictures_is_filtered(
    picture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    filtered = []
    monkeypatch.setattr(steps, "_filter_at_random", lambda rng, image: filtered.append(1) or image)
    rng, noise = np.random.default_rng(2), np.zeros((256, 256, 3), dtype=np.float32)
    for _ in range(600):
        develop(rng, picture, noise)
    assert len(filtered) == pytest.approx(120, abs=40)


def test_no_light_and_nothing_evened_is_the_picture(picture: NDArray[np.uint8]) -> None:
    image = picture
    np.testing.assert_array_equal(steps.relight(image, np.zeros((4, 4)), 0.0), image)


def test_light_changes_over_many_pixels_and_keeps_the_lines() -> None:
    """Twice as dark on one side, with a line a fifth darker all along: evened out, the sides come
    close to each other, and the line stays a fifth darker; cast light does as much to both."""
    side = 128
    image = np.tile(np.linspace(110, 220, side)[None, :, None], (side, 1, 3))
    image[60:62] *= 0.8
    image = image.astype(np.uint8)
    evened = steps.relight(image, np.zeros((4, 4)), 0.8).astype(float)
    ends = [each[:, 8].mean() / each[:, -8].mean() for each in (image, evened)]
    assert ends[0] < 0.56
    assert 0.8 < ends[1] < 1
    dark = np.repeat(np.array([[-0.5, -0.2, 0.2, 0.5]]), 4, axis=0)
    cast = steps.relight(image // 2, dark, 0.0).astype(float)
    assert cast[:, 4].mean() / (image[:, 4] // 2).mean() == pytest.approx(np.exp(-0.5), rel=0.03)
    assert cast[:, -4].mean() / (image[:, -4] // 2).mean() == pytest.approx(np.exp(0.5), rel=0.03)
    for made in (evened, cast):
        assert (made[60:62] / made[40:42]).mean() == pytest.approx(0.8, abs=0.03)


def test_two_fifths_of_the_pictures_are_lit_anew(
    picture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    lit = []
    monkeypatch.setattr(
        steps, "relight", lambda image, field, evened: lit.append((field, evened)) or image
    )
    rng, noise = np.random.default_rng(2), np.zeros((256, 256, 3), dtype=np.float32)
    for _ in range(600):
        develop(rng, picture, noise)
    assert len(lit) == pytest.approx(240, abs=50)
    assert 0.1 < np.std([field for field, _ in lit]) < 0.3
    assert 0 <= min(evened for _, evened in lit) < 0.05
    assert 0.7 < max(evened for _, evened in lit) <= 0.8
