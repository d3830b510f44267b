"""Relief that no shape direction has: muscles and folds that lie elsewhere on each hand.

All hands that shape directions draw swell and hollow in the same places. A network learns to read
views and bends from these, and is misled by a palm of another build. So the skin of each drawn hand
rises and falls by a smooth random field of its own, as in other randomised domains (Tobin et al.,
IROS 2017). How much is by eye, beside photos: there is no measurement to take it from. In creases
small triangles turn over now and then: one in 1,400 of the networks' mesh.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Waves that a field is made of, and how long they are: from folds to the balls of a palm.
WAVES = 12
SHORTEST_M, LONGEST_M = 0.012, 0.050
# The largest root mean square slope of a field, radians. Each hand's is anything up to that.
STEEPEST = 0.3


def sample_relief(rng: np.random.Generator, vertices: NDArray[np.floating], count: int) -> Tensor:
    """(count, V) float32, metres by which the skin stands out along its normal at rest.

    Sums of waves through space in any direction, on average equally steep whatever their length.

    Args:
        vertices: (V, 3) at rest, metres. count: of hands.
    """
    lengths = np.exp(rng.uniform(np.log(SHORTEST_M), np.log(LONGEST_M), (count, WAVES)))
    waves = rng.normal(0, 1, (count, WAVES, 3))
    waves *= (2 * np.pi / lengths / np.linalg.norm(waves, axis=-1))[..., None]  # radians a metre
    start = rng.uniform(0, 2 * np.pi, (count, WAVES))
    # The mean square of a wave's slope is half of the largest.
    slope = rng.uniform(0, STEEPEST, (count, 1)) * np.sqrt(2 / WAVES)
    heights = slope * lengths / (2 * np.pi)  # (count, W)
    relief = np.zeros((count, len(vertices)))
    for k in range(WAVES):  # one after the other: all at once take megabytes
        relief += heights[:, k, None] * np.sin(waves[:, k] @ vertices.T + start[:, k, None])
    return torch.from_numpy(relief).float()
