"""Rows that describe things beside the hand, as solids.cpp reads them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from handmesh_training.rendering import native
from handmesh_training.rendering.arrays import checked

Array = npt.NDArray[np.float64]

SOLIDS = 26  # rows a picture; kSolids of raster.cpp
SOLID_FLOATS = 30  # numbers a row; kSolidFloats


class Shape(IntEnum):
    """Unit shapes; y is the axis of the last two."""

    NONE = 0
    BALL = 1
    BOX = 2
    CYLINDER = 3
    CAPSULE = 4


class Pattern(IntEnum):
    """How the second colour lies on the first. From HEAD on: for solids only."""

    PLAIN = 0
    MOTTLE = 1
    STRIPES = 2
    PLAID = 3
    BRICKS = 4
    TILES = 5
    WOOD = 6
    TEXT = 7
    BLOTS = 8
    HEAD = 16
    NAIL = 17
    SCREEN = 18
    LABEL = 19
    SLEEVED = 20


@dataclass(frozen=True)
class Material:
    """What a thing is made of.

    Attributes:
        first: (3,) linear albedo.
        second: (3,) linear albedo of the pattern; None = the first.
        pattern: see `Pattern`.
        cells: cells of the pattern per metre.
        seed: of the pattern, 0 to 10^6.
        gloss: specular strength, 1 = skin by the book.
        roughness: of the specular lobe, 0 to 1.
        wrap: how far light creeps past the terminator, 1 = skin.
    """

    first: npt.ArrayLike
    second: npt.ArrayLike | None = None
    pattern: Pattern = Pattern.PLAIN
    cells: float = 1.0
    seed: int = 0
    gloss: float = 0.0
    roughness: float = 0.5
    wrap: float = 0.0

    @property
    def colours(self) -> Array:
        """(6,) first and second."""
        second = self.first if self.second is None else self.second
        return np.concatenate([np.asarray(self.first, float), np.asarray(second, float)])


def solid(
    shape: Shape,
    centre: npt.ArrayLike,
    axes: npt.ArrayLike,
    half: npt.ArrayLike,
    material: Material,
    *,
    taper: float = 1.0,
    casts: bool = False,
) -> Array:
    """One row.

    Args:
        shape: what it is.
        centre: (3,) metres, camera frame.
        axes: (3, 3) orthonormal rows x, y, z of its frame.
        half: (3,) half extents in metres; a capsule's y is half the distance of its balls.
        material: what it is made of.
        taper: radius at +y over the radius at -y, of cylinders and capsules.
        casts: whether it casts the key light's shadow: near the hand it should.

    Returns:
        (SOLID_FLOATS,) float64.
    """
    m = material
    return np.concatenate(
        [
            [float(shape)],
            np.asarray(centre, dtype=np.float64),
            np.asarray(axes, dtype=np.float64).reshape(9),
            np.asarray(half, dtype=np.float64),
            [taper, float(casts)],
            m.colours,
            [float(m.pattern), m.cells, float(m.seed), m.gloss, m.roughness, m.wrap],
        ]
    )


def meet(row: Array, origins: Array, rays: Array) -> tuple[Array, Array]:
    """Distances along rays at which they enter and leave a solid.

    Args:
        row: (SOLID_FLOATS,) as `solid` makes it.
        origins, rays: (N, 3); rays of any length, the unit of the distances.

    Returns:
        (N,) each, 0 and 0 where the solid is missed.

    Raises:
        InputError: arrays of a wrong shape or dtype.
    """
    described = checked("row", row, np.float32, (SOLID_FLOATS,))
    start = checked("origins", origins, np.float64, (None, 3))
    ray = checked("rays", rays, np.float64, (len(start), 3))
    enters, leaves = np.zeros(len(ray)), np.zeros(len(ray))
    native.load().hm_meet_solid(
        *(ctypes.c_void_p(array.ctypes.data) for array in (described, start, ray)),
        ctypes.c_int32(len(ray)),
        *(ctypes.c_void_p(array.ctypes.data) for array in (enters, leaves)),
    )
    return enters, leaves


def hidden(rows: Sequence[Array], points: Array, skin: float = 0.012) -> npt.NDArray[np.bool_]:
    """Which points the camera cannot see because of solids.

    Args:
        rows: the solids.
        points: (N, 3) camera frame, metres.
        skin: points so far inside a hand are still seen when this much in front is free.

    Returns:
        (N,) bool.
    """
    rays = points / points[:, 2:]
    behind = np.zeros(len(points), dtype=np.bool_)
    for row in rows:
        enters, leaves = meet(row, np.zeros_like(points), rays)
        behind |= (leaves > 0.0) & (enters < points[:, 2] - skin)
    return behind
