"""Other skin in the picture: a person behind the hand, an arm, a second hand at the border."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from handmesh_training.rendering.colours import cloth, hair
from handmesh_training.rendering.hands import Array, HandFrame, frame_of, tilted, unit
from handmesh_training.rendering.held import arm
from handmesh_training.rendering.solids import Material, Pattern, Shape, hidden, solid

Rows = list[Array]
SKIN = Material(np.zeros(3), gloss=0.7, roughness=0.5, wrap=0.7)


def sample_person(rng: np.random.Generator, hand: HandFrame, tone: Array) -> Rows:
    """Head, neck, shoulders and torso in clothes, 15 to 70 cm behind the hand."""
    depth = hand.depth + rng.uniform(0.15, 0.7)
    centre = hand.place(rng.uniform(-0.35, 1.35), rng.uniform(-0.6, 0.6), depth)
    size = rng.uniform(0.9, 1.1)
    roll = rng.normal(0, 0.12)
    down = np.array([np.sin(roll), np.cos(roll), 0.0])
    yaw = rng.normal(0, 0.6)
    ahead = np.array([np.sin(yaw), rng.normal(0, 0.15), -np.cos(yaw)])
    axes = frame_of(down, ahead)
    body = frame_of(down, np.array([0.6 * np.sin(yaw), 0.0, -1.0]))
    skin = np.minimum(tone * np.exp(rng.normal(0, 0.1)), 0.85)
    first, second = cloth(rng, 2)
    weave = rng.choice(
        [Pattern.PLAIN, Pattern.MOTTLE, Pattern.STRIPES, Pattern.PLAID, Pattern.BLOTS],
        p=[0.3, 0.2, 0.15, 0.2, 0.15],
    )
    clothes = Material(
        first,
        second if rng.random() < 0.6 else first * rng.uniform(0.5, 1.5),
        Pattern(weave),
        cells=float(np.exp(rng.uniform(np.log(8), np.log(45)))),
        seed=int(rng.integers(1000)),
    )
    face = replace(SKIN, first=skin, second=hair(rng), pattern=Pattern.HEAD,
                   seed=int(rng.integers(1000)))  # fmt: skip
    nape = replace(SKIN, first=skin * [0.8, 0.74, 0.72])
    chest = centre + down * 0.52 * size - body[2] * 0.02
    shoulders = centre + down * 0.235 * size - body[2] * 0.02

    def part(shape: Shape, place: Array, axes: Array, half: list[float], of: Material) -> Array:
        return solid(shape, place, axes, np.array(half) * size, of)

    return [
        part(Shape.BALL, centre, axes, [0.076, 0.115, 0.096], face),
        part(Shape.CYLINDER, centre + down * 0.14 * size, axes, [0.055, 0.06, 0.055], nape),
        part(Shape.CAPSULE, shoulders, frame_of(body[0], down), [0.06, 0.13, 0.06], clothes),
        part(Shape.CAPSULE, chest, body, [0.17, 0.18, 0.1], clothes),
        *(
            part(
                Shape.CAPSULE,
                shoulders + (side * 0.165 * body[0] + 0.15 * down) * size,
                frame_of(down + side * rng.uniform(0.0, 0.6) * body[0], ahead),
                [0.052, 0.13, 0.052],
                clothes,
            )
            for side in (-1.0, 1.0)
        ),
    ]


def sample_arm(rng: np.random.Generator, hand: HandFrame, tone: Array) -> Rows:
    """An arm across the background."""
    depth = hand.depth + rng.uniform(0.08, 0.4)
    centre = hand.place(rng.uniform(-0.2, 1.2), rng.uniform(-0.2, 1.2), depth)
    axes = frame_of(rng.normal(size=3) * [1.0, 1.0, 0.4], rng.normal(size=3))
    return [arm(rng, centre, axes, tone)]


def sample_second_hand(
    rng: np.random.Generator, hand: HandFrame, tone: Array, already: Rows
) -> Rows:
    """Palm and fingers of another hand at the border of the crop; not the hand that is sought."""
    angle = rng.uniform(0, 2 * np.pi)
    away = rng.uniform(0.5, 0.8)
    u, v = 0.5 + away * np.cos(angle), 0.5 + away * np.sin(angle)
    centre = hand.place(u, v, max(hand.depth + rng.normal(0.02, 0.06), 0.12))
    inward = np.array([-np.cos(angle), -np.sin(angle), rng.normal(0, 0.4)])
    axes = frame_of(tilted(rng, inward, 0.35), tilted(rng, np.array([0, 0, -1.0]), 0.9))
    size = hand.scale * rng.uniform(0.9, 1.1)
    across, along, outward = axes
    nail = 0.5 * tone + 0.5 * np.array([0.7, 0.45, 0.38])
    skin = replace(SKIN, first=tone, second=nail, wrap=0.8)
    mottled = replace(skin, second=tone * [0.93, 0.85, 0.83], pattern=Pattern.MOTTLE, cells=70.0)
    palm = np.array([0.043, 0.056, 0.017]) * size
    rows = [solid(Shape.BALL, centre, axes, palm, mottled)]

    def segment(middle: Array, direction: Array, length: float, radius: float, last: bool) -> Array:
        return solid(
            Shape.CAPSULE,
            middle,
            frame_of(direction, outward),
            np.array([radius, 0.5 * length, radius]) * size,
            replace(skin, pattern=Pattern.NAIL if last else Pattern.PLAIN),
            taper=0.88,
        )

    curl = rng.uniform(0.0, 1.3)
    for finger in range(4):
        root = centre + size * (across * (0.021 * finger - 0.0315) + along * 0.046)
        bend = np.clip(curl + rng.normal(0, 0.2), -0.1, 1.6)
        spread = across * (0.1 * finger - 0.15)
        for last, length, radius in ((False, 0.045, 0.0088), (True, 0.036, 0.0078)):
            turn = bend * (1.5 if last else 0.6)
            direction = unit(along * np.cos(turn) - outward * np.sin(turn) + spread)
            step = direction * length * size
            rows.append(segment(root + 0.5 * step, direction, length, radius, last))
            root = root + step
    side = 1.0 if rng.random() < 0.5 else -1.0
    thumb = unit(along + side * across * rng.uniform(0.3, 1.2) - 0.3 * outward)
    base = centre + size * (side * 0.034 * across + 0.03 * thumb)
    rows.append(segment(base, thumb, 0.064, 0.0105, True))
    if hidden([*already, *rows], hand.probes).mean() > 0.3:
        return []
    return rows
