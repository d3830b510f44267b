"""True meshes for the pose regressor: labels that belong together, the same after a stop."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from handmesh.graph import Topology
from handmesh_training.losses import to_metric_like
from handmesh_training.meshes import CHUNK, MeshStream, unseen_meshes
from handmesh_training.sources import Batch


def parts(stream: MeshStream, number: int, of: int, start: int, count: int) -> list[Batch]:
    return list(itertools.islice(stream.lane(number, of, start), count))


def same(one: Batch, two: Batch) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_lanes_go_on_bit_for_bit() -> None:
    whole = parts(MeshStream(2, 5), 0, 2, 0, CHUNK + 2)
    for start in (0, 1, CHUNK - 1, CHUNK, CHUNK + 1):
        again = parts(MeshStream(2, 5), 0, 2, start, CHUNK + 2 - start)
        assert all(same(a, b) for a, b in zip(whole[start:], again, strict=True)), start
    drawn = {row.numpy().tobytes() for part in whole for row in part["vertices"]}
    assert len(drawn) == 2 * (CHUNK + 2), "no mesh comes twice"


def test_lanes_and_seeds_differ_and_the_held_out_are_in_none() -> None:
    streams = [
        parts(MeshStream(2, seed), number, of, 0, 1)[0]
        for seed, number, of in ((5, 0, 2), (5, 1, 2), (6, 0, 2))
    ]
    held_out = unseen_meshes(5, 20)
    rows = [row.numpy().tobytes() for part in streams for row in part["vertices"]]
    rows += [row.tobytes() for row in held_out.vertices]
    assert len(set(rows)) == len(rows)


def test_joints_belong_to_the_meshes() -> None:
    """In bones, the wrist's depth 0, and joints about where the template's regressor has them."""
    part = parts(MeshStream(12, 0), 0, 1, 0, 1)[0]
    held_out = unseen_meshes(0, 12)
    regressor = torch.from_numpy(Topology.default().joint_regressor).float()  # (21, V)
    for vertices, joints, scale in (
        (part["vertices"], part["joints"], part["crop_in_bones"]),
        tuple(
            torch.from_numpy(getattr(held_out, name))
            for name in ("vertices", "joints", "crop_in_bones")
        ),
    ):
        assert vertices.shape == (12, Topology.default().vertex_count, 3)
        assert torch.all(joints[:, 0, 2].abs() < 1e-6)
        points = to_metric_like(joints, scale)
        bone = (points[:, 10] - points[:, 9]).norm(dim=-1)
        assert float((bone - 1).abs().median()) < 0.15  # weak perspective of hands as near as 0.2 m
        found = regressor @ to_metric_like(vertices, scale)
        assert float((found - points).norm(dim=-1).mean()) < 0.25
        other = regressor @ to_metric_like(vertices.roll(1, 0), scale)
        assert float((other - points).norm(dim=-1).mean()) > 0.8
    for name in ("has_hand", "has_joints", "has_depth", "has_mesh"):
        assert np.all(getattr(held_out, name))
