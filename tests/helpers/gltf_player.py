"""A strict reader and player of binary glTF, from its specification: what a viewer would show.

It knows nothing of the package: quaternions go through SciPy, skins through the formula of section
3.7.3.3 of glTF 2.0.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

Array = NDArray[np.float64]

_DTYPES = {5121: "u1", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class Player:
    """A GLB file with one mesh, perhaps one skin, perhaps one animation."""

    def __init__(self, data: bytes) -> None:
        magic, version, length = struct.unpack_from("<4sII", data)
        assert (magic, version, length) == (b"glTF", 2, len(data))
        json_length, json_type = struct.unpack_from("<I4s", data, 12)
        assert (json_type, json_length % 4) == (b"JSON", 0)
        binary_length, binary_type = struct.unpack_from("<I4s", data, 20 + json_length)
        assert (binary_type, binary_length % 4) == (b"BIN\0", 0)
        assert 28 + json_length + binary_length == length
        self.json: dict[str, Any] = json.loads(data[20 : 20 + json_length])
        self.binary = data[28 + json_length :]
        assert self.json["buffers"] == [{"byteLength": binary_length}]
        self.nodes = self.json["nodes"]
        self.parents = {c: i for i, n in enumerate(self.nodes) for c in n.get("children", ())}
        assert set(self.json["scenes"][0]["nodes"]) == set(range(len(self.nodes))) - set(
            self.parents
        ), "every root is in the scene"

    def accessor(self, index: int) -> NDArray[Any]:
        """(N, K) numbers; bounds, where they are stated, are checked."""
        entry = self.json["accessors"][index]
        view = self.json["bufferViews"][entry["bufferView"]]
        dtype, width = np.dtype(_DTYPES[entry["componentType"]]), _WIDTHS[entry["type"]]
        assert view["byteOffset"] % 4 == 0
        assert view["byteLength"] == entry["count"] * width * dtype.itemsize
        end = view["byteOffset"] + view["byteLength"]
        assert end <= len(self.binary)
        values = np.frombuffer(self.binary[view["byteOffset"] : end], dtype).reshape(-1, width)
        if "min" in entry:
            np.testing.assert_array_equal(values.min(axis=0), np.float32(entry["min"]))
            np.testing.assert_array_equal(values.max(axis=0), np.float32(entry["max"]))
        return values

    @property
    def primitive(self) -> dict[str, Any]:
        (mesh,) = self.json["meshes"]
        (primitive,) = mesh["primitives"]
        return dict(primitive)

    def attribute(self, name: str) -> NDArray[Any]:
        return self.accessor(self.primitive["attributes"][name])

    def faces(self) -> NDArray[Any]:
        return self.accessor(self.primitive["indices"]).reshape(-1, 3)

    def duration(self) -> float:
        return float(
            max(
                self.accessor(s["input"]).max()
                for a in self.json["animations"]
                for s in a["samplers"]
            )
        )

    def worlds(self, second: float | None = None) -> Array:
        """(N, 4, 4) each node's global transform, as it stands or at a time of the animation."""
        turns = [Rotation.from_quat(n.get("rotation", (0, 0, 0, 1))) for n in self.nodes]
        places = [np.array(n.get("translation", (0, 0, 0)), dtype=float) for n in self.nodes]
        if second is not None:
            (animation,) = self.json["animations"]
            for channel in animation["channels"]:
                sampler = animation["samplers"][channel["sampler"]]
                assert sampler["interpolation"] == "LINEAR"
                times = self.accessor(sampler["input"])[:, 0].astype(float)
                assert (np.diff(times) > 0).all()
                values = self.accessor(sampler["output"]).astype(float)
                node, at = channel["target"]["node"], float(np.clip(second, times[0], times[-1]))
                if channel["target"]["path"] == "rotation":
                    keys = Rotation.from_quat(values)
                    turns[node] = Slerp(times, keys)(at) if len(times) > 1 else keys[0]
                else:
                    places[node] = np.array([np.interp(at, times, v) for v in values.T])
        worlds = np.tile(np.eye(4), (len(self.nodes), 1, 1))
        for i in range(len(self.nodes)):
            at_node: int | None = i
            while at_node is not None:
                local = np.eye(4)
                local[:3, :3] = turns[at_node].as_matrix()
                local[:3, 3] = places[at_node]
                worlds[i] = local @ worlds[i]
                at_node = self.parents.get(at_node)
        return worlds

    def joints(self, second: float | None = None) -> dict[str, Array]:
        """Where each joint of the skin is, by name."""
        worlds = self.worlds(second)
        return {self.nodes[j]["name"]: worlds[j, :3, 3] for j in self.json["skins"][0]["joints"]}

    def vertices(self, second: float | None = None) -> Array:
        """(V, 3) what a viewer that knows skins shows."""
        (skin,) = self.json["skins"]
        inverse = self.accessor(skin["inverseBindMatrices"]).astype(float)
        inverse = inverse.reshape(-1, 4, 4).transpose(0, 2, 1)  # stored column by column
        matrices = self.worlds(second)[skin["joints"]] @ inverse  # (J, 4, 4)
        joints, weights = self.attribute("JOINTS_0"), self.attribute("WEIGHTS_0").astype(float)
        assert joints.max() < len(matrices)
        np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
        blended = np.einsum("vk,vkab->vab", weights, matrices[joints])
        positions = self.attribute("POSITION").astype(float)
        return np.asarray(
            np.einsum("vab,vb->va", blended[:, :3, :3], positions) + blended[:, :3, 3]
        )
