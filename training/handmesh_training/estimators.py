"""What can be evaluated: anything that finds hands in pictures, behind one small protocol.

A bundle is asked through `handmesh.Predictor`, as an app asks it. A network in training is asked
through a function from crops to the network's outputs, which are lifted by the same geometry.
"""

from __future__ import annotations

import hashlib
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from handmesh import Predictor
from handmesh.arguments import checked_looks
from handmesh.errors import InputError
from handmesh.geometry import lift, place, solve_root_depth
from handmesh.imaging import crop
from handmesh.looks import LOOKS
from handmesh.types import JOINT_NAMES, ROOT_JOINT, Box, Camera, Handedness

from .protocols import Protocol

# Crops that a network is shown at once: it bounds memory.
BATCH = 32
# Stages that leave what makes joints and mesh as it was.
_IN_PART = ("heatmaps", "pose")

# (B, S, S, 3) uint8 RGB crops of right hands to vertices (B, V, 3) and joints (B, 21, 3), both as
# (u, v, d): crop fractions, and depth in bones. V is 0 for a network without a mesh.
CropNetwork = Callable[
    [NDArray[np.uint8]], tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]
]

# (21, 3) joints of a right hand in metres to its vertices (V, 3).
MeshOfJoints = Callable[[NDArray[np.floating[Any]]], NDArray[np.floating[Any]]]


@dataclass(frozen=True, eq=False)
class Query:
    """One hand to be estimated, and what is told of it; None is not told.

    Attributes:
        image: (H, W, 3) uint8 RGB, not mirrored.
        box: where the hand is, in pixels. camera: intrinsics of the image.
        handedness: the person's own hand.
        bone_length_m: middle finger's MCP to PIP. root_depth_m: depth of the wrist.
        name: of the hand, for who reads an error; an estimator learns nothing from it.
    """

    image: NDArray[np.uint8]
    box: Box | None = None
    handedness: Handedness | None = None
    camera: Camera | None = None
    bone_length_m: float | None = None
    root_depth_m: float | None = None
    name: str = ""


@dataclass(frozen=True, eq=False)
class Estimate:
    """One hand as it was estimated.

    Attributes:
        joints_px: (21, 2) float, pixels of the picture. joints_m: (21, 3) float, camera's frame.
        vertices_m: (V, 3) float, camera's frame; V is 0 where there is no mesh.
        handedness: the side it was taken for; None from one that must be told.
        presence: 0..1, that there is a hand; None from one that does not say.
        crops_seen: how many crops a network was shown for it; None from one that does not say.
    """

    joints_px: NDArray[np.floating[Any]]
    joints_m: NDArray[np.floating[Any]]
    vertices_m: NDArray[np.floating[Any]]
    handedness: Handedness | None = None
    presence: float | None = None
    crops_seen: int | None = None


class Estimator(typing.Protocol):
    """What is evaluated."""

    @property
    def description(self) -> Mapping[str, str | int]:
        """What it is, for the report: "kind", "name", "sha256" and whatever else matters."""

    def require(self, protocol: Protocol) -> None:
        """
        Raises:
            InputError: it must be told what the protocol does not give.
        """

    def estimate(self, queries: Sequence[Query]) -> list[Estimate | None]:
        """One estimate for each query, in their order; None where no hand was found.

        Raises:
            InputError: it must be told what a query does not tell.
        """


class PredictorEstimator:
    """A bundle in a runtime, asked as an app asks it.

    Args:
        predictor: the bundle in its runtime.
        looks: at each hand, as `Predictor.predict` takes it.

    Raises:
        InputError: another number of looks than that takes.
    """

    def __init__(self, predictor: Predictor, looks: int = LOOKS) -> None:
        self.predictor = predictor
        self.looks = checked_looks(looks)

    @property
    def description(self) -> Mapping[str, str | int]:
        bundle = self.predictor.bundle
        return {
            "kind": "bundle",
            "name": bundle.name,
            "sha256": str(bundle.manifest["sha256"]),
            "runtime": self.predictor.backend.description,
            "looks": self.looks,
        }

    def require(self, protocol: Protocol) -> None:
        """Nothing: it finds or assumes what it is not told."""

    def estimate(self, queries: Sequence[Query]) -> list[Estimate | None]:
        return [self._estimate(query) for query in queries]

    def _estimate(self, query: Query) -> Estimate | None:
        hands = self.predictor.predict(
            query.image,
            box=query.box,
            camera=query.camera,
            handedness=query.handedness,
            bone_length_m=query.bone_length_m,
            root_depth_m=query.root_depth_m,
            looks=self.looks,
        )
        if not hands:
            return None
        hand = hands[0]
        return Estimate(
            hand.joints_px,
            hand.joints_m,
            hand.vertices_m,
            hand.handedness,
            hand.presence,
            hand.crops_seen,
        )


class NetworkEstimator:
    """A network by itself: it is shown the given box once, mirrored for left hands.

    Args:
        network: see `CropNetwork`.
        size: S, the side of its crops in pixels.
        bone_ratios: (20,) as of `handmesh.geometry.solve_root_depth`, for hands whose root is not
            given.
        description: see `Estimator`.
        mesh_of: makes the mesh, for a network that gives joints alone.
    """

    def __init__(
        self,
        network: CropNetwork,
        size: int,
        bone_ratios: ArrayLike,
        description: Mapping[str, str | int],
        mesh_of: MeshOfJoints | None = None,
    ) -> None:
        self._network = network
        self._mesh_of = mesh_of
        self._size = size
        self._bone_ratios = bone_ratios
        self.description = description

    def require(self, protocol: Protocol) -> None:
        for name in ("box", "handedness"):
            if not getattr(protocol, name):
                raise InputError(
                    f"a network by itself must be told the {name}: choose a protocol that gives it,"
                    " as paper or freihand, or export a bundle"
                )

    def estimate(self, queries: Sequence[Query]) -> list[Estimate | None]:
        found: list[Estimate | None] = []
        for first in range(0, len(queries), BATCH):
            found += self._estimate(queries[first : first + BATCH])
        return found

    def _estimate(self, queries: Sequence[Query]) -> list[Estimate]:
        boxes = []
        for query in queries:
            if query.box is None or query.handedness is None:
                raise InputError("a network by itself must be told the box and the handedness")
            boxes.append(query.box)
        crops = [
            _flipped(crop(query.image, box, self._size), query)
            for query, box in zip(queries, boxes, strict=True)
        ]
        vertices, joints = self._network(np.stack(crops))  # (B, V, 3), (B, 21, 3)
        right = (len(queries), len(JOINT_NAMES), 3)
        if joints.shape != right or vertices.shape != (len(queries), vertices.shape[1], 3):
            raise InputError(
                f"expected vertices (B, V, 3) and joints (B, 21, 3) for B = {len(queries)} crops, "
                f"got {vertices.shape} and {joints.shape}"
            )
        for query, v, j in zip(queries, vertices, joints, strict=True):
            if not (np.isfinite(v).all() and np.isfinite(j).all()):
                raise InputError(
                    f"the network gives numbers that are not finite for the hand {query.name} in "
                    f"{query.box}: its weights may be damaged, or its training have diverged; "
                    "give another checkpoint"
                )
        return [
            self._lifted(query, box, np.float64(v), np.float64(j))
            for query, box, v, j in zip(queries, boxes, vertices, joints, strict=True)
        ]

    def _lifted(
        self, query: Query, box: Box, vertices: NDArray[np.float64], joints: NDArray[np.float64]
    ) -> Estimate:
        """(V, 3) and (21, 3) in the crop, as it was shown, to the picture and the camera."""
        height, width = query.image.shape[:2]
        camera = Camera.default(width, height) if query.camera is None else query.camera
        if query.handedness == "left":
            vertices, joints = (x * (-1, 1, 1) + (1, 0, 0) for x in (vertices, joints))
        joints_px, vertices_px = box.to_image(joints[:, :2]), box.to_image(vertices[:, :2])
        root = joints[ROOT_JOINT, 2]  # 0 but for the network's error
        depth = joints[:, 2] - root  # (21,)
        away = solve_root_depth(joints_px, depth, camera, self._bone_ratios)
        where = place(away, query.bone_length_m, query.root_depth_m)
        joints_m = lift(joints_px, depth, camera, where)
        if self._mesh_of is None:
            vertices_m = lift(vertices_px, vertices[:, 2] - root, camera, where)
        else:  # of right hands
            side = np.array([-1, 1, 1] if query.handedness == "left" else [1, 1, 1])
            vertices_m = np.asarray(self._mesh_of(joints_m * side) * side, dtype=np.float32)
        return Estimate(joints_px=joints_px, joints_m=joints_m, vertices_m=vertices_m)


def _flipped(picture: NDArray[np.uint8], query: Query) -> NDArray[np.uint8]:
    """A crop as networks know hands: the right one's, or a left one's in the mirror."""
    return picture[:, ::-1] if query.handedness == "left" else picture


def skinned_mesh() -> MeshOfJoints:
    """Direct linear blend skinning, the paper's section 5.3: inverse kinematics, then our hand."""
    import torch

    from .hand import HandModel
    from .heads import skin_joints

    model = HandModel(blending="linear")

    def mesh_of(joints_m: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        with torch.inference_mode():
            made = skin_joints(model, torch.from_numpy(np.float32(joints_m))[None])
            return made[0].numpy()  # (V, 3)

    return mesh_of


def checkpoint_estimator(path: Path) -> NetworkEstimator:
    """The network of a training checkpoint, on the CPU.

    Raises:
        CheckpointError: there is no such file, or it is no checkpoint.
        InputError: it is a detector's, or of a stage that trains a part without any mesh or joints.
    """
    import torch

    from handmesh.graph import Topology
    from handmesh.nn import DetectorConfig

    from .checkpoint import load_network

    loaded = load_network(path)
    if isinstance(loaded.config, DetectorConfig):
        raise InputError(
            f"{path} is a detector, which tells no joints: export it, and measure the bundle by "
            "`handmesh evaluate-finding --detector`"
        )
    if loaded.stage in _IN_PART:
        raise InputError(
            f"{path} is of the stage {loaded.stage}, which trains a part of the network alone: its "
            "figures would be those of chance; give a checkpoint of `full` or a later stage"
        )

    def run(crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with torch.inference_mode():
            images = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255 - 0.5  # (B, 3, S, S)
            output = loaded.network(images)
            return output.vertices.float().numpy(), output.joints.float().numpy()

    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return NetworkEstimator(
        run,
        loaded.input_size,
        Topology.default().bone_ratios,
        {
            "kind": "checkpoint",
            "name": path.name,
            "sha256": digest.hexdigest(),
            "runtime": f"torch {torch.__version__}, CPU",
        },
        skinned_mesh() if loaded.head == "lbs" else None,
    )
