"""A contact sheet of labelled hands: each picture beside what its labels say about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from handmesh.draw import overlay
from handmesh.errors import InputError
from handmesh.graph import Topology
from handmesh.types import Box, Camera, Hand

from .datasets.sample import Sample

Image = NDArray[np.uint8]

# Between the tiles of one sample, and between samples.
GAP, GUTTER = 1, 6
PAPER = 28


def contact_sheet(
    samples: Sequence[Sample],
    views: Sequence[str] = ("picture", "skeleton", "mesh", "depth", "mask"),
    tile: int = 128,
    columns: int = 4,
) -> Image:
    """Samples in rows, each as a strip of views.

    Mesh and skeleton are drawn by the SDK, from labels in its own frames and order: what is wrong
    with the labels shows. A view that a sample has no labels for stays dark.

    Args:
        samples: of any set; meshes are shown if they are ours.
        views: names from `VIEWS`. tile: side of a view in pixels. columns: samples a row.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        InputError: no sample, or an unknown view.
    """
    unknown = [name for name in views if name not in VIEWS]
    if unknown or not views:
        raise InputError(f"views are {', '.join(VIEWS)}, not {', '.join(unknown) or 'none'}")
    if not samples:
        raise InputError("expected at least one sample to show")
    columns = min(columns, len(samples))
    wide = len(views) * (tile + GAP) - GAP
    height = -(-len(samples) // columns) * (tile + GUTTER) + GUTTER
    sheet = np.full((height, columns * (wide + GUTTER) + GUTTER, 3), PAPER, dtype=np.uint8)
    topology = Topology.default()
    for i, sample in enumerate(samples):
        top = GUTTER + i // columns * (tile + GUTTER)
        left = GUTTER + i % columns * (wide + GUTTER)
        hand = _as_hand(sample, topology)
        for k, name in enumerate(views):
            start = left + k * (tile + GAP)
            view = VIEWS[name](sample, hand)
            if view is not None:
                sheet[top : top + tile, start : start + tile] = _fitted(view, tile)
    return sheet


def _as_hand(sample: Sample, topology: Topology) -> Hand | None:
    """The labels as what the SDK finds in a photo; None where they do not suffice."""
    if sample.joints_m is None or sample.intrinsics is None or not sample.joint_known.all():
        return None
    height, width = sample.image.shape[:2]
    lens = sample.intrinsics
    camera = Camera(lens[0, 0], lens[1, 1], lens[0, 2], lens[1, 2], width, height)
    none = np.zeros((0, 3), dtype=np.float32)
    vertices = sample.vertices_m if sample.our_mesh and sample.vertices_m is not None else none
    seen = vertices.astype(np.float64) @ lens.T
    return Hand(
        vertices_m=vertices,
        faces=topology.faces if len(vertices) else np.zeros((0, 3), dtype=np.int32),
        joints_m=sample.joints_m.astype(np.float32),
        joints_px=sample.joints_px.astype(np.float32),
        vertices_px=(seen[:, :2] / seen[:, 2:]).astype(np.float32),
        confidence=np.ones(21, dtype=np.float32),
        presence=1.0,
        handedness="right" if sample.is_right else "left",
        depth="metric",
        box=Box.from_points(sample.joints_px),
        camera=camera,
    )


def _picture(sample: Sample, _: Hand | None) -> Image:
    return sample.image


def _skeleton(sample: Sample, hand: Hand | None) -> Image | None:
    return None if hand is None else overlay(sample.image, [hand], "skeleton")


def _mesh(sample: Sample, hand: Hand | None) -> Image | None:
    if hand is None or not len(hand.faces):
        return None
    return overlay(sample.image, [hand], "mesh", 0.9)


def _depth(sample: Sample, _: Hand | None) -> Image | None:
    """Near is bright; the range is the sample's own."""
    depth = sample.depth_m
    if depth is None or not (depth > 0).any():
        return None
    near, far = np.percentile(depth[depth > 0], [1, 99])
    scaled = 1 - np.clip((depth - near) / max(far - near, 1e-3), 0, 1)
    colours = cv2.applyColorMap((40 + 215 * scaled).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return np.where((depth > 0)[..., None], colours[..., ::-1], 0).astype(np.uint8)


def _mask(sample: Sample, _: Hand | None) -> Image | None:
    return None if sample.mask is None else np.repeat(sample.mask[..., None], 3, axis=2)


VIEWS: dict[str, Callable[[Sample, Hand | None], Image | None]] = {
    "picture": _picture,
    "skeleton": _skeleton,
    "mesh": _mesh,
    "depth": _depth,
    "mask": _mask,
}


def _fitted(view: Image, tile: int) -> Image:
    """Scaled into a square, with dark bars where the picture is none."""
    height, width = view.shape[:2]
    scale = tile / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = np.asarray(cv2.resize(view, size, interpolation=way), dtype=np.uint8)
    square = np.zeros((tile, tile, 3), dtype=np.uint8)
    top, left = (tile - size[1]) // 2, (tile - size[0]) // 2
    square[top : top + size[1], left : left + size[0]] = small
    return square
