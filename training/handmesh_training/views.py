"""Where cameras stand: directions, distances and the place of a hand in the picture."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Of all views: from anywhere, held up to a camera (a selfie, a webcam, someone else's phone), the
# own hand seen from the head, and held level before the own body by someone who faces the camera.
SHARES = {"anywhere": 0.36, "held": 0.36, "egocentric": 0.16, "level": 0.12}
ANYWHERE, HELD, EGOCENTRIC, LEVEL = range(4)
# Metres, log-uniform: arm's length and a few steps, the desk, the own hand, a webcam. A phone held
# so close that a fist fills half of its picture is about 0.2 m away; fingers towards it look huge.
DISTANCES_M = ((0.2, 1.6), (0.18, 1.1), (0.2, 0.7), (0.25, 1.3))
# Half the field of view as tangents, wider side first: a phone's main camera (26 mm for full
# frame), its selfie camera (23 mm), a webcam (16:9, 78 degrees across the diagonal), a wide
# camera worn on the head.
LENSES = ((0.69, 0.52), (0.78, 0.59), (0.71, 0.40), (1.0, 0.75))
LENS_SHARES = (
    (0.5, 0.3, 0.2, 0.0),
    (0.3, 0.35, 0.35, 0.0),
    (0.3, 0.0, 0.0, 0.7),
    (0.4, 0.2, 0.4, 0.0),
)
UPRIGHT_SHARE = 0.6  # of phones
WITHIN = 0.7  # of the half field of view: the hand's middle is not at the picture's edge

# No view along the arm from the elbow: the arm would hide the hand.
ARM_FREE_DEG = 42.0


class Views(NamedTuple):
    """turn (B, 3, 3) hand to camera frame, middle (B, 3) metres where the hand's middle stands."""

    turn: Array
    middle: Array


def sample_views_of(rng: np.random.Generator, arm: Array) -> Views:
    """A camera for each hand.

    Args:
        arm: (B, 3) unit direction from wrist to elbow in the hand's frame.
    """
    count = len(arm)
    kind = rng.choice(len(SHARES), size=count, p=list(SHARES.values()))
    low, high = np.log(np.array(DISTANCES_M)).T[:, kind]
    distance = np.exp(rng.uniform(low, high))
    place = _places(rng, kind)
    turn = np.zeros((count, 3, 3))
    left = np.arange(count)
    towards = -place / np.linalg.norm(place, axis=1, keepdims=True)
    while len(left):
        turn[left] = sample_orientations(rng, kind[left])
        along = np.einsum("bij,bj,bi->b", turn[left], arm[left], towards[left])
        left = left[along > np.cos(np.deg2rad(ARM_FREE_DEG))]
    return Views(turn, place * distance[:, None])


def _places(rng: np.random.Generator, kind: NDArray[np.int64]) -> Array:
    """(B, 3) where on the picture the hands are: points of the plane at one metre."""
    lens = (rng.random((len(kind), 1)) > np.cumsum(LENS_SHARES, axis=1)[kind, :-1]).sum(axis=1)
    half = np.array(LENSES)[lens]
    upright = (lens < 2) & (rng.random(len(kind)) < UPRIGHT_SHARE)
    half[upright] = half[upright][:, ::-1]
    # Nearer the middle than the edge: people point cameras at what they photograph.
    across = np.clip(rng.normal(0, 0.45, (len(kind), 2)), -1, 1) * WITHIN * half
    return np.concatenate([across, np.ones((len(kind), 1))], axis=1)


def sample_orientations(rng: np.random.Generator, kind: NDArray[np.int64]) -> Array:
    """Rotations (B, 3, 3) from the hand's frame to the camera's, by kind of view."""
    count = len(kind)
    quaternion = rng.normal(0, 1, (count, 4))
    quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
    anywhere = _quaternion_matrix(quaternion)
    # Palm or back towards the camera, then pitched, yawed and rolled.
    yaw = rng.normal(0, 0.55, count) + np.pi * (rng.random(count) < 0.4)
    # Edge views are the hard ones: a good share of them, most of all those of the thumb's side,
    # which is how people hold up a fist.
    around = rng.random(count)
    yaw = np.where(around < 0.2, rng.uniform(-np.pi, np.pi, count), yaw)
    yaw = np.where(around > 0.7, rng.normal(0.5 * np.pi, 0.45, count), yaw)
    roll = rng.normal(0, 0.7, count)
    held = _turn(2, roll) @ _turn(0, rng.normal(0, 0.5, count)) @ _turn(1, yaw)
    # The own hand: mostly its back or edge, fingers away from the eyes, the arm from below.
    own = rng.normal(0, 0.7, count) + np.pi * (rng.random(count) < 0.7)
    pitch = -np.deg2rad(rng.uniform(0, 65, count))
    egocentric = _turn(2, roll) @ _turn(0, pitch) @ _turn(1, own)
    kinds = np.stack([anywhere, held, egocentric, _level(rng, count)])  # (4, count, 3, 3)
    turn: Array = kinds[kind, np.arange(count)]
    return turn


# Of a right hand, palm down and fingers to the right of the picture: the axes of its frame (thumb,
# wrist, back of the hand) as columns, in the camera's.
_ACROSS = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])


def _level(rng: np.random.Generator, count: int) -> Array:
    """Rotations (count, 3, 3) from the hand's frame to the camera's.

    Edge-on, left and right hands differ in little but which of them would be palm up. People hold a
    hand before them palm down or inwards, mostly, and its arm comes from its own side.
    """

    def normal(mean_deg: float, spread_deg: float) -> Array:
        return np.deg2rad(rng.normal(mean_deg, spread_deg, count))

    camera = _turn(2, normal(0, 12)) @ _turn(0, normal(10, 20))  # mostly looks down a little
    towards_it = _turn(1, normal(30, 45))  # of the fingers
    hand = _turn(1, normal(-20, 35)) @ _turn(0, normal(0, 25))  # palm inwards; fingers up or down
    level: Array = camera @ towards_it @ _ACROSS @ hand
    return level


def _quaternion_matrix(q: Array) -> Array:
    w, x, y, z = q.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)  # (count, 3, 3)


def _turn(axis: int, angle: Array) -> Array:
    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.zeros((len(angle), 3, 3))
    matrix[:, axis, axis] = 1
    matrix[:, a, a] = matrix[:, b, b] = np.cos(angle)
    matrix[:, a, b], matrix[:, b, a] = -np.sin(angle), np.sin(angle)
    return matrix
