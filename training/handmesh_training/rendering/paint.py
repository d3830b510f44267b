"""Skin painted from anatomy: for those who have no photographed textures."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from handmesh_training.rendering import native
from handmesh_training.rendering.mesh import RenderMesh

Array = npt.NDArray[np.float64]

# First joint of each finger: then the next joints follow in order, the tip last.
FINGER_BASES = (1, 5, 9, 13, 17)


@dataclass(frozen=True)
class BakedSurface:
    """The rest surface of the hand under each texel.

    Attributes:
        known: (H, W) bool, the K texels that lie on the mesh.
        points: (K, 3) metres; fingers up (-y), palm towards -z.
        normals: (K, 3) unit, outward.
    """

    known: npt.NDArray[np.bool_]
    points: Array
    normals: Array

    @classmethod
    def bake(
        cls,
        mesh: RenderMesh,
        vertices_m: npt.NDArray[np.floating],
        fractions: npt.NDArray[np.floating],
        shape: tuple[int, int],
    ) -> BakedSurface:
        """Draws the mesh in its own texture.

        Args:
            mesh: the mesh.
            vertices_m: (V, 3) rest vertices.
            fractions: (F, 3, 2) texture fractions of the corners, v down.
            shape: height H and width W of the texture in px.
        """
        flat = np.ones((len(mesh.faces) * 3, 3), dtype=np.float32)
        height, width = shape
        flat[:, :2] = fractions.reshape(-1, 2) * [width, height] - 0.5
        size = max(shape)  # the rasteriser's grid is square
        face = np.zeros((size, size), np.int32)
        weights = np.zeros((size, size, 3), np.float32)
        inverse_z = np.zeros((size, size), np.float32)
        hits = np.zeros((size, size), np.int32)
        corners = np.arange(len(flat), dtype=np.int32)
        camera = np.array([1, 1, 0, 0], dtype=np.float32)
        native.load().hm_rasterise(
            *(ctypes.c_void_p(a.ctypes.data) for a in (flat, corners)),
            ctypes.c_int32(len(mesh.faces)),
            ctypes.c_void_p(camera.ctypes.data),
            ctypes.c_int32(size),
            *(ctypes.c_void_p(a.ctypes.data) for a in (face, weights, inverse_z, hits)),
        )
        face, weights = face[:height, :width], weights[:height, :width]
        vertices = np.asarray(vertices_m, dtype=np.float64)
        triangles = vertices[mesh.faces]  # (F, 3, 3)
        area = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
        smooth = np.zeros_like(vertices)
        for corner in range(3):
            np.add.at(smooth, mesh.faces[:, corner], area)
        known = face >= 0
        index, weight = mesh.faces[face[known]], weights[known]  # (K, 3)
        points = np.einsum("tk,tkc->tc", weight, vertices[index])
        normals = np.einsum("tk,tkc->tc", weight, smooth[index])
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True) + 1e-12
        return cls(known, points, normals)


def paint(
    rng: np.random.Generator,
    surface: BakedSurface,
    joints_m: npt.NDArray[np.floating],
    tone: npt.NDArray[np.floating],
) -> npt.NDArray[np.float32]:
    """One skin: mottled, the palm lighter than the back, with creases, knuckles and nails.

    Args:
        rng: source of randomness.
        surface: where each texel lies.
        joints_m: (21, 3) rest joints.
        tone: (3,) linear albedo of the back of the hand.

    Returns:
        (H, W, 3) float32 linear albedo; the tone where nothing lies.
    """
    p = surface.points
    palmar = _step(-surface.normals[..., 2], -0.25, 0.45)  # (K,), 1 on the palm
    palmar *= 1 - 0.6 * _step(p[..., 1], -0.03, 0.02)  # the arm's inner side: less so
    log_tone = np.log(np.asarray(tone, dtype=np.float64))
    # Palms differ far less between people than backs do.
    log_palm = log_tone + rng.uniform(0.3, 0.6) * (np.log([0.62, 0.36, 0.27]) - log_tone)
    log_palm = np.maximum(log_palm, log_tone)
    value = log_tone + palmar[..., None] * (log_palm - log_tone)  # (K, 3)
    # The renderer takes dark for deep: only fine grain may vary fast, or the skin looks lumpy.
    grey, red = _noise(rng, p, 0.015, 0.06), _noise(rng, p, 0.003, 0.03)
    grain = _noise(rng, p, 0.001, 0.004)
    value += grey[..., None] * [0.05, 0.07, 0.08] + red[..., None] * [0.03, -0.01, -0.03]
    value += grain[..., None] * 0.035
    value += lines(rng, surface, joints_m)
    value[..., 1:] -= 0.12 * _blood(p, joints_m, palmar)[..., None]
    nail, rim = _nails(surface, np.asarray(joints_m, dtype=np.float64))
    colour = 0.45 * log_tone + 0.55 * np.log([0.7, 0.42, 0.36])
    if rng.random() < 0.12:  # polish
        colour = np.log(rng.uniform(0.02, 0.7, 3))
    value += nail[..., None] * (colour - value) - 0.35 * rim[..., None]
    image = np.tile(np.asarray(tone, dtype=np.float32), (*surface.known.shape, 1))  # (H, W, 3)
    image[surface.known] = np.clip(np.exp(value), 0.005, 0.95)
    return image


def lines(
    rng: np.random.Generator, surface: BakedSurface, joints_m: npt.NDArray[np.floating]
) -> Array:
    """(K, 3) change of log albedo by creases of palm and fingers, knuckles, and veins.

    Args:
        rng: source of randomness: how deep each is.
        surface: where each texel lies.
        joints_m: (21, 3) rest joints.
    """
    p, joints = surface.points, np.asarray(joints_m, dtype=np.float64)
    palmar = _step(-surface.normals[..., 2], -0.25, 0.45)
    dark = _creases(rng, p, palmar, joints)
    # Veins are blue, and raised: the green channel, from which relief is taken, grows.
    vein = _veins(rng, p, palmar, joints) * rng.uniform(0.1, 1.0)
    return -dark[..., None] * [0.7, 1.0, 1.1] + vein[..., None] * [-0.12, 0.05, 0.04]


def polish(
    rng: np.random.Generator, surface: BakedSurface, joints_m: npt.NDArray[np.floating]
) -> tuple[Array, Array]:
    """(K,) how much of each texel is nail, and the (3,) linear albedo of a polish for it."""
    nail, _ = _nails(surface, np.asarray(joints_m, dtype=np.float64))
    return nail, rng.uniform(0.02, 0.7, 3)


def _veins(rng: np.random.Generator, p: Array, palmar: Array, joints: Array) -> Array:
    """(K,) how near to a vein on the back of the hand."""
    vein = np.zeros(len(p))
    wrist = joints[0]
    for finger in range(4):
        start = wrist + rng.normal(0, 0.009, 3) + 0.12 * (joints[5 + 4 * finger] - wrist)
        end = joints[5 + 4 * finger] + rng.uniform(0.3, 0.7) * (
            joints[min(9 + 4 * finger, 17)] - joints[5 + 4 * finger]
        )
        bend = 0.5 * (start + end) + rng.normal(0, 0.008, 3)
        gap = _gap(p, start, bend, end)
        side = np.exp(-((gap / rng.uniform(0.0012, 0.002)) ** 2))
        vein = np.maximum(vein, side * rng.uniform(0.3, 1.0))
    return vein * (1 - palmar) ** 2


def _gap(p: Array, start: Array, bend: Array, end: Array) -> Array:
    """(K,) distance to a curve through three points, in the plane of the flat hand."""
    t = np.linspace(0, 1, 80)[:, None]
    middle = 2 * bend - 0.5 * (start + end)
    curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end  # (80, 3)
    low, high = curve[:, :2].min(0) - 0.006, curve[:, :2].max(0) + 0.006
    near = np.flatnonzero(np.all((p[:, :2] > low) & (p[:, :2] < high), axis=1))
    x, y = p[near, :2].T.astype(np.float32)
    square = np.full(len(near), np.inf, dtype=np.float32)
    for curve_x, curve_y in curve[:, :2].astype(np.float32):
        square = np.minimum(square, (x - curve_x) ** 2 + (y - curve_y) ** 2)
    gap = np.full(len(p), np.inf)
    gap[near] = np.sqrt(square)
    return gap


def _step(x: Array, low: float, high: float) -> Array:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _noise(rng: np.random.Generator, p: Array, finest: float, coarsest: float) -> Array:
    """(K,) noise of variance about one, of wave lengths between two bounds in metres."""
    total = np.zeros(len(p))
    count = 20
    for _ in range(count):
        wave = rng.normal(size=3)
        length = np.exp(rng.uniform(np.log(finest), np.log(coarsest)))
        wave *= 2 * np.pi / length / np.linalg.norm(wave)
        total += np.sin(p @ wave + rng.uniform(0, 2 * np.pi))
    return total * np.sqrt(2 / count)


def _creases(rng: np.random.Generator, p: Array, palmar: Array, joints: Array) -> Array:
    """(K,) darkness of the lines of palm and fingers, and of the wrinkles over knuckles."""
    dark = np.zeros(len(p))
    for base in FINGER_BASES:
        for joint in (base + 1, base + 2) if base == 1 else (base, base + 1, base + 2):
            axis = joints[joint + 1] - joints[joint]
            axis /= np.linalg.norm(axis)
            offset = p - joints[joint]
            along = offset @ axis
            near = np.exp(-((np.linalg.norm(offset, axis=-1) / 0.016) ** 4))
            # The root of a finger creases a good centimetre beyond its joint.
            root = 0.016 if joint == base else 0.0
            for shift in (-0.0012, 0.0014):
                line = np.exp(-(((along - root - shift) / 0.0008) ** 2))
                dark += 0.26 * line * near * palmar * rng.uniform(0.5, 1.4)
            if joint != base:
                ripple = 0.5 + 0.5 * np.cos(along * 2 * np.pi / rng.uniform(0.0028, 0.004))
                dark += 0.26 * ripple * near * np.exp(-((along / 0.006) ** 2)) * (1 - palmar)
    wrist, index, middle, ring, little = (joints[i] for i in (0, 5, 9, 13, 17))
    start = index + 0.22 * (wrist - index)
    bend = 0.45 * index + 0.15 * little + 0.4 * wrist
    heart = [little + 0.12 * (wrist - little), 0.75 * ring + 0.25 * wrist, 0.96 * middle]
    head = [start, 0.35 * middle + 0.2 * ring + 0.45 * wrist, 0.6 * little + 0.4 * wrist]
    life = [start, bend, 0.12 * middle + 0.88 * wrist]
    for corners in (heart, head, life):
        gap = _gap(p, *corners)
        dark += (
            rng.uniform(0.2, 0.55)
            * np.exp(-((np.maximum(gap - 0.001, 0) / 0.0008) ** 2))
            * (palmar**2)
        )
    return dark


def _blood(p: Array, joints: npt.NDArray[np.floating], palmar: Array) -> Array:
    """(K,) redness of finger tips and knuckles."""
    red = np.zeros(len(p))
    for base in FINGER_BASES:
        for joint, amount in ((base, 0.7), (base + 1, 0.7), (base + 3, 1.6)):
            away = np.linalg.norm(p - joints[joint], axis=-1)
            side = np.ones_like(palmar) if joint == base + 3 else 1 - palmar
            red += amount * side * np.exp(-((away / 0.012) ** 2))
    return red


def _nails(surface: BakedSurface, joints: Array) -> tuple[Array, Array]:
    """(K,) each: the nails, and the shadow around them."""
    nail = np.zeros(len(surface.points))
    rim = np.zeros_like(nail)
    for base in FINGER_BASES:
        before, last, tip = joints[base + 1], joints[base + 2], joints[base + 3]
        axis = (tip - last) / np.linalg.norm(tip - last)
        # Fingers rest a little bent: away from the bend is the back.
        back = (last - before) / np.linalg.norm(last - before) - axis
        back -= (back @ axis) * axis
        back /= np.linalg.norm(back) + 1e-9
        side = np.cross(axis, back)
        offset = surface.points - tip
        width = 0.0062 if base == 1 else 0.0047
        length = 1.25 * width
        x, y = offset @ side / width, (offset @ axis + 0.9 * length) / length
        round_box = np.sqrt(np.sqrt(x**4 + y**4))
        facing = _step(surface.normals @ back, 0.1, 0.35)
        near = (np.linalg.norm(offset, axis=-1) < 0.02) * facing
        nail = np.maximum(nail, near * _step(-round_box, -1.1, -0.9))
        rim = np.maximum(rim, near * np.exp(-(((round_box - 1.12) / 0.12) ** 2)))
    return nail, rim
