"""The parametric right hand that training renders: shape directions, axes of motion, skinning.

`HandAsset` is the frozen file made by ``handmesh_training.template.build``; `HandModel` poses it in
torch, batched and differentiable, on any device. Everything is in the template frame: metres, wrist
joint at the origin, fingers up (-y), thumb right (+x), palm towards the viewer (-z).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from handmesh.archive import hash_arrays, read_arrays, write_arrays
from handmesh.errors import BundleError, InputError
from handmesh.geometry import vertex_normals

from .bones import (
    bone_length_directions,
    bone_length_names,
    dual_quaternion_skinning,
    linear_skinning,
    quaternion_of,
    quaternion_product,
    web_share,
)
from .flesh import FLESH_NAMES, flesh_directions

HAND_PATH = Path(__file__).parent / "assets" / "hand.npz"

# Seventeen rotations: the wrist, fifteen finger bones by the joint each pivots about, the forearm.
PIVOT_JOINTS = (0, 1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15, 17, 18, 19, 0)
PIVOT_PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14, 0)
PIVOT_COUNT = len(PIVOT_JOINTS)
FOREARM = 16
TIP_JOINTS = (4, 8, 12, 16, 20)
# The networks' mesh ends this far below the wrist joint.
RIM_BELOW_WRIST_M = 0.012

Blending = Literal["dual_quaternion", "linear"]


@dataclass(frozen=True, eq=False)
class HandAsset:
    """The frozen hand, fine mesh with forearm (V vertices, F faces).

    Attributes:
        vertices_m: (V, 3) float32 rest vertices.
        faces: (F, 3) int32, counter-clockwise from outside.
        corner_uv: (F, 3, 2) float32, texture coordinates in the MakeHuman body atlas.
        template_subset: (V_t,) int32, the vertices of the networks' mesh, in its order.
        weights: (V, 17) float32 skinning weights.
        shape_names: names of the S shape directions.
        shape_directions_m: (S, V, 3) float32, displacement for a coefficient of one.
        joint_regressor: (21, V) float32, rest joints from rest vertices.
        flexion_axes, abduction_axes, twist_axes: (17, 3) float32 unit axes.
    """

    vertices_m: NDArray[np.float32]
    faces: NDArray[np.int32]
    corner_uv: NDArray[np.float32]
    template_subset: NDArray[np.int32]
    weights: NDArray[np.float32]
    shape_names: tuple[str, ...]
    shape_directions_m: NDArray[np.float32]
    joint_regressor: NDArray[np.float32]
    flexion_axes: NDArray[np.float32]
    abduction_axes: NDArray[np.float32]
    twist_axes: NDArray[np.float32]

    def _flat(self) -> dict[str, NDArray[np.generic]]:
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        arrays["shape_names"] = np.array(self.shape_names, dtype="U32")
        return arrays

    @cached_property
    def sha256(self) -> str:
        """Hash of names, shapes and bytes of all arrays."""
        return hash_arrays("handmesh-hand-1", self._flat())

    @cached_property
    def hand_faces(self) -> NDArray[np.bool_]:
        """(F,) True on the faces that the networks' mesh was made of: the hand's, not the arm's."""
        above = self.vertices_m[:, 1] < RIM_BELOW_WRIST_M
        return np.asarray(above[self.faces].all(axis=1))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a byte-reproducible .npz atomically."""
        write_arrays(path, self._flat())

    @classmethod
    def load(cls, path: str | os.PathLike[str] = HAND_PATH) -> HandAsset:
        """Read the asset.

        Raises:
            BundleError: a missing or unreadable file, or one with other arrays.
        """
        remedy = "restore it or rebuild it with python -m handmesh_training.template.build"
        arrays: dict[str, Any] = read_arrays(path, remedy)
        expected = {field.name for field in fields(cls)}
        if set(arrays) != expected:
            raise BundleError(
                f"{path} is not a hand asset: it lacks {sorted(expected - set(arrays))} and has "
                f"{sorted(set(arrays) - expected)} instead; {remedy}"
            )
        names = tuple(str(name) for name in arrays.pop("shape_names"))
        return cls(shape_names=names, **arrays)


class PosedHand(NamedTuple):
    """vertices (B, V, 3) and joints (B, 21, 3), metres, template frame, wrist at the origin."""

    vertices: Tensor
    joints: Tensor


class HandModel(nn.Module):
    """Skinning of the fine mesh, with linear shape directions: the asset's, bone lengths, flesh.

    Args:
        asset: the frozen hand; None for the package's.
        blending: "dual_quaternion", which keeps the girth of bent joints (the webs between fingers
            stay linear), or "linear", the plain blend of matrices.

    Raises:
        InputError: another blending.
    """

    vertices: Tensor
    weights: Tensor
    web_rows: Tensor
    web_share: Tensor
    directions: Tensor
    normals: Tensor
    joint_directions: Tensor
    joints: Tensor
    axes: Tensor
    rest_flexion: Tensor

    def __init__(
        self, asset: HandAsset | None = None, blending: Blending = "dual_quaternion"
    ) -> None:
        super().__init__()
        if blending not in get_args(Blending):
            raise InputError(f"expected a blending of {get_args(Blending)}, got {blending!r}")
        self.blending = blending
        asset = asset if asset is not None else HandAsset.load()
        self.asset = asset
        regressor = torch.from_numpy(asset.joint_regressor).double()
        vertices = torch.from_numpy(asset.vertices_m).double()
        directions = torch.from_numpy(asset.shape_directions_m).double()
        joints = regressor @ vertices  # (21, 3)
        weights = torch.from_numpy(asset.weights)
        lengths = bone_length_directions(vertices, weights.double(), joints)
        flesh = flesh_directions(
            vertices, torch.from_numpy(asset.faces).long(), weights.double(), joints
        )
        directions = torch.cat([directions, lengths, flesh])  # (S, V, 3)
        self.shape_names = (*asset.shape_names, *bone_length_names(), *FLESH_NAMES)
        self.register_buffer("vertices", vertices.float())
        self.register_buffer("weights", weights)
        share = web_share(weights)
        rows = share.nonzero()[:, 0]
        self.register_buffer("web_rows", rows)
        self.register_buffer("web_share", share[rows])
        self.register_buffer("directions", directions.float())
        normals = torch.from_numpy(vertex_normals(vertices.numpy(), asset.faces))
        # Not persistent: checkpoints with a hand in them, of before, lack it.
        self.register_buffer("normals", normals.float(), persistent=False)
        self.register_buffer("joints", joints.float())
        moves = regressor @ directions  # (S, 21, 3)
        moves[-len(FLESH_NAMES) :] = 0  # no bone moves for the flesh about it
        self.register_buffer("joint_directions", moves.float())
        axes = np.stack([asset.twist_axes, asset.abduction_axes, asset.flexion_axes], axis=1)
        self.register_buffer("axes", torch.from_numpy(axes))  # (17, 3, 3)
        self.register_buffer("rest_flexion", self._rest_flexion(joints).float())

    @property
    def shape_count(self) -> int:
        return int(self.directions.shape[0])

    def _rest_flexion(self, joints: Tensor) -> Tensor:
        """(17,) bend of each bone against its parent bone in the rest pose, radians.

        For the finger bases the parent direction is the axis of the hand (-y), so that zero
        everywhere is a flat hand. The thumb's base keeps its rest direction as zero.
        """
        bend = torch.zeros(PIVOT_COUNT, dtype=joints.dtype)
        for pivot in range(2, FOREARM):
            joint = PIVOT_JOINTS[pivot]
            parent = PIVOT_PARENTS[pivot]
            bone = joints[joint + 1] - joints[joint]
            before = (
                joints[joint] - joints[joint - 1]
                if parent > 0
                else torch.tensor([0.0, -1.0, 0.0], dtype=joints.dtype)
            )
            flexion = torch.from_numpy(self.asset.flexion_axes[pivot]).to(joints.dtype)
            # Angle from the parent's direction to the bone, measured about the flexion axis.
            before = before - flexion * (before @ flexion)
            bone = bone - flexion * (bone @ flexion)
            bend[pivot] = torch.atan2(flexion @ torch.linalg.cross(before, bone), before @ bone)
        return bend

    def rotations(self, angles: Tensor) -> Tensor:
        """Bone rotations (B, 17, 3, 3) from (B, 17, 3) angles: twist, abduction, flexion, radians.

        Flexion is absolute: zero is the straight finger, not the relaxed rest pose. Flexion turns
        first, then abduction, then twist, all about axes fixed in the parent bone.

        Raises:
            InputError: angles of another shape.
        """
        if angles.ndim != 3 or angles.shape[1:] != (PIVOT_COUNT, 3):
            raise InputError(f"expected (B, {PIVOT_COUNT}, 3) angles, got {tuple(angles.shape)}")
        twist, abduction, flexion = angles.unbind(-1)
        flexion = flexion - self.rest_flexion
        turns = [
            _axis_angle(self.axes[:, k], angle)
            for k, angle in enumerate((twist, abduction, flexion))
        ]
        return turns[0] @ turns[1] @ turns[2]  # (B, 17, 3, 3)

    def forward(self, shape: Tensor, rotations: Tensor, relief: Tensor | None = None) -> PosedHand:
        """Pose a batch of hands.

        Args:
            shape: (B, S) coefficients in the order of `shape_names`, about -1..1 each.
            rotations: (B, 17, 3, 3), each bone in its parent's frame; index 0 turns the hand.
            relief: (B, V) metres by which the skin stands out beyond its shape, along the
                template's normals; joints stay.
        """
        joints, rotation, translation = self._pose(shape, rotations)
        rest = self.vertices + torch.einsum("bs,svc->bvc", shape, self.directions)  # (B, V, 3)
        if relief is not None:
            rest = rest + relief[..., None] * self.normals
        if self.blending == "linear":
            return PosedHand(linear_skinning(rest, self.weights, rotation, translation), joints)
        # Seen from the wrist, so that no bone's quaternion has to follow the turn of the hand.
        root = rotations[:, 0]
        local = quaternion_of(rotations)  # (B, 17, 4)
        turns = [torch.eye(4, dtype=rest.dtype, device=rest.device)[0].expand(len(rest), 4)]
        for pivot in range(1, PIVOT_COUNT):
            turns.append(quaternion_product(turns[PIVOT_PARENTS[pivot]], local[:, pivot]))
        vertices = dual_quaternion_skinning(
            rest, self.weights, torch.stack(turns, dim=1), translation @ root
        ) @ root.transpose(1, 2)
        rows = self.web_rows
        web = linear_skinning(rest[:, rows], self.weights[rows], rotation, translation)
        web = torch.lerp(vertices[:, rows], web, self.web_share[:, None])
        return PosedHand(vertices.index_copy(1, rows, web), joints)

    def pose_joints(self, shape: Tensor, rotations: Tensor) -> Tensor:
        """Only the joints (B, 21, 3) of `forward`, at a fraction of its cost."""
        return self._pose(shape, rotations)[0]

    def pose_bones(self, shape: Tensor, rotations: Tensor) -> tuple[Tensor, Tensor]:
        """Each bone's map from rest to pose: rotations (B, 17, 3, 3), translations (B, 17, 3)."""
        return self._pose(shape, rotations)[1:]

    def _pose(self, shape: Tensor, rotations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Posed joints (B, 21, 3); each bone's map from rest to pose: (B, 17, 3, 3), (B, 17, 3)."""
        joints = self.joints + torch.einsum("bs,sjc->bjc", shape, self.joint_directions)
        world_r: list[Tensor] = []
        world_t: list[Tensor] = []
        for pivot, (joint, parent) in enumerate(zip(PIVOT_JOINTS, PIVOT_PARENTS, strict=True)):
            if parent < 0:
                world_r.append(rotations[:, pivot])
                world_t.append(torch.zeros_like(joints[:, 0]))
                continue
            offset = joints[:, joint] - joints[:, PIVOT_JOINTS[parent]]  # (B, 3)
            world_t.append((world_r[parent] @ offset[..., None])[..., 0] + world_t[parent])
            world_r.append(world_r[parent] @ rotations[:, pivot])
        rotation = torch.stack(world_r, dim=1)  # (B, 17, 3, 3)
        pivots = joints[:, list(PIVOT_JOINTS)]  # (B, 17, 3)
        translation = torch.stack(world_t, dim=1) - (rotation @ pivots[..., None])[..., 0]
        owners = [0] + [PIVOT_JOINTS.index(max(j - (j in TIP_JOINTS), 1)) for j in range(1, 21)]
        posed = (rotation[:, owners] @ joints[..., None])[..., 0] + translation[:, owners]
        return posed, rotation, translation


def _axis_angle(axes: Tensor, angles: Tensor) -> Tensor:
    """Rodrigues: (N, 3) unit axes and (B, N) angles to (B, N, 3, 3) rotations."""
    x, y, z = axes.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    sine, cosine = angles.sin()[..., None, None], angles.cos()[..., None, None]
    identity = torch.eye(3, dtype=axes.dtype, device=axes.device)
    return identity + sine * cross + (1 - cosine) * (cross @ cross)  # (B, N, 3, 3)
