"""Build the gesture library: ``python -m handmesh_training.gestures.build``.

Solves every authored and combined gesture, drops combinations that overlap or lie too near to
another gesture, and writes ``handmesh_training/assets/gestures.npz``. Takes some minutes on one
core. With ``--check`` nothing is written: the result is compared with the committed file.
"""

from __future__ import annotations

if __name__ == "__main__":
    from handmesh.cli_shared import run_module

    run_module(__spec__, "training")

import argparse
import sys

import numpy as np
import torch
from numpy.typing import NDArray

from handmesh.errors import TrainingError

from ..collisions import HandCapsules
from ..hand import HandModel
from . import contact
from .authored import authored
from .combined import combined
from .library import LIBRARY_PATH, GestureLibrary

Array = NDArray[np.float64]

# Any two gestures have a joint at least so far apart, on the template's hand.
DISTINCT_MM = 6.0
OVERLAP_MM = 2.5
# Another machine's arithmetic may end a little elsewhere.
CHECK_RAD = 0.02


def joint_distances(model: HandModel, angles: Array) -> Array:
    """(G, G) millimetres between the farthest corresponding joints of any two gestures."""
    shape = torch.zeros(len(angles), model.shape_count, dtype=model.joints.dtype)
    turned = model.rotations(torch.from_numpy(angles).to(shape))
    joints = 1e3 * model.pose_joints(shape, turned)  # (G, 21, 3)
    distance = torch.zeros(len(angles), len(angles), dtype=joints.dtype)
    for joint in range(1, 21):
        distance = torch.maximum(distance, torch.cdist(joints[:, joint], joints[:, joint]))
    return distance.numpy().astype(np.float64)


def overlaps_mm(model: HandModel, angles: Array) -> Array:
    """(G,) deepest overlap of capsules, millimetres."""
    shape = torch.zeros(len(angles), model.shape_count, dtype=model.joints.dtype)
    bones = model.pose_bones(shape, model.rotations(torch.from_numpy(angles).to(shape)))
    deepest = HandCapsules(model).overlaps(shape, *bones).max(dim=1).values
    return 1e3 * deepest.numpy().astype(np.float64)


def build() -> GestureLibrary:
    """Everything from the tables; deterministic.

    Raises:
        TrainingError: authored gestures that are the same, or that overlap.
    """
    model = HandModel().double()
    specs = [*authored(), *combined()]
    angles = np.round(contact.solve(model, specs), 3)
    distance = joint_distances(model, angles)
    overlap = overlaps_mm(model, angles)
    kept: list[int] = []
    problems = []
    for g, spec in enumerate(specs):
        near = [k for k in kept if distance[g, k] < DISTINCT_MM]
        if near or overlap[g] > OVERLAP_MM:
            if spec.kind != "combined":
                twins = ", ".join(specs[k].name for k in near)
                problems.append(f"{spec.name} (overlap {overlap[g]:.1f} mm, near: {twins})")
            continue
        kept.append(g)
    if problems:
        raise TrainingError("change these rows of the table: " + "; ".join(problems))
    return GestureLibrary(
        tuple(specs[g].name for g in kept),
        tuple(specs[g].kind for g in kept),
        angles[kept].astype(np.float32),
    )


def main(arguments: list[str] | None = None) -> int:
    """Build and write the file, or compare it; 0 unless ``--check`` finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the committed file")
    options = parser.parse_args(arguments)
    library = build()
    if options.check:
        committed = GestureLibrary.load()
        same = committed.names == library.names and committed.kinds == library.kinds
        apart = float(abs(committed.angles - library.angles).max()) if same else np.inf
        sys.stdout.write(f"{len(library)} gestures, {apart:.4f} rad from the committed ones\n")
        return 0 if apart <= CHECK_RAD else 1
    library.save(LIBRARY_PATH)
    sys.stdout.write(f"{LIBRARY_PATH}: {len(library)} gestures\n")
    return 0
