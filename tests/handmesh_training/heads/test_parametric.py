"""The parametric hand: what it can say exactly, where it starts, what it learns from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from handmesh_training import relief
from handmesh_training.hand import PIVOT_COUNT, HandModel
from handmesh_training.heads import ParametricHead
from handmesh_training.heads.parametric import mesh_hand, rotation_of_six
from handmesh_training.poses import draw_poses
from handmesh_training.sampling import HandViews, sample_views

COUNT, CROP_PX, MARGIN = 24, 128, 1.5


@pytest.fixture(scope="module")
def head() -> ParametricHead:
    torch.manual_seed(0)
    return ParametricHead(8).double()


@pytest.fixture(scope="module")
def views(hand_model: HandModel) -> HandViews:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relief, "STEEPEST", 0.0)  # no parameter of this head describes it
        return sample_views(np.random.default_rng(7), hand_model, COUNT, CROP_PX, MARGIN)


def outputs_of(views: HandViews, model: HandModel, head: ParametricHead) -> Tensor:
    """What the last layer must say of views, in closed form: (B, outputs) float64.

    The poses are drawn again from the views' seed. Intrinsics, place and turn are read off the
    camera frame's points.
    """
    poses = draw_poses(np.random.default_rng(7), model, COUNT)
    rotations = model.rotations(poses.angles).double().numpy()
    own = model.pose_joints(poses.shape, model.rotations(poses.angles)).double().numpy()
    seen = views.joints_m.astype(np.float64)
    for i in range(COUNT):
        turn, _ = Rotation.align_vectors(seen[i, 1:] - seen[i, :1], own[i, 1:] - own[i, :1])
        rotations[i, 0] = turn.as_matrix() @ rotations[i, 0]
    bone = np.linalg.norm(seen[:, 10] - seen[:, 9], axis=-1)
    wrist, (fx, fy, cx, cy) = seen[:, 0], views.intrinsics.astype(np.float64).T
    tilt = wrist[:, :2] / wrist[:, 2:]
    wrist_uv = np.stack([fx * tilt[:, 0] + cx + 0.5, fy * tilt[:, 1] + cy + 0.5], axis=1) / CROP_PX
    crop_in_bones = CROP_PX * wrist[:, 2] / fx / bone
    six = rotations[..., :2].swapaxes(-1, -2).reshape(COUNT, PIVOT_COUNT, 6)
    parts = [
        poses.shape.double(),
        (torch.from_numpy(six) - head.start_six).flatten(1),
        torch.from_numpy(wrist_uv) - head.start_uv,
        torch.from_numpy(tilt),
        torch.from_numpy(np.log(crop_in_bones / head.start_crop_in_bones))[:, None],
        torch.from_numpy(np.log(wrist[:, 2] / bone / 10.0))[:, None],
    ]
    return torch.cat(parts, dim=1)


def test_rendered_views_have_exact_parameters(
    head: ParametricHead, views: HandViews, hand_model: HandModel
) -> None:
    outputs = outputs_of(views, hand_model, head)
    assert outputs.shape == (COUNT, head.outputs)
    parameters = head.parameters_of(outputs)
    np.testing.assert_allclose(parameters.crop_in_bones, views.crop_in_bones, rtol=1e-5)
    vertices, joints = head.project(parameters)
    # The labels are float32, made of float32 points at half a metre: 1e-7 m in 0.05 m.
    np.testing.assert_allclose(joints.numpy(), views.joints, atol=2e-5)
    np.testing.assert_allclose(vertices.numpy(), views.vertices, atol=2e-5)


def test_perspective_is_needed_for_it(
    head: ParametricHead, views: HandViews, hand_model: HandModel
) -> None:
    """Far away and straight ahead, as weak perspective has it, the same hands miss their labels."""
    exact = head.parameters_of(outputs_of(views, hand_model, head))
    weak = exact._replace(
        tilt=torch.zeros_like(exact.tilt), wrist_depth=torch.full_like(exact.wrist_depth, 1e6)
    )
    _, joints = head.project(weak)
    assert (joints - torch.from_numpy(views.joints))[..., :2].abs().max() > 0.02


def test_starts_as_a_flat_upright_hand_in_the_middle(head: ParametricHead) -> None:
    with torch.no_grad():
        vertices, joints = head(torch.randn(3, 8).double())
    assert torch.equal(joints[0], joints[1])
    uv, depth = joints[0, :, :2], joints[0, :, 2]
    middle = 0.5 * (uv.amin(dim=0) + uv.amax(dim=0))
    torch.testing.assert_close(middle, torch.tensor([0.5, 0.5]).double(), atol=0.02, rtol=0)
    assert 0.6 < (uv.amax(dim=0) - uv.amin(dim=0)).max() < 0.73  # of the crop: 1 / 1.5
    assert vertices[..., :2].min() > 0.05
    assert vertices[..., :2].max() < 0.95
    for base in (5, 9, 13, 17):
        finger = uv[base : base + 4]
        assert torch.all(finger.diff(dim=0)[:, 1] < 0)  # up, joint by joint
        # Straight, and in the palm's plane.
        steps = joints[0, base : base + 4].diff(dim=0)
        steps = steps / steps.norm(dim=-1, keepdim=True)
        assert (steps[:1] * steps[1:]).sum(-1).min() > 0.99
        assert depth[base : base + 4].abs().max() < 0.25
    assert uv[2, 0] > uv[5, 0] > uv[17, 0]  # a right hand's palm: the thumb on the right


def test_every_output_is_learnt(views: HandViews) -> None:
    """At the start, and from a state with every parameter in use, in float32."""
    torch.manual_seed(0)
    head = ParametricHead(8)
    target = torch.from_numpy(views.vertices)
    for spread in (0.0, 0.1):
        outputs = (spread * torch.randn(COUNT, head.outputs)).requires_grad_()
        vertices, _ = head.project(head.parameters_of(outputs))
        (vertices - target).square().sum().backward()
        assert outputs.grad is not None
        assert outputs.grad.isfinite().all()
        # Six numbers say a rotation, which has three: a length of either column changes nothing.
        idle = (outputs.grad.abs().amax(dim=0) < 1e-7).nonzero()[:, 0].tolist()
        if spread:
            assert idle == []
        others = {*range(head.hand.shape_count), *range(head.outputs - 6, head.outputs)}
        assert not others & set(idle)
    # The weights before the last layer learn as soon as that has made one step.
    optimizer = torch.optim.SGD(head.parameters(), 1e-4)
    for _ in range(2):
        loss = (head(torch.ones(COUNT, 8))[0] - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in head.parameters())


def test_gradient_against_finite_differences(head: ParametricHead) -> None:
    rng = torch.Generator().manual_seed(0)
    outputs = 0.2 * torch.randn(1, head.outputs, generator=rng, dtype=torch.float64)
    outputs.requires_grad_()
    weights = torch.randn(21, 3, generator=rng, dtype=torch.float64)

    def value(outputs: Tensor) -> Tensor:
        vertices, joints = head.project(head.parameters_of(outputs))
        return (joints * weights).sum() + (vertices[:, ::50] ** 2).sum()

    assert torch.autograd.gradcheck(value, (outputs,), atol=1e-5, rtol=1e-4)


def test_wild_parameters_give_numbers() -> None:
    """A hand behind the camera, no bone, no rotation: still finite, value and gradient."""
    head = ParametricHead(8)
    outputs = 3 * torch.randn(64, head.outputs, generator=torch.Generator().manual_seed(1))
    six = slice(head.hand.shape_count, head.outputs - 6)
    outputs[0] = 0
    outputs[0, six] = -head.start_six.flatten()
    outputs[1:4, -1] = -6.0
    outputs[4, head.hand.shape_names.index("middle_bone_1_length")] = -10.0
    outputs.requires_grad_()
    vertices, joints = head.project(head.parameters_of(outputs))
    (vertices.sum() + joints.sum()).backward()
    assert vertices.isfinite().all()
    assert joints.isfinite().all()
    assert outputs.grad is not None
    assert outputs.grad.isfinite().all()


def test_six_numbers_of_a_rotation_are_its_first_columns() -> None:
    rotations = Rotation.random(50, rng=np.random.default_rng(0)).as_matrix()
    six = torch.from_numpy(rotations[..., :2].swapaxes(-1, -2).reshape(50, 6).copy())
    np.testing.assert_allclose(rotation_of_six(six), rotations, atol=1e-12)
    # Lengths of the columns, and a share of the first in the second, make no difference.
    stretched = torch.cat([3 * six[:, :3], 0.5 * six[:, 3:] - six[:, :3]], dim=1)
    np.testing.assert_allclose(rotation_of_six(stretched), rotations, atol=1e-12)


def test_the_cut_hand_is_the_hand(hand_model: HandModel) -> None:
    poses = draw_poses(np.random.default_rng(2), hand_model, 4)
    rotations = hand_model.rotations(poses.angles)
    whole, cut = hand_model(poses.shape, rotations), mesh_hand()(poses.shape, rotations)
    subset = torch.from_numpy(hand_model.asset.template_subset).long()
    torch.testing.assert_close(cut.vertices, whole.vertices[:, subset], atol=1e-7, rtol=0)
    assert torch.equal(cut.joints, whole.joints)
