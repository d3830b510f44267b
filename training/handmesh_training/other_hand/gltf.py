"""Reading a hand in the layout of Godot XR Tools: ``hand_r.gltf`` and base colour textures.

Only what the studies need of glTF 2.0: one skinned mesh of triangles with texture coordinates, in
its bind pose, and where its bones begin there. Nodes and animations are not looked at.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handmesh.errors import InputError

Array = NDArray[np.float64]

MODEL = "hand_r.gltf"
TEXTURES = "*baseColor.png"
SOURCE = "give a folder in the layout of Godot XR Tools' hands, with the right hand's " + MODEL
# Where each of the 21 joints is: the head of the bone of this name. Finger bones are called as in
# OpenXR, where a metacarpal begins at the wrist; the thumb's begins at its first joint.
FINGERS = ("Index", "Middle", "Ring", "Little")
JOINT_BONES = (
    "Wrist_R",
    *(f"Thumb_{part}_R" for part in ("Metacarpal", "Proximal", "Distal", "Tip")),
    *(f"{f}_{p}_R" for f in FINGERS for p in ("Proximal", "Intermediate", "Distal", "Tip")),
)
# Component types and the numbers in an element (glTF 2.0, section 3.6.2.2).
COMPONENTS = {5121: "<u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
ELEMENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
# Vertices that a texture's seam doubles agree to this many metres.
WELD_M = 1e-6


@dataclass(frozen=True, eq=False)
class ModelledHand:
    """A right hand as somebody modelled it, in its bind pose and its own frame, metres.

    Attributes:
        vertices_m: (V, 3) float64, welded: one for all corners at a place.
        faces: (F, 3) int64, counter-clockwise from outside.
        corner_uv: (F, 3, 2) float64 texture fractions, v down.
        joints_m: (21, 3) float64 heads of its bones, in our order; rough, as bones are placed by
            hand: a tip's is in the middle of the finger's end, the wrist's may be up the arm.
        textures: files of base colours.
    """

    vertices_m: Array
    faces: NDArray[np.int64]
    corner_uv: Array
    joints_m: Array
    textures: tuple[Path, ...]


def source_files(folder: Path) -> list[Path]:
    """The files of a hand's folder that are read, for whoever hashes them.

    Raises:
        InputError: the model or the textures are missing.
    """
    model = Path(folder) / MODEL
    if not model.is_file():
        raise InputError(f"{folder} holds no {MODEL}; {SOURCE}")
    textures = sorted(Path(folder).glob(TEXTURES))
    if not textures:
        raise InputError(f"{folder} holds no texture {TEXTURES}; {SOURCE} and its textures")
    described = _parsed(model)
    buffers = [b.get("uri", "") for b in described.get("buffers", []) if isinstance(b, dict)]
    beside = [model.parent / uri for uri in buffers if uri and not uri.startswith("data:")]
    return [model, *(path for path in beside if path.is_file()), *textures]


def read_hand(folder: Path) -> ModelledHand:
    """Read the right hand of a folder.

    Raises:
        InputError: files are missing, truncated or damaged, or bones are missing; the message says
            what was expected, what there is and what to do.
    """
    textures = tuple(path for path in source_files(folder) if path.suffix == ".png")
    path = Path(folder) / MODEL
    described = _parsed(path)
    try:
        return _hand(described, path, textures)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} is not a glTF 2.0 file with one skinned mesh that has POSITION, TEXCOORD_0 "
            f"and indices: {type(error).__name__} {error}; {SOURCE}"
        ) from error


def _parsed(path: Path) -> dict[str, Any]:
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: expected a whole JSON file as glTF 2.0 has it, got {path.stat().st_size} "
            f"bytes that end otherwise ({error}); copy it again"
        ) from error
    if not isinstance(described, dict):
        raise InputError(f"{path}: expected a JSON object, got a {type(described).__name__}")
    return described


def _hand(described: Mapping[str, Any], path: Path, textures: tuple[Path, ...]) -> ModelledHand:
    read = _Accessors(described, path)
    (skin,) = described["skins"]
    names = [str(described["nodes"][joint]["name"]) for joint in skin["joints"]]
    missing = [name for name in JOINT_BONES if name not in names]
    if missing:
        raise InputError(
            f"{path}: expected the bones {', '.join(JOINT_BONES)}, got {', '.join(names)}: "
            f"{', '.join(missing)} missing; {SOURCE}, or name its bones so"
        )
    (primitive,) = (p for mesh in described["meshes"] for p in mesh["primitives"])
    if primitive.get("mode", 4) != 4:
        raise ValueError(f"mode {primitive['mode']} where 4, triangles, was expected")
    points = read(primitive["attributes"]["POSITION"]).astype(np.float64)
    uv = read(primitive["attributes"]["TEXCOORD_0"]).astype(np.float64)
    corners = read(primitive["indices"]).reshape(-1, 3).astype(np.int64)
    inverse = read(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
    if points.shape[1:] != (3,) or uv.shape != (len(points), 2) or len(inverse) != len(names):
        raise ValueError(
            f"{points.shape} positions, {uv.shape} texture coordinates, {len(inverse)} bind "
            f"matrices of {len(names)} bones"
        )
    if not (np.isfinite(points).all() and np.isfinite(uv).all() and np.isfinite(inverse).all()):
        raise ValueError("numbers that are not finite")
    heads = np.linalg.inv(inverse.astype(np.float64))[:, :3, 3]  # (B, 3)
    _, first, welded = np.unique(
        np.round(points / WELD_M).astype(np.int64), axis=0, return_index=True, return_inverse=True
    )
    faces = welded.reshape(-1)[corners]
    whole = (faces != np.roll(faces, 1, axis=1)).all(axis=1)  # welding may close a sliver
    return ModelledHand(
        vertices_m=points[first],
        faces=faces[whole],
        corner_uv=uv[corners][whole],
        joints_m=heads[[names.index(name) for name in JOINT_BONES]],
        textures=textures,
    )


class _Accessors:
    """Arrays by the number of their accessor."""

    def __init__(self, described: Mapping[str, Any], path: Path) -> None:
        self.described, self.path = described, path
        self.buffers: dict[int, bytes] = {}

    def __call__(self, number: int) -> NDArray[Any]:
        """(count, elements) of an accessor's own type."""
        accessor = self.described["accessors"][number]
        view = self.described["bufferViews"][accessor["bufferView"]]
        kind, width = COMPONENTS[accessor["componentType"]], ELEMENTS[accessor["type"]]
        count, start = accessor["count"], accessor.get("byteOffset", 0) + view.get("byteOffset", 0)
        data = self._buffer(view["buffer"])
        element = np.dtype(kind).itemsize * width
        stride = view.get("byteStride", element)
        end = start + stride * (count - 1) + element
        if count < 1 or start < 0 or stride < element or end > len(data):
            raise InputError(
                f"{self.path}: accessor {number} ends at byte {end} of a buffer of {len(data)}: "
                "the file is truncated; copy it again"
            )
        rows = np.frombuffer(data, np.uint8, end - start, start)
        rows = np.lib.stride_tricks.as_strided(rows, (count, element), (stride, 1))
        return np.ascontiguousarray(rows).view(kind)

    def _buffer(self, number: int) -> bytes:
        if number not in self.buffers:
            buffer = self.described["buffers"][number]
            uri, wanted = str(buffer["uri"]), int(buffer["byteLength"])
            try:
                data = (
                    base64.b64decode(uri.partition(",")[2], validate=True)
                    if uri.startswith("data:")
                    else (self.path.parent / uri).read_bytes()
                )
            except (OSError, binascii.Error) as error:
                raise InputError(
                    f"{self.path}: expected a buffer of {wanted} bytes, got none ({error}); copy "
                    "the model again, with the files that it names"
                ) from error
            if len(data) < wanted:
                raise InputError(
                    f"{self.path}: expected a buffer of {wanted} bytes, got {len(data)}: it is "
                    "truncated; copy it again"
                )
            self.buffers[number] = data
        return self.buffers[number]
