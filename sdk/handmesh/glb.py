"""Binary glTF 2.0: a hand's mesh with its skeleton; `handmesh.animation` has one that moves.

glTF demands +y up, so camera space (x, y, z) becomes (x, -y, -z): half a turn about x, which keeps
the winding. Its origin is still the camera, which there looks along -z, as glTF's own cameras do.
A rotation keeps its parts along x, and reverses those along y and z.

The skeleton has a node for each of the 21 joints, named as `handmesh.JOINT_NAMES` say, the wrist at
its root. With all rotations (0, 0, 0, 1) it is the rest skeleton of `handmesh.rig`.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .geometry import vertex_normals
from .rig import INFLUENCES, TURNING, Pose, Rig
from .types import JOINT_NAMES, JOINT_PARENTS, Hand

__all__ = ["Document", "encode_hand", "float32s"]

Array = NDArray[np.float64]

_FROM_CAMERA = np.array([1.0, -1.0, -1.0])
_TURN_FROM_CAMERA = np.array([1.0, -1.0, -1.0, 1.0])
# A light skin tone, linear RGB, as glTF has it; rough and not metallic.
_SKIN = {"baseColorFactor": [0.72, 0.43, 0.31, 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.65}
# glTF's numbers for a vertex buffer, an index buffer, and for what a component is.
_ARRAY_BUFFER, _ELEMENT_BUFFER = 34962, 34963
_COMPONENTS = {np.dtype("u1"): 5121, np.dtype("<u4"): 5125, np.dtype("<f4"): 5126}
_TYPES = {1: "SCALAR", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
# The mesh's node comes first, then the joints'.
_FIRST_JOINT = 1


def encode_hand(hand: Hand) -> bytes:
    """One hand as it was seen, a GLB file's bytes.

    The mesh is bound to the skeleton in the pose that was seen: the file shows the predicted
    vertices to the last bit, also in programs that know no skins. A mesh other than the package's
    is written without a skeleton.

    Raises:
        InputError: the hand has no vertices or no faces, of which glTF knows no mesh.
    """
    if not len(hand.vertices_m) or not len(hand.faces):
        raise InputError(
            f"a GLB file needs a mesh, and this hand has {len(hand.vertices_m)} vertices and "
            f"{len(hand.faces)} faces: save it as .json"
        )
    document = Document()
    vertices = hand.vertices_m.astype(np.float64)
    if Rig.default().side(hand) is None:
        document.add_mesh(hand, vertices, skinned=False)
        return document.encode()
    pose = hand.pose()
    document.add_mesh(hand, vertices, skinned=True)
    document.add_skeleton(pose, pose.world_rotations(), hand.joints_m.astype(np.float64))
    return document.encode()


class Document:
    """A glTF document in the making: its JSON, and the bytes that its accessors point into."""

    def __init__(self) -> None:
        self.json: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": "handmesh"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [],
            "meshes": [],
            "materials": [{"name": "skin", "pbrMetallicRoughness": _SKIN, "doubleSided": True}],
            "accessors": [],
            "bufferViews": [],
        }
        self.binary = bytearray()

    def add_array(
        self, array: NDArray[Any], target: int | None = None, bounds: bool = False
    ) -> int:
        """(N, K) numbers, or (N,), as an accessor; its index."""
        view = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": array.nbytes}
        if target is not None:
            view["target"] = target
        rows = array.reshape(len(array), -1)
        accessor: dict[str, Any] = {
            "bufferView": len(self.json["bufferViews"]),
            "componentType": _COMPONENTS[array.dtype],
            "count": len(rows),
            "type": _TYPES[rows.shape[1]],
        }
        if bounds:
            accessor |= {"min": rows.min(axis=0).tolist(), "max": rows.max(axis=0).tolist()}
        self.json["bufferViews"].append(view)
        self.json["accessors"].append(accessor)
        self.binary += array.tobytes()
        self.binary += b"\0" * (-len(self.binary) % 4)
        return len(self.json["accessors"]) - 1

    def add_mesh(self, hand: Hand, vertices_m: Array, skinned: bool) -> None:
        """The surface, vertices (V, 3) in camera space, as node 0."""
        normals = vertex_normals(vertices_m, hand.faces) * _FROM_CAMERA
        attributes = {
            "POSITION": self.add_array(float32s(vertices_m * _FROM_CAMERA), _ARRAY_BUFFER, True),
            "NORMAL": self.add_array(float32s(normals), _ARRAY_BUFFER),
        }
        indices = self.add_array(hand.faces.ravel().astype("<u4"), _ELEMENT_BUFFER)
        node: dict[str, Any] = {"mesh": 0, "name": f"{hand.handedness}_hand"}
        if skinned:
            weights = Rig.default().weights  # (V, 21)
            joints = np.argsort(-weights, axis=1, kind="stable")[:, :INFLUENCES]  # (V, 4)
            shares = np.take_along_axis(weights, joints, axis=1)
            joints[shares == 0] = 0  # glTF's validator wants unused places to name joint 0
            attributes["JOINTS_0"] = self.add_array(joints.astype("u1"), _ARRAY_BUFFER)
            attributes["WEIGHTS_0"] = self.add_array(float32s(shares), _ARRAY_BUFFER)
            node["skin"] = 0
        primitive = {"attributes": attributes, "indices": indices, "material": 0}
        self.json["meshes"].append({"name": "hand", "primitives": [primitive]})
        self.json["nodes"].append(node)

    def add_skeleton(self, pose: Pose, bind_turns: Array, bind_joints_m: Array) -> None:
        """Nodes of the 21 joints in a pose, and the skin.

        Args:
            bind_turns: (21, 3, 3), bind_joints_m: (21, 3), how the joints are turned and where they
                are, in camera space, where the mesh was bound to them.
        """
        count = len(JOINT_NAMES)
        for joint, name in enumerate(JOINT_NAMES):
            place = pose.wrist_m if joint == 0 else pose.offsets_m[joint]
            node: dict[str, Any] = {
                "name": name,
                "translation": float32s(place * _FROM_CAMERA).tolist(),
                "rotation": float32s(pose.rotations[joint] * _TURN_FROM_CAMERA).tolist(),
            }
            children = [_FIRST_JOINT + c for c in range(count) if JOINT_PARENTS[c] == joint]
            if children:
                node["children"] = children
            self.json["nodes"].append(node)
        self.json["scenes"][0]["nodes"].append(_FIRST_JOINT)

        inverse = np.tile(np.eye(4), (count, 1, 1))  # (21, 4, 4): from the mesh to each joint
        inverse[:, :3, :3] = (bind_turns * np.outer(_FROM_CAMERA, _FROM_CAMERA)).transpose(0, 2, 1)
        at = bind_joints_m * _FROM_CAMERA
        inverse[:, :3, 3] = -np.einsum("jab,jb->ja", inverse[:, :3, :3], at)
        matrices = float32s(inverse.transpose(0, 2, 1).reshape(count, 16))  # column by column
        self.json["skins"] = [
            {
                "name": "hand",
                "skeleton": _FIRST_JOINT,
                "joints": list(range(_FIRST_JOINT, _FIRST_JOINT + count)),
                "inverseBindMatrices": self.add_array(matrices),
            }
        ]

    def add_animation(self, times: Array, rotations: Array, wrists_m: Array) -> None:
        """Keys at times (N,) seconds: rotations (N, 21, 4) and the wrist's places (N, 3)."""
        clock = self.add_array(float32s(times), bounds=True)
        keys = [(0, "translation", wrists_m * _FROM_CAMERA)]
        keys += [(j, "rotation", rotations[:, j] * _TURN_FROM_CAMERA) for j in TURNING]
        samplers: list[dict[str, Any]] = []
        channels: list[dict[str, Any]] = []
        for joint, path, values in keys:
            target = {"node": _FIRST_JOINT + joint, "path": path}
            channels.append({"sampler": len(samplers), "target": target})
            output = self.add_array(float32s(values))
            samplers.append({"input": clock, "output": output, "interpolation": "LINEAR"})
        self.json["animations"] = [{"name": "hand", "samplers": samplers, "channels": channels}]

    def encode(self) -> bytes:
        """The file."""
        self.json["buffers"] = [{"byteLength": len(self.binary)}]
        text = json.dumps(self.json, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)  # chunks are aligned to 4 bytes; the buffer already is
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        chunks += struct.pack("<I4s", len(self.binary), b"BIN\0") + self.binary
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def float32s(array: Array) -> NDArray[np.float32]:
    """The same numbers as a file holds them."""
    return np.ascontiguousarray(array, dtype="<f4")
