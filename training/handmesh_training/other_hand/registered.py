"""Another model's hand as one of ours: shape, skins, and how well it is met."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from handmesh.archive import hash_arrays
from handmesh.errors import InputError

from ..gestures.contact import part
from ..gestures.library import GestureLibrary, default_library
from ..hand import HandAsset, HandModel
from ..rendering.mesh import RenderMesh
from ..rendering.skins import SkinSet
from .bake import bake, read_textures
from .closest import Array, ClosestPoints, vertex_normals
from .drape import drape, is_match
from .fit import pose_like
from .gltf import ModelledHand, read_hand, source_files
from .rest import at_rest

# Our arm goes on where a modelled hand ends. Metres below the wrist: up to the first its surface is
# looked for, from the second on nothing counts as its surface, and from the third on the arm is as
# our own shape has it.
ARM_FROM_M, FADE_M, KEPT_M = 0.012, 0.024, 0.08
NEAR_M = 0.03
# Gestures of the library overlap no deeper than this on the hand that they were solved on.
OVERLAP_MM, PARTING_STEPS = 2.5, 80
# What is met worse than this is not a hand, or not in its bind pose.
MET_SHARE, MET_MM = 0.8, 5.0


@dataclass(frozen=True)
class Agreement:
    """How far our hand's surface is from another's, over our vertices down to the wrist.

    Attributes:
        share: of the vertices that have a counterpart: the model may end before our hand does.
        mean_mm, p95_mm, max_mm: to the nearest point that faces the same way.
    """

    share: float
    mean_mm: float
    p95_mm: float
    max_mm: float

    @classmethod
    def of(cls, vertices: Array, asset: HandAsset, surface: ClosestPoints) -> Agreement:
        """Of our vertices (V, 3) on another's surface."""
        rows = np.flatnonzero(asset.vertices_m[:, 1] < ARM_FROM_M)
        found = surface(vertices[rows], vertex_normals(vertices, asset.faces)[rows])
        there = is_match(vertices[rows], found, surface.normals, NEAR_M) > 0
        if not there.any():
            return cls(0.0, np.inf, np.inf, np.inf)
        off = 1000 * found.distance_m[there]
        return cls(*(float(x) for x in (
            there.mean(), off.mean(), np.percentile(off, 95), off.max()
        )))  # fmt: skip


@dataclass(frozen=True, eq=False)
class OtherHand:
    """A hand of another model, with our topology, skinning and joints.

    Attributes:
        asset: for `HandModel`: the other's surface at rest, our arm, and all that follows.
        bound_m: (V, 3) its vertices in the model's bind pose and frame.
        source: the model.
        shape_alone: how near our own shape space comes to it. agreement: how near this hand is.
        sha256: of the files it was made from.
    """

    asset: HandAsset
    bound_m: Array
    source: ModelledHand
    shape_alone: Agreement
    agreement: Agreement
    sha256: str

    @classmethod
    def load(cls, folder: Path) -> OtherHand:
        """Read a folder in the layout of Godot XR Tools' hands and lay our hand onto its.

        It takes seconds; a process that asks again for the same files gets the same.

        Raises:
            InputError: files that are missing or damaged, or that hold no such hand.
        """
        return _registered(Path(folder), hash_of(folder))

    @classmethod
    def register(cls, source: ModelledHand, asset: HandAsset, sha256: str = "") -> OtherHand:
        """Lay a hand onto a model.

        Raises:
            InputError: it cannot be done: the model is no right hand, or far from its bind pose.
        """
        surface = ClosestPoints(source.vertices_m, source.faces)
        height = asset.vertices_m[:, 1].astype(np.float64)
        rows: NDArray[np.intp] = np.flatnonzero(height < ARM_FROM_M)
        held = pose_like(HandModel(asset).double(), source, surface, rows)
        alone = _met(Agreement.of(held.vertices_m, asset, surface))
        trusted = np.clip((FADE_M - height) / (FADE_M - ARM_FROM_M), 0, 1)
        kept = np.clip((height - FADE_M) / (KEPT_M - FADE_M), 0, 1)
        bound = drape(held.vertices_m, asset.faces, trusted, kept, source.vertices_m, source.faces)
        met = _met(Agreement.of(bound, asset, surface))
        return cls(
            asset=at_rest(asset, bound, held.rotations),
            bound_m=bound,
            source=source,
            shape_alone=alone,
            agreement=met,
            sha256=sha256,
        )

    @cached_property
    def gestures(self) -> GestureLibrary:
        """The library, parted where fingers of this hand's lengths and girth would overlap."""
        library = default_library()
        angles = library.angles.astype(np.float64)
        parted = part(HandModel(self.asset).double(), angles, OVERLAP_MM, PARTING_STEPS)
        return replace(library, angles=parted.astype(np.float32))

    @cached_property
    def skins(self) -> SkinSet:
        """The model's textures on our mesh.

        Raises:
            ImageError: a texture that is not an image.
            BackendUnavailable: no compiler for the rasteriser.
        """
        parts = self.asset.weights.argmax(axis=1).astype(np.uint8)
        mesh = RenderMesh(self.asset.faces, self.asset.corner_uv, parts)
        return bake(read_textures(self.source), self.source, self.bound_m, mesh)


def _met(agreement: Agreement) -> Agreement:
    """The same, if it is a hand's."""
    if not (agreement.share > MET_SHARE and agreement.mean_mm < MET_MM):
        raise InputError(
            "expected the surface of a right hand that ours can be laid on; "
            f"{100 * agreement.share:.0f} % of ours come near it, to {agreement.mean_mm:.1f} mm; "
            "give one with all five fingers, faces outwards, in the bind pose of its bones"
        )
    return agreement


def hash_of(folder: Path) -> str:
    """SHA-256 of the files that make a hand. Raises as `source_files`."""
    files = source_files(Path(folder))
    return hash_arrays("other-hand", {p.name: np.frombuffer(p.read_bytes(), "u1") for p in files})


@lru_cache(maxsize=2)
def _registered(folder: Path, sha256: str) -> OtherHand:
    return OtherHand.register(read_hand(folder), HandAsset.load(), sha256)
