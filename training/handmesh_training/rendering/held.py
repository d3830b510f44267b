"""Things in, on and before the hand: placed in its own frame, so that they move with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from handmesh_training.rendering.colours import cloth, made
from handmesh_training.rendering.hands import Array, HandFrame, frame_of, tilted, unit
from handmesh_training.rendering.solids import Material, Pattern, Shape, hidden, solid

FINGER_M = 0.0095  # half thickness of a finger
HIDDEN_AT_MOST = 0.45  # share of a hand's probes that things may hide from the camera
GRIP_M = 0.042  # radius of the thickest thing that fits the hand

Rows = list[Array]


def sample_held(rng: np.random.Generator, hand: HandFrame) -> Rows:
    """Something held: at most three solids, none when the hand cannot hold what was drawn."""
    kinds: list[tuple[float, Callable[[np.random.Generator, HandFrame], Rows]]] = [
        (0.3, _gripped),
        (0.2, _ball),
        (0.22, _slab),
    ]
    if np.linalg.norm(hand.joints[4] - hand.joints[8]) < 0.05 * hand.scale:
        kinds += [(0.5, _pen), (0.15, _card)]
    odds = np.array([weight for weight, _ in kinds])
    rows = kinds[rng.choice(len(kinds), p=odds / odds.sum())][1](rng, hand)
    return rows if _hides_little(rows, hand) else []


def sample_occluder(rng: np.random.Generator, hand: HandFrame, tone: Array, already: Rows) -> Rows:
    """An arm or the edge of something between camera and hand; `already` hides some of it."""
    nearest = float(hand.vertices[hand.arm <= 0.0, 2].min())
    for _ in range(3):
        angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.45)
        u, v = 0.5 + away * np.cos(angle), 0.5 + away * np.sin(angle)
        depth = nearest * rng.uniform(0.72, 0.96) - 0.02
        centre = hand.place(u, v, max(depth, 0.08))
        # Across the line to the middle of the crop, so that it covers one side.
        across = np.array([-np.sin(angle), np.cos(angle), rng.normal(0, 0.25)])
        axes = frame_of(tilted(rng, across, 0.25), np.array([0.0, 0.0, -1.0]))
        if rng.random() < 0.5:
            row = arm(rng, centre, axes, tone, rng.uniform(0.6, 1.0) * depth / nearest)
        else:
            half = np.array([rng.uniform(0.01, 0.05), rng.uniform(0.05, 0.3), 0.008])
            row = solid(Shape.BOX, centre, axes, half, _material(rng))
        if _hides_little([*already, row], hand):
            return [row]
    return []


def sample_rings(rng: np.random.Generator, hand: HandFrame) -> Rows:
    """One or two rings on fingers, of gold, silver or something gaudy."""
    rows: Rows = []
    fingers = rng.choice(
        [5, 9, 13, 17], size=rng.integers(1, 3), replace=False, p=[0.2, 0.2, 0.45, 0.15]
    )
    for base in fingers:
        start, end = hand.joints[base], hand.joints[base + 1]
        axis = unit(end - start)
        along = rng.uniform(0.5, 0.65) * np.linalg.norm(end - start)
        offset = hand.vertices - start - along * axis
        lift = offset @ axis
        aside = offset - lift[:, None] * axis
        close = np.flatnonzero(np.abs(lift) < 0.006 * hand.scale)
        reach = np.linalg.norm(aside[close], axis=1)
        free = np.full(len(close), 0.014 * hand.scale)
        for other in {5, 9, 13, 17} - {int(base)}:  # none of a neighbour's
            gap = _aside(hand.vertices[close], hand.joints[other], hand.joints[other + 1])
            free = np.minimum(free, gap)
        near = close[reach < free]
        if len(near) < 4:
            continue
        middle = aside[near].mean(axis=0)
        if np.linalg.norm(middle) > 0.0045:  # a neighbour presses on it
            continue
        radius = float(np.quantile(np.linalg.norm(aside[near] - middle, axis=1), 0.8)) + 0.0006
        kind = rng.random()
        colour = np.array([0.8, 0.57, 0.25]) if kind < 0.45 else np.full(3, 0.65)
        band = Material(
            colour if kind < 0.9 else made(rng),
            gloss=rng.uniform(6, 14),
            roughness=rng.uniform(0.15, 0.35),
        )
        size = [radius, rng.uniform(0.0012, 0.0032), radius]
        axes = frame_of(tilted(rng, axis, 0.08), hand.outward)
        centre = start + along * axis + middle
        rows.append(solid(Shape.CYLINDER, centre, axes, size, band, casts=True))
    return rows


def _aside(points: Array, start: Array, end: Array) -> Array:
    """(N,) distances of points (N, 3) from a bone."""
    bone = end - start
    along = np.clip((points - start) @ bone / (bone @ bone), 0.0, 1.0)
    return np.asarray(np.linalg.norm(points - start - along[:, None] * bone, axis=1))


def sample_watch(rng: np.random.Generator, hand: HandFrame) -> Rows:
    """A bracelet, or a watch with its case on the back of the arm."""
    at = rng.uniform(0.012, 0.045)
    wide = rng.uniform(0.003, 0.011)
    near = np.abs(hand.arm - at) < wide + 0.005
    before, beyond = (np.abs(hand.arm - at + side) < 0.012 for side in (0.02, -0.02))
    if near.sum() < 8 or not before.any() or not beyond.any():
        return []
    axis = unit(hand.vertices[beyond].mean(axis=0) - hand.vertices[before].mean(axis=0))
    points = hand.vertices[near]
    # The box around them gives the ellipse's shape, the points its size: vertices lie unevenly.
    axes = frame_of(axis, hand.outward)
    flat = points @ axes[[0, 2]].T  # (N, 2)
    middle, half = 0.5 * (flat.min(0) + flat.max(0)), 0.5 * (flat.max(0) - flat.min(0))
    half *= np.quantile(np.linalg.norm((flat - middle) / half, axis=1), 0.97)
    half += 0.0012
    centre = axes[0] * middle[0] + axes[2] * middle[1] + axis * float((points @ axis).mean())
    size = [half[0], wide, half[1]]
    rows = [solid(Shape.CYLINDER, centre, axes, size, _material(rng), casts=True)]
    if rng.random() < 0.65:
        radius = rng.uniform(0.013, 0.02)
        face = centre - axes[2] * (half[1] + 0.002)  # the back: away from the palm
        shape = Shape.CYLINDER if rng.random() < 0.5 else Shape.BOX
        case = Material(np.full(3, rng.choice([0.02, 0.4, 0.7])), gloss=rng.uniform(2, 10),
                        roughness=0.25)  # fmt: skip
        seat = frame_of(axes[2], axis)
        rows.append(solid(shape, face, seat, [radius, 0.004, radius], case, casts=True))
    return rows


def arm(
    rng: np.random.Generator, centre: Array, axes: Array, tone: Array, size: float = 1.0
) -> Array:
    """A forearm, bare or in a sleeve, along the second of the axes."""
    radius = size * rng.uniform(0.024, 0.04)
    dressed = rng.random() < 0.5
    look = Material(
        tone,
        cloth(rng, 1)[0] if dressed else tone * [0.9, 0.82, 0.8],
        Pattern.SLEEVED if dressed else Pattern.MOTTLE,
        cells=60.0,
        seed=int(rng.integers(1000)),
        gloss=0.0 if dressed else 0.6,
        wrap=0.0 if dressed else 0.6,
    )
    half = [radius, rng.uniform(0.12, 0.2), radius * rng.uniform(0.75, 1.0)]
    return solid(Shape.CAPSULE, centre, axes, half, look, taper=rng.uniform(0.75, 1.0))


def _hides_little(rows: Rows, hand: HandFrame) -> bool:
    if not hand.present:
        return True
    return bool(hidden(rows, hand.probes).mean() <= HIDDEN_AT_MOST)


def _material(rng: np.random.Generator) -> Material:
    """Colours, pattern and gloss of something made."""
    pattern = rng.choice(
        [Pattern.PLAIN, Pattern.STRIPES, Pattern.MOTTLE, Pattern.WOOD, Pattern.BLOTS],
        p=[0.6, 0.12, 0.1, 0.1, 0.08],
    )
    return Material(
        made(rng),
        made(rng),
        Pattern(pattern),
        cells=float(np.exp(rng.uniform(np.log(15), np.log(120)))),
        seed=int(rng.integers(1000)),
        gloss=float(np.exp(rng.normal(0.6, 0.8))),
        roughness=float(rng.uniform(0.15, 0.6)),
    )


def _bones(hand: HandFrame) -> Array:
    """(N, 3) points on the bones of palm and fingers."""
    chains = np.arange(1, 21).reshape(5, 4)
    start, end = hand.joints[chains[:, :-1]], hand.joints[chains[:, 1:]]
    points = [start + t * (end - start) for t in (0.0, 0.33, 0.67, 1.0)]
    metacarpals = [
        hand.joints[0] + t * (hand.joints[chains[1:, 0]] - hand.joints[0]) for t in (0.3, 0.65)
    ]
    return np.concatenate([p.reshape(-1, 3) for p in [*points, *metacarpals]])


def _room(
    points: Array, start: Array, free: npt.NDArray[np.float64], most: float
) -> tuple[Array, float]:
    """Place with the most room near a start, and its distance to the points.

    Args:
        points: (N, 3). start: (3,).
        free: (3, 3) projection on the directions that count: the room of a ball or a cylinder.
        most: room that suffices.
    """
    place = start
    best, room = start, 0.0
    for _ in range(16):
        away = (place - points) @ free
        square = np.einsum("ni,ni->n", away, away)
        nearest = int(square.argmin())
        distance = float(square[nearest]) ** 0.5
        if distance > room:
            best, room = place, distance
        if room >= most:
            break
        place = place + 0.0025 * unit(away[nearest])
    return best, room


def _grip(hand: HandFrame) -> Array:
    """(3,) where curled fingers close."""
    fingers = hand.joints[[6, 7, 8, 10, 11, 12, 14, 15, 16]].mean(axis=0)
    return np.asarray(0.5 * (fingers + hand.palm) + 0.012 * hand.scale * hand.outward)


def _gripped(rng: np.random.Generator, hand: HandFrame) -> Rows:
    """A stick, bottle, cup, can or box through the closed hand, or lying on the open one."""
    axis = tilted(rng, hand.across + rng.normal(0, 0.25) * hand.up, 0.08)
    free = np.eye(3) - np.outer(axis, axis)
    centre, room = _room(_bones(hand), _grip(hand), free, (GRIP_M + FINGER_M) * hand.scale)
    radius = min(room - FINGER_M * hand.scale, GRIP_M * hand.scale)
    if radius < 0.003:
        return []
    axes = frame_of(axis if rng.random() < 0.7 else -axis, hand.outward)
    look = _material(rng)

    def tube(along: float, half: float, thick: float, of: Material, taper: float = 1.0) -> Array:
        place = centre + axes[1] * along
        size = [thick, half, thick]
        return solid(Shape.CYLINDER, place, axes, size, of, taper=taper, casts=True)

    if radius < 0.014:  # a stick, a marker, a handle
        length = rng.uniform(0.05, 0.14)
        return [tube(rng.uniform(-0.45, 0.45) * length, length, radius, look)]
    radius *= rng.uniform(0.75, 1.0)
    slip = rng.uniform(-0.025, 0.025)
    kind = rng.choice(["bottle", "cup", "can", "box"], p=[0.35, 0.25, 0.2, 0.2])
    if kind == "bottle":
        half, neck = rng.uniform(0.06, 0.09), rng.uniform(0.012, 0.022)
        labelled = replace(look, pattern=Pattern.LABEL) if rng.random() < 0.6 else look
        lid = Material(made(rng), gloss=1.0)
        return [
            tube(slip, half, radius, labelled),
            tube(slip + half + neck, neck, radius, replace(look, pattern=Pattern.PLAIN), 0.4),
            tube(slip + half + 2 * neck + 0.01, 0.011, 0.42 * radius, lid),
        ]
    if kind == "cup":
        return [tube(slip, rng.uniform(0.04, 0.06), radius, look, rng.uniform(1.0, 1.3))]
    if kind == "can":
        labelled = replace(look, pattern=Pattern.LABEL)
        return [tube(slip, rng.uniform(0.03, 0.07), radius, labelled)]
    size = [radius * 0.8, rng.uniform(0.04, 0.09), radius * rng.uniform(0.5, 0.9)]
    return [solid(Shape.BOX, centre + axes[1] * slip, axes, size, look, casts=True)]


def _ball(rng: np.random.Generator, hand: HandFrame) -> Rows:
    centre, room = _room(_bones(hand), _grip(hand), np.eye(3), (GRIP_M + FINGER_M) * hand.scale)
    radius = min(room - FINGER_M * hand.scale, GRIP_M * hand.scale)
    if radius < 0.008:
        return []
    half = np.full(3, radius) * [1.0, rng.choice([1.0, rng.uniform(0.8, 1.25)]), 1.0]
    axes = frame_of(rng.normal(size=3), rng.normal(size=3))
    return [solid(Shape.BALL, centre, axes, half, _material(rng), casts=True)]


def _slab(rng: np.random.Generator, hand: HandFrame) -> Rows:
    """A phone, card, book or sheet lying against the palm."""
    kind = rng.choice(3, p=[0.6, 0.2, 0.2])
    half = np.array([[0.036, 0.075, 0.004], [0.05, 0.08, 0.0006], [0.055, 0.075, 0.009]][kind])
    half[:2] *= rng.uniform(0.85, 1.1)
    turn = rng.choice([0.0, 0.5 * np.pi, rng.normal(0, 0.4)])
    up = np.cos(turn) * hand.up + np.sin(turn) * hand.across
    axes = frame_of(tilted(rng, up, 0.06), hand.outward)
    centre = hand.palm + hand.up * rng.uniform(-0.01, 0.045) + hand.across * rng.normal(0, 0.01)
    lift = ((hand.joints[[0, 5, 9, 13, 17]] - centre) @ hand.outward).max()
    centre = centre + hand.outward * (max(lift, 0.0) + 0.013 * hand.scale + half[2])
    # Fingers bent across it would go through it.
    offset = (_bones(hand) - centre) @ axes.T  # (N, 3)
    if ((offset[:, 2] > -half[2]) & np.all(np.abs(offset[:, :2]) < half[:2], axis=1)).any():
        return []
    look = _material(rng)
    if kind == 0:
        frame = np.full(3, rng.choice([0.015, 0.03, 0.5]))
        look = replace(
            look, first=frame, gloss=2.5, roughness=0.2, pattern=Pattern.SCREEN,
            cells=rng.uniform(25, 90),
        )  # fmt: skip
    elif kind == 1:
        paper, ink = np.full(3, 0.75), np.full(3, 0.1)
        look = Material(paper, ink, Pattern.TEXT, rng.uniform(90, 180), gloss=0.2)
    return [solid(Shape.BOX, centre, axes, half, look, casts=True)]


def _pinch(hand: HandFrame) -> tuple[Array, Array]:
    """(3,) between the tips of thumb and index, and the direction into the web between them."""
    tip = 0.5 * (hand.joints[4] + hand.joints[8])
    web = 0.5 * (hand.joints[2] + hand.joints[5])
    return tip, unit(web - tip)


def _pen(rng: np.random.Generator, hand: HandFrame) -> Rows:
    tip, back = _pinch(hand)
    axes = frame_of(tilted(rng, back, 0.2), hand.outward)
    half, radius = rng.uniform(0.055, 0.08), rng.uniform(0.0035, 0.006)
    nose = tip - axes[1] * rng.uniform(0.015, 0.04)
    middle, size = nose + axes[1] * (half + 0.012), [radius, half, radius]
    point = Material(made(rng), gloss=1.5)
    return [
        solid(Shape.CYLINDER, middle, axes, size, _material(rng), casts=True),
        solid(Shape.CYLINDER, nose, frame_of(-axes[1], axes[2]), [radius, 0.012, radius], point,
              casts=True, taper=0.2),
    ]  # fmt: skip


def _card(rng: np.random.Generator, hand: HandFrame) -> Rows:
    tip, back = _pinch(hand)
    axes = frame_of(tilted(rng, back, 0.3), hand.joints[4] - hand.joints[8])
    half = rng.uniform([0.012, 0.02, 0.0005], [0.03, 0.045, 0.003])
    look = replace(_material(rng), pattern=Pattern.TEXT, cells=rng.uniform(80, 250))
    return [solid(Shape.BOX, tip - axes[1] * (half[1] - 0.012), axes, half, look, casts=True)]
