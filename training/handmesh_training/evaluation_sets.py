"""Hands to be evaluated, as samples: of rendered sets, of photos with a teacher, of data sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from handmesh.errors import InputError

from .datasets import Dataset, Sample
from .datasets.dataset import spread
from .groups import FREE_POSE, tone_of
from .photos import read_labels
from .rendered import HandRenderer, RenderSettings
from .tones import nearest_monk, skin_albedo

# Hands that are rendered at once.
CHUNK = 128


def dataset_samples(dataset: Dataset, limit: int | None = None) -> Iterator[Sample]:
    """The samples of a data set, at most ``limit``, evenly spread."""
    return (dataset[i] for i in spread(len(dataset), limit))


def photo_samples(folder: Path | str, limit: int | None = None) -> Iterator[Sample]:
    """Photos with a teacher's joints, at most ``limit``, evenly spread.

    Its 3D joints have an origin and a scale of their own: they are for comparison after alignment.

    Raises:
        InputError: a folder without labels, or no labelled photo at all.
    """
    hands = list(read_labels(folder))
    if not hands:
        raise InputError(f"{folder} holds no labelled hand")
    chosen = (hands[i] for i in spread(len(hands), limit))
    return (replace(hand.sample(), joints_m=hand.joints_m) for hand in chosen)


def rendered_samples(settings: RenderSettings, seed: int, count: int) -> Iterator[Sample]:
    """The first ``count`` rendered right hands of a seed, with their mesh.

    Args:
        settings: ``empty`` must be 0: without a hand there is nothing to evaluate.

    Raises:
        InputError: fewer than one hand, or pictures without any.
    """
    if count < 1:
        raise InputError(f"expected at least one rendered hand, got {count}")
    if settings.empty:
        raise InputError(f"{settings.empty:g} of the rendered pictures are to show no hand")
    return _rendered(HandRenderer(settings, seed), count)


def _rendered(renderer: HandRenderer, count: int) -> Iterator[Sample]:
    subset, side = renderer.model.asset.template_subset, renderer.settings.crop_px
    for first in range(0, count, CHUNK):
        scene = renderer.draw(range(first, min(first + CHUNK, count)))
        images, views = renderer.render(scene).image, scene.views
        tones = nearest_monk(skin_albedo(scene.look, renderer.skins))
        kinds, company = renderer.library.kinds, scene.has_partner
        for i, image in enumerate(images):
            fx, fy, cx, cy = (float(x) for x in views.intrinsics[i])
            yield Sample(
                key=f"rendered/{first + i}",
                image=image,
                is_right=True,
                joints_px=views.joints[i, :, :2].astype(np.float64) * side - 0.5,
                joint_known=np.ones(21, dtype=bool),
                intrinsics=np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]),
                joints_m=views.joints_m[i].astype(np.float64),
                vertices_m=np.asarray(views.vertices_m[i, subset], dtype=np.float32),
                our_mesh=True,
                groups={
                    "gesture": kinds[g].replace("_", " ")
                    if (g := views.gesture[i]) >= 0
                    else FREE_POSE,
                    "skin": tone_of(int(tones[i])),
                    "hands": "with another" if company[i] else "alone",
                },
            )
