"""Rendered clips of hands whose every joint is known in every frame."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from handmesh import Camera
from handmesh_training.hand import FOREARM
from handmesh_training.partners import nobody
from handmesh_training.poses import sample_shapes
from handmesh_training.render_settings import RenderSettings
from handmesh_training.rendered import HandRenderer
from handmesh_training.rendering.appearance import NO_SLEEVE, Appearance, sample_appearance
from handmesh_training.sampling import ARM_FROM_M

__all__ = ["CLIPS", "Clip", "ClipMaker", "TrueHand", "clip_of"]

WIDTH, HEIGHT, FPS = 640, 480, 30.0
# Standard deviation of the sensor's noise, levels of 255: a webcam in a room.
NOISE = 3.0
# The arm is drawn out so many times, so that its end is out of the picture.
ARM_STRETCH = 4.0
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TrueHand:
    """One hand in all N frames.

    Attributes:
        handedness: "left" or "right".
        joints_m: (N, 21, 3) camera frame, metres.
        joints_px: (N, 21, 2) pixels.
        bone_length_m: MCP to PIP of the middle finger.
    """

    handedness: str
    joints_m: Array
    joints_px: Array
    bone_length_m: float

    def inside(self) -> Array:
        """(N,) share of the joints that lie in the picture."""
        low = (self.joints_px >= -0.5).all(axis=-1)
        high = (self.joints_px <= (WIDTH - 0.5, HEIGHT - 0.5)).all(axis=-1)
        return np.asarray((low & high).mean(axis=1))


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip with its truth.

    Attributes:
        name: what it shows.
        frames: (N, 480, 640, 3) uint8 RGB.
        times_s: (N,) seconds.
        hands: what is in it.
        camera: intrinsics.
    """

    name: str
    frames: NDArray[np.uint8]
    times_s: Array
    hands: tuple[TrueHand, ...]
    camera: Camera


@dataclass(frozen=True)
class Motion:
    """What a hand does: functions of the time in seconds.

    Attributes:
        wrist_m: (3,) place of the wrist in camera space, of a right hand; see ``left``.
        closed: 0 an open hand, 1 a fist.
        roll: radians in the picture's plane.
        left: the hand and its way are mirrored.
    """

    wrist_m: Callable[[float], tuple[float, float, float]]
    closed: Callable[[float], float] = lambda _: 0.0
    roll: Callable[[float], float] = lambda _: 0.0
    left: bool = False


class ClipMaker:
    """Renders clips with the renderer of the training pictures.

    Args:
        settings: skins and environments; made-up ones by default.
        seed: decides the hand's shape, its skin and the light.
    """

    def __init__(self, settings: RenderSettings | None = None, seed: int = 0) -> None:
        settings = RenderSettings() if settings is None else settings
        # Pictures are square: the middle rows of them are the frame.
        self._renderer = HandRenderer(dataclasses.replace(settings, crop_px=WIDTH), seed)
        self._seed = seed
        self.camera = Camera.default(WIDTH, HEIGHT)

    def make(self, name: str, motions: tuple[Motion, ...], seconds: float) -> Clip:
        """A clip; of several hands, the later ones are in front."""
        rng = np.random.default_rng(self._seed)
        count = round(seconds * FPS)
        times = np.arange(count) / FPS
        look = self._look(rng)
        shape = sample_shapes(rng, self._renderer.model, 1)
        noise = np.random.default_rng(self._seed + 1)
        hands, pictures = [], np.zeros((count, HEIGHT, WIDTH, 3), dtype=np.float32)
        for number, motion in enumerate(motions):
            vertices, joints = self._posed(motion, shape, times)
            for n in range(count):
                if n == 0 or not np.array_equal(vertices[n], vertices[n - 1]):
                    image, cover = self._draw(vertices[n], look, motion.left)
                share = 1.0 if number == 0 else cover[..., None]
                pictures[n] += share * (image - pictures[n])
            if motion.left:
                joints = joints * (-1, 1, 1)
            bone = float(np.linalg.norm(joints[0, 10] - joints[0, 9]))
            side = "left" if motion.left else "right"
            hands.append(TrueHand(side, joints, self.camera.project(joints), bone))
        grain = noise.normal(0, NOISE, pictures.shape).astype(np.float32)
        frames = np.clip(np.round(pictures + grain), 0, 255).astype(np.uint8)
        return Clip(name, frames, times, tuple(hands), self.camera)

    def _look(self, rng: np.random.Generator) -> Appearance:
        """One look with a bare arm and nothing placed around the hand."""
        parts = self._renderer
        look = sample_appearance(rng, 1, parts.skins, parts.environments)
        sleeve = look.sleeve.copy()
        sleeve[:, 0] = NO_SLEEVE
        return dataclasses.replace(look, sleeve=sleeve)

    def _posed(self, motion: Motion, shape: Array, times: Array) -> tuple[Array, Array]:
        """Vertices (N, V, 3) and joints (N, 21, 3) of the right hand that is drawn."""
        model, library = self._renderer.model, self._renderer.library
        ends = [library.angles[library.names.index(name)] for name in ("easy_spread", "fist")]
        closed = np.array([motion.closed(t) for t in times])[:, None, None]
        angles = ends[0] + closed * (ends[1] - ends[0])  # (N, 17, 3)
        rotations = model.rotations(torch.from_numpy(np.asarray(angles, dtype=np.float32)))
        shapes = torch.from_numpy(np.repeat(shape, len(times), axis=0)).float()
        with torch.no_grad():
            posed = model(shapes, rotations)
        vertices, joints = posed.vertices.double().numpy(), posed.joints.double().numpy()
        arm = rotations[:, FOREARM, :, 1].double().numpy()  # (N, 3) towards the elbow
        beyond = np.maximum(model.asset.vertices_m[:, 1] - ARM_FROM_M, 0)[:, None]  # (V, 1)
        vertices = vertices + ARM_STRETCH * beyond * arm[:, None]
        placed = []
        for points in (vertices, joints):
            turned = np.empty_like(points)
            for n, t in enumerate(times):
                cos, sin = math.cos(motion.roll(t)), math.sin(motion.roll(t))
                turned[n] = points[n] @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
                turned[n] += motion.wrist_m(t)
            placed.append(turned)
        return placed[0], placed[1]

    def _draw(self, vertices: Array, look: Appearance, left: bool) -> tuple[Any, Any]:
        """A frame (480, 640, 3), and (480, 640) how much of it hand and arm hide; float32."""
        top = (WIDTH - HEIGHT) // 2
        camera = self.camera
        lens = np.array([[camera.fx, camera.fy, camera.cx, camera.cy + top]], dtype=np.float32)
        hand = vertices[None].astype(np.float32)
        both = np.concatenate([hand, nobody(hand)], axis=1)
        made = self._renderer.renderer.render(both, lens, look, parts=True)
        rows = slice(top, top + HEIGHT)
        image = made.image[0, rows].astype(np.float32)
        inside = (made.parts[0, rows] != 255).astype(np.float32)
        # A soft edge, as a lens and the samples of a pixel make it.
        padded = np.pad(inside, 1, mode="edge")
        cover = sum(
            padded[1 + y : 1 + y + HEIGHT, 1 + x : 1 + x + WIDTH] / 9
            for y in (-1, 0, 1)
            for x in (-1, 0, 1)
        )
        cover = np.minimum(inside, np.asarray(cover))
        return (image[:, ::-1], cover[:, ::-1]) if left else (image, cover)


def _wave(amplitude: float, hz: float, phase: float = 0.0) -> Callable[[float], float]:
    return lambda t: amplitude * math.sin(2 * math.pi * hz * t + phase)


def _there_and_back(t: float) -> tuple[float, float, float]:
    """Out of the picture to the right within a second, and back in after 1.5 more."""
    out = 0.5 - 0.5 * math.cos(math.pi * min(1.0, max(0.0, t - 1.0)))
    back = 0.5 - 0.5 * math.cos(math.pi * min(1.0, max(0.0, t - 3.5)))
    return 0.62 * (out - back), 0.08, 0.55


def _crossing(t: float, depth: float) -> tuple[float, float, float]:
    """From the right of the picture to its left and back, for a right hand."""
    return 0.17 * math.cos(2 * math.pi * t / 4.0), 0.08, depth


# Name -> what the hands do, and for how many seconds.
CLIPS: dict[str, tuple[tuple[Motion, ...], float]] = {
    "still": ((Motion(lambda _: (0.02, 0.08, 0.5)),), 3.0),
    "moving": (
        (
            Motion(
                lambda t: (
                    _wave(0.13, 0.4)(t),
                    0.08 + _wave(0.03, 0.7)(t),
                    0.55 + _wave(0.08, 0.25)(t),
                ),
                closed=lambda t: 0.5 - 0.5 * math.cos(2 * math.pi * 0.5 * t),
                roll=_wave(0.3, 0.3),
            ),
        ),
        5.0,
    ),
    "crossing": (
        (
            Motion(lambda t: _crossing(t, 0.66), roll=lambda _: 0.15),
            Motion(lambda t: _crossing(t, 0.5), roll=lambda _: 0.15, left=True),
        ),
        4.0,
    ),
    "returning": ((Motion(_there_and_back),), 6.0),
}


def clip_of(maker: ClipMaker, name: str) -> Clip:
    """One of `CLIPS`."""
    motions, seconds = CLIPS[name]
    return maker.make(name, motions, seconds)
