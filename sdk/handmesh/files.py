"""A hand as a file: OBJ, PLY, GLB (binary glTF 2.0) or JSON, chosen by the suffix.

OBJ, PLY and JSON keep camera space as it is: metres, +x right, +y down, +z away from the camera.
glTF demands +y up, so a GLB holds (x, -y, -z); it also has a skeleton: see `handmesh.glb`.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .animation import encode_animation
from .atomic import write_atomic
from .camera import shown
from .errors import InputError
from .geometry import vertex_normals
from .glb import encode_hand
from .types import JOINT_NAMES, Box, Camera, Hand, finite

__all__ = ["HAND_SCHEMA", "from_dict", "save", "save_animation", "to_dict"]

# Raised when a field of `to_dict` changes its meaning or goes; new fields leave it alone.
HAND_SCHEMA = 1


def save(hand: Hand, path: str | os.PathLike[str]) -> Path:
    """Write one hand, atomically, in the format of the suffix; returns the path.

    Raises:
        InputError: the suffix is not .obj, .ply, .glb or .json, or the file cannot be written.
    """
    target = _target(path)
    encode = _ENCODERS.get(target.suffix.lower())
    if encode is None:
        raise InputError(
            f"a hand is saved as one of {', '.join(_ENCODERS)}; "
            f"{target.name!r} ends in {target.suffix!r}"
        )
    return write_atomic(target, encode(hand))


def _target(path: str | os.PathLike[str]) -> Path:
    try:
        return Path(path)
    except TypeError as cause:
        raise InputError(f"a file is named by a str or a path, not {shown(path)}") from cause


def save_animation(
    hands: Sequence[Hand], seconds: Sequence[float], path: str | os.PathLike[str]
) -> Path:
    """Write one hand that moves as an animated GLB, atomically; returns the path.

    Args:
        hands: one hand in N frames, as a video gave them. Frames without it are left out; between
            its neighbours in time the file moves the hand evenly.
        seconds: (N,) when each was seen, ascending. The file's time starts with the first.
        path: ends in .glb.

    Raises:
        InputError: another suffix, no hands, times that do not fit, left and right hands mixed, or
            a folder that does not exist.
    """
    target = _target(path)
    if target.suffix.lower() != ".glb":
        raise InputError(
            f"an animation is saved as .glb; {target.name!r} ends in {target.suffix!r}"
        )
    return write_atomic(target, encode_animation(hands, seconds))


def to_dict(hand: Hand, arrays: bool = False, mesh: bool = True) -> dict[str, Any]:
    """The hand as a dict; see `Hand.to_dict`, and ``assets/hand.schema.json`` for the fields."""

    def numbers(array: NDArray[Any], digits: int) -> Any:
        if arrays:
            return array
        return np.round(np.asarray(array, dtype=np.float64), digits).tolist()

    def number(value: float, digits: int) -> float:
        return value if arrays else round(value, digits)

    described = {
        "schema": HAND_SCHEMA,
        "frame": "camera: +x right, +y down, +z away; metres",
        "handedness": hand.handedness,
        "presence": number(hand.presence, 4),
        "depth": hand.depth,
        "bone_length_m": None if hand.bone_length_m is None else number(hand.bone_length_m, 6),
        "backend": hand.backend,
        "timings_ms": {stage: number(value, 3) for stage, value in hand.timings_ms.items()},
        "crops_seen": hand.crops_seen,
        "box": dataclasses.asdict(hand.box),
        "camera": dataclasses.asdict(hand.camera),
        "joint_names": list(JOINT_NAMES),
        "joints_px": numbers(hand.joints_px, 3),
        "joints_m": numbers(hand.joints_m, 6),
        "confidence": numbers(hand.confidence, 4),
    }
    if mesh:  # most of the work: a thousand vertices against 21 joints
        described |= {
            "vertices_m": numbers(hand.vertices_m, 6),
            "vertices_px": numbers(hand.vertices_px, 3),
            "faces": hand.faces if arrays else hand.faces.tolist(),
        }
    return described


def from_dict(data: Mapping[str, Any]) -> Hand:
    """The hand that `to_dict` describes; see `Hand.from_dict`."""
    if not isinstance(data, Mapping):
        raise InputError(f"a hand is read from a dict, not from {type(data).__name__}")
    if data.get("schema") != HAND_SCHEMA:
        raise InputError(
            f"this handmesh reads hands of schema {HAND_SCHEMA}, not {data.get('schema')!r}: "
            "use the version that wrote it, or a newer one"
        )
    fields = {field.name for field in dataclasses.fields(Hand)}
    optional = {"bone_length_m"}  # not in files of version 0.1.0
    missing = sorted(fields - optional - data.keys())
    if missing:
        raise InputError(f"the description of a hand lacks {', '.join(missing)}")
    values = {name: data[name] for name in fields if name in data}
    try:
        _check_scalars(data)
        values |= {"box": Box(**data["box"]), "camera": Camera(**data["camera"])}
        values["timings_ms"] = {
            str(k): finite(v, f"timings_ms[{k!r}]", InputError)
            for k, v in data["timings_ms"].items()
        }
        for name, kind in (("backend", str), ("crops_seen", int)):
            if not isinstance(values[name], kind) or isinstance(values[name], bool):
                raise InputError(f"{name} of a hand is {kind.__name__}, not {shown(values[name])}")
        hand = Hand(**values)
    except (AttributeError, OverflowError, TypeError, ValueError) as cause:
        if isinstance(cause, InputError):
            raise
        raise InputError(f"the description of a hand cannot be read: {cause}") from cause
    _check_ranges(hand)
    return hand


def _check_scalars(data: Mapping[str, Any]) -> None:
    """Refuse what Python takes for a number and JSON does not: True, and digits in text."""
    scalars = {name: data.get(name) for name in ("presence", "bone_length_m")}
    for group in ("timings_ms", "box", "camera"):
        scalars |= {f"{group}[{name!r}]": value for name, value in data[group].items()}
    for name, value in scalars.items():
        if isinstance(value, (bool, np.bool_, str, bytes)):
            raise InputError(f"{name} of a hand must be a number, not {shown(value)}")


def _check_ranges(hand: Hand) -> None:
    """What the schema demands of numbers, and a `Hand` in itself does not."""
    unit, from_zero = "in 0..1", "0 or more"
    for name, values, wanted in (
        ("presence", hand.presence, unit),
        ("confidence", hand.confidence, unit),
        ("timings_ms", list(hand.timings_ms.values()), from_zero),
        ("crops_seen", hand.crops_seen, from_zero),
    ):
        low = np.min(values, initial=0)
        if low < 0 or (wanted == unit and np.max(values) > 1):
            raise InputError(f"{name} of a hand must be {wanted}, not {shown(values)}")
    if hand.bone_length_m is not None and hand.bone_length_m <= 0:
        raise InputError(f"bone_length_m of a hand must be above 0, not {hand.bone_length_m:g}")


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


def _encode_json(hand: Hand) -> bytes:
    return (json.dumps(to_dict(hand), separators=(",", ":"), allow_nan=False) + "\n").encode()


_ENCODERS: dict[str, Callable[[Hand], bytes]] = {
    ".obj": _encode_obj,
    ".ply": _encode_ply,
    ".glb": encode_hand,
    ".json": _encode_json,
}
