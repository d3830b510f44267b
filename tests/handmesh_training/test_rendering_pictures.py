"""Rendered pictures of simple bodies, against closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from ball_scene import (
    BALL,
    CAMERA,
    MESH,
    PLACES,
    SIZE,
    SKINS,
    ball_at,
    ball_rays,
    levels,
    plain,
    renderer,
)

from handmesh_training.rendering import (
    NO_PART,
    Appearance,
    BackgroundSet,
    EnvironmentSet,
    Renderer,
    RenderMesh,
    harmonics,
    sample_appearance,
)
from handmesh_training.rendering.environments import log_brightness


def test_normals_and_ambient_light_of_a_ball() -> None:
    look = plain()
    slope = np.array([0.5, -0.3, -0.4])  # light as a linear function of the normal
    look.irradiance[0, 1:4] = (slope[[1, 2, 0]] / 0.488603)[:, None]
    got = renderer().render(ball_at(), CAMERA, look).image[0].astype(float)
    normals, hit, _ = ball_rays()
    inner = hit & (normals[..., 2] < -0.35)  # silhouettes are a polygon's
    expected = levels(0.5 * (1 + normals @ slope))
    assert inner.sum() > 1500
    for channel in range(3):
        error = np.abs(got[..., channel] - expected)[inner]
        assert error.max() < 4
        assert error.mean() < 1


def test_mask_and_depth_and_parts_and_normals_of_a_ball() -> None:
    got = renderer().render(ball_at(), CAMERA, plain(), depth=True, parts=True, normals=True)
    normals, hit, depth = ball_rays()
    assert got.depth is not None
    assert got.parts is not None
    coverage = got.mask[0] / 255
    fx, z, r = 150.0, 0.5, 0.1
    area = np.pi * fx**2 * r**2 / (z**2 - r**2)
    assert coverage.sum() == pytest.approx(area, rel=0.01)
    inner = hit & (normals[..., 2] < -0.45)  # a pixel and more from the silhouette
    np.testing.assert_array_equal(coverage[inner], 1)
    # The nearest of a pixel's samples: towards the rim that is half a pixel's slope nearer.
    np.testing.assert_allclose(got.depth[0][inner], depth[inner], atol=3e-3)
    middle = hit & (normals[..., 2] < -0.95)
    np.testing.assert_allclose(got.depth[0][middle], depth[middle], atol=5e-4)
    assert (got.depth[0][got.mask[0] == 0] == 0).all()
    assert (got.parts[0][got.mask[0] == 0] == NO_PART).all()
    assert got.normals is not None
    assert (got.normals[0][got.mask[0] == 0] == 0).all()
    lengths = np.linalg.norm(got.normals[0][got.mask[0] > 0], axis=-1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)
    angle = np.degrees(np.arccos(np.clip((got.normals[0] * normals).sum(-1), -1, 1)))
    assert angle[middle].max() < 1.5
    assert angle[inner].max() < 4  # at the sample that is nearest, not in the pixel's middle
    right = inner & (normals[..., 0] > 0.2)
    left = inner & (normals[..., 0] < -0.2)
    assert (got.parts[0][right] == 1).all()
    assert (got.parts[0][left] == 0).all()


def test_pixel_centres_are_integers() -> None:
    # Moving the principal point by two pixels moves the picture by two pixels.
    draw = renderer()
    first = draw.render(ball_at(), CAMERA, plain()).mask[0]
    np.testing.assert_array_equal(first, first[::-1])
    np.testing.assert_array_equal(first, first[:, ::-1])
    moved = draw.render(ball_at(), CAMERA + [0, 0, 2, -1], plain()).mask[0]
    np.testing.assert_array_equal(moved[:-1, 2:], first[1:, :-2])


def test_key_light_follows_the_cosine_law() -> None:
    look = plain()
    look.irradiance[:] = 0
    light = np.array([0.5, -0.4, -0.6])
    light /= np.linalg.norm(light)
    look.key_direction[0] = light
    look.key_light[0] = [1.0, 0.8, 0.6]
    got = renderer().render(ball_at(), CAMERA, look).image[0].astype(float)
    normals, hit, _ = ball_rays()
    cosine = normals @ light
    lit = hit & (normals[..., 2] < -0.35) & (cosine > 0.25)
    for channel, strength in enumerate((1.0, 0.8, 0.6)):
        error = np.abs(got[..., channel] - levels(0.5 * strength * cosine))[lit]
        assert error.max() < 6
    dark = hit & (cosine < -0.1) & (normals[..., 2] < -0.35)
    assert got[dark].max() <= 1


def test_a_ball_casts_its_shadow_where_the_light_says() -> None:
    big, small = BALL * 0.3 + [0, 0, 0.9], BALL * 0.02
    faces = np.concatenate([MESH.faces, MESH.faces + len(BALL)])
    mesh = RenderMesh(
        faces, np.concatenate([MESH.uv, MESH.uv]), np.concatenate([MESH.parts, MESH.parts])
    )
    light = np.array([0.3, -0.2, -1.0])
    light /= np.linalg.norm(light)
    target = np.array([0.02, 0.03, 0.0])  # a point of the big ball's front
    target[2] = 0.9 - np.sqrt(0.09 - target[:2] @ target[:2])
    vertices = np.concatenate([big, small + target + 0.12 * light])[None]
    look = plain()
    look.irradiance[:] = 0
    look.key_direction[0] = light
    look.key_light[0] = 1.0
    draw = Renderer(mesh, SKINS, PLACES, size=SIZE, shadow_size=256)
    image = draw.render(vertices, CAMERA, look).image[0, ..., 0].astype(int)
    x, y = (150 * target[:2] / target[2] + CAMERA[0, 2:]).round().astype(int)
    assert image[y, x] <= 2
    assert image[y, x - 12] > 100
    assert image[y + 12, x] > 100


def test_occlusion_darkens_the_crease_between_two_balls() -> None:
    faces = np.concatenate([MESH.faces, MESH.faces + len(BALL)])
    mesh = RenderMesh(
        faces, np.concatenate([MESH.uv, MESH.uv]), np.concatenate([MESH.parts, MESH.parts])
    )
    pair = [BALL * 0.06 + [-0.058, 0, 0.5], BALL * 0.06 + [0.058, 0, 0.5]]
    vertices = np.concatenate(pair)[None]
    look = plain()
    look.occlusion[0] = [1.0, 0.03]
    image = Renderer(mesh, SKINS, PLACES, size=SIZE).render(vertices, CAMERA, look).image[0]
    middle = SIZE // 2
    crease, open_side = image[middle, middle, 1], image[middle, middle - 25, 1]
    assert int(crease) < int(open_side) - 20


def test_sleeve_covers_only_the_arm() -> None:
    mesh = RenderMesh(MESH.faces, MESH.uv, MESH.parts, (BALL[:, 1] * 0.1).astype(np.float32))
    look = plain()
    look.sleeve[0] = [0.0, 0.004, 0.0, 0.2, 0.0, 0.0]
    image = Renderer(mesh, SKINS, PLACES, size=SIZE).render(ball_at(), CAMERA, look).image[0]
    middle = SIZE // 2
    skin, cloth = image[middle - 15, middle].astype(int), image[middle + 15, middle].astype(int)
    assert abs(skin[0] - skin[1]) <= 1
    assert cloth[1] > 60
    assert cloth[0] <= 2


def test_background_is_the_panorama_seen_along_the_rays() -> None:
    directions = harmonics.panorama_directions(128, 256)
    slope = np.array([[0.3, 0.1, -0.2], [0.1, -0.3, 0.2], [0.2, 0.25, 0.3]])
    places = EnvironmentSet.from_panoramas([(0.5 + directions @ slope).astype(np.float32)])
    yaw = 2.9  # across the panorama's seam
    turn = np.array(
        [[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]], np.float32
    )
    look = plain()
    look.background_map[0] = turn @ look.background_map[0]
    look.background_gain[0] = places.panoramas.white[0]
    away = ball_at() + [60.0, 0, 0]
    image = Renderer(MESH, SKINS, places, size=SIZE).render(away, CAMERA, look).image[0]
    place = (np.arange(SIZE) + 0.5) / SIZE - 0.5
    u, v = np.meshgrid(place, place)
    ray = np.stack([u, v, np.ones_like(u)], -1)
    world = ray / np.linalg.norm(ray, axis=-1, keepdims=True) @ turn.T.astype(float)
    scale = 0.18 / log_brightness((0.5 + directions @ slope).astype(np.float32))
    expected = levels(scale * (0.5 + world @ slope))
    error = np.abs(image.astype(float) - expected)
    assert error.max() < 5
    assert error.mean() < 1.2


def test_photo_backgrounds_follow_the_panoramas() -> None:
    ramp = np.zeros((40, 80, 3), np.float32)
    ramp[..., 0] = np.linspace(0.1, 0.9, 80)
    ramp[..., 1] = np.linspace(0.1, 0.9, 40)[:, None]
    photos = BackgroundSet.from_images([ramp])
    look = plain()
    look.background[0] = len(PLACES)
    look.background_map[0] = np.eye(3)  # the whole photo over the whole crop
    look.background_gain[0] = 1
    draw = Renderer(MESH, SKINS, PLACES, photos, size=SIZE)
    image = draw.render(ball_at() + [60.0, 0, 0], CAMERA, look).image[0].astype(float)
    at = (np.arange(SIZE) + 0.5) / SIZE
    expected = np.interp(at * 80 - 0.5, np.arange(80), ramp[0, :, 0])
    assert np.abs(image[SIZE // 2, :, 0] - levels(expected)).max() < 3
    expected = np.interp(at * 40 - 0.5, np.arange(40), ramp[:, 0, 1])
    assert np.abs(image[:, SIZE // 2, 1] - levels(expected)).max() < 3


def test_exposure_and_white_balance_scale_light() -> None:
    look = replace(plain(), exposure=np.array([[0.5, 1.0, 1.5]], np.float32))
    image = renderer().render(ball_at(), CAMERA, look).image[0]
    np.testing.assert_allclose(
        image[SIZE // 2, SIZE // 2], levels(np.array([0.25, 0.5, 0.75])), atol=1.5
    )


def scenes(count: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], Appearance]:
    rng = np.random.default_rng(4)
    vertices = ball_at() * rng.uniform(0.8, 1.2, (count, 1, 1))
    look = sample_appearance(rng, count, SKINS, PLACES)
    return vertices, np.repeat(CAMERA, count, 0), look


def test_same_input_gives_the_same_bytes_whatever_the_threads() -> None:
    inputs = scenes(12)
    outputs = {"depth": True, "parts": True, "normals": True}
    first = renderer().render(*inputs, **outputs)
    for draw in (renderer(), renderer(threads=2), renderer(threads=5)):
        again = draw.render(*inputs, **outputs)
        for name in ("image", "mask", "depth", "parts", "normals"):
            np.testing.assert_array_equal(getattr(first, name), getattr(again, name))


def test_a_picture_does_not_depend_on_its_batch() -> None:
    vertices, camera, look = scenes(6)
    together = renderer().render(vertices, camera, look).image
    alone = renderer().render(vertices[3:4], camera[3:4], look[3:4]).image
    np.testing.assert_array_equal(together[3:4], alone)


def test_an_empty_batch_is_an_empty_picture() -> None:
    vertices, camera, look = scenes(1)
    assert renderer().render(vertices[:0], camera[:0], look[:0]).image.shape == (0, SIZE, SIZE, 3)
