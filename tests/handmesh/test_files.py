from __future__ import annotations

import copy
import dataclasses
import importlib.resources
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handmesh.errors import InputError
from handmesh.files import save_animation
from handmesh.geometry import vertex_normals
from handmesh.graph import Topology
from handmesh.types import JOINT_NAMES, Box, Camera, Hand


@pytest.fixture(scope="module")
def hand(topology: Topology) -> Hand:
    camera = Camera.default(640, 480)
    vertices = topology.template_vertices_m.astype(np.float64) + (0.05, -0.02, 0.6)
    joints = topology.joint_regressor @ topology.template_vertices_m + (0.05, -0.02, 0.6)
    return Hand(
        vertices_m=vertices.astype(np.float32),
        faces=topology.faces,
        joints_m=joints.astype(np.float32),
        joints_px=camera.project(joints).astype(np.float32),
        vertices_px=camera.project(vertices).astype(np.float32),
        confidence=np.linspace(0, 1, 21, dtype=np.float32),
        presence=0.93,
        handedness="right",
        depth="assumed",
        box=Box(320, 240, 300, 0.1),
        camera=camera,
        backend="none",
        timings_ms={"network": 1.25},
        crops_seen=3,
    )


def test_obj_is_the_mesh_in_camera_space(hand: Hand, tmp_path: Path) -> None:
    path = hand.save(tmp_path / "hand.obj")
    rows = [line.split() for line in path.read_text().splitlines()]
    vertices = np.array([row[1:] for row in rows if row[0] == "v"], dtype=float)
    normals = np.array([row[1:] for row in rows if row[0] == "vn"], dtype=float)
    corners = [[part.split("//") for part in row[1:]] for row in rows if row[0] == "f"]
    faces = np.array(corners, dtype=int)  # (F, 3, 2): vertex and normal, from 1
    np.testing.assert_allclose(vertices, hand.vertices_m, atol=1e-6)
    np.testing.assert_array_equal(faces[..., 0] - 1, hand.faces)
    np.testing.assert_array_equal(faces[..., 1], faces[..., 0])
    np.testing.assert_allclose(normals, vertex_normals(hand.vertices_m, hand.faces), atol=1e-5)


def _read_glb(data: bytes) -> tuple[dict[str, Any], bytes]:
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    json_length, json_type = struct.unpack_from("<I4s", data, 12)
    assert json_type == b"JSON"
    assert json_length % 4 == 0
    at = 20 + json_length
    binary_length, binary_type = struct.unpack_from("<I4s", data, at)
    assert binary_type == b"BIN\0"
    assert binary_length % 4 == 0
    assert at + 8 + binary_length == len(data)
    return json.loads(data[20:at]), data[at + 8 :]


def test_glb_is_the_mesh_in_the_frame_of_gltf(hand: Hand, tmp_path: Path) -> None:
    document, binary = _read_glb(hand.save(tmp_path / "hand.glb").read_bytes())
    assert document["asset"]["version"] == "2.0"
    assert document["buffers"] == [{"byteLength": len(binary)}]

    def accessor(index: int) -> np.ndarray:
        entry = document["accessors"][index]
        view = document["bufferViews"][entry["bufferView"]]
        dtype, width = {"VEC3": ("<f4", 3), "SCALAR": ("<u4", 1)}[entry["type"]]
        assert entry["componentType"] == {"VEC3": 5126, "SCALAR": 5125}[entry["type"]]
        assert view["byteOffset"] % 4 == 0
        assert view["byteLength"] == entry["count"] * width * 4
        data = binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        return np.frombuffer(data, dtype).reshape(-1, width)

    primitive = document["meshes"][document["nodes"][document["scenes"][0]["nodes"][0]]["mesh"]]
    primitive = primitive["primitives"][0]
    positions = accessor(primitive["attributes"]["POSITION"])
    normals = accessor(primitive["attributes"]["NORMAL"])
    faces = accessor(primitive["indices"]).reshape(-1, 3)
    # +y up and the camera looking along -z: half a turn about x.
    np.testing.assert_array_equal(positions, hand.vertices_m * (1, -1, -1))
    np.testing.assert_array_equal(faces, hand.faces)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    # The winding still matches: normals from the faces are those in the file.
    np.testing.assert_allclose(vertex_normals(positions, faces), normals, atol=1e-4)
    described = document["accessors"][primitive["attributes"]["POSITION"]]
    np.testing.assert_allclose(described["min"], positions.min(axis=0))
    np.testing.assert_allclose(described["max"], positions.max(axis=0))
    assert faces.max() < len(positions)
    assert document["materials"][primitive["material"]]["name"] == "skin"


def test_ply_is_the_mesh_in_camera_space(hand: Hand, tmp_path: Path) -> None:
    header, _, body = hand.save(tmp_path / "hand.ply").read_bytes().partition(b"end_header\n")
    assert f"element vertex {len(hand.vertices_m)}".encode() in header
    assert f"element face {len(hand.faces)}".encode() in header
    size = len(hand.vertices_m) * 24
    vertices = np.frombuffer(body[:size], "<f4").reshape(-1, 6)
    np.testing.assert_array_equal(vertices[:, :3], hand.vertices_m)
    faces = np.frombuffer(body[size:], np.dtype([("n", "u1"), ("v", "<i4", 3)]))
    assert (faces["n"] == 3).all()
    np.testing.assert_array_equal(faces["v"], hand.faces)


def test_json_holds_everything(hand: Hand, tmp_path: Path) -> None:
    read = json.loads(hand.save(tmp_path / "hand.JSON").read_text())
    assert read == json.loads(json.dumps(hand.to_dict()))
    assert read["schema"] == 1
    assert read["joint_names"] == list(JOINT_NAMES)
    assert (read["handedness"], read["depth"], read["backend"]) == ("right", "assumed", "none")
    assert (read["timings_ms"], read["crops_seen"]) == ({"network": 1.25}, 3)
    assert read["box"] == {"cx": 320, "cy": 240, "size": 300, "angle": 0.1}
    assert Camera(**read["camera"]) == hand.camera
    for name in ("vertices_m", "joints_m"):
        np.testing.assert_allclose(read[name], getattr(hand, name), atol=1e-6)
    for name in ("vertices_px", "joints_px"):
        np.testing.assert_allclose(read[name], getattr(hand, name), atol=1e-3)
    np.testing.assert_array_equal(read["faces"], hand.faces)
    np.testing.assert_allclose(read["confidence"], hand.confidence, atol=1e-4)


def _equal(a: Hand, b: Hand, places: int | None = None) -> None:
    for field in dataclasses.fields(Hand):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype
            assert not y.flags.writeable
            np.testing.assert_allclose(y, x, atol=0 if places is None else 10.0**-places, rtol=0)
        elif field.name != "presence":
            assert x == y, field.name


def test_dicts_go_both_ways(hand: Hand) -> None:
    known = dataclasses.replace(hand, bone_length_m=0.05)
    arrays = known.to_dict(arrays=True)
    assert arrays.keys() == known.to_dict().keys()
    assert arrays["vertices_m"] is known.vertices_m
    assert arrays["presence"] == known.presence
    mesh = {"vertices_m", "vertices_px", "faces"}
    for kept in (False, True):
        without = known.to_dict(arrays=kept, mesh=False)
        assert without.keys() == arrays.keys() - mesh
    with pytest.raises(InputError, match="lacks faces, vertices_m, vertices_px"):
        Hand.from_dict(without)
    _equal(known, Hand.from_dict(arrays))
    _equal(hand, Hand.from_dict(json.loads(json.dumps(hand.to_dict()))), places=3)
    older = {k: v for k, v in known.to_dict().items() if k != "bone_length_m"}
    assert Hand.from_dict(older).bone_length_m is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema 1, not 2"),
        ({"schema": None}, "schema 1, not None"),
        ({"joints_m": None}, "cannot be read|joints_m"),
        ({"joints_m": [[0, 0, 0]]}, "joints_m must have shape"),
        ({"camera": {"fx": 1}}, "cannot be read"),
        ({"box": 3}, "cannot be read"),
        ({"timings_ms": 3}, "cannot be read"),
        ({"handedness": "both"}, "handedness must be one of"),
        ({"faces": "none"}, "cannot be read"),
        ({"bone_length_m": float("nan")}, "bone_length_m must be finite"),
    ],
)
def test_dicts_that_are_no_hand_are_refused(
    hand: Hand, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Hand.from_dict(hand.to_dict() | change)


def test_missing_fields_are_named(hand: Hand) -> None:
    with pytest.raises(InputError, match="lacks backend, box"):
        Hand.from_dict({k: v for k, v in hand.to_dict().items() if k not in ("box", "backend")})
    with pytest.raises(InputError, match="from a dict"):
        Hand.from_dict([1])  # type: ignore[arg-type]


@pytest.mark.parametrize("again", [lambda h: pickle.loads(pickle.dumps(h)), copy.deepcopy])
def test_hands_can_be_pickled_and_copied(hand: Hand, again: Callable[[Hand], Hand]) -> None:
    other = again(hand)
    _equal(hand, other)
    assert other.timings_ms == hand.timings_ms
    assert other.presence == hand.presence


@pytest.fixture(scope="module")
def schema() -> Any:
    path = importlib.resources.files("handmesh").joinpath("assets/hand.schema.json")
    return json.loads(path.read_text())


def test_json_is_as_its_schema_says(hand: Hand, schema: Any, tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for one in (hand, dataclasses.replace(hand, bone_length_m=0.05)):
        validator.validate(json.loads(one.save(tmp_path / "hand.json").read_text()))
    good = hand.to_dict()
    for change in (
        {"schema": 2},
        {"handedness": "both"},
        {"presence": 1.2},
        {"bone_length_m": -1},
        {"joints_m": good["joints_m"][:20]},
        {"joints_px": [[0, 0, 0]] * 21},
        {"faces": [[0, 1, -2]]},
        {"camera": {"fx": 1}},
        {"box": {**good["box"], "size": 0}},
    ):
        assert not validator.is_valid(good | change), change
    for field in schema["required"]:
        assert not validator.is_valid({k: v for k, v in good.items() if k != field}), field


def test_the_schema_tells_every_field(hand: Hand, schema: Any) -> None:
    written = hand.to_dict()
    assert list(schema["properties"]) == list(written)
    assert schema["properties"]["schema"]["const"] == written["schema"]
    for name in ("box", "camera"):
        assert schema["properties"][name]["required"] == list(written[name])
    described = [
        *schema["properties"].values(),
        *schema["properties"]["camera"]["properties"].values(),
    ]
    assert all(part.get("description") or "const" in part for part in described)


def test_other_suffixes_are_refused(hand: Hand, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.obj, \.ply, \.glb, \.json"):
        hand.save(tmp_path / "hand.fbx")


def test_what_is_no_path_is_refused(hand: Hand) -> None:
    for save in (hand.save, lambda path: save_animation([hand], [0.0], path)):
        with pytest.raises(InputError, match="a str or a path, not 5"):
            save(5)  # type: ignore[arg-type]


def test_missing_folders_are_refused(hand: Hand, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write"):
        hand.save(tmp_path / "missing" / "hand.obj")


@pytest.mark.parametrize(
    "change",
    [
        {"presence": 7},
        {"presence": -0.1},
        {"confidence": [5] * 21},
        {"bone_length_m": -1},
        {"bone_length_m": 0},
        {"faces": [[0.9, 1.9, 2.9]]},
        {"crops_seen": True},
        {"crops_seen": -1},
        {"timings_ms": {"crop": -1}},
        {"joints_px": [["1", "2"]] * 21},
        {"presence": True},
        {"presence": "0.5"},
        {"bone_length_m": "0.05"},
        {"timings_ms": {"crop": "1"}},
        {"box": {"cx": 0, "cy": 0, "size": True, "angle": 0}},
        {"camera": {"fx": "1", "fy": 1, "cx": 0, "cy": 0, "width": 1, "height": 1}},
    ],
)
def test_what_the_schema_forbids_is_refused(
    hand: Hand, schema: Any, change: dict[str, Any]
) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    described = hand.to_dict() | change
    assert not jsonschema.Draft202012Validator(schema).is_valid(described)
    with pytest.raises(InputError, match=next(iter(change))):
        Hand.from_dict(described)


def test_a_glb_needs_a_mesh(hand: Hand, tmp_path: Path) -> None:
    no_faces = dataclasses.replace(hand, faces=np.zeros((0, 3), np.int32))
    bare = dataclasses.replace(no_faces, vertices_m=np.zeros((0, 3)), vertices_px=np.zeros((0, 2)))
    for one in (no_faces, bare):
        with pytest.raises(InputError, match=r"needs a mesh.* 0 faces"):
            one.save(tmp_path / "hand.glb")
        for suffix in (".obj", ".ply", ".json"):
            assert one.save(tmp_path / f"hand{suffix}").exists()
