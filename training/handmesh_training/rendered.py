"""Rendered hands with exact labels. Sample ``i`` of a seed is always the same sample.

Random numbers are drawn for blocks of `BLOCK` samples: block ``b`` has a generator of its own (see
`seeds`), and sample ``i`` is row ``i % BLOCK`` of block ``i // BLOCK``. What a
sample shows therefore depends on seed and index alone: not on what was rendered before, nor on how
many processes share the work. `docs/rendering.md` says what may differ between machines.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from handmesh.errors import InputError

from .gestures.library import default_library
from .hand import HandAsset, HandModel
from .other_hand import OtherHand
from .partners import PARTNER, sample_partners
from .record import HandRecord
from .render_settings import RenderSettings
from .rendering.appearance import Appearance, sample_appearance
from .rendering.environments import BackgroundSet, EnvironmentSet
from .rendering.hands import Hands
from .rendering.mesh import RenderMesh
from .rendering.renderer import Rendered, Renderer
from .rendering.scene import SHARES
from .rendering.skins import SkinSet
from .samples import Crops, no_outlines
from .sampling import HandViews, sample_views
from .seeds import Purpose, generator
from .tones import nearest_monk, skin_albedo

# Samples that share a random generator. Changing it changes every sample.
BLOCK = 64
# Drawn blocks that are kept: reading samples one after the other draws each block once.
BLOCKS_KEPT = 2

Rows = TypeVar("Rows", HandViews, Appearance)
Indices = NDArray[np.integer] | Sequence[int] | range


@dataclass(frozen=True, eq=False)
class Scene:
    """What B samples show, ready to be drawn: all that chance decides.

    Attributes:
        indices: (B,) int64 of the samples.
        views: the hands with their labels; ``in_view`` is False where the hand is left out.
        vertices_m: (B, 2 V, 3) float32 where the meshes are drawn, the labelled hand's and its
            partner's: out of sight where they are left out.
        look: everything else.
    """

    indices: NDArray[np.int64]
    views: HandViews
    vertices_m: NDArray[np.float32]
    look: Appearance

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def has_partner(self) -> NDArray[np.bool_]:
        """(B,) where another hand is near the labelled one."""
        partners = self.vertices_m[:, self.vertices_m.shape[1] // 2 :]
        return np.asarray((partners != partners[:, :1]).any(axis=(1, 2)))


class _Block(NamedTuple):
    """All samples of a block. partners_m: (B, V, 3) float32, see `sample_partners`."""

    views: HandViews
    look: Appearance
    partners_m: NDArray[np.float32]


class HandRenderer:
    """Renders numbered samples of one seed. All are right hands."""

    def __init__(
        self, settings: RenderSettings, seed: int, threads: int = 1, device: str = "cpu"
    ) -> None:
        """
        Args:
            settings, seed: decide the pictures.
            threads: pictures are shared out among so many threads of the CPU.
            device: what draws, as `Renderer` names it. Here pictures come as NumPy arrays all the
                same; to keep them on a GPU, give a `scene` to ``renderer.render``.

        Raises:
            InputError, ImageError: folders that do not hold what they should; things that there
                are not.
        """
        unknown = sorted((settings.things or frozenset()) - {*SHARES, PARTNER})
        if unknown:
            raise InputError(f"things: expected some of {[*SHARES, PARTNER]}, got {unknown}")
        self.settings = settings
        self.seed = seed
        self.threads = threads
        self.device = device
        other = OtherHand.load(settings.other_hand) if settings.other_hand is not None else None
        self.model = HandModel(other.asset if other is not None else None)
        self.library = other.gestures if other is not None else default_library()
        asset = self.model.asset
        self.mesh = mesh = RenderMesh(
            faces=asset.faces,
            uv=asset.corner_uv,
            parts=asset.weights.argmax(axis=1).astype(np.uint8),
            arm=asset.vertices_m[:, 1].copy(),  # fingers point up: the arm goes down (+y)
            # Of the networks' mesh by the hand that it was made of, whatever shape this one has.
            hand=asset.hand_faces if other is None else HandAsset.load().hand_faces,
        )
        joints = asset.joint_regressor @ asset.vertices_m
        # The end of the arm, and the vertices nearest to finger tips and wrist.
        apart = [joints[[0, 4, 8, 20]], asset.vertices_m[[asset.vertices_m[:, 1].argmax()]]]
        distance = np.linalg.norm(asset.vertices_m[:, None] - np.concatenate(apart), axis=-1)
        self._corners = distance.argmin(axis=0)  # (5,)
        if other is not None:
            self.skins = other.skins
        elif settings.skins is not None:
            self.skins = SkinSet.from_folder(
                settings.skins, mesh, vertices_m=asset.vertices_m, joints_m=joints, seed=seed
            )
        else:
            self.skins = SkinSet.procedural(seed, 12, mesh, asset.vertices_m, joints)
        self.environments = (
            EnvironmentSet.from_folder(settings.environments)
            if settings.environments is not None
            else EnvironmentSet.procedural(seed)
        )
        self.backgrounds = (
            BackgroundSet.from_folder(settings.backgrounds)
            if settings.backgrounds is not None
            else None
        )
        self._blocks: OrderedDict[int, _Block] = OrderedDict()

    @cached_property
    def renderer(self) -> Renderer:
        """What draws; made on first use, so that who only draws scenes needs no GPU.

        Raises:
            BackendUnavailable: no compiler for the device, or no such device.
        """
        return Renderer(
            self.mesh.with_partner(),
            self.skins,
            self.environments,
            self.backgrounds,
            size=self.settings.crop_px,
            threads=self.threads,
            device=self.device,
        )

    @property
    def vertex_count(self) -> int:
        """V of the labels' mesh."""
        return len(self.model.asset.template_subset)

    def draw(self, indices: Indices) -> Scene:
        """What the samples ``indices`` show, without making pictures of them.

        Raises:
            InputError: ``indices`` is not a row of whole numbers from 0, or is empty.
        """
        wanted = _checked(indices)
        blocks = wanted // BLOCK
        order = np.argsort(blocks, kind="stable")
        views, looks, partners = [], [], []
        for block in np.unique(blocks):
            rows = wanted[order][blocks[order] == block] % BLOCK
            drawn = self._block(int(block))
            views.append(_take(drawn.views, rows))
            looks.append(_take(drawn.look, rows))
            partners.append(drawn.partners_m[rows])
        back = np.argsort(order, kind="stable")
        joined = _take(_join(views), back)
        vertices = joined.vertices_m.copy()
        # A hand shrunk to a point, but for a few vertices that share no face, draws nothing. Those
        # leave the shadow map its extent, or shadows would tell whether there is a hand.
        gone = ~joined.in_view
        corners = vertices[gone][:, self._corners]  # (G, C, 3)
        vertices[gone] = joined.joints_m[gone].mean(axis=1, keepdims=True)
        vertices[np.ix_(gone, self._corners)] = corners
        vertices = np.concatenate([vertices, np.concatenate(partners)[back]], axis=1)
        return Scene(wanted, joined, vertices, _take(_join(looks), back))

    def scene(self, number: int, count: int) -> Scene:
        """Samples ``number * count`` to ``(number + 1) * count``. Raises as `draw`."""
        return self.draw(range(number * count, (number + 1) * count))

    def _block(self, number: int) -> _Block:
        """All rows of one block. Always drawn whole: a row depends on how many are drawn."""
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        rng = generator(self.seed, Purpose.BLOCK, number)
        views = sample_views(
            rng, self.model, BLOCK, self.settings.crop_px, self.settings.margin,
            self.settings.shape_shift, self.library,
        )  # fmt: skip
        empty = rng.random(BLOCK) < self.settings.empty
        hands = Hands(
            views.vertices_m, views.joints_m, views.intrinsics, self.settings.crop_px,
            self.model.asset.vertices_m[:, 1], ~empty,
        )  # fmt: skip
        things = self.settings.things
        look = sample_appearance(
            rng, BLOCK, self.skins, self.environments, self.backgrounds, hands=hands,
            things=SHARES if things is None else things,
        )  # fmt: skip
        partners = sample_partners(
            generator(self.seed, Purpose.PARTNERS, number), self.model, views,
            ~empty & (things is None or PARTNER in things), look.ground.astype(np.float64),
            self.settings.crop_px,
            self.settings.shape_shift, self.library, self.settings.partners,
        )  # fmt: skip
        self._blocks[number] = _Block(replace(views, in_view=~empty), look, partners)
        if len(self._blocks) > BLOCKS_KEPT:
            self._blocks.popitem(last=False)
        return self._blocks[number]

    def render(self, scene: Scene, depth: bool = False) -> Rendered:
        """Pictures (B, S, S, 3) and masks, as NumPy arrays; with ``depth``, depth as well.

        Raises:
            BackendUnavailable: no compiler for the device, or no such device.
        """
        made = self.renderer.render(
            scene.vertices_m, scene.views.intrinsics, scene.look, depth=depth
        )
        if self.device == "cpu":
            return made
        arrays = {f.name: getattr(made, f.name) for f in fields(made)}
        return Rendered(**{k: None if a is None else a.cpu().numpy() for k, a in arrays.items()})

    def crops(self, indices: Indices) -> Crops:
        """The samples ``indices`` as labelled crops. Raises as `draw`."""
        scene = self.draw(indices)
        return labelled(scene.views, self.render(scene).image)

    def records(self, indices: Indices) -> list[HandRecord]:
        """The samples ``indices`` with all that is known about them. Raises as `draw`."""
        scene = self.draw(indices)
        made = self.render(scene, depth=True)
        tones = nearest_monk(skin_albedo(scene.look, self.skins))
        subset, names = self.model.asset.template_subset, self.library.names
        views = scene.views
        return [
            HandRecord(
                index=int(scene.indices[i]),
                image=made.image[i],
                has_hand=bool(views.in_view[i]),
                intrinsics=views.intrinsics[i],
                joints_m=views.joints_m[i],
                vertices_m=views.vertices_m[i, subset],
                skin_tone=int(tones[i]),
                gesture=names[views.gesture[i]] if views.gesture[i] >= 0 else None,
                mask=made.mask[i],
                depth_m=made.depth[i],
            )
            for i in range(len(scene))
        ]

    def chunk(self, number: int, count: int) -> Crops:
        """Crops ``number * count`` to ``(number + 1) * count``. Raises as `draw`."""
        return self.crops(range(number * count, (number + 1) * count))


def labelled(views: HandViews, images: NDArray[np.uint8]) -> Crops:
    """Pictures (B, S, S, 3) of right hands with what is known about them."""
    outline, outline_known = no_outlines(len(images))
    return Crops(
        images=images,
        joints=views.joints,
        vertices=views.vertices,
        crop_in_bones=views.crop_in_bones,
        has_hand=views.in_view,
        has_joints=views.in_view,
        has_depth=views.in_view,
        has_mesh=views.in_view,
        is_right=np.ones(len(images), dtype=bool),
        taught=np.ones((len(images), 21), dtype=bool),
        outline=outline,
        outline_known=outline_known,
    )


def _checked(indices: Indices) -> NDArray[np.int64]:
    array = np.asarray(indices)
    if array.ndim != 1 or not (array.dtype.kind in "iu" or array.size == 0):
        raise InputError(f"expected a row of whole sample numbers, got {array.shape} {array.dtype}")
    if array.size == 0 or array.min() < 0:
        raise InputError("expected at least one sample number, and none below 0")
    return array.astype(np.int64)


def _take(rows: Rows, indices: NDArray[np.integer]) -> Rows:
    return type(rows)(*(getattr(rows, field.name)[indices] for field in fields(rows)))


def _join(parts: Sequence[Rows]) -> Rows:
    names = [field.name for field in fields(parts[0])]
    return type(parts[0])(*(np.concatenate([getattr(p, n) for p in parts]) for n in names))
