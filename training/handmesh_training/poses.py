"""Random poses and shapes: library gestures with noise, transitions between them, and free poses.

A drawn hand that runs into itself is drawn again from the same plan, with less noise each time, so
that rejection leaves the shares of fists and pinches as they are stated here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handmesh.errors import InputError

from .bones import bone_length_names
from .collisions import HandCapsules
from .free_poses import free_angles
from .gestures.library import GestureLibrary, default_library
from .hand import FOREARM, PIVOT_COUNT, HandModel
from .limits import ABDUCTION, FINGER_BASES, FLEXION, TWIST, angle_limits

Array = NDArray[np.float64]
Ints = NDArray[np.int32]

# Of all hands: a library gesture, on the way between two, anything.
SHARES = {"gesture": 0.64, "transition": 0.18, "free": 0.18}
GESTURE, TRANSITION, FREE = range(3)
# Of the library gestures, by kind. Closed hands are common, and the hardest to see; flat ones are
# common, and edge-on left and right ones look alike.
KIND_SHARES = {
    "fist": 0.10, "near_fist": 0.12, "thumb_before": 0.17, "count": 0.11, "scissors": 0.06,
    "flat": 0.08, "open": 0.11, "pinch": 0.10, "grip": 0.06, "sign": 0.05, "combined": 0.04,
}  # fmt: skip
FREE_GESTURE = -1
# Names of shape directions, each with a coefficient.
ShapeShift = tuple[tuple[str, float], ...]

# Deeper overlaps of capsules are refused. Of girth beyond the template's this share gives way where
# skin presses on skin: without it closed hands are drawn with thinner fingers than open ones. Drawn
# skin is not pressed flat, so a third of all hands run into themselves deeper than that, one in 13
# deeper than 5 mm. Relief (`relief`) is not counted: it is added afterwards.
OVERLAP_ALLOWED_M = 0.003
FLESH_GIVES = 0.9
ATTEMPTS = 8

# Noise, standard deviations in degrees: of all fingers together, and of each.
COMMON_CURL_DEG, CURL_DEG = 4.0, 4.5
BASE_DEG = 3.0  # MCP, besides the curl
ABDUCTION_DEG = 2.5
THUMB_DEG = 6.0
DIP_SHARE = 0.66  # the end joint follows the middle one
NEIGHBOUR = 0.5  # correlation of adjacent fingers
LIMITS = angle_limits()


class Poses(NamedTuple):
    """angles (B, 17, 3) radians, shape (B, S), gesture (B,) int32 library index or -1."""

    angles: Tensor
    shape: Tensor
    gesture: Ints


def usual_shape(model: HandModel) -> Array:
    """(S,) shape coefficients of a usual hand. The template is slender.

    Its wrist measures 0.75 of the length of the hand around, people's 0.87 (172 mm of 196 for men,
    151 of 177 for women; girths: Heinz, Peterson, Johnson and Kerk, J. of Statistics Education
    11(2), 2003; lengths: Guan et al., Human Factors 54(5), 2012). Its thumb is 0.107 of that length
    broad, index to little finger 0.106, 0.103, 0.099 and 0.083; those of 943 firefighters 0.121,
    0.114, 0.112, 0.108 and 0.098 (Hsiao, Whitestone, Kau and Hildreth, Human Factors 57(8), 2015,
    means of the sexes), the usual hand's within 4 % of theirs.
    """
    middle = {
        "finger_diameter": 0.4, "first_web": 0.8, "forearm_fat": 0.2, "little_girth": 1.0,
        "thumb_ball": 0.8, "thumb_girth": 0.8, "wrist_girth": 0.55,
    }  # fmt: skip
    return np.array([middle.get(name, 0.0) for name in model.shape_names])


def sample_shapes(rng: np.random.Generator, model: HandModel, count: int) -> Array:
    """Shape coefficients (count, S): adults of both sexes and all builds, and some children.

    About the usual hand; each finger bone is a little longer or shorter on its own, by 4 % one
    standard deviation, and fingers are thicker or thinner by some 2.4 mm of 20.
    """
    spread = {
        "age": 0.35, "finger_diameter": 0.75, "finger_distance": 0.5, "finger_length": 0.45,
        "first_web": 0.8, "forearm_fat": 0.5, "gender": 0.5, "hand_scale": 0.3, "height": 0.0,
        "little_girth": 0.4, "muscle": 0.6, "proportions": 0.6, "thumb_ball": 1.0,
        "thumb_girth": 0.6, "weight": 0.6, "wrist_girth": 0.4,
    }  # fmt: skip
    spread |= dict.fromkeys(bone_length_names(), 0.4)
    sigma = np.array([spread.get(name, 0.35) for name in model.shape_names])
    noise = np.clip(rng.normal(0, 1, (count, len(sigma))), -2, 2) * sigma
    return usual_shape(model) + noise


def choose_gestures(rng: np.random.Generator, library: GestureLibrary, count: int) -> Ints:
    """(count,) library indices, kinds by `KIND_SHARES`, evenly within a kind."""
    kinds = np.array([list(KIND_SHARES).index(kind) for kind in library.kinds])
    of_kind = np.bincount(kinds, minlength=len(KIND_SHARES))
    share = np.array(list(KIND_SHARES.values())) * (of_kind > 0)
    weights = (share / np.maximum(of_kind, 1))[kinds]
    edges = np.cumsum(weights)
    drawn = np.searchsorted(edges, rng.random(count) * edges[-1], side="right")
    return np.minimum(drawn, len(library) - 1).astype(np.int32)


def add_noise(rng: np.random.Generator, angles: Array, amount: Array) -> Array:
    """Angles (B, 17, 3) with correlated noise, clipped to the limits.

    Args:
        amount: (B,) factor on all standard deviations; zero leaves the angles alone.
    """
    count = len(angles)
    noisy = angles.copy()
    scale = np.deg2rad(amount)[:, None]  # (B, 1)
    # A chain of correlated fingers, index to little: each keeps a part of its neighbour's.
    own = rng.normal(0, 1, (count, 4))
    for finger in range(1, 4):
        fresh = np.sqrt(1 - NEIGHBOUR**2) * own[:, finger]
        own[:, finger] = NEIGHBOUR * own[:, finger - 1] + fresh
    curl = COMMON_CURL_DEG * rng.normal(0, 1, (count, 1)) + CURL_DEG * own
    base = 0.8 * curl + BASE_DEG * rng.normal(0, 1, (count, 4))
    middle = curl + 1.5 * rng.normal(0, 1, (count, 4))
    end = DIP_SHARE * middle + 2.0 * rng.normal(0, 1, (count, 4))
    for offset, values in enumerate((base, middle, end)):
        noisy[:, FINGER_BASES + offset, FLEXION] += scale * values
    straight = np.clip(1 - angles[:, FINGER_BASES, FLEXION] / np.deg2rad(95), 0.1, 1)
    across = ABDUCTION_DEG * rng.normal(0, 1, (count, 4))
    across += 2.5 * rng.normal(0, 1, (count, 1)) * np.array([1.0, 0.2, -0.6, -1.2])
    noisy[:, FINGER_BASES, ABDUCTION] += scale * straight * across
    noisy[:, FINGER_BASES, TWIST] += scale * 2.0 * rng.normal(0, 1, (count, 4))
    thumb = THUMB_DEG * rng.normal(0, 1, (count, 3, 3))
    thumb[:, 2, FLEXION] += 0.5 * thumb[:, 1, FLEXION]  # MCP and IP bend together
    noisy[:, 1:4] += scale[:, :, None] * thumb
    clipped: Array = np.clip(noisy, LIMITS[..., 0], LIMITS[..., 1])
    return clipped


def _follow(
    rng: np.random.Generator,
    library: GestureLibrary,
    kind: NDArray[np.int64],
    first: Ints,
    amount: Array,
) -> Array:
    """One attempt at a plan: angles (B, 17, 3), with noise by ``amount`` (B,)."""
    angles = library.angles[first].astype(np.float64)
    count = len(angles)
    second = library.angles[choose_gestures(rng, library, count)]
    # Most of a movement's time is spent near its ends, but those are gestures already.
    way = rng.uniform(0, 1, count) * np.minimum(amount, 1)
    way = np.where(kind == TRANSITION, way, 0.0)[:, None, None]
    angles += way * (second - angles)
    # Some people are exact, some are loose.
    angles = add_noise(rng, angles, amount * rng.gamma(2.0, 0.5, count))
    free = np.flatnonzero((kind == FREE) & (amount > 0))
    angles[free] = free_angles(rng, len(free))
    angles[:, FOREARM] = 0
    angles[:, FOREARM, FLEXION] = rng.normal(0, 0.45, count)
    angles[:, FOREARM, ABDUCTION] = rng.normal(0, 0.18, count)
    return np.clip(angles, LIMITS[..., 0], LIMITS[..., 1])


@lru_cache(maxsize=4)
def capsules_of(model: HandModel) -> HandCapsules:
    """The model's capsules, made once."""
    return HandCapsules(model)


def draw_poses(
    rng: np.random.Generator,
    model: HandModel,
    count: int,
    library: GestureLibrary | None = None,
    shape_shift: ShapeShift = (),
) -> Poses:
    """Poses and shapes of ``count`` hands that do not run into themselves.

    Each is planned once (gesture, transition or free; and its shape), then drawn until it passes:
    the noise shrinks from one attempt to the next and in the end so does the shape's distance from
    the usual hand, on which nearly every library gesture passes. A new shape for each attempt, or
    the slender template in the end, would leave closed hands with thinner fingers than open ones.

    Args:
        library: solved on this model's template; None for the package's own.
        shape_shift: coefficients by name that are added to every hand's shape: other people.

    Raises:
        InputError: a shift along a direction that the model does not have.
    """
    unknown = [name for name, _ in shape_shift if name not in model.shape_names]
    if unknown:
        raise InputError(f"hands have no shape {unknown[0]!r}; they have {model.shape_names}")
    shift = np.array([dict(shape_shift).get(name, 0.0) for name in model.shape_names])
    library = library if library is not None else default_library()
    capsules = capsules_of(model)
    kind = rng.choice(3, size=count, p=list(SHARES.values()))
    first = choose_gestures(rng, library, count)
    usual = usual_shape(model)
    planned = sample_shapes(rng, model, count)
    shape = np.zeros_like(planned)
    angles = np.zeros((count, PIVOT_COUNT, 3))
    left = np.arange(count)
    for attempt in range(ATTEMPTS + 1):
        last = attempt == ATTEMPTS
        effort = np.full(len(left), 1 - attempt / ATTEMPTS)
        nearness = effort[:, None] if attempt > ATTEMPTS // 2 else 1.0
        shape[left] = usual + nearness * (planned[left] - usual) + shift
        angles[left] = _follow(rng, library, kind[left], first[left], effort)
        if last:
            break
        left = left[self_collides(model, capsules, angles[left], shape[left])]
        if not len(left):
            break
    named = (kind == GESTURE) | np.isin(np.arange(count), left if last else [])
    return Poses(
        torch.from_numpy(angles).float(),
        torch.from_numpy(shape).float(),
        np.where(named, first, FREE_GESTURE).astype(np.int32),
    )


def self_collides(
    model: HandModel, capsules: HandCapsules, angles: Array, shape: Array
) -> NDArray[np.bool_]:
    """(B,) True where fingers, thumb and palm overlap deeper than skin gives."""
    with torch.no_grad():
        shapes = torch.from_numpy(shape).float()
        bones = model.pose_bones(shapes, model.rotations(torch.from_numpy(angles).float()))
        deepest = capsules.overlaps(shapes, *bones, gives=FLESH_GIVES).max(dim=1).values
    return (deepest > OVERLAP_ALLOWED_M).numpy()
