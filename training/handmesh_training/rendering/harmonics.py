"""Order-2 spherical harmonics for diffuse light (Ramamoorthi and Hanrahan, 2001)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Transfer of a cosine lobe per band, over pi: coefficients of radiance times these are
# coefficients of irradiance / pi, which is the radiance a white surface reflects.
COSINE_LOBE = np.array([1.0, *[2 / 3] * 3, *[1 / 4] * 5], dtype=np.float64)


def basis(directions: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Real spherical harmonics up to order 2.

    Args:
        directions: (..., 3) unit vectors.

    Returns:
        (..., 9) float64: 1, y, z, x, xy, yz, 3z^2 - 1, xz, x^2 - y^2, each normalised.
    """
    x, y, z = np.moveaxis(np.asarray(directions, dtype=np.float64), -1, 0)
    return np.stack(
        [
            np.full_like(x, 0.282095),
            0.488603 * y,
            0.488603 * z,
            0.488603 * x,
            1.092548 * x * y,
            1.092548 * y * z,
            0.315392 * (3 * z * z - 1),
            1.092548 * x * z,
            0.546274 * (x * x - y * y),
        ],
        axis=-1,
    )  # (..., 9)


def panorama_directions(height: int, width: int) -> npt.NDArray[np.float64]:
    """(H, W, 3) unit vector of each pixel of an equirectangular panorama.

    World frame: +x right, +y down, +z into the middle of the picture.
    """
    longitude = ((np.arange(width) + 0.5) / width - 0.5) * 2 * np.pi
    latitude = ((np.arange(height) + 0.5) / height - 0.5) * np.pi  # positive is down
    lat, lon = np.meshgrid(latitude, longitude, indexing="ij")  # (H, W)
    return np.stack([np.cos(lat) * np.sin(lon), np.sin(lat), np.cos(lat) * np.cos(lon)], axis=-1)


def solid_angles(height: int, width: int) -> npt.NDArray[np.float64]:
    """(H, 1) solid angle of a pixel in each row of a panorama; they sum to 4 pi."""
    edges = np.sin((np.arange(height + 1) / height - 0.5) * np.pi)
    return (np.diff(edges) * 2 * np.pi / width)[:, None]


def project_irradiance(panorama: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Coefficients of irradiance / pi of a panorama of radiance.

    Args:
        panorama: (H, W, 3) linear radiance.

    Returns:
        (9, 3) float64; ``basis(n) @ result`` is irradiance / pi on a surface of normal n.
    """
    height, width = panorama.shape[:2]
    weights = basis(panorama_directions(height, width)) * solid_angles(height, width)[..., None]
    radiance = np.einsum("hwk,hwc->kc", weights, np.asarray(panorama, dtype=np.float64))
    return radiance * COSINE_LOBE[:, None]


def rotate(
    coefficients: npt.NDArray[np.floating], rotations: npt.NDArray[np.floating]
) -> npt.NDArray[np.float64]:
    """Coefficients as seen from rotated frames.

    Args:
        coefficients: (B, 9, 3), in the world frame.
        rotations: (B, 3, 3), camera to world: world = R @ camera.

    Returns:
        (B, 9, 3) float64, in the camera frame.
    """
    # Any directions whose harmonics span the space give the change of basis exactly.
    golden = (1 + 5**0.5) / 2
    count = 24
    z = 1 - (2 * np.arange(count) + 1) / count
    angle = 2 * np.pi * np.arange(count) / golden
    radius = np.sqrt(1 - z * z)
    probes = np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=-1)  # (24, 3)
    seen = np.einsum("bij,pj->bpi", rotations, probes)  # (B, 24, 3)
    change = np.linalg.pinv(basis(probes)) @ basis(seen)  # (B, 9, 9)
    return change @ coefficients
