"""Hands of "another model", written in the layout of Godot XR Tools' hands: ours, bent and bulged.

Their frame is turned as that one's is: fingers towards -z, thumb towards +y, palm towards -x.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from handmesh_training.hand import HandModel
from handmesh_training.other_hand.closest import vertex_normals
from handmesh_training.other_hand.gltf import JOINT_BONES

Array = NDArray[np.float64]

TO_THEIRS = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])  # rows: their axes in our frame
ARM_KEPT_M = 0.03
MORE_BONES = ("Index_Metacarpal_R", "Middle_Metacarpal_R", "Ring_Metacarpal_R",
              "Little_Metacarpal_R", "Palm_R")  # fmt: skip


class MadeHand(NamedTuple):
    """vertices (V, 3) and joints (21, 3) of our topology in their frame; rows (N,) of V kept."""

    vertices: Array
    joints: Array
    rows: NDArray[np.int64]


def made_hand(model: HandModel, bulge_m: float = 0.002) -> MadeHand:
    """Ours with fingers spread and a little bent, a build of its own, and skin in waves: along the
    normals, since nobody could tell how far it slid along the surface."""
    shape = torch.zeros(1, model.shape_count)
    for name, value in {"hand_scale": 0.6, "finger_diameter": 0.7, "middle_length": -0.5}.items():
        shape[0, model.shape_names.index(name)] = value
    angles = torch.zeros(1, 17, 3)
    angles[0, 1:16, 2] = model.rest_flexion[1:16] + 0.1
    angles[0, [4, 7, 10, 13], 1] = torch.tensor([0.12, 0.0, -0.06, -0.14])
    with torch.no_grad():
        posed = model(shape, model.rotations(angles))
    vertices, joints = posed.vertices[0].double().numpy(), posed.joints[0].double().numpy()
    wave = np.sin(vertices @ (2 * np.pi * np.array([[9.0, 0, 4], [5, 11, 0], [0, 7, 12]])))
    out = vertex_normals(vertices, model.asset.faces) * wave.mean(axis=1, keepdims=True)
    vertices = (vertices + bulge_m * out) @ TO_THEIRS.T + (0.01, -0.02, 0.03)
    rows = np.flatnonzero(model.asset.vertices_m[:, 1] < ARM_KEPT_M)
    return MadeHand(vertices, joints @ TO_THEIRS.T + (0.01, -0.02, 0.03), rows)


def described(model: HandModel, hand: MadeHand) -> dict[str, Any]:
    """The glTF of a made hand; its texture coordinates are ours."""
    kept = np.isin(model.asset.faces, hand.rows).all(axis=1)
    corners = model.asset.faces[kept].reshape(-1)
    uv = model.asset.corner_uv[kept].reshape(-1, 2)
    pairs, index = np.unique(np.column_stack([corners, uv]), axis=0, return_inverse=True)
    # In Godot's hands each bone's frame is its own: any turn must do.
    names = [*JOINT_BONES, *MORE_BONES]
    binds = np.tile(np.eye(4), (len(names), 1, 1))
    binds[:, :3, :3] = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    binds[:21, :3, 3] = hand.joints
    arrays = [
        (hand.vertices[pairs[:, 0].astype(int)].astype("<f4"), 5126, "VEC3"),
        (np.column_stack([pairs[:, 1], 1 - pairs[:, 2]]).astype("<f4"), 5126, "VEC2"),
        (index.reshape(-1, 1).astype("<u2"), 5123, "SCALAR"),
        (np.linalg.inv(binds).transpose(0, 2, 1).reshape(-1, 16).astype("<f4"), 5126, "MAT4"),
    ]
    data = b"".join(array.tobytes() for array, _, _ in arrays)
    starts = np.cumsum([0, *(array.nbytes for array, _, _ in arrays)])
    return {
        "asset": {"version": "2.0"},
        "nodes": [{"name": name} for name in names],
        "meshes": [
            {"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "indices": 2}]}
        ],
        "skins": [{"joints": list(range(len(names))), "inverseBindMatrices": 3}],
        "accessors": [
            {"bufferView": i, "componentType": kind, "count": len(array), "type": element}
            for i, (array, kind, element) in enumerate(arrays)
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": int(starts[i]), "byteLength": int(array.nbytes)}
            for i, (array, _, _) in enumerate(arrays)
        ],
        "buffers": [{"byteLength": len(data), "uri": "data:application/octet-stream;base64,"
                     + base64.b64encode(data).decode()}],
    }  # fmt: skip


def write(folder: Path, gltf: dict[str, Any], textures: int = 2) -> Path:
    """The folder, with textures whose red grows with u and green with v."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hand_r.gltf").write_text(json.dumps(gltf))
    v, u = (np.mgrid[:256, :256] + 0.5) / 256
    for number in range(textures):
        blue = np.full_like(u, 0.3 + 0.3 * number)
        image = np.round(255 * np.stack([blue, 0.2 + 0.6 * v, 0.2 + 0.6 * u], axis=-1))
        cv2.imwrite(str(folder / f"tone{number}_baseColor.png"), image.astype(np.uint8))
    return folder
