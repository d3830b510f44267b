"""Linear albedos of things other than skin."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def cloth(rng: np.random.Generator, count: int) -> Array:
    """(B, 3) of clothes: mostly muted or dark, some white, some gaudy."""
    grey = np.exp(rng.uniform(np.log(0.015), np.log(0.75), (count, 1)))
    hue = rng.normal(size=(count, 3)) * rng.choice([0.08, 0.3, 0.9], (count, 1), p=[0.4, 0.4, 0.2])
    return np.clip(grey * np.exp(hue), 0.01, 0.85)


def made(rng: np.random.Generator) -> Array:
    """(3,) of made things: black, white and grey plastic, wood, metal, strong colours."""
    kind = rng.choice(4, p=[0.3, 0.2, 0.2, 0.3])
    if kind == 0:
        return np.full(3, rng.choice([0.02, 0.05, 0.3, 0.7])) * np.exp(rng.normal(0, 0.15, 3))
    if kind == 1:
        return (
            np.array([0.4, 0.23, 0.11])
            * np.exp(rng.normal(0, 0.35))
            * np.exp(rng.normal(0, 0.08, 3))
        )
    if kind == 2:
        return np.asarray(cloth(rng, 1)[0])
    strong = rng.uniform(0.02, 0.1, 3)
    strong[rng.permutation(3)[: rng.integers(1, 3)]] = rng.uniform(0.25, 0.75)
    return np.asarray(strong)


def surface(rng: np.random.Generator) -> Array:
    """(3,) of walls, tables and paper: light and neutral most often."""
    kind = rng.choice(4, p=[0.45, 0.22, 0.18, 0.15])
    if kind == 0:
        light = rng.uniform(0.35, 0.85) * np.exp(rng.normal(0, 0.05, 3))
        return np.clip(light * [1.02, 1.0, 0.94], 0.01, 0.88)
    if kind == 1:
        return np.clip(np.array([0.38, 0.22, 0.12]) * np.exp(rng.normal(0, 0.5)), 0.01, 0.8)
    if kind == 2:
        return np.full(3, np.exp(rng.uniform(np.log(0.012), np.log(0.2))))
    return np.asarray(cloth(rng, 1)[0])


def hair(rng: np.random.Generator) -> Array:
    """(3,) black and brown to blond and grey."""
    shades = np.array(
        [[0.012, 0.011, 0.01], [0.04, 0.025, 0.018], [0.11, 0.06, 0.03], [0.35, 0.23, 0.12]]
    )
    if rng.random() < 0.12:
        return np.full(3, rng.uniform(0.2, 0.6))
    return np.asarray(shades[rng.choice(4, p=[0.4, 0.3, 0.18, 0.12])] * np.exp(rng.normal(0, 0.25)))
