"""What stands around the hands: how often, and in which order."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from handmesh_training.rendering.environments import BackgroundSet
from handmesh_training.rendering.grounds import GROUND_FLOATS, sample_ground
from handmesh_training.rendering.hands import Array, HandFrame, Hands
from handmesh_training.rendering.held import (
    sample_held,
    sample_occluder,
    sample_rings,
    sample_watch,
)
from handmesh_training.rendering.people import sample_arm, sample_person, sample_second_hand
from handmesh_training.rendering.solids import SOLID_FLOATS, SOLIDS

# Share of pictures in which each is tried; a few do not fit the hand and are left out.
SHARES = {
    "held": 0.3,
    "occluder": 0.1,
    "rings": 0.15,
    "watch": 0.16,
    "ground": 0.42,
    "person": 0.32,
    "arm": 0.1,
    "second_hand": 0.12,
}


@dataclass(frozen=True)
class Scene:
    """solids (B, SOLIDS, SOLID_FLOATS), ground (B, GROUND_FLOATS) and ground_texture (B,)."""

    solids: Array
    ground: Array
    ground_texture: npt.NDArray[np.int32]


def sample_scene(
    rng: np.random.Generator,
    count: int,
    hands: Hands | None,
    tone: Array,
    sleeve: Array,
    pictures: Sequence[BackgroundSet],
    things: Collection[str] = frozenset(SHARES),
) -> Scene:
    """Things around B hands.

    Args:
        rng: the only source of randomness.
        count: B.
        hands: where they are; None places nothing.
        tone: (B, 3) linear albedo of their skin.
        sleeve: (B,) metres up the arm where sleeves start.
        pictures: the sets of backgrounds, in the renderer's order: a ground's texture is cut
            from the last.
        things: which of `SHARES` there are at all.
    """
    scene = Scene(
        np.zeros((count, SOLIDS, SOLID_FLOATS)),
        np.zeros((count, GROUND_FLOATS)),
        np.full(count, -1, dtype=np.int32),
    )
    if hands is None:
        return scene
    # Drawn for all, so that what there is of the others does not depend on which are left out.
    wanted = {name: rng.random(count) < share for name, share in SHARES.items()}
    # Each its own generator: what fits one hand does not change what is drawn for the next.
    for i, own in enumerate(rng.spawn(count)):
        hand = hands.frame(i)
        wants = {name for name, chosen in wanted.items() if chosen[i] and name in things}
        rows = _around(own, hand, tone[i], float(sleeve[i]), wants)[:SOLIDS]
        if rows:
            scene.solids[i, : len(rows)] = rows
        if "ground" in wants:
            scene.ground[i], scene.ground_texture[i] = sample_ground(own, hand, tone[i], pictures)
    return scene


def _around(
    rng: np.random.Generator, hand: HandFrame, tone: Array, sleeve: float, wants: set[str]
) -> list[Array]:
    rows = sample_held(rng, hand) if "held" in wants else []
    if "occluder" in wants:
        rows += sample_occluder(rng, hand, tone, rows)
    # A picture without its hand shows no other one either: its label says that there is none.
    if "second_hand" in wants and hand.present:
        rows += sample_second_hand(rng, hand, tone, rows)
    if "rings" in wants and hand.present:
        rows += sample_rings(rng, hand)
    if "watch" in wants and hand.present and sleeve > 0.06:
        rows += sample_watch(rng, hand)
    if "person" in wants:
        rows += sample_person(rng, hand, tone)
    if "arm" in wants:
        rows += sample_arm(rng, hand, tone)
    return rows
