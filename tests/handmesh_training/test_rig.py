"""Joint rotations against the hand model that training renders, which knows them exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from handmesh.errors import InputError
from handmesh.graph import Topology
from handmesh.rig import TURNING, Pose, Rig, pose_of, quaternions, rotation_matrices
from handmesh.types import JOINT_PARENTS, Box, Camera, Hand
from handmesh_training.hand import FOREARM, PIVOT_JOINTS, HandAsset, HandModel
from handmesh_training.limits import angle_limits
from handmesh_training.poses import draw_poses
from handmesh_training.template import rig as build

Array = NDArray[np.float64]
COUNT = 60


def seen(vertices: Array, joints: Array, left: bool = False) -> Hand:
    """A hand half a metre away; mirrored, a left one."""
    flip = (-1, 1, 1) if left else (1, 1, 1)
    faces = Topology.default().faces
    return Hand(
        vertices_m=(vertices + (0.03, 0.02, 0.5)) * flip,
        faces=faces[:, ::-1] if left else faces,
        joints_m=(joints + (0.03, 0.02, 0.5)) * flip,
        joints_px=np.zeros((21, 2)),
        vertices_px=np.zeros((len(vertices), 2)),
        confidence=np.ones(21),
        presence=1.0,
        handedness="left" if left else "right",
        depth="metric",
        box=Box(0, 0, 1),
        camera=Camera.default(640, 480),
    )


def posed(people: bool) -> tuple[Array, Array, Array]:
    """Vertices (N, V, 3), joints (N, 21, 3) and rotations (N, 16, 3, 3) that they were made by."""
    rng = np.random.default_rng(0)
    model = HandModel()
    if people:
        poses = draw_poses(rng, model, COUNT)
        angles, shape = poses.angles, poses.shape
    else:
        limits = angle_limits()
        drawn = rng.uniform(limits[..., 0], limits[..., 1], (COUNT, *limits.shape[:2]))
        drawn[:, FOREARM] = 0
        angles, shape = torch.from_numpy(drawn).float(), torch.zeros(COUNT, model.shape_count)
    rotations = model.rotations(angles)
    rotations[:, 0] = torch.from_numpy(Rotation.random(COUNT, random_state=1).as_matrix()).float()
    with torch.no_grad():
        vertices, joints = model(shape, rotations)
    subset = model.asset.template_subset
    return vertices[:, subset].numpy(), joints.numpy(), rotations[:, :FOREARM].double().numpy()


def degrees_off(pose: Pose, rotations: Array) -> Array:
    found = Rotation.from_quat(pose.rotations[list(TURNING)])
    return np.degrees((Rotation.from_matrix(rotations).inv() * found).magnitude())


# Of people the shape is unknown to the rig, and their forearms bend the skin of the palm.
@pytest.mark.parametrize(("people", "mean", "p95"), [(False, 0.8, 2.5), (True, 1.5, 3.5)])
def test_known_rotations_are_recovered(people: bool, mean: float, p95: float) -> None:
    vertices, joints, rotations = posed(people)
    errors = np.array(
        [
            degrees_off(pose_of(seen(v, j)), r)
            for v, j, r in zip(vertices, joints, rotations, strict=True)
        ]
    )  # (N, 16)
    assert errors.mean() < mean
    assert np.percentile(errors, 95) < p95


def test_twist_comes_from_the_skin_not_from_the_joints() -> None:
    # A straight finger turned about itself: its joints stay, its skin turns.
    model = HandModel()
    angles = torch.zeros(1, 17, 3)
    found = []
    for twist in (-10.0, 10.0):
        angles[0, 4, 0] = np.deg2rad(twist)
        with torch.no_grad():
            v, j = model(torch.zeros(1, model.shape_count), model.rotations(angles))
        pose = pose_of(seen(v[0, model.asset.template_subset].numpy(), j[0].numpy()))
        found.append(Rotation.from_quat(pose.rotations[5]))
    turn = found[0].inv() * found[1]
    assert np.degrees(turn.magnitude()) == pytest.approx(20, abs=3)


def test_the_posed_skeleton_gives_the_joints_back() -> None:
    vertices, joints, _ = posed(people=True)
    for v, j in zip(vertices, joints, strict=True):
        hand = seen(v, j)
        np.testing.assert_allclose(pose_of(hand).joints_m(), hand.joints_m, atol=1e-6)
    # The template's own skeleton, which any rig has scaled to its size: within 2 mm.
    rest = Rig.default().joints_m
    offsets = rest - rest[np.maximum(JOINT_PARENTS, 0)]
    vertices, joints, _ = posed(people=False)
    for v, j in zip(vertices, joints, strict=True):
        hand = seen(v, j)
        off = np.linalg.norm(pose_of(hand).joints_m(offsets) - hand.joints_m, axis=1)
        assert off.max() < 2e-3


def test_a_left_hand_is_turned_as_the_mirror_image_of_a_right_one() -> None:
    vertices, joints, _ = posed(people=True)
    mirror = np.diag([-1.0, 1, 1])
    for v, j in zip(vertices[:20], joints[:20], strict=True):
        right, left = pose_of(seen(v, j)), pose_of(seen(v, j, left=True))
        expected = mirror @ Rotation.from_quat(right.rotations).as_matrix() @ mirror
        np.testing.assert_allclose(
            Rotation.from_quat(left.rotations).as_matrix(), expected, atol=1e-9
        )
        np.testing.assert_allclose(left.joints_m(), seen(v, j, left=True).joints_m, atol=1e-6)
        assert (left.side, right.side) == ("left", "right")
        # What the hand is called does not matter: in a mirrored photo it is a right one.
        mirrored = replace(seen(v, j, left=True), handedness="right")
        np.testing.assert_array_equal(mirrored.pose().rotations, left.rotations)


def test_the_rest_skeleton_is_not_turned() -> None:
    topology = Topology.default()
    joints = topology.joint_regressor.astype(np.float64) @ topology.template_vertices_m
    for left in (False, True):
        pose = pose_of(seen(topology.template_vertices_m, joints, left))
        np.testing.assert_allclose(pose.rotations, np.tile([0, 0, 0, 1], (21, 1)), atol=1e-5)
        rest = Rig.default("left" if left else "right")
        np.testing.assert_allclose(pose.joints_m() - pose.wrist_m, rest.joints_m, atol=1e-6)


def test_the_shipped_weights_are_those_of_the_training_asset() -> None:
    asset = HandAsset.load()
    rig = Rig.default()
    weights = asset.weights[asset.template_subset].astype(np.float64)  # (V, 17)
    assert PIVOT_JOINTS[FOREARM] == 0  # folded into the wrist
    expected = np.zeros((len(weights), 21))
    for pivot, joint in enumerate(PIVOT_JOINTS):
        expected[:, joint] += weights[:, pivot]
    np.testing.assert_allclose(rig.weights, expected, atol=1e-6)
    np.testing.assert_allclose(rig.weights.sum(axis=1), 1)
    assert ((rig.weights > 0).sum(axis=1) <= 4).all()
    assert build.main(["--check"]) == 0


def test_quaternions_against_scipy() -> None:
    turns = Rotation.random(500, random_state=2)
    half = Rotation.from_rotvec(np.pi * np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0.8, 0]]))
    for rotation in (turns, half):
        found = quaternions(rotation.as_matrix())
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
        assert (found[:, 3] >= 0).all()
        np.testing.assert_allclose(np.abs((found * rotation.as_quat()).sum(axis=1)), 1, atol=1e-12)
        np.testing.assert_allclose(rotation_matrices(found), rotation.as_matrix(), atol=1e-12)


def test_other_meshes_and_bones_without_length_are_refused() -> None:
    topology = Topology.default()
    joints = topology.joint_regressor.astype(np.float64) @ topology.template_vertices_m
    small = Hand(
        **{
            **{n: getattr(seen(topology.template_vertices_m, joints), n) for n in (
                "joints_m", "joints_px", "confidence", "presence", "handedness", "depth", "box",
                "camera",
            )},
            "vertices_m": np.zeros((3, 3)),
            "vertices_px": np.zeros((3, 2)),
            "faces": [[0, 1, 2]],
        }
    )  # fmt: skip
    with pytest.raises(InputError, match="mesh of 3 is another"):
        small.pose()
    joints[7] = joints[6]
    with pytest.raises(InputError, match="index_pip and index_dip lie in one place"):
        seen(topology.template_vertices_m, joints).pose()
