"""Kinematics and skinning against the body that the hand came from, posed by its own library.

`HandModel` moves the knuckles' pivots, weights their skin anew, widens the palm and bends by dual
quaternions, so its hands are not those of anny. What it does with pivots and weights can be
compared all the same: here it is given anny's own vertices, none left out, anny's bone heads and
anny's weights. Both are told the bones' turns from rest, and nothing else: where bones and skin
come to lie is for each to say.

Tolerance: both compute in float32, anny about a metre from its origin, where a float is 1e-7 m
apart from the next. A chain of five bones and a blend of them may err by ten of these: 1e-6 m. A
bone forgotten, or turned about another pivot, shows as millimetres.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from handmesh_training.bones import dual_quaternion_skinning
from handmesh_training.hand import FOREARM, PIVOT_COUNT, PIVOT_PARENTS, HandAsset, HandModel
from handmesh_training.template.build import joint_regressor

anny = pytest.importorskip("anny", reason="the template's source, anny, is not installed")

Array = NDArray[np.float64]

TOLERANCE_M = 1e-6
POSES = 6
# The bone that turns at each pivot; those of the palm turn with the wrist.
BONES = [
    "wrist.R",
    *(f"finger{finger}-{k}.R" for finger in range(1, 6) for k in (1, 2, 3)),
    "lowerarm02.R",
]


@dataclass(frozen=True, eq=False)
class Posed:
    """Anny's right forearm and hand, and what anny makes of it. Its own frame, metres.

    Attributes:
        rest: (V, 3). weights: (V, 17) of our pivots. heads: (17, 3) of `BONES`.
        turns: (POSES, 17, 3, 3) of each bone from rest. ways: skinning method -> (POSES, V, 3).
    """

    rest: Array
    weights: Array
    heads: Array
    turns: Array
    ways: dict[str, Array]


@pytest.fixture(scope="module")
def posed() -> Posed:
    body: Any = anny.Anny(rig="anny", topology="anny")
    names = list(body.bone_labels)
    pivots = [names.index(name) for name in BONES]
    # Turns of each bone from rest: fingers bend on the wrist, the wrist on the arm, which stays.
    rng = np.random.default_rng(0)
    local = Rotation.from_rotvec(rng.normal(0, 0.35, (POSES * FOREARM, 3))).as_matrix()
    turns = np.broadcast_to(np.eye(3), (POSES, len(names), 3, 3)).copy()
    for pivot, turn in enumerate(local.reshape(POSES, FOREARM, 3, 3).swapaxes(0, 1)):
        parent = PIVOT_PARENTS[pivot]
        turns[:, pivots[pivot]] = turn if parent < 0 else turns[:, pivots[parent]] @ turn
    for bone, name in enumerate(names):
        if name.startswith("metacarpal") and name.endswith(".R"):
            turns[:, bone] = turns[:, pivots[0]]
    with torch.no_grad():
        rest_poses = body()["rest_bone_poses"].numpy().astype(np.float64)  # (1, bones, 4, 4)
    wanted = np.broadcast_to(rest_poses, (POSES, len(names), 4, 4)).copy()
    wanted[..., :3, :3] = turns @ rest_poses[..., :3, :3]
    ways = {}
    for way in ("lbs", "dqs"):
        body.set_skinning_method(way)
        with torch.no_grad():
            out = body(
                pose_parameters=torch.from_numpy(wanted).float(),
                pose_parameterization="world-orient",
            )
        ways[way] = out["vertices"].numpy().astype(np.float64)

    whole = np.zeros((len(body.template_vertices), len(names)))
    indices, shares = body.vertex_bone_indices.numpy(), body.vertex_bone_weights.numpy()
    np.add.at(whole, (np.arange(len(whole))[:, None], indices), shares)
    weights = whole[:, pivots]
    weights[:, FOREARM] += whole[:, names.index("lowerarm01.R")]
    weights[:, 0] += whole[:, [names.index(f"metacarpal{k}.R") for k in range(1, 5)]].sum(axis=1)
    part = np.isclose(weights.sum(axis=1), 1, atol=1e-6)
    assert part.sum() > 1000
    return Posed(
        out["rest_vertices"][0].numpy().astype(np.float64)[part],
        weights[part],
        rest_poses[0, pivots, :3, 3],
        turns[:, pivots],
        {way: vertices[:, part] for way, vertices in ways.items()},
    )


def model_of(posed: Posed) -> HandModel:
    """Our model of anny's hand: wrist at the origin, joints at anny's bone heads."""
    rest, heads = posed.rest - posed.heads[0], posed.heads - posed.heads[0]
    joints = np.zeros((21, 3))
    for finger in range(5):
        chain = heads[1 + 3 * finger : 4 + 3 * finger]
        joints[1 + 4 * finger : 4 + 4 * finger] = chain
        joints[4 + 4 * finger] = 2 * chain[2] - chain[1]  # a tip, about which nothing turns
    asset = HandAsset.load()
    return HandModel(
        replace(
            asset,
            vertices_m=rest.astype(np.float32),
            weights=posed.weights.astype(np.float32),
            shape_directions_m=np.zeros((len(asset.shape_names), *rest.shape), dtype=np.float32),
            joint_regressor=joint_regressor(rest, joints).astype(np.float32),
        ),
        blending="linear",
    )


def local_turns(turns: Array) -> Array:
    """(B, 17, 3, 3) of each bone in its parent's frame, as the model takes them."""
    local = turns.copy()
    for pivot, parent in enumerate(PIVOT_PARENTS):
        if parent >= 0:
            local[:, pivot] = np.swapaxes(turns[:, parent], -1, -2) @ turns[:, pivot]
    return local


def test_the_poses_are_poses(posed: Posed) -> None:
    moved = np.linalg.norm(posed.ways["lbs"] - posed.rest, axis=-1)
    assert moved.max(axis=1).min() > 0.03
    apart = np.linalg.norm(posed.ways["lbs"] - posed.ways["dqs"], axis=-1)
    assert apart.max() > 100 * TOLERANCE_M, "the two ways of skinning differ"


def test_a_linear_blend_poses_as_anny_does(posed: Posed) -> None:
    model = model_of(posed)
    rotations = torch.from_numpy(local_turns(posed.turns)).float()
    with torch.no_grad():
        ours = model(torch.zeros(POSES, model.shape_count), rotations).vertices.double().numpy()

    error = np.linalg.norm(ours + posed.heads[0] - posed.ways["lbs"], axis=-1)

    assert error.max() < TOLERANCE_M


def test_dual_quaternions_bend_as_annys_do(posed: Posed) -> None:
    """The blend alone: the model leaves the webs between fingers to matrices."""
    model = model_of(posed)
    rotations = torch.from_numpy(local_turns(posed.turns)).float()
    with torch.no_grad():
        turns, shifts = model.pose_bones(torch.zeros(POSES, model.shape_count), rotations)
        quaternions = np.roll(Rotation.from_matrix(turns.numpy().reshape(-1, 3, 3)).as_quat(), 1, 1)
        quaternions *= np.sign(quaternions[:, :1])  # w first, and no bone turns by 180 degrees
        ours = dual_quaternion_skinning(
            model.vertices.expand(POSES, -1, -1),
            model.weights,
            torch.from_numpy(quaternions).float().reshape(POSES, PIVOT_COUNT, 4),
            shifts,
        )

    error = np.linalg.norm(ours.double().numpy() + posed.heads[0] - posed.ways["dqs"], axis=-1)

    assert error.max() < TOLERANCE_M
