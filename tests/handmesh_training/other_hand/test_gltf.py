"""Reading another model's hand: what is in the file, and what is said of files that are not."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_hand
import numpy as np
import pytest

from handmesh.errors import InputError
from handmesh_training.hand import HandModel
from handmesh_training.other_hand import hash_of, read_hand, source_files

Gltf = dict[str, Any]


@pytest.fixture(scope="module")
def gltf(hand_model: HandModel) -> Gltf:
    return made_hand.described(hand_model, made_hand.made_hand(hand_model))


def test_a_hand_is_read_as_it_was_written(
    hand_model: HandModel, gltf: Gltf, tmp_path: Path
) -> None:
    made = made_hand.made_hand(hand_model)
    read = read_hand(made_hand.write(tmp_path, gltf))

    assert len(read.vertices_m) == len(made.rows), "seams of the texture are welded"
    asset = hand_model.asset
    kept = np.isin(asset.faces, made.rows).all(axis=1)
    wanted = made.vertices[asset.faces[kept]]
    np.testing.assert_allclose(read.vertices_m[read.faces], wanted, atol=1e-7)
    flipped = asset.corner_uv[kept] * [1, -1] + [0, 1]
    np.testing.assert_allclose(read.corner_uv, flipped, atol=1e-6)
    np.testing.assert_allclose(read.joints_m, made.joints, atol=1e-6)
    assert [path.name for path in read.textures] == ["tone0_baseColor.png", "tone1_baseColor.png"]


def test_numbers_may_lie_in_a_file_beside_it_and_in_strides(gltf: Gltf, tmp_path: Path) -> None:
    data = base64.b64decode(gltf["buffers"][0]["uri"].partition(",")[2])
    outside = copy.deepcopy(gltf)
    view = outside["bufferViews"][0]
    start, length = view["byteOffset"], view["byteLength"]
    rows = np.frombuffer(data, np.uint8)[start : start + length].reshape(-1, 12)
    padded = np.pad(rows, ((0, 0), (0, 4))).tobytes()
    outside["bufferViews"][0] = {"buffer": 0, "byteOffset": len(data), "byteStride": 16}
    outside["buffers"] = [{"byteLength": len(data) + len(padded), "uri": "hand_r.bin"}]
    made_hand.write(tmp_path / "outside", outside)
    (tmp_path / "outside" / "hand_r.bin").write_bytes(data + padded)

    one = read_hand(made_hand.write(tmp_path / "inside", gltf))
    two = read_hand(tmp_path / "outside")

    np.testing.assert_array_equal(one.vertices_m, two.vertices_m)
    names = [path.name for path in source_files(tmp_path / "outside")]
    assert names[:2] == ["hand_r.gltf", "hand_r.bin"]
    before = hash_of(tmp_path / "outside")
    (tmp_path / "outside" / "hand_r.bin").write_bytes(data + padded + b"\0")
    assert hash_of(tmp_path / "outside") != before


def without(*path: str | int) -> Callable[[Gltf], object]:
    def remove(gltf: Gltf) -> None:
        inner: Any = gltf
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]

    return remove


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g["nodes"][6].update(name="Digit"), r"expected the bones.*got.*: \w+ missing"),
        (without("skins"), "not a glTF 2.0 file with one skinned mesh"),
        (without("meshes", 0, "primitives", 0, "attributes", "TEXCOORD_0"), "TEXCOORD_0"),
        (lambda g: g["meshes"][0]["primitives"][0].update(mode=1), "mode 1 where 4, triangles"),
        (lambda g: g["accessors"][0].update(count=10**6), "the file is truncated; copy it again"),
        (lambda g: g["accessors"][1].update(count=5), "texture coordinates"),
        (lambda g: g["buffers"][0].update(byteLength=10**7), "expected a buffer of 10000000 bytes"),
        (lambda g: g["buffers"][0].update(uri="gone.bin"), "copy the model again"),
        (lambda g: g["buffers"][0].update(uri="data:;base64,*"), "copy the model again"),
        (lambda g: g["accessors"][0].update(componentType=5120), "KeyError"),
    ],
)
def test_models_that_are_not_such_hands_are_told(
    gltf: Gltf, tmp_path: Path, change: Callable[[Gltf], object], message: str
) -> None:
    changed = copy.deepcopy(gltf)
    change(changed)
    with pytest.raises(InputError, match=message) as caught:
        read_hand(made_hand.write(tmp_path, changed))
    assert "hand_r.gltf" in str(caught.value)


def test_missing_and_truncated_files_are_told(gltf: Gltf, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no hand_r\.gltf; give a folder"):
        read_hand(tmp_path / "nowhere")
    made_hand.write(tmp_path, gltf, textures=0)
    with pytest.raises(InputError, match=r"holds no texture \*baseColor\.png"):
        read_hand(tmp_path)
    made_hand.write(tmp_path, gltf)
    whole = (tmp_path / "hand_r.gltf").read_text()
    (tmp_path / "hand_r.gltf").write_text(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"expected a whole JSON file.*copy it again"):
        read_hand(tmp_path)
    (tmp_path / "hand_r.gltf").write_text(json.dumps([1]))
    with pytest.raises(InputError, match="expected a JSON object, got a list"):
        read_hand(tmp_path)
