"""How thick a mesh's fingers are: where joints alone are labelled, no error tells of a sliver."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from handmesh.graph import Topology
from handmesh.types import FINGERS, UNIT_BONE

from .segments import segment_distances

Array = NDArray[np.float64]


class FingerGirth:
    """Thickness of fingers around their last two bones, where they are free of the palm.

    Args:
        topology: of the meshes.

    Attributes:
        template: (5,) of the rest mesh, thumb to little finger.
    """

    def __init__(self, topology: Topology) -> None:
        self.vertex_count = topology.vertex_count
        # Vertices that go with the bone before the last joint but one, or with the last.
        self._rows = [
            np.flatnonzero(np.isin(topology.parts, finger[1:3])) for finger in FINGERS.values()
        ]
        rest = np.float64(topology.template_vertices_m)
        self.template = self(rest, topology.joint_regressor @ rest)

    def __call__(self, vertices: ArrayLike, joints: ArrayLike) -> Array:
        """(5,) mean distance of a finger's vertices to its bones, over the middle finger's first.

        Args:
            vertices: (V, 3), joints: (21, 3), of one hand in one frame and unit.
        """
        points, ends = (
            torch.tensor(np.asarray(x), dtype=torch.float64) for x in (vertices, joints)
        )
        unit = float((ends[UNIT_BONE[1]] - ends[UNIT_BONE[0]]).norm())
        girths = []
        for rows, (_, *chain) in zip(self._rows, FINGERS.values(), strict=True):
            bones = [(ends[a], ends[b]) for a, b in pairwise(chain)]
            away = torch.stack([segment_distances(points[rows], *bone) for bone in bones])  # (2, N)
            girths.append(float(away.amin(dim=0).mean()))
        return np.asarray(girths) / max(unit, 1e-9)

    def shares(
        self,
        vertices: ArrayLike,
        joints: ArrayLike,
        true_vertices: ArrayLike | None = None,
        true_joints: ArrayLike | None = None,
    ) -> Array:
        """(5,) over the girths of the labelled hand, or of the template if its mesh is not given.

        It must be ours. Labelled joints may be unknown, NaN.
        """
        true_girth = self.template
        if (
            true_vertices is not None
            and true_joints is not None
            and np.isfinite(np.asarray(true_joints)).all()
        ):
            true_girth = self(true_vertices, true_joints)
        return np.asarray(self(vertices, joints) / true_girth)
