"""Another hand, registered and rendered: ours, bent and bulged, is found again; labels are true."""

from __future__ import annotations

import copy
from pathlib import Path

import made_hand
import numpy as np
import pytest

from handmesh.errors import CheckpointError, ImageError, InputError
from handmesh.graph import Topology
from handmesh_training.cropped_set import build
from handmesh_training.hand import HandModel
from handmesh_training.other_hand import OtherHand
from handmesh_training.other_hand.closest import ClosestPoints, vertex_normals
from handmesh_training.poses import capsules_of, draw_poses, self_collides
from handmesh_training.rendered import HandRenderer, RenderSettings
from handmesh_training.rendering.skins import atlas_fractions
from handmesh_training.rendering.textures import srgb_to_linear
from handmesh_training.shards import SetSettings
from handmesh_training.stand_in import RenderedSamples

pytestmark = pytest.mark.usefixtures("quick_surroundings")

MM = 1000.0


@pytest.fixture(scope="module")
def folder(hand_model: HandModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    gltf = made_hand.described(hand_model, made_hand.made_hand(hand_model))
    return made_hand.write(tmp_path_factory.mktemp("hand"), gltf)


@pytest.fixture(scope="module")
def other(folder: Path) -> OtherHand:
    return OtherHand.load(folder)


def test_our_own_hand_is_found_again(hand_model: HandModel, other: OtherHand) -> None:
    made = made_hand.made_hand(hand_model)
    asset = hand_model.asset
    hand = np.flatnonzero(asset.vertices_m[:, 1] < 0.012)

    assert other.agreement.share > 0.99
    assert other.agreement.mean_mm < 0.1
    assert other.agreement.p95_mm < 0.3
    assert other.shape_alone.mean_mm > 4 * other.agreement.mean_mm
    # Every vertex, not only the surface: how far it slid along is not seen, but is not far.
    off = MM * np.linalg.norm(other.bound_m - made.vertices, axis=1)[hand]
    assert off.mean() < 0.9
    assert np.percentile(off, 95) < 1.8
    joints = asset.joint_regressor.astype(np.float64)
    off = MM * np.linalg.norm(joints @ (other.bound_m - made.vertices), axis=1)
    assert off.mean() < 0.8
    assert off.max() < 1.8


def test_our_arm_goes_on_from_the_wrist(hand_model: HandModel, other: OtherHand) -> None:
    """Its edges are about as long as ever, and turned little, there and in the rest of the hand."""
    asset = hand_model.asset
    edges = asset.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    ours, theirs = (
        a.vertices_m[edges[:, 1]].astype(np.float64) - a.vertices_m[edges[:, 0]]
        for a in (asset, other.asset)
    )
    arm = (asset.vertices_m[edges, 1] > 0.012).all(axis=1)
    length = [np.linalg.norm(edge, axis=1) for edge in (ours, theirs)]
    assert np.quantile(length[1][arm] / length[0][arm], [0.0, 1.0]) == pytest.approx(1.15, abs=0.5)
    along = (ours * theirs).sum(axis=1) / (length[0] * length[1])
    assert along[arm].min() > 0.85
    facing = [vertex_normals(a.vertices_m.astype(float), asset.faces) for a in (asset, other.asset)]
    assert (facing[0] * facing[1]).sum(axis=1).min() > 0.5, "nothing is folded over"


def test_the_pose_of_the_model_gives_its_surface(other: OtherHand) -> None:
    """Through the rest pose and back, by the bones of the shape that was found."""
    asset = other.asset
    np.testing.assert_allclose((asset.joint_regressor @ asset.vertices_m)[0], 0, atol=1e-7)
    surface = ClosestPoints(other.source.vertices_m, other.source.faces)
    normals = vertex_normals(other.bound_m, asset.faces)
    found = surface(other.bound_m, normals).distance_m
    hand = asset.vertices_m[:, 1] < 0
    assert MM * np.percentile(found[hand], 95) < 0.3


def test_colours_are_where_the_model_has_them(other: OtherHand) -> None:
    """Its texture is a ramp over our own atlas: so must be what is baked."""
    asset, skins = other.asset, other.skins
    assert len(skins) == 2
    corners = asset.corner_uv[asset.hand_faces & (asset.vertices_m[asset.faces, 1] < 0).all(axis=1)]
    middle = corners.mean(axis=1)  # (F, 2) atlas, v up
    for number in range(2):
        image = skins.textures.image(number)
        size = np.array(image.shape[1::-1])
        place = (atlas_fractions(middle, skins.region) * size).astype(int)
        got = image[place[:, 1], place[:, 0]]
        blue = np.full(len(middle), 0.3 + 0.3 * number)
        wanted = np.stack([0.2 + 0.6 * middle[:, 0], 0.2 + 0.6 * (1 - middle[:, 1]), blue], axis=-1)
        off = np.abs(got - srgb_to_linear(wanted))
        # A hundredth of a ramp is 1.6 % of the atlas: a good millimetre of hand, and rounding.
        assert np.median(off) < 0.004
        assert np.percentile(off, 98) < 0.015
    arm = skins.reference[:, 2]
    np.testing.assert_allclose(arm, srgb_to_linear([0.3, 0.6]), rtol=0.02)


def test_samples_are_of_the_other_hand_and_labels_are_true(
    hand_model: HandModel, folder: Path, other: OtherHand
) -> None:
    settings = RenderSettings(crop_px=48, empty=0.0, other_hand=folder)
    renderer = HandRenderer(settings, seed=3)
    assert renderer.model.asset.sha256 == other.asset.sha256
    np.testing.assert_array_equal(renderer.mesh.hand, hand_model.asset.hand_faces)
    record = renderer.records([5])[0]
    assert record.vertices_m.shape == (Topology.default().vertex_count, 3)
    views = renderer.draw(range(16)).views
    fine = views.vertices_m.astype(np.float64)
    # Close to a straight finger the regressed joints of the posed mesh are those of the skeleton.
    regressed = np.einsum("jv,bvc->bjc", other.asset.joint_regressor, fine)
    off = MM * np.linalg.norm(regressed - views.joints_m, axis=-1)
    plain = HandRenderer(RenderSettings(crop_px=48, empty=0.0), 3).draw(range(16)).views
    regressed = np.einsum("jv,bvc->bjc", hand_model.asset.joint_regressor, plain.vertices_m)
    usual = MM * np.linalg.norm(regressed - plain.joints_m, axis=-1)
    assert off.mean() < 1.5 * usual.mean() + 0.1


def test_hands_do_not_run_into_themselves(other: OtherHand) -> None:
    model = HandModel(other.asset)
    poses = draw_poses(np.random.default_rng(1), model, 128, other.gestures)
    angles, shape = poses.angles.double().numpy(), poses.shape.double().numpy()
    assert not self_collides(model, capsules_of(model), angles, shape).any()


@pytest.mark.usefixtures("other")
def test_without_another_hand_nothing_changes(folder: Path) -> None:
    plain = RenderSettings(crop_px=32)
    before = HandRenderer(plain, 3).crops(range(6))
    HandRenderer(RenderSettings(crop_px=32, other_hand=folder), 3).crops(range(6))
    after = HandRenderer(RenderSettings(crop_px=32, other_hand=None), 3).crops(range(6))
    np.testing.assert_array_equal(before.images, after.images)
    np.testing.assert_array_equal(before.vertices, after.vertices)
    # Cropped sets go by these words, and by the sources that made them.
    words, _, _ = RenderedSamples(RenderSettings(crop_px=64), 3, 2).split.partition(", engine ")
    assert words == (
        "seed 3, RenderSettings(skins=None, environments=None, backgrounds=None, crop_px=64, "
        "margin=1.9, empty=0.05, shape_shift=()), DepthSensor(noise_m=0.0, step_m=0.0, holes=0.0)"
    )
    more = RenderedSamples(RenderSettings(crop_px=64, partners=0.5), 3, 2).split
    assert more == f"{RenderedSamples(RenderSettings(crop_px=64), 3, 2).split}, partners 0.5"


def test_sets_go_by_what_is_in_the_folder(folder: Path, tmp_path: Path) -> None:
    count = Topology.default().vertex_count
    settings = RenderSettings(crop_px=32, other_hand=folder)
    build([RenderedSamples(settings, 3, 2)], tmp_path / "set", 16, 1.9, 8, count)
    build([RenderedSamples(settings, 3, 2)], tmp_path / "set", 16, 1.9, 8, count)
    with pytest.raises(CheckpointError):
        build([RenderedSamples(RenderSettings(crop_px=32), 3, 2)], tmp_path / "set", 16, 1.9, 8,
              count)  # fmt: skip


def test_what_cannot_be_combined_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="skins of its own; give it without"):
        RenderSettings(skins=tmp_path, other_hand=folder)
    with pytest.raises(InputError, match="this project's hand"):
        SetSettings(4, render=RenderSettings(other_hand=folder))
    with pytest.raises(InputError, match=r"not beside 0\.5 of them: leave it out"):
        SetSettings(4, render=RenderSettings(partners=0.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (np.diag([1.0, 1, -1]), r"expected a right hand.*give hand_r\.gltf"),
        (100 * np.eye(3), "of human size in metres"),
    ],
    ids=["left", "centimetres"],
)
def test_hands_that_ours_cannot_be_are_told(
    hand_model: HandModel, tmp_path: Path, change: np.ndarray, message: str
) -> None:
    made = made_hand.made_hand(hand_model)
    made = made._replace(vertices=made.vertices @ change, joints=made.joints @ change)
    folder = made_hand.write(tmp_path, made_hand.described(hand_model, made))
    with pytest.raises(InputError, match=message):
        OtherHand.load(folder)


def test_surfaces_that_are_no_hand_are_told(hand_model: HandModel, tmp_path: Path) -> None:
    made = made_hand.made_hand(hand_model)
    ball = made.vertices - made.joints.mean(axis=0)
    ball *= 0.06 / np.linalg.norm(ball, axis=1, keepdims=True)
    made = made._replace(vertices=ball + made.joints.mean(axis=0))
    folder = made_hand.write(tmp_path, made_hand.described(hand_model, made))
    with pytest.raises(InputError, match=r"expected the surface of a right hand.*%"):
        OtherHand.load(folder)


def test_damaged_textures_are_told(hand_model: HandModel, other: OtherHand, tmp_path: Path) -> None:
    gltf = made_hand.described(hand_model, made_hand.made_hand(hand_model))
    made_hand.write(tmp_path, gltf)
    (tmp_path / "tone1_baseColor.png").write_bytes(b"no picture")
    damaged = copy.copy(other.source)
    object.__setattr__(damaged, "textures", (tmp_path / "tone1_baseColor.png",))
    from handmesh_training.other_hand.bake import read_textures

    with pytest.raises(ImageError, match="got 10 bytes that are no image"):
        read_textures(damaged)
