"""The other hand beside a rendered one, near it or touching it, as of people who clap or sign.

The labelled hand is a right one, so its partner is a left one of its skin: the labelled hand's own
mirror image, or a hand in another pose and of another build, as large as it by the middle finger's
first bone. It is slid along a straight line until the two touch, or nearly so, or are folded into
each other. Nothing of it is labelled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from handmesh.types import UNIT_BONE

from .gestures.library import GestureLibrary
from .hand import HandModel
from .poses import ShapeShift, draw_poses
from .relief import sample_relief
from .rendering.hands import unit
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
KINDS = {"touching": 0.5, "folded": 0.2, "apart": 0.3}
GAPS_M = {"touching": (-0.003, 0.0), "folded": (-0.025, -0.003), "apart": (0.0, 0.08)}
# Two hands touch where vertices come so close, of which every fourth is looked at.
EVERY, TOUCH_M = 4, 0.004
# Vertices of the hand and the middles of its faces hide what lies behind them within this; faces
# reach 5 mm from there, few 10. Arms are rows of balls.
HIDES_M = 0.006
ARM_RINGS, BALLS_A_RING = 6, 8
MOST_HIDDEN = 0.45  # of the labelled hand's joints
MOST_BEHIND = 0.1  # of the partner's hand, of the surface behind the labelled one
NEAREST_M = 0.09  # to the camera
TRIES = 5


def sample_partners(
    rng: np.random.Generator,
    model: HandModel,
    views: HandViews,
    there: NDArray[np.bool_],
    grounds: Array,
    crop_px: int,
    shape_shift: ShapeShift = (),
    library: GestureLibrary | None = None,
    share: float | None = None,
) -> NDArray[np.float32]:
    """Partners of B hands: vertices of `RenderMesh.with_partner`'s second half.

    Args:
        rng: everything random comes from it. model: of all hands.
        views: the labelled hands; metres, camera frame (+x right, +y down, +z away).
        there: (B,) bool, where the picture shows them.
        grounds: (B, GROUND_FLOATS) surfaces behind them, see `rendering.grounds.ground`.
        crop_px: side of the pictures. shape_shift, library: see `poses.draw_poses`.
        share: of hands that are there, `SHARE` by default.

    Returns:
        (B, V, 3) float32 metres, camera frame; where there is no partner, as `nobody` has it.
    """
    own = views.vertices_m.astype(np.float64)
    placed = nobody(views.vertices_m)
    wanted = SHARE if share is None else share
    rows = np.flatnonzero((rng.random(len(own)) < wanted) & there)
    if not len(rows):
        return placed
    others = _other_hands(rng, model, len(rows), shape_shift, library)
    body = _Body.of(model)
    for row, other in zip(rows, others, strict=True):
        joints = views.joints_m[row].astype(np.float64)
        lens = views.intrinsics[row].astype(np.float64)
        for _ in range(TRIES):
            vertices = _beside(rng, own[row], joints, other)
            if vertices is None or _behind(grounds[row], vertices[body.hand]) > MOST_BEHIND:
                continue
            arm = unit(vertices[body.rings[-1]].mean(axis=0) - vertices[body.rings[0]].mean(axis=0))
            led = vertices[None].astype(np.float32)
            lead_arms_away(model, led, arm[None], lens[None], crop_px)
            near = vertices[body.hand, 2].min() < NEAREST_M
            if not near and hidden_share(joints, *body.balls(led[0])) <= MOST_HIDDEN:
                placed[row] = led[0]
                break
    return placed


def nobody(vertices_m: NDArray[np.float32]) -> NDArray[np.float32]:
    """Partners of hands (B, V, 3) that have none: all vertices in one point of the labelled hand,
    which draws nothing."""
    return np.repeat(vertices_m[:, :1], vertices_m.shape[1], axis=1)


@dataclass(frozen=True, eq=False)
class _Body:
    """What of a mesh is hand and arm.

    Attributes:
        hand: (H,) its vertices. faces: (F, 3) those between them.
        rings: of the arm's vertices, from the wrist on.
    """

    hand: NDArray[np.int64]
    faces: NDArray[np.int32]
    rings: list[NDArray[np.int64]]

    @classmethod
    def of(cls, model: HandModel) -> _Body:
        height = model.asset.vertices_m[:, 1]
        is_arm = height > ARM_FROM_M
        arm = np.flatnonzero(is_arm)
        rings = np.array_split(arm[np.argsort(height[arm])], ARM_RINGS)
        faces = model.asset.faces[~is_arm[model.asset.faces].any(axis=1)]
        return cls(np.flatnonzero(~is_arm), faces, rings)

    def balls(self, vertices: NDArray[np.float32]) -> tuple[Array, Array]:
        """Centres (M, 3) and radii (M,) of what stands for a hand (V, 3) with its arm."""
        points = vertices.astype(np.float64)
        skin = np.concatenate([points[self.hand], points[self.faces].mean(axis=1)])
        middle = np.stack([points[ring].mean(axis=0) for ring in self.rings])  # (R, 3)
        # Across the arm: rings are thick along it, the more so where it is drawn out.
        along = np.gradient(middle, axis=0)
        along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
        girth = []
        for ring, centre, axis in zip(self.rings, middle, along, strict=True):
            offset = points[ring] - centre
            offset = offset - (offset @ axis)[:, None] * axis
            girth.append(np.linalg.norm(offset, axis=1).mean())
        place = np.linspace(0, len(middle) - 1, BALLS_A_RING * (len(middle) - 1) + 1)
        ring = np.arange(len(middle))
        centres = np.stack([np.interp(place, ring, middle[:, k]) for k in range(3)], axis=1)
        radii = np.concatenate([np.full(len(skin), HIDES_M), np.interp(place, ring, girth)])
        return np.concatenate([skin, centres]), radii


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


def _beside(
    rng: np.random.Generator, own: Array, joints: Array, other: tuple[Array, Array]
) -> Array | None:
    """(V, 3) a partner's vertices beside the labelled hand; None where the two would never meet.

    Args:
        own: (V, 3), joints: (21, 3) of the labelled hand. other: vertices and joints of a left one,
            in bones; it is made as large as the labelled one.
    """
    if rng.random() < MIRRORED:
        vertices, way = _mirrored(rng, own, joints)
    else:
        turn, way = _any_turn(rng), unit(rng.normal(size=3))
        bone_m = float(np.linalg.norm(joints[UNIT_BONE[1]] - joints[UNIT_BONE[0]]))
        vertices, at = (points @ turn.T * bone_m for points in other)
        # Joint to joint, so that the line on which it comes meets the hand.
        vertices = vertices + joints[rng.integers(21)] - at[rng.integers(21)]
    until = first_touch(own[::EVERY], vertices[::EVERY], way)
    if until is None:
        return None
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    return vertices + (until + rng.uniform(*GAPS_M[kind])) * way


def _behind(ground: Array, points: Array) -> float:
    """Share of points (N, 3) beyond a surface, a row of `rendering.grounds.ground`: it is drawn
    behind all hands, and would not hide them."""
    normal, offset = ground[1:4], ground[4]
    return float((points @ normal < offset).mean()) if ground[0] else 0.0


def _mirrored(rng: np.random.Generator, own: Array, joints: Array) -> tuple[Array, Array]:
    """The labelled hand's mirror image (V, 3), and the way (3,) on which it comes to it."""
    wrist, index, middle, little = joints[[0, 5, 9, 17]]
    palm = unit(np.cross(index - wrist, little - wrist))
    across = unit(np.cross(unit(middle - wrist), palm))
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
    along = (own @ way)[:, None] - other @ way  # (N, M)
    # Seen along the way, pairs lie so far apart; of points in the plane across it.
    across = np.linalg.svd(way[None])[2][1:]  # (2, 3)
    (x, y), (other_x, other_y) = across @ own.T, across @ other.T
    room = TOUCH_M**2 - (x[:, None] - other_x) ** 2 - (y[:, None] - other_y) ** 2
    if not (room >= 0).any():
        return None
    return float((along + np.sqrt(np.maximum(room, 0)))[room >= 0].max())


def hidden_share(joints: Array, centres: Array, radii: Array) -> float:
    """Of joints (J, 3), the share before which some ball lies for the camera.

    Args:
        centres: (M, 3), radii: (M,) of the balls, metres, camera frame.
    """
    distance = np.linalg.norm(joints, axis=1)
    rays = joints / distance[:, None]
    along = centres @ rays.T  # (M, J)
    beside = np.sum(centres**2, axis=1)[:, None] - along**2
    hides = (beside < radii[:, None] ** 2) & (along > 0) & (along < distance)
    return float(hides.any(axis=0).mean())


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
