"""The mesh that is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from handmesh.errors import InputError
from handmesh_training.rendering.arrays import checked


@dataclass(frozen=True)
class RenderMesh:
    """Connectivity of a mesh, with its texture coordinates and part labels.

    Attributes:
        faces: (F, 3) int32 vertex indices, counter-clockwise seen from outside.
        uv: (F, 3, 2) float32 texture coordinates of each corner in the skin atlas, v up.
        parts: (V,) uint8 part label of each vertex; 255 is reserved for "nothing here".
        arm: (V,) float32 metres beyond the wrist along the arm, at rest, at most 0 on the
            hand: where sleeves can be. None = no sleeves.
        hand: (F,) bool, True on the faces that masks and depth are of: the hand's, not the arm's.
            None = all.
        own_vertices: the first so many vertices are the labelled hand's, those that follow its
            partner's (`with_partner`); None = all.

    Raises:
        InputError: a wrong shape, dtype, or index.
    """

    faces: npt.NDArray[np.int32]
    uv: npt.NDArray[np.float32]
    parts: npt.NDArray[np.uint8]
    arm: npt.NDArray[np.float32] | None = None
    hand: npt.NDArray[np.bool_] | None = None
    own_vertices: int | None = None

    def __post_init__(self) -> None:
        parts = checked("parts", self.parts, np.uint8, (None,), high=254)
        if len(parts) == 0:
            raise InputError("parts: a mesh needs vertices, got none")
        faces = checked("faces", self.faces, np.int32, (None, 3), low=0, high=len(parts) - 1)
        if len(faces) == 0:
            raise InputError("faces: a mesh needs faces, got none")
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "faces", faces)
        object.__setattr__(self, "uv", checked("uv", self.uv, np.float32, (len(faces), 3, 2)))
        if self.arm is not None:
            arm = checked("arm", self.arm, np.float32, (len(parts),))
            object.__setattr__(self, "arm", arm)
        if self.hand is not None and (
            self.hand.shape != (len(faces),) or self.hand.dtype != np.bool_
        ):
            raise InputError(
                f"hand: expected ({len(faces)},) bool, got {self.hand.shape} {self.hand.dtype}"
            )
        if self.own_vertices is not None and not 0 < self.own_vertices <= len(parts):
            raise InputError(
                f"own_vertices: expected 1 to {len(parts)}, as many as there are, or None, "
                f"got {self.own_vertices}"
            )

    def with_partner(self) -> RenderMesh:
        """This mesh and, after it, its mirror image: a second hand, without labels."""
        count = self.vertex_count
        every = np.ones(len(self.faces), dtype=bool)
        own = every if self.hand is None else self.hand
        return RenderMesh(
            # Seen in a mirror, corners go round the other way.
            faces=np.concatenate([self.faces, self.faces[:, ::-1] + np.int32(count)]),
            uv=np.concatenate([self.uv, self.uv[:, ::-1]]),
            parts=np.concatenate([self.parts, self.parts]),
            arm=None if self.arm is None else np.concatenate([self.arm, self.arm]),
            hand=np.concatenate([own, ~every]),
            own_vertices=count,
        )

    @property
    def vertex_count(self) -> int:
        """Number of vertices V."""
        return len(self.parts)

    def fans(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Faces around each vertex.

        Returns:
            start (V + 1,) int32 and faces (3 F,) int32: those around vertex v are
            ``faces[start[v]:start[v + 1]]``, ascending.
        """
        corners = self.faces.reshape(-1)
        order = np.argsort(corners, kind="stable")
        start = np.zeros(self.vertex_count + 1, dtype=np.int32)
        start[1:] = np.cumsum(np.bincount(corners, minlength=self.vertex_count))
        return start, (order // 3).astype(np.int32)


def largest_island(uv: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """(F,) faces of the largest piece of the atlas that hangs together."""
    _, corners = np.unique(uv.reshape(-1, 2).round(6), axis=0, return_inverse=True)
    corners = corners.reshape(-1, 3)
    label = np.arange(corners.max() + 1)
    while True:  # the smallest label spreads over each piece
        lowest = label[corners].min(axis=1)
        spread = label.copy()
        np.minimum.at(spread, corners, lowest[:, None])
        if (spread == label).all():
            break
        label = spread
    island = label[corners[:, 0]]
    return np.asarray(island == np.bincount(island).argmax())
