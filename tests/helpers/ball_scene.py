"""A scene that closed forms describe: a ball before a camera, in a look without surprises."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from handmesh_training.rendering import Appearance, EnvironmentSet, Renderer, RenderMesh, SkinSet
from handmesh_training.rendering.appearance import NO_SLEEVE
from handmesh_training.rendering.grounds import GROUND_FLOATS
from handmesh_training.rendering.solids import SOLID_FLOATS, SOLIDS

SIZE = 96


def ball_mesh(rows: int = 24) -> tuple[npt.NDArray[np.float64], RenderMesh]:
    """Unit ball of 2 rows x rows quads, outward counter-clockwise; part 1 is its right half."""
    theta = np.pi * np.arange(rows + 1) / rows
    phi = np.pi * np.arange(2 * rows) / rows
    t, p = np.meshgrid(theta, phi, indexing="ij")
    points = np.stack([np.sin(t) * np.cos(p), np.cos(t), np.sin(t) * np.sin(p)], -1)
    columns = 2 * rows
    faces = []
    for i in range(rows):
        for j in range(columns):
            a, b = i * columns + j, i * columns + (j + 1) % columns
            faces += [[a, b, b + columns], [a, b + columns, a + columns]]
    index = np.array(faces, np.int32)
    vertices = points.reshape(-1, 3)
    corners = vertices[index]
    outward = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(outward, axis=1)
    index, corners, outward = (a[area > 1e-9] for a in (index, corners, outward))
    assert (np.einsum("fi,fi->f", outward, corners.mean(1)) > 0).all()
    uv = (corners[..., :2] * 0.49 + 0.5).astype(np.float32)
    parts = (vertices[:, 0] > 1e-6).astype(np.uint8)
    return vertices, RenderMesh(index, uv, parts)


BALL, MESH = ball_mesh()
SKINS = SkinSet.procedural(0, 4, MESH, size=64)
PLACES = EnvironmentSet.procedural(0, count=3, height=64)
CAMERA = np.array([[150.0, 150.0, (SIZE - 1) / 2, (SIZE - 1) / 2]])


def plain(count: int = 1, albedo: float = 0.5) -> Appearance:
    """No key light, gloss, relief, occlusion, sleeve, solid, ground; a neutral, unbent response."""
    zeros = np.zeros(count, np.float32)
    irradiance = np.zeros((count, 9, 3), np.float32)
    irradiance[:, 0] = 1 / 0.282095  # a white sphere all around, of radiance 1
    ray = np.array([[1.0, 0, -0.5], [0, 1, -0.5], [0, 0, 1]], np.float32)
    return Appearance(
        skin=np.zeros(count, np.int32),
        skin_gain=np.full((count, 3), albedo, np.float32),
        skin_contrast=zeros,  # texture ** 0 = 1: albedo is the gain
        irradiance=irradiance,
        key_direction=np.tile(np.array([0, 0, -1], np.float32), (count, 1)),
        key_light=np.zeros((count, 3), np.float32),
        gloss=np.tile(np.array([0, 0.5, 0], np.float32), (count, 1)),
        occlusion=np.tile(np.array([0, 0.02], np.float32), (count, 1)),
        sleeve=np.tile(np.array([NO_SLEEVE, 0, 0, 0, 0, 0], np.float32), (count, 1)),
        relief=zeros,
        solids=np.zeros((count, SOLIDS, SOLID_FLOATS), np.float32),
        ground=np.zeros((count, GROUND_FLOATS), np.float32),
        ground_texture=np.full(count, -1, np.int32),
        background=np.zeros(count, np.int32),
        background_map=np.tile(ray, (count, 1, 1)),
        background_blur=zeros,
        background_gain=np.zeros((count, 3), np.float32),
        exposure=np.ones((count, 3), np.float32),
        tone=np.tile(np.array([1, 0.99], np.float32), (count, 1)),
    )


def ball_rays() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Normals (S, S, 3), hit mask and depth of a ball of 10 cm, half a metre away."""
    fx, _, cx, cy = CAMERA[0]
    x, y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    ray = np.stack([(x - cx) / fx, (y - cy) / fx, np.ones(x.shape)], -1)
    square, half = (ray**2).sum(-1), 0.5
    root = half**2 - square * (0.5**2 - 0.1**2)
    depth = (half - np.sqrt(np.maximum(root, 0))) / square
    normals = (ray * depth[..., None] - [0, 0, 0.5]) / 0.1
    return normals, root > 0, depth


def ball_at(z: float = 0.5, radius: float = 0.1) -> npt.NDArray[np.float64]:
    return (BALL * radius + [0, 0, z])[None]


def renderer(threads: int = 1) -> Renderer:
    return Renderer(MESH, SKINS, PLACES, size=SIZE, threads=threads)


def levels(light: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """0..255 in sRGB of linear light, clipped to [0, 1] (IEC 61966-2-1)."""
    x = np.clip(np.asarray(light, np.float64), 0.0, 1.0)
    return np.asarray(np.where(x <= 0.0031308, x * 12.92, 1.055 * x ** (1 / 2.4) - 0.055) * 255)
