"""Poses that follow no gesture: families with independent joints, for whatever nobody named."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .hand import PIVOT_COUNT
from .limits import ABDUCTION, FINGER_BASES, FLEXION, FLEXION_LIMITS_DEG, TWIST

Array = NDArray[np.float64]

# Natural fan of the fingers at full spread, degrees of abduction towards the thumb.
SPREAD_DEG = np.array([14.0, 2.0, -10.0, -20.0])


def free_angles(rng: np.random.Generator, count: int) -> Array:
    """Angles (count, 17, 3): a mixture of families that people make, with noise on every joint.

    Families: each finger open or closed on its own (counting, pointing, signs), a common curl
    from flat hand to fist with a gradient over the fingers, pinches and grips with the thumb
    opposed, and independent joints.
    """
    family = rng.choice(4, size=count, p=[0.36, 0.30, 0.18, 0.16])
    curl = np.zeros((count, 4))

    # Own: open, half or closed per finger. Neighbours are correlated, as tendons are.
    state = rng.random((count, 4))
    previous = state[:, 0]
    for finger in range(1, 4):
        follow = rng.random(count) < 0.35
        state[:, finger] = np.where(follow, previous, state[:, finger])
        previous = state[:, finger]
    own = np.select([state < 0.45, state < 0.6], [0.0, rng.uniform(0.2, 0.8, (count, 4))], 1.0)
    own = own + rng.normal(0, 0.05, (count, 4))
    gradient = np.linspace(-1, 1, 4)
    common = rng.beta(0.7, 0.9, (count, 1)) + rng.normal(0, 0.12, (count, 1)) * gradient
    pinch = np.full((count, 4), 0.5) + rng.normal(0, 0.1, (count, 4))
    others = rng.choice([0.05, 0.3, 0.9], size=(count, 1)) + rng.normal(0, 0.08, (count, 3))
    alone = rng.random(count) < 0.6
    pinch[alone, 1:] = others[alone]
    free = rng.random((count, 4))
    for k, values in enumerate((own, common, pinch, free)):
        curl[family == k] = np.broadcast_to(values, (count, 4))[family == k]
    curl = np.clip(curl, -0.08, 1.05)

    # Distribute each curl over the three joints: hook (PIP first) to flat fist (MCP first).
    hook = rng.normal(0, 0.28, (count, 1)) + rng.normal(0, 0.10, (count, 4))
    mcp = np.clip(curl * (1 - hook), -0.2, 1) * 82 + rng.normal(0, 6, (count, 4))
    pip = np.clip(curl * (1 + hook), 0, 1.05) * 98 + rng.normal(0, 5, (count, 4))
    dip = pip * rng.normal(0.62, 0.1, (count, 4)) + rng.normal(0, 5, (count, 4))
    loose = family == 3
    size = (int(loose.sum()), 4)
    mcp[loose] = rng.uniform(-15, 88, size)
    pip[loose] = rng.uniform(0, 103, size)
    dip[loose] = rng.uniform(0, 75, size)

    angles = np.zeros((count, PIVOT_COUNT, 3))
    for offset, (name, values) in enumerate({"mcp": mcp, "pip": pip, "dip": dip}.items()):
        limits = FLEXION_LIMITS_DEG[name]
        angles[:, FINGER_BASES + offset, FLEXION] = np.deg2rad(np.clip(values, *limits))
    # Bent fingers cannot spread: their collateral ligaments are tight.
    straightness = np.clip(1 - np.clip(mcp, 0, 90) / 80, 0.1, 1)
    spread = rng.beta(1.2, 1.6, (count, 1)) * 1.5 - 0.4
    fan = spread * SPREAD_DEG + rng.normal(0, 4.0, (count, 4))
    angles[:, FINGER_BASES, ABDUCTION] = np.deg2rad(fan * straightness)
    angles[:, FINGER_BASES, TWIST] = np.deg2rad(rng.normal(0, 4, (count, 4)))
    _sample_thumb(rng, angles, family == 2, curl.mean(axis=1))
    return angles


def _sample_thumb(
    rng: np.random.Generator, angles: Array, opposed: NDArray[np.bool_], curl: Array
) -> None:
    """Thumb, in place: out, along the index, or across the palm as when opposed or in a fist.

    Angles of its base are relative to the rest pose.
    """
    count = len(angles)
    kind = rng.choice(3, size=count, p=[0.4, 0.25, 0.35])
    fist = (curl > 0.7) & (rng.random(count) < 0.6)
    kind[opposed | fist] = 2
    base_flexion = np.choose(kind, [rng.normal(-8, 10, count), rng.normal(0, 8, count),
                                    rng.normal(18, 12, count)])  # fmt: skip
    base_abduction = np.choose(kind, [rng.normal(-8, 12, count), rng.normal(12, 8, count),
                                      rng.normal(4, 12, count)])  # fmt: skip
    mcp = np.choose(kind, [rng.normal(5, 10, count), rng.normal(15, 12, count),
                           rng.normal(30, 16, count)])  # fmt: skip
    tip = np.choose(kind, [rng.normal(5, 15, count), rng.normal(15, 18, count),
                           rng.normal(35, 22, count)])  # fmt: skip
    angles[:, 1, FLEXION] = np.deg2rad(np.clip(base_flexion, -30, 45))
    angles[:, 1, ABDUCTION] = np.deg2rad(np.clip(base_abduction, -35, 30))
    angles[:, 1, TWIST] = np.deg2rad(np.clip(rng.normal(0, 10, count), -25, 25))
    angles[:, 2, FLEXION] = np.deg2rad(np.clip(mcp, -15, 65))
    angles[:, 2, ABDUCTION] = np.deg2rad(rng.normal(0, 4, count))
    angles[:, 3, FLEXION] = np.deg2rad(np.clip(tip, -25, 85))
