"""The other hand beside a rendered one, near it or touching it, as of people who clap or sign.

The labelled hand is a right one, so its partner is a left one of its size and skin: the mirror
image of the labelled hand itself, or a hand in another pose. It is slid along a straight line until
the two touch, or nearly so, or are folded into each other. Nothing of it is labelled.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from handmesh.types import UNIT_BONE

from .gestures.library import GestureLibrary
from .hand import HandModel
from .poses import ShapeShift, draw_poses
from .relief import sample_relief
from .sampling import ARM_FROM_M, HandViews, lead_arms_away

Array = NDArray[np.float64]

PARTNER = "partner"  # its name among `RenderSettings.things`

# Of pictures with a hand; a few of them find no place where the labelled hand is seen well enough.
SHARE = 0.2
# Of partners: the labelled hand's own mirror image, with both palms (or less often edges, or backs)
# turned towards each other.
MIRRORED = 0.35
FACING = {"palm": 0.55, "edge": 0.25, "back": 0.2}
TURN_ABOUT_FACING, TURN_ANYHOW = 0.6, 0.2  # radians, standard deviations
# Skin is pressed a little. Folded hands reach between each other's fingers: no pose here does, but
# pictures of hands that run into each other look much the same.
SHARES = {"touching": 0.5, "folded": 0.2, "apart": 0.3}
GAPS_M = {"touching": (-0.003, 0.0), "folded": (-0.025, -0.003), "apart": (0.0, 0.08)}
# Two hands touch where vertices come so close: every fourth is looked at, some 9 mm apart.
EVERY, TOUCH_M = 4, 0.004
HIDES_M = 0.006  # vertices hide what lies behind them within this
MOST_HIDDEN = 0.45  # of the labelled hand's joints
NEAREST_M = 0.09  # to the camera
TRIES = 5


def sample_partners(
    rng: np.random.Generator,
    model: HandModel,
    views: HandViews,
    there: NDArray[np.bool_],
    crop_px: int,
    shape_shift: ShapeShift = (),
    library: GestureLibrary | None = None,
) -> NDArray[np.float32]:
    """(B, V, 3) float32 vertices in the camera's frame, of `RenderMesh.with_partner`'s second half.

    Where there is no partner, all of them lie in one point of the labelled hand and draw nothing.

    Args:
        views: the labelled hands. there: (B,) bool, where the picture shows them.
        crop_px: side of the pictures. shape_shift, library: see `poses.draw_poses`.
    """
    own = views.vertices_m.astype(np.float64)
    placed = np.repeat(own[:, :1], own.shape[1], axis=1)
    rows = np.flatnonzero((rng.random(len(own)) < SHARE) & there)
    if not len(rows):
        return placed.astype(np.float32)
    others = _other_hands(rng, model, len(rows), shape_shift, library)
    joints = views.joints_m.astype(np.float64)
    found = [
        _place(rng, own[row], joints[row], other) for row, other in zip(rows, others, strict=True)
    ]
    done = rows[[each is not None for each in found]]
    partners = [each for each in found if each is not None]
    if partners:
        exact = np.stack(partners)  # (P, V, 3)
        arm = model.asset.vertices_m[:, 1] > ARM_FROM_M
        axis = exact[:, arm].mean(axis=1) - exact[:, ~arm].mean(axis=1)
        axis /= np.linalg.norm(axis, axis=1, keepdims=True)
        led = exact.astype(np.float32)
        lead_arms_away(model, led, axis, np.float64(views.intrinsics[done]), crop_px)
        placed[done] = led
    return placed.astype(np.float32)


def _other_hands(
    rng: np.random.Generator,
    model: HandModel,
    count: int,
    shape_shift: ShapeShift,
    library: GestureLibrary | None,
) -> list[tuple[Array, Array]]:
    """Vertices and joints of left hands in poses of their own, unit bones, wrist at the origin."""
    poses = draw_poses(rng, model, count, library, shape_shift)
    relief = sample_relief(rng, model.asset.vertices_m, count)
    with torch.no_grad():
        posed = model(poses.shape, model.rotations(poses.angles), relief)
    left = np.array([-1.0, 1.0, 1.0])
    vertices, joints = posed.vertices.numpy() * left, posed.joints.numpy() * left
    bones = np.linalg.norm(joints[:, UNIT_BONE[1]] - joints[:, UNIT_BONE[0]], axis=-1)
    return [(v / b, j / b) for v, j, b in zip(vertices, joints, bones, strict=True)]


def _place(
    rng: np.random.Generator, own: Array, joints: Array, other: tuple[Array, Array]
) -> Array | None:
    """(V, 3) the partner's vertices before the camera; None where there is no good place.

    Args:
        own: (V, 3), joints: (21, 3) of the labelled hand. other: vertices and joints of a left one,
            in bones; it is made as large as the labelled one.
    """
    bone_m = float(np.linalg.norm(joints[UNIT_BONE[1]] - joints[UNIT_BONE[0]]))
    for _ in range(TRIES):
        if rng.random() < MIRRORED:
            vertices, way = _mirrored(rng, own, joints)
        else:
            turn = _any_turn(rng)
            way = _unit(rng.normal(size=3))
            vertices, at = (points @ turn.T * bone_m for points in other)
            # Joint to joint, so that the line on which it comes meets the hand.
            vertices = vertices + joints[rng.integers(21)] - at[rng.integers(21)]
        until = first_touch(own[::EVERY], vertices[::EVERY], way)
        if until is None:
            continue
        kind = str(rng.choice(list(SHARES), p=list(SHARES.values())))
        vertices = vertices + (until + rng.uniform(*GAPS_M[kind])) * way
        near = vertices[:, 2].min() < NEAREST_M
        if not near and hidden_share(joints, vertices[::EVERY]) <= MOST_HIDDEN:
            return vertices
    return None


def _mirrored(rng: np.random.Generator, own: Array, joints: Array) -> tuple[Array, Array]:
    """The labelled hand's mirror image (V, 3), and the way (3,) on which it comes to it."""
    wrist, index, middle, little = joints[[0, 5, 9, 17]]
    palm = _unit(np.cross(index - wrist, little - wrist))
    across = _unit(np.cross(_unit(middle - wrist), palm))
    kind = rng.choice(list(FACING), p=list(FACING.values()))
    way = {"palm": palm, "back": -palm, "edge": across * rng.choice((-1.0, 1.0))}[str(kind)]
    centre = 0.5 * (wrist + middle)
    offset = own - centre
    image = offset - 2 * (offset @ way)[:, None] * way
    turn = _turn(rng.normal(0, TURN_ABOUT_FACING) * way) @ _turn(rng.normal(0, TURN_ANYHOW, 3))
    return image @ turn.T + centre, way


def first_touch(own: Array, other: Array, way: Array) -> float | None:
    """How far along a way a hand is from another when it comes from far off and first touches it.

    Args:
        own: (N, 3), other: (M, 3) metres. way: (3,) unit vector from the first hand outwards.

    Returns:
        t such that ``other + t * way`` has a vertex within `TOUCH_M` of one of ``own``, and no
        larger t has; None where no t has.
    """
    apart = own[:, None] - other[None]  # (N, M, 3)
    along = apart @ way
    room = TOUCH_M**2 - (np.einsum("nmk,nmk->nm", apart, apart) - along**2)
    if not (room >= 0).any():
        return None
    return float((along + np.sqrt(np.maximum(room, 0)))[room >= 0].max())


def hidden_share(joints: Array, vertices: Array) -> float:
    """Of joints (J, 3), the share before which some of the vertices (M, 3) lie for the camera."""
    distance = np.linalg.norm(joints, axis=1)
    rays = joints / distance[:, None]
    along = vertices @ rays.T  # (M, J)
    beside = np.sum(vertices**2, axis=1)[:, None] - along**2
    hides = (beside < HIDES_M**2) & (along > 0) & (along < distance)
    return float(hides.any(axis=0).mean())


def _unit(vector: Array) -> Array:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12))


def _any_turn(rng: np.random.Generator) -> Array:
    """A rotation, all alike likely."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return np.asarray(q * np.linalg.det(q))


def _turn(vector: Array) -> Array:
    """Rotation about a vector by its length in radians."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-9:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)
