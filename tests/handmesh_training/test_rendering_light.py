"""Spherical harmonics and panoramas against numeric integration."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial.transform import Rotation

from handmesh_training.rendering import harmonics
from handmesh_training.rendering.environments import LUMINANCE, EnvironmentSet, split_key_light


def integrate_irradiance(
    panorama: npt.NDArray[np.floating], normals: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Irradiance / pi (K, 3) by summing cosine times radiance over the panorama."""
    height, width = panorama.shape[:2]
    directions = harmonics.panorama_directions(height, width)
    angles = harmonics.solid_angles(height, width)
    cosine = np.maximum(np.einsum("hwi,ki->khw", directions, normals), 0)
    return np.einsum("khw,hwc->kc", cosine * angles, panorama) / np.pi


def random_normals(count: int) -> npt.NDArray[np.float64]:
    normals = np.random.default_rng(0).normal(size=(count, 3))
    return normals / np.linalg.norm(normals, axis=1, keepdims=True)


def test_basis_is_orthonormal() -> None:
    values = harmonics.basis(harmonics.panorama_directions(256, 512))
    angles = harmonics.solid_angles(256, 512)
    gram = np.einsum("hwi,hwj->ij", values * angles[..., None], values)
    np.testing.assert_allclose(gram, np.eye(9), atol=2e-4)
    assert harmonics.solid_angles(64, 128).sum() * 128 == pytest.approx(4 * np.pi)


def test_irradiance_of_smooth_light_is_exact() -> None:
    rng = np.random.default_rng(1)
    values = harmonics.basis(harmonics.panorama_directions(128, 256))
    panorama = values @ rng.normal(size=(9, 3))  # negative light is fine for algebra
    normals = random_normals(40)
    got = harmonics.basis(normals) @ harmonics.project_irradiance(panorama)
    np.testing.assert_allclose(got, integrate_irradiance(panorama, normals), atol=3e-3)


def test_irradiance_of_a_sharp_sky_is_close() -> None:
    directions = harmonics.panorama_directions(128, 256)
    panorama = np.where(directions[..., 1:2] < 0, [1.0, 1.2, 1.5], [0.2, 0.15, 0.1])
    normals = random_normals(40)
    got = harmonics.basis(normals) @ harmonics.project_irradiance(panorama)
    # Ramamoorthi and Hanrahan: order 2 holds diffuse light to a few per cent.
    np.testing.assert_allclose(got, integrate_irradiance(panorama, normals), atol=0.06)


def test_rotation_of_coefficients_is_rotation_of_light() -> None:
    rng = np.random.default_rng(2)
    coefficients = rng.normal(size=(5, 9, 3))
    to_world = Rotation.random(5, random_state=3).as_matrix()
    normals = random_normals(20)  # camera frame
    turned = harmonics.basis(normals) @ harmonics.rotate(coefficients, to_world)
    world = harmonics.basis(np.einsum("bij,kj->bki", to_world, normals)) @ coefficients
    np.testing.assert_allclose(turned, world, atol=1e-5)


def test_key_light_is_found_and_no_light_is_lost() -> None:
    directions = harmonics.panorama_directions(128, 256)
    sun = np.array([0.6, -0.7, 0.3])
    sun /= np.linalg.norm(sun)
    disc = (directions @ sun > np.cos(0.12))[..., None]
    panorama = (0.3 + disc * np.array([60.0, 50.0, 40.0])).astype(np.float32)
    direction, light, rest = split_key_light(panorama)
    assert direction @ sun > 0.999
    total = integrate_irradiance(panorama, sun[None])[0]
    left = integrate_irradiance(rest, sun[None])[0]
    np.testing.assert_allclose(light + left, total, rtol=0.03)
    assert (light > 1.5 * left).all()


def test_even_light_has_no_key() -> None:
    _, light, rest = split_key_light(np.full((128, 256, 3), 0.7, np.float32))
    np.testing.assert_array_equal(light, 0)
    np.testing.assert_allclose(rest, 0.7, rtol=1e-6)


def test_procedural_places_are_lit_reproducible_and_different() -> None:
    first, again = EnvironmentSet.procedural(5, count=3), EnvironmentSet.procedural(5, count=3)
    other = EnvironmentSet.procedural(6, count=3)
    np.testing.assert_array_equal(first.panoramas.textures.texels, again.panoramas.textures.texels)
    np.testing.assert_array_equal(first.irradiance, again.irradiance)
    assert not np.allclose(first.irradiance, other.irradiance)
    np.testing.assert_allclose(np.linalg.norm(first.key_direction, axis=1), 1, rtol=1e-9)
    upwards = np.einsum("k,tkc->tc", harmonics.basis(np.array([0.0, -1.0, 0.0])), first.irradiance)
    assert (upwards @ LUMINANCE > 0.02).all()
