"""A hand as a file: OBJ, PLY, GLB (binary glTF 2.0) or JSON, chosen by the suffix.

OBJ, PLY and JSON keep camera space as it is: metres, +x right, +y down, +z away from the camera.
glTF demands +y up, so a GLB holds (x, -y, -z): half a turn about x, which keeps the winding. Its
origin is still the camera, which there looks along -z, as glTF's own cameras do.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .atomic import write_atomic
from .errors import InputError
from .geometry import vertex_normals
from .types import JOINT_NAMES, Hand

__all__ = ["HAND_SCHEMA", "save", "to_dict"]

# Raised when a field of `to_dict` changes its meaning or goes; new fields leave it alone.
HAND_SCHEMA = 1

_GLB_FROM_CAMERA = np.array([1, -1, -1], dtype=np.float32)
# A light skin tone, linear RGB, as glTF has it; rough and not metallic.
_SKIN = {"baseColorFactor": [0.72, 0.43, 0.31, 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.65}
# glTF's numbers for a vertex buffer, an index buffer, float32 and uint32.
_ARRAY_BUFFER, _ELEMENT_BUFFER, _FLOAT, _UINT = 34962, 34963, 5126, 5125


def save(hand: Hand, path: str | os.PathLike[str]) -> Path:
    """Write one hand, atomically, in the format of the suffix; returns the path.

    Raises:
        InputError: the suffix is not .obj, .ply, .glb or .json, or the file cannot be written.
    """
    target = Path(path)
    encode = _ENCODERS.get(target.suffix.lower())
    if encode is None:
        raise InputError(
            f"a hand is saved as one of {', '.join(_ENCODERS)}; "
            f"{target.name!r} ends in {target.suffix!r}"
        )
    return write_atomic(target, encode(hand))


def to_dict(hand: Hand) -> dict[str, Any]:
    """The hand as plain numbers, strings, lists and dicts; metres to the micrometre, pixels to
    the thousandth."""
    return {
        "schema": HAND_SCHEMA,
        "frame": "camera: +x right, +y down, +z away; metres",
        "handedness": hand.handedness,
        "presence": round(hand.presence, 4),
        "depth": hand.depth,
        "backend": hand.backend,
        "timings_ms": {stage: round(value, 3) for stage, value in hand.timings_ms.items()},
        "crops_seen": hand.crops_seen,
        "box": {name: getattr(hand.box, name) for name in ("cx", "cy", "size", "angle")},
        "camera": {
            name: getattr(hand.camera, name) for name in ("fx", "fy", "cx", "cy", "width", "height")
        },
        "joint_names": list(JOINT_NAMES),
        "joints_px": _rounded(hand.joints_px, 3),
        "joints_m": _rounded(hand.joints_m, 6),
        "confidence": _rounded(hand.confidence, 4),
        "vertices_m": _rounded(hand.vertices_m, 6),
        "vertices_px": _rounded(hand.vertices_px, 3),
        "faces": hand.faces.tolist(),
    }


def _encode_obj(hand: Hand) -> bytes:
    lines = [
        "# handmesh: camera space, metres, +x right, +y down, +z away from the camera",
        f"# {hand.handedness} hand, depth {hand.depth}",
        f"o {hand.handedness}_hand",
    ]
    normals = vertex_normals(hand.vertices_m, hand.faces)
    lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in hand.vertices_m.tolist()]
    lines += [f"vn {x:.5f} {y:.5f} {z:.5f}" for x, y, z in normals.tolist()]
    lines += [f"f {a}//{a} {b}//{b} {c}//{c}" for a, b, c in (hand.faces + 1).tolist()]
    return ("\n".join(lines) + "\n").encode("ascii")


def _encode_ply(hand: Hand) -> bytes:
    header = "\n".join(
        [
            "ply",
            "format binary_little_endian 1.0",
            "comment handmesh: camera space in metres, x right, y down, z away",
            f"element vertex {len(hand.vertices_m)}",
            *(f"property float {axis}" for axis in ("x", "y", "z", "nx", "ny", "nz")),
            f"element face {len(hand.faces)}",
            "property list uchar int vertex_indices",
            "end_header\n",
        ]
    ).encode("ascii")
    normals = vertex_normals(hand.vertices_m, hand.faces)
    vertices = np.hstack([hand.vertices_m, normals]).astype("<f4")  # (V, 6)
    faces = np.empty(len(hand.faces), dtype=[("count", "u1"), ("vertices", "<i4", 3)])
    faces["count"], faces["vertices"] = 3, hand.faces
    return header + vertices.tobytes() + faces.tobytes()


def _encode_glb(hand: Hand) -> bytes:
    positions = (hand.vertices_m * _GLB_FROM_CAMERA).astype("<f4")
    normals = (vertex_normals(hand.vertices_m, hand.faces) * _GLB_FROM_CAMERA).astype("<f4")
    indices = hand.faces.ravel().astype("<u4")
    buffers = (positions, normals, indices)
    views, offset = [], 0
    for buffer, target in zip(
        buffers, (_ARRAY_BUFFER, _ARRAY_BUFFER, _ELEMENT_BUFFER), strict=True
    ):
        size = buffer.nbytes
        views.append({"buffer": 0, "byteOffset": offset, "byteLength": size, "target": target})
        offset += size
    vectors = {"componentType": _FLOAT, "count": len(positions), "type": "VEC3"}
    low, high = positions.min(axis=0).tolist(), positions.max(axis=0).tolist()
    document = {
        "asset": {"version": "2.0", "generator": "handmesh"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": f"{hand.handedness}_hand"}],
        "meshes": [
            {
                "primitives": [
                    {"attributes": {"POSITION": 0, "NORMAL": 1}, "indices": 2, "material": 0}
                ]
            }
        ],
        "materials": [{"name": "skin", "pbrMetallicRoughness": _SKIN, "doubleSided": True}],
        "accessors": [
            {"bufferView": 0, **vectors, "min": low, "max": high},
            {"bufferView": 1, **vectors},
            {"bufferView": 2, "componentType": _UINT, "count": len(indices), "type": "SCALAR"},
        ],
        "bufferViews": views,
        "buffers": [{"byteLength": offset}],
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)  # chunks are aligned to 4 bytes; the buffers already are
    binary = b"".join(buffer.tobytes() for buffer in buffers)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    chunks += struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _encode_json(hand: Hand) -> bytes:
    return (json.dumps(to_dict(hand), separators=(",", ":"), allow_nan=False) + "\n").encode()


def _rounded(array: NDArray[Any], digits: int) -> list[Any]:
    return np.round(np.asarray(array, dtype=np.float64), digits).tolist()


_ENCODERS: dict[str, Callable[[Hand], bytes]] = {
    ".obj": _encode_obj,
    ".ply": _encode_ply,
    ".glb": _encode_glb,
    ".json": _encode_json,
}
