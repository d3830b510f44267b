"""How far each joint of a hand goes: limits of `HandModel.rotations`' angles.

Ranges of healthy adults by goniometry: MCP flexion to 90 degrees, PIP to about 105, DIP to about
80; thumb MCP to 60 or so, IP to 85 and 25 back. Angles of the thumb's base are relative to the rest
pose, in which it is half opposed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .hand import FOREARM, PIVOT_COUNT

TWIST, ABDUCTION, FLEXION = 0, 1, 2
FINGER_BASES = np.array([4, 7, 10, 13])  # pivots of index, middle, ring, little MCP
FLEXION_LIMITS_DEG = {"mcp": (-20.0, 90.0), "pip": (-5.0, 105.0), "dip": (-8.0, 80.0)}
ABDUCTION_LIMITS_DEG = ((-26.0, 28.0), (-18.0, 20.0), (-24.0, 18.0), (-38.0, 22.0))
FINGER_TWIST_DEG = 12.0
THUMB_LIMITS_DEG = {
    (1, TWIST): (-25.0, 35.0),
    (1, ABDUCTION): (-40.0, 35.0),
    (1, FLEXION): (-30.0, 50.0),
    (2, ABDUCTION): (-10.0, 10.0),
    (2, FLEXION): (-15.0, 65.0),
    (3, FLEXION): (-25.0, 85.0),
}
FOREARM_LIMITS_DEG = {FLEXION: (-69.0, 69.0), ABDUCTION: (-26.0, 26.0)}


def angle_limits() -> NDArray[np.float64]:
    """(17, 3, 2) lowest and highest angle in radians; hinges have zero for both but flexion."""
    limits = np.zeros((PIVOT_COUNT, 3, 2))
    for (pivot, kind), pair in THUMB_LIMITS_DEG.items():
        limits[pivot, kind] = pair
    for finger, base in enumerate(FINGER_BASES):
        limits[base, TWIST] = -FINGER_TWIST_DEG, FINGER_TWIST_DEG
        limits[base, ABDUCTION] = ABDUCTION_LIMITS_DEG[finger]
        for offset, pair in enumerate(FLEXION_LIMITS_DEG.values()):
            limits[base + offset, FLEXION] = pair
    for kind, pair in FOREARM_LIMITS_DEG.items():
        limits[FOREARM, kind] = pair
    return np.deg2rad(limits)
