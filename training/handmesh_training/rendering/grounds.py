"""The surface behind the hand: a table, paper, wall or cloth, as ground.cpp reads it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from handmesh_training.rendering.colours import surface
from handmesh_training.rendering.environments import BackgroundSet
from handmesh_training.rendering.hands import Array, HandFrame, cross, frame_of, tilted, unit
from handmesh_training.rendering.solids import Material, Pattern

GROUND_FLOATS = 29  # kGroundFloats of raster.cpp
ENDLESS_M = 60.0
GAP_M = (0.002, 0.1)  # from the nearest point of the hand to the surface
WALLS = 0.4  # share of grounds farther behind: a wall, the table of someone who sits back
WALL_M = 0.8
# Of walls: plain ones; of these, those in about the colour of the hand, where its outline is lost.
PLAIN_WALLS, LIKE_SKIN = 0.5, 0.3
TEXTURED = 0.3  # share of grounds with a piece of a background on them


def ground(
    normal: npt.ArrayLike,
    offset: float,
    right: npt.ArrayLike,
    centre: npt.ArrayLike,
    half: tuple[float, float],
    material: Material,
    *,
    spread: float = 0.1,
    slope: tuple[float, float] = (0.0, 0.0),
    corner: tuple[float, float] = (0.0, 0.0),
    share: float = 1.0,
) -> Array:
    """One row.

    Args:
        normal: (3,) unit, towards the camera.
        offset: normal . p of its points p, metres: negative.
        right: (3,) unit, along the surface; v runs along normal x right.
        centre: (3,) a point of it.
        half: metres from the centre to its borders along u and v.
        material: of it; with a texture, first is the gain of its light, second its mean albedo,
            and cells the mirrored tiles per metre.
        spread: size of the key light over its distance: how soft its shadow gets.
        slope: relative change of the light per metre along u and v: a lamp on one side.
        corner, share: square of the texture that is used, as fractions of it.

    Returns:
        (GROUND_FLOATS,) float64.
    """
    m = material
    return np.concatenate(
        [
            [1.0],
            np.asarray(normal, dtype=np.float64),
            [offset],
            np.asarray(right, dtype=np.float64),
            np.asarray(centre, dtype=np.float64),
            np.asarray(half, dtype=np.float64),
            m.colours,
            [float(m.pattern), m.cells, float(m.seed), m.gloss, spread, *slope, *corner, share],
        ]
    )


def sample_ground(
    rng: np.random.Generator, hand: HandFrame, tone: Array, pictures: Sequence[BackgroundSet]
) -> tuple[Array, int]:
    """A surface behind everything of the hand that shows, and its texture (-1: a pattern).

    Args:
        rng: the only source of randomness.
        hand: before it. tone: (3,) linear albedo of its skin.
        pictures: the sets of backgrounds; textures are cut from the last.
    """
    middle = hand.joints.mean(axis=0)
    normal = _normal(rng, hand, unit(-middle))
    shown = hand.seen(hand.vertices)
    inside = np.all((shown > -0.15) & (shown < 1.15), axis=1) & (hand.vertices[:, 2] > 0.05)
    points = hand.vertices[inside] if inside.any() else hand.joints
    gap = float(np.exp(rng.uniform(*np.log(GAP_M))))
    wall = rng.random() < WALLS
    if wall:
        gap = rng.uniform(GAP_M[1], WALL_M)
    offset = min(float((points @ normal).min()) - gap, -0.05)
    centre = middle * (offset / (middle @ normal))
    right = frame_of(normal, tilted(rng, np.array([0.0, 1.0, 0.0]), 0.3))[0]
    right = right * np.cos(turn := rng.choice([0.0, rng.uniform(-np.pi, np.pi)])) + cross(
        normal, right
    ) * np.sin(turn)
    half = (ENDLESS_M, ENDLESS_M)
    if rng.random() < 0.3:  # a sheet, a book, a table's edge
        half = (rng.uniform(0.07, 0.5), rng.uniform(0.07, 0.5))
        centre = centre + 0.5 * (
            right * half[0] * rng.uniform(-1, 1)
            + cross(normal, right) * half[1] * rng.uniform(-1, 1)
        )
    first = surface(rng)
    gloss = float(rng.choice([0.0, rng.uniform(0.1, 1.0)]))
    spread = float(np.exp(rng.uniform(np.log(0.03), np.log(0.6))))
    slope = (rng.normal(0, 0.7), rng.normal(0, 0.7))
    if wall and rng.random() < PLAIN_WALLS:
        if rng.random() < LIKE_SKIN:
            tint = rng.normal(0, 0.06, 3)
            first = np.clip(tone * np.exp(rng.normal(0.15, 0.25) + tint), 0.01, 0.88)
        made = Material(first, first, Pattern.PLAIN, gloss=gloss)
        row = ground(normal, offset, right, centre, half, made, spread=spread, slope=slope)
        return row, -1
    if rng.random() < TEXTURED:
        last = pictures[-1]  # photos where there are any
        chosen = int(rng.integers(len(last)))
        texture = sum(len(earlier) for earlier in pictures[:-1]) + chosen
        share = rng.uniform(0.12, 0.4)
        mean = np.full(3, rng.uniform(0.08, 0.5))
        gain = np.minimum(mean * float(last.white[chosen] / last.brightness[chosen]), 900.0)
        made = Material(gain, mean, cells=1 / rng.uniform(0.15, 0.7), gloss=gloss)
        corner = (rng.uniform(0, 1 - share), rng.uniform(0, 1 - share))
        row = ground(
            normal, offset, right, centre, half, made,
            spread=spread, slope=slope, corner=corner, share=share,
        )  # fmt: skip
        return row, texture
    kinds = {
        Pattern.PLAIN: (0.34, 1, 1, 0.0),
        Pattern.MOTTLE: (0.22, 8, 250, 0.18),
        Pattern.WOOD: (0.14, 4, 30, 0.4),
        Pattern.TEXT: (0.07, 90, 260, 1.5),
        Pattern.BRICKS: (0.06, 9, 15, 0.5),
        Pattern.TILES: (0.05, 4, 12, 0.6),
        Pattern.PLAID: (0.05, 12, 60, 0.7),
        Pattern.STRIPES: (0.04, 6, 60, 0.7),
        Pattern.BLOTS: (0.03, 8, 60, 0.7),
    }
    weights = np.array([kind[0] for kind in kinds.values()])
    pattern = list(kinds)[rng.choice(len(kinds), p=weights / weights.sum())]
    _, coarse, fine, contrast = kinds[pattern]
    factor = np.exp(rng.normal(0, contrast) + rng.normal(0, 0.3 * contrast, 3))
    if pattern is Pattern.TEXT:
        first, factor = np.clip(first * 4, 0.5, 0.85), np.full(3, rng.uniform(0.05, 0.4))
    second = np.clip(first * factor, 0.008, 0.88)
    cells = float(np.exp(rng.uniform(np.log(coarse), np.log(fine))))
    made = Material(first, second, pattern, cells, int(rng.integers(1000)), gloss)
    row = ground(normal, offset, right, centre, half, made, spread=spread, slope=slope)
    return row, -1


def _normal(rng: np.random.Generator, hand: HandFrame, towards: Array) -> Array:
    """(3,) unit: under the hand that lies flat, a table before the camera, or a wall."""
    flat = hand.outward if hand.outward @ towards > 0 else -hand.outward
    kind = rng.random()
    if kind < 0.4 and flat @ towards > 0.3:
        normal = tilted(rng, flat, 0.12)
    elif kind < 0.75:  # seen from above, from upright to steep
        lean = rng.uniform(0.0, 1.2)
        normal = tilted(rng, np.cos(lean) * towards + np.sin(lean) * np.array([0, -1.0, 0]), 0.1)
    else:
        normal = tilted(rng, towards, 0.25)
    return normal if normal @ towards > 0.25 else towards
