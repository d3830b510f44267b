"""Another model's colours in our texture atlas, through the surfaces laid onto each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from handmesh.errors import ImageError

from ..opencv import cv2
from ..rendering.mesh import RenderMesh
from ..rendering.paint import BakedSurface
from ..rendering.skins import SkinSet, atlas_fractions, hand_region
from ..rendering.textures import srgb_to_linear
from .closest import Array, ClosestPoints
from .drape import is_match
from .gltf import ModelledHand

# Side of the textures: about as many texels on a hand as the 1,024 px of both hands have.
SIZE_PX = 640
NEAR_M, FACING = 0.006, 0.3
# Where a model ends its colours go on, each the mean of so many of every n-th texel before.
AROUND, EVERY = 48, 24


def bake(
    textures: Sequence[NDArray[np.float32]],
    other: ModelledHand,
    ours: Array,
    mesh: RenderMesh,
    size: int = SIZE_PX,
) -> SkinSet:
    """Skins of our mesh, one for each texture of the model's.

    Each texel takes the colour of the nearest point of the model that faces its way. Where there is
    none, up the arm, the colours of the wrist go on.

    Args:
        textures: (H, W, 3) float32 linear albedo each, as `read_textures` gives them.
        other: the model. ours: (V, 3) our vertices laid onto it.
        mesh: our mesh, with its places in the atlas. size: of the textures.

    Raises:
        BackendUnavailable: no compiler for the rasteriser.
    """
    from scipy.ndimage import distance_transform_edt

    region = hand_region(mesh)
    surface = BakedSurface.bake(mesh, ours, atlas_fractions(mesh.uv, region), (size, size))
    model = ClosestPoints(other.vertices_m, other.faces)
    found = model(surface.points, surface.normals, FACING)
    known = is_match(surface.points, found, model.normals, NEAR_M) > 0  # (K,)
    uv = np.einsum("kc,kcd->kd", found.weights, other.corner_uv[found.face])
    go_on = _Continued(surface.points, known)

    # Filtering reaches a little beyond the outline: there, what is nearest goes on.
    row, column = distance_transform_edt(
        ~surface.known, return_distances=False, return_indices=True
    )
    images = []
    for texture in textures:
        image = np.zeros((size, size, 3), dtype=np.float32)
        image[surface.known] = go_on(sample(texture, uv))
        images.append(image[row, column])
    return SkinSet.from_images(images, mesh, region)


def read_textures(other: ModelledHand) -> list[NDArray[np.float32]]:
    """The model's base colours as linear albedo, (H, W, 3) float32 each.

    Raises:
        ImageError: a texture that is not an image.
    """
    images = []
    for path in other.textures:
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if pixels is None:
            raise ImageError(
                f"{path}: expected a PNG of base colours, got {path.stat().st_size} bytes that are "
                "no image; copy it again"
            )
        images.append(srgb_to_linear(pixels[..., ::-1] / np.float32(255)))
    return images


def sample(image: NDArray[np.float32], uv: Array) -> NDArray[np.float32]:
    """(K, 3) of an (H, W, 3) image at fractions (K, 2), v down: bilinear, repeated beyond 0..1."""
    height, width = image.shape[:2]
    place = uv * [width, height] - 0.5
    base = np.floor(place).astype(np.int64)
    share = (place - base)[..., None]
    total = np.zeros((len(uv), 3))
    for dx in (0, 1):
        for dy in (0, 1):
            weight = np.abs(1 - dx - share[:, 0]) * np.abs(1 - dy - share[:, 1])
            total += weight * image[(base[:, 1] + dy) % height, (base[:, 0] + dx) % width]
    return total.astype(np.float32)


class _Continued:
    """Unknown of K points take the mean of known ones around the nearest."""

    def __init__(self, points: Array, known: NDArray[np.bool_]) -> None:
        from scipy.spatial import cKDTree

        self.known = known
        self.some = np.flatnonzero(known)[::EVERY]
        count = min(AROUND, len(self.some))
        distance, near = cKDTree(points[self.some]).query(points[~known], k=count)
        self.near = near.reshape(-1, count)
        # The nearer the more, but a single texel's grain is not drawn out into a streak.
        weight = 1 / (distance.reshape(-1, count) + 0.003) ** 2
        self.weight = weight / weight.sum(axis=1, keepdims=True)

    def __call__(self, colours: NDArray[np.float32]) -> NDArray[np.float32]:
        full = colours.copy()
        full[~self.known] = np.einsum("uk,ukc->uc", self.weight, colours[self.some][self.near])
        return full
