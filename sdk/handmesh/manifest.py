"""A bundle's `manifest.json`: what it says, how it is read, checked and written.

    schema      2 when a reader of schema 1 could go wrong; now 1
    name        what `Bundle.load` calls it, as "light"
    network     the kind of network, as "light" or "paper"; "detector" finds hands for those
    config      every hyper-parameter of the network, as `handmesh.nn.from_dict` takes them
    input       {name, dtype, shape, layout, color, range}; "N" in a shape is any batch size
    outputs     the same by output, with its unit; see `io_specs` and `detector_specs`
    artifacts   format -> {path, precision, tools, parity, tolerance, ...}: what a runtime opens.
                `path` is a file or folder of the bundle. The formats are the names of
                `handmesh.backends`; "torch" is the weights. `tools` are versions by name; `parity`
                are measured differences from the torch network, `tolerance` what was allowed.
                `weights` says in which precision large weights are stored ("fp32" or "fp16";
                everything is computed in `precision`), `rounding` how far the stored network
                is from the one that was trained
    licences    {code, weights, data}, each apart, because they differ
    provenance  where the weights came from: data sets, images seen, commit, date, ...; and how good
                they are, `figures`: the command that printed them, and set -> {figure: value}
    graph_sha256  of the mesh graph that the network was trained on, `Topology.sha256`; optional
    files       path -> {sha256, bytes} for every file in the folder but the manifest
    sha256      of the manifest itself, without this entry

Beside it lie `topology.npz` (the mesh graph; a detector has none), `weights.safetensors`,
`reference.npz` (crops with the outputs that the torch network gave for them) and the artifacts.
Paths have forward slashes and lead to nothing outside the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

from .atomic import write_atomic
from .camera import shown
from .errors import BundleError, IntegrityError
from .types import JOINT_NAMES

__all__ = [
    "MANIFEST",
    "SCHEMA",
    "detector_specs",
    "io_specs",
    "read_manifest",
    "verify_file",
    "verify_size",
    "write_manifest",
]

SCHEMA = 1
MANIFEST = "manifest.json"

# Pixels a side: far beyond every network, and 48 MiB a crop.
_LARGEST_CROP = 4096
_REQUIRED: dict[str, type] = {
    "name": str,
    "network": str,
    "config": dict,
    "input": dict,
    "outputs": dict,
    "artifacts": dict,
    "licences": dict,
    "provenance": dict,
}


def io_specs(image_size: int, vertex_count: int) -> dict[str, dict[str, Any]]:
    """The manifest's `input` and `outputs`: the contract of every artifact.

    Points are (u, v, d): u and v are fractions of the crop, from the outer corner of its first
    pixel (0) to that of its last (1); d is the depth behind the wrist over the length of the middle
    finger's MCP-PIP bone. The network expects a right hand; ``handedness`` says whether it got one.
    """
    joints = len(JOINT_NAMES)

    def output(shape: list[str | int], unit: str) -> dict[str, Any]:
        return {"dtype": "float32", "shape": shape, "unit": unit}

    point = "u, v: fraction of the crop; d: depth behind the wrist in MCP-PIP bone lengths"
    return {
        "input": _picture(image_size),
        "outputs": {
            "vertices": output(["N", vertex_count, 3], point),
            "joints": output(["N", joints, 3], point),
            "confidence": output(["N", joints], "0..1"),
            "presence": output(["N"], "probability of a hand"),
            "handedness": output(["N"], "probability of a right hand in the crop as given"),
        },
    }


def _picture(size: int) -> dict[str, Any]:
    return {
        "name": "image",
        "dtype": "uint8",
        "shape": ["N", size, size, 3],
        "layout": "NHWC",
        "color": "RGB",
        "range": [0, 255],
    }


def detector_specs(image_size: int, candidates: int) -> dict[str, dict[str, Any]]:
    """The same of a detector: a photo, shrunk and centred in a black square, to rows of hands."""
    return {
        "input": _picture(image_size),
        "outputs": {
            "hands": {
                "dtype": "float32",
                "shape": ["N", candidates, 7],
                "unit": "the surest first: score 0..1; centre x, y and side of the box around a "
                "hand, fractions of the square from its outer corner; cosine and sine of the "
                "angle, clockwise, in which the hand points up; probability of a right hand",
            }
        },
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """Parse and check a manifest; the files that it names are not touched.

    Raises:
        BundleError: it is missing, not JSON, of a newer schema, lacks an entry, has one of another
            form than the module's docstring says, or names a path outside the folder.
        IntegrityError: it was changed after `write_manifest` wrote it.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as cause:  # the last of what is nested deeply
        raise BundleError(f"cannot read {path}: {cause}; install the bundle again") from cause
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else None
        raise BundleError(
            f"{path} has schema {found!r}, and this handmesh reads schema {SCHEMA}: "
            "install the handmesh that the bundle was made with"
        )
    try:
        unchanged = manifest.get("sha256") == _manifest_hash(manifest)
    except RecursionError as cause:
        raise BundleError(f"{path} is nested too deeply: install the bundle again") from cause
    if not unchanged:
        raise IntegrityError(
            f"{path} was changed after it was written: install the bundle again, "
            "or write it anew with handmesh.manifest.write_manifest"
        )
    _check_entries(manifest, str(path))
    return manifest


def write_manifest(folder: str | os.PathLike[str], manifest: Mapping[str, Any]) -> Path:
    """Hash what lies in a folder and write its manifest, atomically; returns its path.

    To add an artifact to a bundle, add its file, change what `read_manifest` gives, and write that.

    Args:
        folder: the bundle. Every file in it is taken up, but for names that begin with a dot.
        manifest: all entries but ``schema``, ``files`` and ``sha256``, which are made here.

    Raises:
        BundleError: an entry is missing or of another form, or an artifact's path does not exist.
    """
    root = Path(folder)
    files = {
        path.relative_to(root).as_posix(): {"sha256": _hash(path), "bytes": path.stat().st_size}
        for path in sorted(root.rglob("*"))
        if path.is_file()
        and path != root / MANIFEST
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    }
    made = {"schema": SCHEMA, **manifest, "files": files}
    made.pop("sha256", None)
    made["sha256"] = _manifest_hash(made)
    _check_entries(made, str(root / MANIFEST))
    for name, entry in made["artifacts"].items():
        if not (root / entry["path"]).exists():
            raise BundleError(f"artifact {name!r} has no file {entry['path']!r} in {root}")
    text = json.dumps(made, indent=2, ensure_ascii=False, allow_nan=False)
    return write_atomic(root / MANIFEST, (text + "\n").encode())


def _check_entries(manifest: Mapping[str, Any], where: str) -> None:
    for name, kind in {**_REQUIRED, "files": dict}.items():
        if not isinstance(manifest.get(name), kind):
            found = type(manifest.get(name)).__name__
            raise BundleError(
                f"{where}: entry {name!r} must be of type {kind.__name__}, not {found}"
            )
    shape = manifest["input"].get("shape")
    if not (
        isinstance(shape, list)
        and len(shape) == 4
        and [shape[0], shape[3]] == ["N", 3]
        and all(_is_count(side) and side == shape[1] for side in shape[1:3])
        and 0 < shape[1] <= _LARGEST_CROP
    ):
        raise BundleError(
            f"{where}: input.shape must be ['N', S, S, 3] with S up to {_LARGEST_CROP}, "
            f"not {shown(shape)}"
        )
    for path, described in manifest["files"].items():
        _check_path(path, f"{where}: files")
        if not (
            isinstance(described, dict)
            and _is_count(described.get("bytes"))
            and isinstance(described.get("sha256"), str)
        ):
            raise BundleError(
                f"{where}: files[{path!r}] must hold 'sha256', a string, and 'bytes', a whole "
                f"number, not {described!r}"
            )
    for name, entry in manifest["artifacts"].items():
        if not isinstance(entry, dict):
            raise BundleError(f"{where}: artifacts[{name!r}] must be an object, not {entry!r}")
        _check_path(entry.get("path"), f"{where}: artifacts[{name!r}].path")


def _check_path(path: object, where: str) -> None:
    """Refuse what could lead out of the bundle, on any system; the file need not exist."""
    if (
        not isinstance(path, str)
        or not {"", ".", ".."}.isdisjoint(path.split("/"))  # "" also where it begins with a slash
        or "\\" in path
        or PureWindowsPath(path).drive
    ):
        raise BundleError(
            f"{where}: expected a path inside the bundle, with forward slashes and without '..', "
            f"not {path!r}: do not use this bundle"
        )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _manifest_hash(manifest: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in manifest.items() if name != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def verify_file(path: Path, described: Mapping[str, Any]) -> None:
    """Check one file against its entry of the manifest's `files`.

    Raises:
        BundleError: it is missing.
        IntegrityError: its size or hash is another.
    """
    verify_size(path, described)
    if _hash(path) != described["sha256"]:
        raise IntegrityError(
            f"{path} is not the file that the manifest describes (sha256 differs): "
            "install the bundle again"
        )


def verify_size(path: Path, described: Mapping[str, Any]) -> None:
    """As `verify_file`, by existence and size alone: nothing is read."""
    if not path.is_file():
        raise BundleError(f"{path} is missing, though the manifest names it: install it again")
    size = path.stat().st_size
    if size != described["bytes"]:
        raise IntegrityError(
            f"{path} has {size} bytes, not the {described['bytes']} of its manifest: "
            "install the bundle again"
        )


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
