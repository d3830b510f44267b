"""A z-buffer in NumPy, face by face: what depth renderers are held against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def nearest_depth(
    vertices: Array, faces: NDArray[np.integer], side: int, root: float | None = None
) -> Array:
    """(S, S) depth of the nearest face at each pixel centre, inf for none; a loop over faces.

    Args:
        vertices: (V, 3) u, v in fractions of the picture, and depth. faces: (F, 3).
        root: absolute depth of depth 0, for perspective-correct interpolation; None for linear.
    """
    centre = (np.arange(side) + 0.5) / side
    x, y = np.meshgrid(centre, centre)
    nearest = np.full((side, side), np.inf)
    for a, b, c in vertices[faces]:
        system = np.array([[a[0], b[0], c[0]], [a[1], b[1], c[1]], [1, 1, 1]])
        if abs(np.linalg.det(system)) < 1e-14:
            continue
        share = np.linalg.solve(system, np.stack([x.ravel(), y.ravel(), np.ones(x.size)]))
        if root is None:
            z = share.T @ [a[2], b[2], c[2]]
        else:
            z = 1 / (share.T @ (1 / (np.array([a[2], b[2], c[2]]) + root))) - root
        hit = (share >= 0).all(axis=0).reshape(side, side)
        nearest = np.where(hit, np.minimum(nearest, z.reshape(side, side)), nearest)
    return nearest
