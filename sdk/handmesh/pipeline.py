"""One photo on its way through a network: crop, run, and lift to camera space."""

from __future__ import annotations

import contextlib
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import backends
from .bundle import Bundle
from .geometry import lift, place, solve_root_depth, upright_angle
from .imaging import ImageLike, Pyramid, decode
from .search import Sighting, View, log_odds, probability
from .smoothing import HandPoints
from .types import Box, Camera, Hand, Handedness

__all__ = ["Photo", "Stopwatch"]

# Crops shown to the network at once: it bounds the memory of a search.
_BATCH = 16


class Stopwatch:
    """Milliseconds by stage, summed over all the times that a stage is entered; crops counted."""

    def __init__(self) -> None:
        self.milliseconds: defaultdict[str, float] = defaultdict(float)
        self.crops_seen = 0

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.milliseconds[stage] += (time.perf_counter() - start) * 1e3


class Photo:
    """A photo and the network that looks at it.

    Args:
        image: as `handmesh.imaging.decode` takes it.
        bundle: the trained network's bundle.
        backend: what runs it.

    Raises:
        ImageError: the photo cannot be read or used.
    """

    def __init__(self, image: ImageLike, bundle: Bundle, backend: backends.Backend) -> None:
        self.clock = Stopwatch()
        with self.clock("decode"):
            self._pyramid = Pyramid(decode(image))
        self.width, self.height = self._pyramid.width, self._pyramid.height
        self._size, self._topology, self._backend = bundle.image_size, bundle.topology, backend

    def crop(self, box: Box, size: int) -> NDArray[np.uint8]:
        """The region ``box`` of the photo as (size, size, 3) uint8 RGB; black beyond the photo."""
        return self._pyramid.crop(box, size)

    def look(self, views: Sequence[View]) -> list[Sighting]:
        """Show crops to the network, in batches: a sighting for each.

        Raises:
            BackendError: the runtime failed.
        """
        sightings: list[Sighting] = []
        for start in range(0, len(views), _BATCH):
            batch = views[start : start + _BATCH]
            with self.clock("crop"):
                crops = [self._pyramid.crop(view.box, self._size) for view in batch]
                flips = zip(crops, batch, strict=True)
                images = np.stack(
                    [c[:, ::-1] if v.mirrored else c for c, v in flips]
                )  # (N, S, S, 3)
            with self.clock("network"):
                raw = self._backend.run(images)
            # Not every backend is one of ours: what is wrong with its outputs is not the photo's.
            raw = backends.raw_output(
                raw._asdict(), len(batch), self._topology.vertex_count, self._backend.description
            )
            sightings += [_sighting(view, raw, n) for n, view in enumerate(batch)]
        self.clock.crops_seen += len(views)
        return sightings

    def measure(self, sighting: Sighting, camera: Camera) -> HandPoints:
        """What a sighting says, in pixels of the photo and bone lengths."""
        with self.clock("geometry"):
            box = sighting.view.box
            joints_px = box.to_image(sighting.joints[:, :2])  # (21, 2)
            wrist = float(sighting.joints[0, 2])  # 0 but for the network's error
            depth = sighting.joints[:, 2].astype(np.float64) - wrist  # (21,)
            ratios = self._topology.bone_ratios
            return HandPoints(
                joints_px=joints_px,
                vertices_px=box.to_image(sighting.vertices[:, :2]),  # (V, 2)
                joints_depth=depth,
                vertices_depth=sighting.vertices[:, 2].astype(np.float64) - wrist,  # (V,)
                root_depth=solve_root_depth(joints_px, depth, camera, ratios, sighting.confidence),
            )

    def hands(
        self,
        seen: Sequence[tuple[Sighting, HandPoints, Handedness]],
        camera: Camera,
        bone_length_m: float | None,
        root_depth_m: float | None,
        metric: bool,
    ) -> list[Hand]:
        """Hands in camera space.

        Args:
            seen: of each hand, what the network saw; where that is, perhaps smoothed; and which
                of the person's hands it is.
            camera, bone_length_m, root_depth_m: as in `Predictor.predict`.
            metric: whether scale and distance follow from what the caller knows.
        """
        with self.clock("geometry"):
            roots = [points.root_depth for _, points, _ in seen]
            places = [place(root, bone_length_m, root_depth_m) for root in roots]
            lifted: list[dict[str, Any]] = [
                {
                    "vertices_m": lift(points.vertices_px, points.vertices_depth, camera, where),
                    "joints_m": lift(points.joints_px, points.joints_depth, camera, where),
                    "bone_length_m": where.bone_length_m,
                }
                for (_, points, _), where in zip(seen, places, strict=True)
            ]
        return [
            Hand(
                **in_space,
                vertices_px=np.asarray(points.vertices_px, dtype=np.float32),
                joints_px=np.asarray(points.joints_px, dtype=np.float32),
                # A mirrored surface is turned inside out.
                faces=self._topology.mirrored_faces
                if sighting.view.mirrored
                else self._topology.faces,
                confidence=sighting.confidence,
                presence=sighting.presence,
                handedness=handedness,
                depth="metric" if metric else "assumed",
                box=sighting.view.box,
                camera=camera,
                backend=self._backend.description,
                timings_ms=self.clock.milliseconds,
                crops_seen=self.clock.crops_seen,
            )
            for (sighting, points, handedness), in_space in zip(seen, lifted, strict=True)
        ]


def _sighting(view: View, raw: backends.RawOutput, n: int) -> Sighting:
    """The n-th result of a batch, its mirroring undone."""
    # Copies: a backend may write its next outputs into the same arrays.
    vertices, joints = raw.vertices[n].copy(), raw.joints[n].copy()
    confidence = raw.confidence[n].copy()
    looks_right = float(raw.handedness[n])
    if view.mirrored:
        vertices[:, 0], joints[:, 0] = 1 - vertices[:, 0], 1 - joints[:, 0]
        looks_right = 1 - looks_right
    # Of hands that point aside or down in their crop the side is hard to tell, and no less surely
    # told: what is said counts less the farther they are from upright.
    upright = upright_angle(view.box.to_image(joints[:, :2]))
    turn = 0.0 if upright is None else upright - view.box.angle
    looks_right = probability(max(0.0, math.cos(turn)) * log_odds(looks_right))
    presence = float(raw.presence[n])
    return Sighting(view, vertices, joints, confidence, presence, looks_right)
