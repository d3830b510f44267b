"""What fuzzing found, a test each: input that once ended in an error of Python or a library."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handmesh import (
    Box,
    BoxError,
    Bundle,
    BundleError,
    Camera,
    CameraError,
    Hand,
    ImageError,
    InputError,
    Predictor,
    open_video,
)
from handmesh.arguments import _checked_box
from handmesh.camera import shown
from handmesh.geometry import place
from handmesh.imaging import crop, decode
from handmesh.manifest import MANIFEST, _manifest_hash, read_manifest, write_manifest
from handmesh.verification import read_reference, verify

TOO_LARGE = [10**400, -(10**400), 10**5000]  # for a float, and for Python to write
NO_NAMES = ["a\0b", "\ud800", "x" * 5000]


@pytest.mark.parametrize("number", TOO_LARGE, ids=["large", "negative", "unwritable"])
def test_whole_numbers_beyond_floats(number: int) -> None:
    for box in (
        lambda: Box(number, 0, 1),
        lambda: Box.from_xyxy(0, 0, number, 1),
        lambda: Box.from_points([[0, 0], [number, 1]]),
        lambda: Box.from_points([[0, 0], [1, 1]], margin=number),
        lambda: _checked_box((0, 0, number, 1), 64, 48),
    ):
        with pytest.raises(BoxError):
            box()
    for camera in (
        lambda: Camera(number, 1, 0, 0, 8, 8),
        lambda: Camera.from_fov(number, 8, 60),
        lambda: Camera.from_matrix([[number, 0, 4], [0, 9, 4], [0, 0, 1]], 8, 8),
    ):
        with pytest.raises(CameraError):
            camera()


def test_values_are_shown_in_messages_whatever_they_are() -> None:
    class Secretive:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    assert shown(10**5000) == "a int"
    assert shown(Secretive()) == "a Secretive"
    assert len(shown("x" * 10_000)) == 200
    assert shown([1, "a"]) == "[1, 'a']"


def test_corners_that_are_no_numbers() -> None:
    two = np.array([1.0, 2.0])
    for corners in (
        (two, two, two + 5, two + 5),
        (0, 0, b"wide", 9),
        (0, 0, "wide", 9),
        (0, 0, [], 9),
    ):
        with pytest.raises(BoxError):
            Box.from_xyxy(*corners)  # type: ignore[arg-type]


def test_an_angle_that_is_lost_in_rounding() -> None:
    for degrees in (5e-324, 1e-310):
        with pytest.raises(CameraError):
            Camera.from_fov(640, 480, degrees)


@pytest.mark.parametrize("name", NO_NAMES, ids=["nul", "half a character", "long"])
def test_names_that_no_file_can_have(name: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot read"):
        decode(name)
    with pytest.raises(ImageError, match="cannot read"):
        Camera.from_exif(name)
    with pytest.raises(InputError, match="no video file"):
        open_video(name)
    with pytest.raises(BundleError, match="no bundle"):
        Bundle.load(name)
    with pytest.raises(InputError, match="cannot write"):
        _hand().save(tmp_path / f"{name}.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError("on a GPU"), TypeError("no"), KeyError(3)])
def test_an_array_that_cannot_be_converted(error: Exception) -> None:
    class Elsewhere:
        def __array__(self, *_: object, **__: object) -> Any:
            raise error

    with pytest.raises(ImageError, match="Elsewhere cannot be converted") as caught:
        decode(Elsewhere())
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("source", [1.5, None, b"clip.mp4", True, -1, 2**40])
def test_things_that_are_no_video(source: Any) -> None:
    with pytest.raises(InputError):
        open_video(source)


@pytest.mark.parametrize("name", [5, 0.5, b"light", ["light"], True])
def test_things_that_are_no_bundle(name: Any) -> None:
    for load in (Bundle.load, Predictor):
        with pytest.raises(BundleError, match="path of a folder"):
            load(name)


@pytest.mark.parametrize("depth", [3000, 100_000])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_manifests_that_are_nested_deeply(bundle_folder: Path, opening: str, depth: int) -> None:
    (bundle_folder / MANIFEST).write_text(opening * depth)
    with pytest.raises(BundleError, match=r"cannot read .*manifest\.json"):
        Bundle.load(bundle_folder)


def test_manifests_of_crops_that_no_memory_holds(bundle_folder: Path) -> None:
    manifest = read_manifest(bundle_folder)
    manifest["input"]["shape"] = ["N", 10**6, 10**6, 3]
    manifest["sha256"] = _manifest_hash(manifest)
    (bundle_folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"input\.shape .* up to 4096"):
        Bundle.load(bundle_folder)


REFERENCE = {"vertices": (2, 0, 3), "joints": (2, 21, 3), "confidence": (2, 21)}
REFERENCE |= {"presence": (2,), "handedness": (2,)}


@pytest.mark.parametrize("damage", ["cut", "lacking", "other shape", "text", "no crops"])
def test_reference_crops_that_make_no_sense(bundle_folder: Path, damage: str) -> None:
    bundle = Bundle.load(bundle_folder)
    size, vertices = bundle.image_size, bundle.topology.vertex_count
    shapes = REFERENCE | {"vertices": (2, vertices, 3)}
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    arrays["images"] = np.zeros((2, size, size, 3), np.uint8)  # type: ignore[assignment]
    changes: dict[str, dict[str, Any]] = {
        "other shape": {"joints": np.zeros((2, 20, 3), np.float32)},
        "text": {"joints": np.full((2, 21, 3), "x")},
        "no crops": {"images": np.zeros((0, size, size, 3), np.uint8)},
    }
    arrays |= changes.get(damage, {})
    if damage == "lacking":
        del arrays["presence"]
    path = bundle_folder / "reference.npz"
    np.savez(path, **arrays)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:30])
    manifest = read_manifest(bundle_folder)
    write_manifest(
        bundle_folder, {k: v for k, v in manifest.items() if k not in ("files", "sha256")}
    )
    for read in (read_reference, verify):
        with pytest.raises(BundleError):
            read(Bundle.load(bundle_folder))


def _hand() -> Hand:
    joints = np.random.default_rng(0).uniform(-0.1, 0.1, (21, 3)) + (0, 0, 0.5)
    camera = Camera.default(64, 48)
    pixels = camera.project(joints)
    return Hand(
        joints, [[0, 1, 2]], joints, pixels, pixels, np.ones(21), 0.9, "left", "assumed",
        Box(30, 20, 25), camera, "none", {"crop": 0.1},
    )  # type: ignore[arg-type]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("faces", [[0, 1, 2**40]]),
        ("timings_ms", {"crop": float("nan")}),
        ("timings_ms", {"crop": 10**400}),
        ("backend", {"a": 1}),
        ("crops_seen", "many"),
        ("presence", 10**400),
    ],
)
def test_hands_that_could_not_be_written_again(field: str, value: Any) -> None:
    """All of these can stand in a JSON file."""
    with pytest.raises(InputError):
        Hand.from_dict({**_hand().to_dict(), field: value})


def test_a_crop_far_outside_is_black_without_a_warning() -> None:
    image = np.full((40, 30, 3), 255, np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for centre in (1e30, -1e30, 1e300):
            assert not crop(image, Box(centre, 10, 50), 16).any()


def test_lengths_that_only_look_like_numbers() -> None:
    """What float() takes is computed with as a float: text, and arrays of one number."""
    expected = place(10.0, bone_length_m=0.05)
    assert place(10.0, bone_length_m="0.05") == expected  # type: ignore[arg-type]
    assert place(10.0, root_depth_m="0.5") == expected  # type: ignore[arg-type]
    for length in ("wide", "-1", "nan", [0.05], 10**400):
        with pytest.raises(InputError):
            place(10.0, bone_length_m=length)  # type: ignore[arg-type]
