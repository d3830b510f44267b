"""Direct LBS: poses found again from their joints, and joints that are no hand's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation
from torch import Tensor

from handmesh.errors import InputError
from handmesh_training.hand import PIVOT_COUNT, PIVOT_JOINTS, HandModel
from handmesh_training.heads import fit_pose, skin_joints
from handmesh_training.heads.inverse_kinematics import swing
from handmesh_training.poses import draw_poses

COUNT = 12


@pytest.fixture(scope="module", params=["dual_quaternion", "linear"])
def model(request: pytest.FixtureRequest) -> HandModel:
    return HandModel(blending=request.param)


def swung(model: HandModel, largest_deg: float) -> Tensor:
    """(B, 17, 3, 3): every finger bone turned about an axis across it; the hand turned at random.

    By scipy, from rotation vectors.
    """
    rng = np.random.default_rng(0)
    joints = model.joints.double().numpy()
    vectors = np.zeros((COUNT, PIVOT_COUNT, 3))
    for pivot in range(1, 16):
        bone = joints[PIVOT_JOINTS[pivot] + 1] - joints[PIVOT_JOINTS[pivot]]
        across = np.cross(bone, rng.normal(size=(COUNT, 3)))
        across /= np.linalg.norm(across, axis=1, keepdims=True)
        vectors[:, pivot] = across * np.deg2rad(rng.uniform(0, largest_deg, (COUNT, 1)))
    matrices = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix()
    matrices = matrices.reshape(COUNT, PIVOT_COUNT, 3, 3)
    matrices[:, 0] = Rotation.random(COUNT, rng=rng).as_matrix()
    return torch.from_numpy(matrices)


def placed(points: Tensor, scale: Tensor, root: Tensor) -> Tensor:
    return points * scale[:, None, None] + root[:, None]


def test_swings_are_found_again(model: HandModel) -> None:
    rotations = swung(model, 120.0).float()
    shape = torch.zeros(COUNT, model.shape_count)
    scale, root = torch.linspace(0.7, 1.3, COUNT), torch.randn(COUNT, 3)
    root[:, 2] += 0.5
    posed = model(shape, rotations)
    joints = placed(posed.joints, scale, root)

    found, found_scale, found_root = fit_pose(model, joints)
    again = placed(model.pose_joints(shape, found), found_scale, found_root)
    assert (again - joints).norm(dim=-1).max() < 1e-5  # 0.01 mm
    torch.testing.assert_close(found_scale, scale, atol=1e-5, rtol=0)
    assert torch.equal(found_root, joints[:, 0])
    torch.testing.assert_close(found, rotations, atol=1e-4, rtol=0)

    subset = torch.from_numpy(model.asset.template_subset).long()
    mesh = skin_joints(model, joints)
    assert mesh.shape == (COUNT, len(subset), 3)
    truth = placed(posed.vertices[:, subset], scale, root)
    assert (mesh - truth).norm(dim=-1).max() < 2e-5  # 0.02 mm


def test_joints_of_any_pose_with_the_templates_proportions(double_model: HandModel) -> None:
    """Twists do not show in the joints; their positions do not depend on them either."""
    angles = torch.from_numpy(np.random.default_rng(0).uniform(-0.9, 0.9, (COUNT, 17, 3)))
    joints = double_model.pose_joints(
        torch.zeros(COUNT, double_model.shape_count).double(), double_model.rotations(angles)
    )
    found, scale, root = fit_pose(double_model, joints)
    again = double_model.pose_joints(torch.zeros(COUNT, double_model.shape_count).double(), found)
    # The asset's axes are unit vectors in float32, so the turns about them are not quite rotations.
    torch.testing.assert_close(placed(again, scale, root), joints, atol=1e-7, rtol=0)


def test_bones_of_other_hands_point_where_they_should(hand_model: HandModel) -> None:
    """Of hands of all shapes, directions, place and size are kept; lengths are the template's."""
    poses = draw_poses(np.random.default_rng(3), hand_model, 16)
    joints = hand_model.pose_joints(poses.shape, hand_model.rotations(poses.angles))
    rotations, scale, root = fit_pose(hand_model, joints)
    shape = torch.zeros(16, hand_model.shape_count)
    again = placed(hand_model.pose_joints(shape, rotations), scale, root)
    starts = [PIVOT_JOINTS[pivot] for pivot in range(1, 16)]
    ends = [joint + 1 for joint in starts]
    wanted = F.normalize(joints[:, ends] - joints[:, starts], dim=-1)
    found = F.normalize(again[:, ends] - again[:, starts], dim=-1)
    assert (wanted * found).sum(-1).min() > 1 - 1e-5
    torch.testing.assert_close(
        (again[:, 10] - again[:, 9]).norm(dim=-1), (joints[:, 10] - joints[:, 9]).norm(dim=-1)
    )
    # No exact fit, or the test would not be about other hands; but near.
    error = (again - joints).norm(dim=-1).mean()
    assert 1e-3 < error < 1e-2


def test_palm_is_the_least_squares_rotation(hand_model: HandModel) -> None:
    rng = np.random.default_rng(5)
    rest = hand_model.joints.double().numpy()
    joints = rest + rng.normal(0, 0.01, rest.shape)
    rotations, _, _ = fit_pose(hand_model, torch.from_numpy(joints)[None])
    bases = [1, 5, 9, 13, 17]
    expected, _ = Rotation.align_vectors(joints[bases] - joints[0], rest[bases] - rest[0])
    np.testing.assert_allclose(rotations[0, 0].numpy(), expected.as_matrix(), atol=1e-9)


def test_a_mirrored_palm_is_turned_not_reflected(hand_model: HandModel) -> None:
    """The other hand's joints: no rotation fits, and none may turn the mesh inside out."""
    joints = hand_model.joints[None] * torch.tensor([-1.0, 1.0, 1.0])
    rotations, _, _ = fit_pose(hand_model, joints)
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(1, 17))


def degenerate(model: HandModel) -> dict[str, Tensor]:
    rest = model.joints
    line = torch.linspace(0, 0.2, 21)[:, None] * torch.tensor([0.0, -1.0, 0.0])
    folded = rest.clone()
    for base in (1, 5, 9, 13, 17):  # the second bone back along the first, the third forth again
        folded[base + 2] = folded[base]
        folded[base + 3] = folded[base + 1]
    straight = rest.clone()
    for base in (1, 5, 9, 13, 17):
        step = (rest[base] - rest[0]) / 3
        straight[base : base + 4] = rest[base] + torch.arange(4.0)[:, None] * step
    backwards = rest.clone()
    for base in (1, 5, 9, 13, 17):  # every bone turned by 180 degrees at its base
        backwards[base + 1 : base + 4] = 2 * rest[base] - rest[base + 1 : base + 4]
    tip = rest.clone()
    tip[4::4] = tip[3::4]
    return {
        "one point": torch.zeros(21, 3) + 0.3,
        "one line": line,
        "folded back": folded,
        "straight fingers": straight,
        "backwards": backwards,
        "tips on the joints before": tip,
        "flat": rest * torch.tensor([1.0, 1.0, 0.0]),
        "no middle bone": torch.where(torch.arange(21)[:, None] == 10, rest[9], rest),
    }


def test_joints_of_no_hand_give_numbers_all_the_same(model: HandModel) -> None:
    cases = degenerate(model)
    joints = torch.stack(list(cases.values()))
    rotations, scale, _ = fit_pose(model, joints)
    identity = torch.eye(3).expand_as(rotations)
    torch.testing.assert_close(rotations @ rotations.mT, identity, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(rotations.shape[:2]))
    assert scale.isfinite().all()
    mesh = skin_joints(model, joints)
    assert mesh.isfinite().all(), [
        name for name, m in zip(cases, mesh, strict=True) if not m.isfinite().all()
    ]


@pytest.mark.parametrize("case", ["folded back", "straight fingers", "backwards"])
def test_directions_survive_half_turns(hand_model: HandModel, case: str) -> None:
    joints = degenerate(hand_model)[case][None]
    rotations, _, _ = fit_pose(hand_model, joints)
    again = hand_model.pose_joints(torch.zeros(1, hand_model.shape_count), rotations)
    starts = [PIVOT_JOINTS[pivot] for pivot in range(1, 16)]
    ends = [joint + 1 for joint in starts]
    wanted = F.normalize(joints[:, ends] - joints[:, starts], dim=-1)
    found = F.normalize(again[:, ends] - again[:, starts], dim=-1)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_a_coincident_tip_leaves_its_bone_in_line(hand_model: HandModel) -> None:
    joints = degenerate(hand_model)["tips on the joints before"][None]
    rotations, _, _ = fit_pose(hand_model, joints)
    torch.testing.assert_close(rotations[0, 3:16:3], torch.eye(3).expand(5, 3, 3))


@pytest.mark.parametrize(
    "degrees", [0.0, 1e-6, 1.0, 90.0, 179.0, 179.999, 180 - 1e-5, 180 - 1e-9, 180.0]
)
def test_swing_is_the_smallest_rotation(degrees: float) -> None:
    """By its angle, which is that between the vectors, and its axis, across both."""
    rng = np.random.default_rng(1)
    a = F.normalize(torch.from_numpy(rng.normal(size=(8, 3))), dim=-1)
    hinge = F.normalize(torch.linalg.cross(a, torch.from_numpy(rng.normal(size=(8, 3)))), dim=-1)
    angle = math.radians(degrees)
    b = math.cos(angle) * a + math.sin(angle) * torch.linalg.cross(hinge, a)
    turn = swing(a, b, hinge)
    torch.testing.assert_close((turn @ a[..., None])[..., 0], b, atol=1e-7, rtol=0)
    expected = Rotation.from_rotvec(hinge.numpy() * angle).as_matrix()
    np.testing.assert_allclose(turn.numpy(), expected, atol=1e-4)
    torch.testing.assert_close(
        turn @ turn.mT, torch.eye(3).double().expand(8, 3, 3), atol=1e-6, rtol=0
    )


def test_no_gradient_is_kept(hand_model: HandModel) -> None:
    joints = hand_model.joints[None].clone().requires_grad_()
    assert not skin_joints(hand_model, joints).requires_grad


@pytest.mark.parametrize("shape", [(21, 3), (1, 20, 3), (1, 21, 2)])
def test_other_shapes_are_refused(hand_model: HandModel, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected \(B, 21, 3\) joints"):
        fit_pose(hand_model, torch.zeros(shape))


def test_what_is_not_a_number_is_refused(hand_model: HandModel) -> None:
    joints = hand_model.joints[None].clone()
    joints[0, 4, 1] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        skin_joints(hand_model, joints)
