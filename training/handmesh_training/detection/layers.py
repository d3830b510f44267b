"""Rendered hands to compose scenes of: rendering is slow, so each is drawn once and shown often.

Cut-outs are hands with their arm, and what they hold or wear, and with the share of each pixel that
they cover. Their arm leaves the picture on one side; whoever shows them in a larger scene goes on
with the pixels of that border, so that no arm ends in the air. Pictures are whole scenes of the
renderer, with its grounds, people and shadows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from handmesh.atomic import replacing, write_atomic
from handmesh.errors import InputError

from ..render_settings import RenderSettings
from ..rendered import HandRenderer
from ..rendering.scene import SHARES
from ..rendering.textures import LEVELS
from ..shards.manifest import engine_sha256

# Side of the stored layers and pictures in pixels, and their side over that of the joints' box.
LAYER_PX, LAYER_MARGIN = 192, 2.0
PICTURE_PX, PICTURE_MARGIN = 224, 4.2
# Share of pictures without a hand; some of what stands around hands is in them all the same.
EMPTY = 0.25
# Rendered and written at a time.
CHUNK = 256
# Light of the second ground that cut-outs are rendered on, in multiples of the brightest white:
# panoramas are darker in places than they are on average.
_GLARE = 4.0
# Cut-outs of which more than this share of a corner's pixels is covered cannot go on beyond it.
_CORNER_PX = 3
# The longest stretch of border, as a share of a side, that an arm leaves through.
_WIDEST_ARM = 0.6


@dataclass(frozen=True, eq=False)
class Layers:
    """N pictures with one hand each, or none.

    Attributes:
        images: (N, S, S, 4) uint8 RGBA, RGB already multiplied by A; or (N, S, S, 3) RGB.
        joints: (N, 21, 2) float32, fractions of the picture from its outer corner.
        has_hand: (N,) bool.

    All hands are right ones.
    """

    images: NDArray[np.uint8]
    joints: NDArray[np.float32]
    has_hand: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.images)


def cut_out_settings(look: RenderSettings) -> RenderSettings:
    """What cut-outs are rendered with: nothing but what the hand holds or wears."""
    return replace(
        look, backgrounds=None, crop_px=LAYER_PX, margin=LAYER_MARGIN, empty=0.0,
        things=frozenset({"held", "rings", "watch"}),
    )  # fmt: skip


def picture_settings(look: RenderSettings) -> RenderSettings:
    """What whole pictures are rendered with: everything but second hands, which have no label."""
    things = frozenset(SHARES) - {"second_hand"}
    return replace(look, crop_px=PICTURE_PX, margin=PICTURE_MARGIN, empty=EMPTY, things=things)


def render_cut_outs(renderer: HandRenderer, indices: range) -> Layers:
    """Those of the samples ``indices`` whose arm leaves the picture in one place.

    Each is drawn on black and on glaring white: what differs between the two is not the hand.
    """
    scene = renderer.draw(indices)
    count = len(scene)
    look = replace(scene.look, background=np.zeros(count, np.int32))
    exposure = look.exposure.max(axis=1, keepdims=True)
    panoramas = renderer.environments.panoramas
    white = _GLARE * panoramas.white[0] / panoramas.brightness[0] / exposure
    grounds = {
        "black": replace(look, background_gain=np.zeros((count, 3), np.float32)),
        "white": replace(
            look,
            background_gain=np.minimum(white, 1e4).repeat(3, axis=1).astype(np.float32),
            background_blur=np.full(count, LEVELS - 1, np.float32),
        ),
    }
    drawn = {
        name: renderer.render(replace(scene, look=each)).image for name, each in grounds.items()
    }
    alpha = _coverage(drawn["black"], drawn["white"])
    keep = np.array([leaves_in_one_place(a) for a in alpha])
    images = np.concatenate([drawn["black"], alpha[..., None]], axis=-1)
    return Layers(images[keep], scene.views.joints[keep, :, :2], scene.views.in_view[keep])


def _coverage(black: NDArray[np.uint8], white: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(B, S, S) share of each pixel that hides the ground, 0..255."""
    shines = (white.astype(np.float32) - black).max(axis=-1)
    room = 255.0 - black.min(axis=-1)
    return (255 * (1 - np.clip(shines / np.maximum(room, 1.0), 0, 1)) + 0.5).astype(np.uint8)


def leaves_in_one_place(alpha: NDArray[np.uint8], must: bool = False) -> bool:
    """Whether what is covered meets one border of a picture at most, in one narrow stretch.

    Args:
        alpha: (H, W) uint8. must: whether it has to meet one.
    """
    covered = alpha > 127
    sides = [covered[0], covered[-1], covered[:, 0], covered[:, -1]]
    met = [side for side in sides if side[_CORNER_PX:-_CORNER_PX].any()]
    corners = covered[:: len(covered) - 1, :: covered.shape[1] - 1]
    wide = any(side.mean() > _WIDEST_ARM for side in met)
    return must <= len(met) <= 1 and not corners.any() and not wide


def render_pictures(renderer: HandRenderer, indices: range) -> Layers:
    """The samples ``indices`` as they are."""
    scene = renderer.draw(indices)
    images = renderer.render(scene).image
    return Layers(images, scene.views.joints[..., :2], scene.views.in_view)


def prepare(folder: Path, look: RenderSettings, seed: int, count: int, pictures: int) -> None:
    """Render what a run needs into its folder, or what is missing of it.

    Args:
        folder: of the layers. look: skins and environments. seed: of everything random.
        count: samples that cut-outs are made of. pictures: whole pictures.

    Raises:
        InputError: the folder holds layers that were made otherwise, or by other sources.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plan: dict[str, Any] = {
        "look": repr(look), "seed": seed, "cut_outs": count, "whole": pictures,
        "engine": engine_sha256(),
    }  # fmt: skip
    told = folder / "layers.json"
    if told.exists() and json.loads(told.read_text()) != plan:
        raise InputError(
            f"{folder} holds layers made otherwise, or by another version of the renderer: use "
            "another folder, or delete it"
        )
    write_atomic(told, json.dumps(plan).encode())
    # A seed of their own for the pictures: cut-outs and pictures show different hands.
    for name, wanted, settings, own_seed, draw in (
        ("cut-outs", count, cut_out_settings(look), seed, render_cut_outs),
        ("pictures", pictures, picture_settings(look), seed + 1, render_pictures),
    ):
        parts = range(0, wanted, CHUNK)
        missing = [n for n in parts if not _part(folder, name, n).exists()]
        if not missing:
            continue
        renderer = HandRenderer(settings, own_seed)
        for first in tqdm(missing, desc=f"rendering {name}", unit="part"):
            made = draw(renderer, range(first, min(first + CHUNK, wanted)))
            path = _part(folder, name, first)
            with replacing(path.with_suffix(".npz"), ".npz") as temporary:
                np.savez(temporary, joints=made.joints, has_hand=made.has_hand)
            with replacing(path, ".npy") as temporary:  # last: it says that the part is whole
                np.save(temporary, made.images)


def load(folder: Path, name: str) -> Layers:
    """What `prepare` made: "cut-outs" or "pictures". Pixels are mapped from the disk.

    Raises:
        InputError: there is nothing.
    """
    files = sorted(folder.glob(f"{name}-*.npy"))
    if not files:
        raise InputError(f"{folder} holds no {name}: render them first, with detection.prepare")
    images = _Mapped([np.load(file, mmap_mode="r") for file in files])
    labels = [np.load(file.with_suffix(".npz")) for file in files]
    joints, has_hand = (
        np.concatenate([part[k] for part in labels]) for k in ("joints", "has_hand")
    )
    return Layers(images, joints, has_hand)  # type: ignore[arg-type]


class _Mapped:
    """Rows of several arrays, one after the other."""

    def __init__(self, parts: list[NDArray[np.uint8]]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        which = int(np.searchsorted(self._ends, index, side="right"))
        return self._parts[which][index - self._ends[which]]


def _part(folder: Path, name: str, first: int) -> Path:
    return folder / f"{name}-{first:06d}.npy"
