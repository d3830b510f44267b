"""Skinned and animated GLBs, played by a reader that knows glTF alone, against the hand model."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gltf_player import Player
from scipy.spatial.transform import Rotation

from handmesh.errors import InputError
from handmesh.files import save_animation
from handmesh.graph import Topology
from handmesh.types import FINGERS, JOINT_NAMES, JOINT_PARENTS, Box, Camera, Hand
from handmesh_training.hand import PIVOT_COUNT, HandModel

TO_GLTF = (1, -1, -1)
SECONDS = (2.0, 2.04, 2.08, 2.2, 2.24)


def closing(left: bool = False) -> list[Hand]:
    """A hand that closes while it turns and moves away."""
    model = HandModel()
    angles = torch.zeros(len(SECONDS), PIVOT_COUNT, 3)
    way = torch.linspace(0, 1, len(SECONDS))
    angles[:, 4:16, 2] = way[:, None] * 1.2
    angles[:, 2:4, 2] = way[:, None] * 0.6
    rotations = model.rotations(angles)
    turns = Rotation.from_rotvec(np.outer(way.numpy(), (0.4, 2.0, -0.7)) + (0.2, 0, 0.1))
    rotations[:, 0] = torch.from_numpy(turns.as_matrix()).float()
    with torch.no_grad():
        vertices, joints = model(torch.zeros(len(SECONDS), model.shape_count), rotations)
    shift = np.outer(way.numpy(), (0.05, 0, 0.2)) + (0, 0.05, 0.4)
    faces = Topology.default().faces
    flip = (-1, 1, 1) if left else (1, 1, 1)
    return [
        Hand(
            vertices_m=(v[model.asset.template_subset] + s) * flip,
            faces=faces[:, ::-1] if left else faces,
            joints_m=(j + s) * flip,
            joints_px=np.zeros((21, 2)),
            vertices_px=np.zeros((len(model.asset.template_subset), 2)),
            confidence=np.ones(21),
            presence=1.0,
            handedness="left" if left else "right",
            depth="metric",
            box=Box(0, 0, 1),
            camera=Camera.default(640, 480),
        )
        for v, j, s in zip(vertices.numpy(), joints.numpy(), shift, strict=True)
    ]


@pytest.mark.parametrize("left", [False, True])
def test_a_skinned_hand_shows_what_was_seen(left: bool, tmp_path: Path) -> None:
    hand = closing(left)[3]
    player = Player(hand.save(tmp_path / "hand.glb").read_bytes())
    # With or without knowledge of skins, a viewer shows the predicted vertices.
    np.testing.assert_array_equal(player.attribute("POSITION"), hand.vertices_m * TO_GLTF)
    np.testing.assert_allclose(player.vertices(), hand.vertices_m * TO_GLTF, atol=2e-6)
    joints = player.joints()
    assert tuple(joints) == JOINT_NAMES
    np.testing.assert_allclose(list(joints.values()), hand.joints_m * TO_GLTF, atol=1e-6)
    first = player.json["skins"][0]["joints"][0]
    for joint, parent in enumerate(JOINT_PARENTS):
        assert player.parents.get(first + joint) == (None if parent < 0 else first + parent)


def test_its_skeleton_moves_its_skin(tmp_path: Path) -> None:
    hand = closing()[0]
    player = Player(hand.save(tmp_path / "hand.glb").read_bytes())
    before, at = player.vertices(), player.joints()["index_pip"]
    node = next(i for i, n in enumerate(player.nodes) if n["name"] == "index_pip")
    rest = Rotation.from_quat(player.nodes[node]["rotation"])
    player.nodes[node]["rotation"] = (rest * Rotation.from_rotvec([0.8, 0, 0])).as_quat().tolist()
    moved = np.linalg.norm(player.vertices() - before, axis=1)
    parts = Topology.default().parts
    assert (moved[np.isin(parts, FINGERS["index"][2:])] > 0).all()
    assert moved[np.isin(parts, (0, 1, 2, 3, 10, 14, 18))].max() < 1e-6
    np.testing.assert_allclose(player.joints()["index_pip"], at, atol=1e-9)


@pytest.mark.parametrize("left", [False, True])
def test_an_animation_shows_each_frame_at_its_time(left: bool, tmp_path: Path) -> None:
    hands = closing(left)
    path = save_animation(hands, SECONDS, tmp_path / "hand.glb")
    player = Player(path.read_bytes())
    assert player.duration() == pytest.approx(SECONDS[-1] - SECONDS[0])
    for hand, second in zip(hands, SECONDS, strict=True):
        joints = np.array(list(player.joints(second - SECONDS[0]).values()))
        np.testing.assert_allclose(joints, hand.joints_m * TO_GLTF, atol=2e-3)
        off = np.linalg.norm(
            player.vertices(second - SECONDS[0]) - hand.vertices_m * TO_GLTF, axis=1
        )
        # One mesh for all frames, blended linearly, where the model blends dual quaternions.
        assert off.mean() < 1e-3
        assert off.max() < 8e-3
    # As it stands, the file shows the first frame.
    np.testing.assert_allclose(player.vertices(), player.vertices(0.0), atol=1e-6)
    # Between two frames the hand is between them.
    middle = player.joints(0.14)["wrist"]
    ends = [player.joints(t)["wrist"] for t in (0.08, 0.2)]
    np.testing.assert_allclose(middle, np.mean(ends, axis=0), atol=1e-6)


def test_signs_of_keys_do_not_jump(tmp_path: Path) -> None:
    hands = closing()
    player = Player(save_animation(hands, SECONDS, tmp_path / "hand.glb").read_bytes())
    (animation,) = player.json["animations"]
    assert len(animation["channels"]) == 17
    for channel in animation["channels"]:
        keys = player.accessor(animation["samplers"][channel["sampler"]]["output"])
        if channel["target"]["path"] == "rotation":
            assert ((keys[1:] * keys[:-1]).sum(axis=1) > 0).all()


def test_another_library_reads_them(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    hands = closing()
    hand = hands[2]
    data = hand.save(tmp_path / "hand.glb").read_bytes()
    scene = trimesh.load(io.BytesIO(data), file_type="glb", process=False)
    (mesh,) = scene.geometry.values()
    np.testing.assert_allclose(mesh.vertices, hand.vertices_m * TO_GLTF, atol=1e-6)
    np.testing.assert_array_equal(mesh.faces, hand.faces)
    assert set(JOINT_NAMES) <= set(scene.graph.nodes)
    place, _ = scene.graph.get("index_tip")
    np.testing.assert_allclose(place[:3, 3], hand.joints_m[8] * TO_GLTF, atol=1e-6)
    moving = save_animation(hands, SECONDS, tmp_path / "moving.glb").read_bytes()
    assert len(trimesh.load(io.BytesIO(moving), file_type="glb").geometry) == 1
    for suffix in ("ply", "obj"):
        mesh = trimesh.load(hand.save(tmp_path / f"hand.{suffix}"), process=False)
        np.testing.assert_allclose(mesh.vertices, hand.vertices_m, atol=1e-6)
        np.testing.assert_array_equal(mesh.faces, hand.faces)
        np.testing.assert_allclose(np.linalg.norm(mesh.vertex_normals, axis=1), 1, atol=1e-4)


def test_another_mesh_is_written_without_a_skeleton(tmp_path: Path) -> None:
    hand = closing()[0]
    small = replace(
        hand, vertices_m=hand.vertices_m[:3], vertices_px=np.zeros((3, 2)), faces=[[0, 1, 2]]
    )
    player = Player(small.save(tmp_path / "small.glb").read_bytes())
    assert "skins" not in player.json
    np.testing.assert_array_equal(player.attribute("POSITION"), small.vertices_m * TO_GLTF)


def test_what_is_no_animation_is_refused(tmp_path: Path) -> None:
    hands = closing()
    path = tmp_path / "hand.glb"
    for wrong, seconds, message in (
        ([], [], "at least one hand"),
        (hands, SECONDS[:-1], "a time for each of its 5"),
        (hands, SECONDS[::-1], "each above the last"),
        (hands, [0, 1, 2, 3, float("nan")], "finite"),
        (hands, ["now"] * 5, "must be numbers"),
        ([*hands[:4], closing(left=True)[4]], SECONDS, "left and right"),
        (
            [*hands[:4], replace(closing(left=True)[4], handedness="right")],
            SECONDS,
            "mirrored and other",
        ),
    ):
        with pytest.raises(InputError, match=message):
            save_animation(wrong, seconds, path)
    with pytest.raises(InputError, match=r"saved as \.glb"):
        save_animation(hands, SECONDS, tmp_path / "hand.obj")
    assert not path.exists()
