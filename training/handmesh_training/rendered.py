"""Rendered crops with exact labels, reproducible from a seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .hand import HandModel
from .rendering.appearance import Appearance, sample_appearance
from .rendering.environments import BackgroundSet, EnvironmentSet
from .rendering.hands import Hands
from .rendering.mesh import RenderMesh
from .rendering.renderer import Renderer
from .rendering.skins import SkinSet
from .samples import Crops
from .sampling import HandViews, sample_views

# Metres sideways that put a hand out of every picture: what is left is the background.
OUT_OF_SIGHT_M = 60.0


@dataclass(frozen=True)
class RenderSettings:
    """What to render with, in one picklable value.

    Attributes:
        skins: folder of MakeHuman body-atlas crops with a ``crop.json``; None for made-up skins.
        environments: folder of Radiance .hdr panoramas; None for made-up ones.
        backgrounds: folder of photos to put behind hands; None for panoramas only.
        crop_px: side of the stored crops.
        margin: side of the crop over the larger side of the joints' tight box.
        empty: share of crops without a hand.
    """

    skins: Path | None = None
    environments: Path | None = None
    backgrounds: Path | None = None
    crop_px: int = 160
    margin: float = 1.9
    empty: float = 0.05


@dataclass(frozen=True, eq=False)
class Scene:
    """Hands and looks of one chunk of B pictures, ready to be drawn.

    Attributes:
        views: the hands with their labels.
        vertices_m: (B, V, 3) float32 where the mesh is drawn: out of sight where `views.in_view`
            is False.
        look: everything else.
    """

    views: HandViews
    vertices_m: NDArray[np.float32]
    look: Appearance


class HandRenderer:
    """Renders numbered chunks of hands: the same seed and number give the same crops."""

    def __init__(
        self, settings: RenderSettings, seed: int, threads: int = 1, device: str = "cpu"
    ) -> None:
        """
        Args:
            settings, seed: decide the pictures.
            threads: pictures are shared out among so many threads of the CPU.
            device: what draws, as `Renderer` names it. `pictures` and `chunk` are for the CPU;
                `scene` with ``renderer.render`` for all.

        Raises:
            InputError, ImageError: folders that do not hold what they should.
        """
        self.settings = settings
        self.seed = seed
        self.threads = threads
        self.device = device
        self.model = HandModel()
        asset = self.model.asset
        self.mesh = mesh = RenderMesh(
            faces=asset.faces,
            uv=asset.corner_uv,
            parts=asset.weights.argmax(axis=1).astype(np.uint8),
            arm=asset.vertices_m[:, 1].copy(),  # fingers point up: the arm goes down (+y)
        )
        joints = asset.joint_regressor @ asset.vertices_m
        self.skins = (
            SkinSet.from_folder(
                settings.skins, mesh, vertices_m=asset.vertices_m, joints_m=joints, seed=seed
            )
            if settings.skins is not None
            else SkinSet.procedural(seed, 12, mesh, asset.vertices_m, joints)
        )
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

    @cached_property
    def renderer(self) -> Renderer:
        """What draws; made on first use, so that who only draws scenes needs no compiler.

        Raises:
            BackendUnavailable: no compiler for the device, or no such device.
        """
        return Renderer(
            self.mesh,
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

    def scene(self, number: int, count: int) -> Scene:
        """What the ``number``-th chunk shows: all that chance decides, drawn on the CPU."""
        rng = np.random.default_rng([self.seed, number])
        views = sample_views(rng, self.model, count, self.settings.crop_px, self.settings.margin)
        empty = rng.random(count) < self.settings.empty
        hands = Hands(
            views.vertices_m, views.joints_m, views.intrinsics, self.settings.crop_px,
            self.model.asset.vertices_m[:, 1], ~empty,
        )  # fmt: skip
        look = sample_appearance(
            rng, count, self.skins, self.environments, self.backgrounds, hands=hands
        )
        vertices = views.vertices_m.copy()
        vertices[empty, :, 0] += OUT_OF_SIGHT_M
        views = replace(views, in_view=~empty)
        return Scene(views, vertices, look)

    def pictures(self, number: int, count: int) -> tuple[NDArray[np.uint8], HandViews]:
        """The ``number``-th chunk: pictures (count, S, S, 3) RGB and the right hands on them."""
        scene = self.scene(number, count)
        drawn = self.renderer.render(scene.vertices_m, scene.views.intrinsics, scene.look)
        return drawn.image, scene.views

    def chunk(self, number: int, count: int) -> Crops:
        """The same as labelled crops."""
        images, views = self.pictures(number, count)
        return Crops(
            images=images,
            joints=views.joints,
            vertices=views.vertices,
            crop_in_bones=views.crop_in_bones,
            has_hand=views.in_view,
            has_joints=views.in_view,
            has_depth=views.in_view,
            has_mesh=views.in_view,
            is_right=np.ones(count, dtype=bool),
        )
