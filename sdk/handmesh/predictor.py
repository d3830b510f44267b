"""A photo in, hands out: crop, run the network, lift to camera space."""

from __future__ import annotations

import contextlib
import operator
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from . import backends, search
from .bundle import Bundle
from .errors import BackendError, BoxError, CameraError, InputError
from .geometry import lift, place, solve_root_depth
from .imaging import ImageLike, Pyramid, decode
from .search import Sighting, View
from .types import Box, Camera, Hand, Handedness, finite

__all__ = ["BoxLike", "Predictor", "load", "predict"]

# A Box, or (x0, y0, x1, y1) in pixels around the visible hand.
BoxLike = Any

# Crops shown to the network at once: it bounds the memory of a search.
_BATCH = 16


class Predictor:
    """A trained network in a runtime, ready for photos. Close it, or use it as a context manager.

    Several threads may use one Predictor; each photo is one thread's work.

    Args:
        bundle: a `Bundle`, the path of one, or the name of one that ships with handmesh; by
            default the one that ships as "light".
        backend: "auto", the name of a backend, or a `handmesh.backends.Backend`.
        threads: CPU threads of the backend; by default those available, at most 4.

    Raises:
        BundleError, IntegrityError: the bundle is missing or damaged.
        BackendUnavailable, BackendError: the runtime is missing, or refuses the network.
    """

    def __init__(
        self,
        bundle: Bundle | str | os.PathLike[str] | None = None,
        backend: str | backends.Backend = "auto",
        threads: int | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        self._topology = self.bundle.topology
        if isinstance(backend, str):
            backend = backends.create(backend, self.bundle, threads)
        self._backend: backends.Backend | None = backend

    @property
    def backend(self) -> backends.Backend:
        """What runs the network.

        Raises:
            BackendError: the Predictor was closed.
        """
        if self._backend is None:
            raise BackendError("this Predictor was closed: make a new one")
        return self._backend

    def predict(
        self,
        image: ImageLike,
        box: BoxLike | None = None,
        camera: Camera | None = None,
        handedness: Handedness | None = None,
        bone_length_m: float | None = None,
        root_depth_m: float | None = None,
        mirrored: bool = False,
        max_hands: int = 1,
        min_presence: float = 0.5,
    ) -> list[Hand]:
        """The hands in a photo, the surest first.

        Args:
            image: a path, an image file's bytes, or an (H, W, 3) uint8 RGB array; see
                `handmesh.imaging.decode`.
            box: where the hand is: a `Box` (1.5 times as large as the tight square around its
                joints), or (x0, y0, x1, y1) in pixels around the visible hand, of which
                `Box.from_xyxy` makes one. With it, that one hand is returned whatever its presence;
                without it, hands are searched for.
            camera: intrinsics of this photo; by default `Camera.default` of its size.
            handedness: the person's own hand, when known; by default the network decides.
            bone_length_m: length of the middle finger from knuckle (MCP) to next joint (PIP), in
                metres. With a camera it makes the result metric.
            root_depth_m: depth of the wrist in metres, when known. With a camera it makes the
                result metric too: the size of the hand follows.
            mirrored: the photo is left-right mirrored, as selfie video is. It decides what
                `Hand.handedness` says; the geometry stays that of the photo as given.
            max_hands: how many hands to search for. A photo without a second hand takes longer to
                search for two.
            min_presence: hands that the network is less sure of are left out of a search; with 0
                the most likely place is returned even when there is no hand.

        Returns:
            Up to ``max_hands`` hands. Empty when there is none.

        Raises:
            ImageError: the photo cannot be read or used.
            BoxError, CameraError, InputError: another argument cannot be used.
            BackendError: the runtime failed.
        """
        looks_left = _looks_left(handedness, mirrored)
        max_hands = _checked_count(max_hands)
        if not 0 <= finite(min_presence, "min_presence", InputError) <= 1:
            raise InputError(f"min_presence is a probability, in 0..1, not {min_presence}")
        place(1.0, bone_length_m, root_depth_m)  # refuse bad lengths before the work, not after
        clock = _Stopwatch()
        with clock("decode"):
            pyramid = Pyramid(decode(image))
        width, height = pyramid.width, pyramid.height
        known = camera is not None and (bone_length_m is not None or root_depth_m is not None)
        camera = _checked_camera(camera, width, height)

        def look(views: Sequence[View]) -> list[Sighting]:
            return self._look(pyramid, views, clock)

        if box is None:
            found = search.find(look, width, height, looks_left, max_hands, min_presence)
        else:
            start = View(_checked_box(box, width, height), bool(looks_left))
            # One run of the network where that is clear and the box fits, two at most.
            found = search.follow(look, look([start]), looks_left, rounds=1)

        with clock("geometry"):
            fields = [
                self._fields(sighting, camera, bone_length_m, root_depth_m) for sighting in found
            ]
        return [
            Hand(
                **field,
                handedness="left" if sighting.view.mirrored != mirrored else "right",
                depth="metric" if known else "assumed",
                camera=camera,
                backend=self.backend.description,
                timings_ms=clock.milliseconds,
                crops_seen=clock.crops_seen,
            )
            for field, sighting in zip(fields, found, strict=True)
        ]

    def _look(self, pyramid: Pyramid, views: Sequence[View], clock: _Stopwatch) -> list[Sighting]:
        """Preprocess, run, postprocess."""
        size, backend = self.bundle.image_size, self.backend
        vertex_count = self._topology.vertex_count
        sightings: list[Sighting] = []
        for start in range(0, len(views), _BATCH):
            batch = views[start : start + _BATCH]
            with clock("crop"):
                crops = [pyramid.crop(view.box, size) for view in batch]
                flips = zip(crops, batch, strict=True)
                images = np.stack(
                    [c[:, ::-1] if v.mirrored else c for c, v in flips]
                )  # (N, S, S, 3)
            with clock("network"):
                raw = backend.run(images)
            # Not every backend is one of ours: what is wrong with its outputs is not the photo's.
            raw = backends.raw_output(raw._asdict(), len(batch), vertex_count, backend.description)
            sightings += [_sighting(view, raw, n) for n, view in enumerate(batch)]
        clock.crops_seen += len(views)
        return sightings

    def _fields(
        self,
        sighting: Sighting,
        camera: Camera,
        bone_length_m: float | None,
        root_depth_m: float | None,
    ) -> dict[str, Any]:
        """What of a `Hand` follows from what the network saw."""
        box, left = sighting.view.box, sighting.view.mirrored
        joints_px = box.to_image(sighting.joints[:, :2])  # (21, 2)
        vertices_px = box.to_image(sighting.vertices[:, :2])  # (V, 2)
        wrist_depth = sighting.joints[0, 2]  # 0 but for the network's error
        depth = sighting.joints[:, 2] - wrist_depth  # (21,)
        root = solve_root_depth(
            joints_px, depth, camera, self._topology.bone_ratios, sighting.confidence
        )
        where = place(root, bone_length_m, root_depth_m)
        faces = self._topology.faces
        return {
            "vertices_m": lift(vertices_px, sighting.vertices[:, 2] - wrist_depth, camera, where),
            "joints_m": lift(joints_px, depth, camera, where),
            "vertices_px": vertices_px,
            "joints_px": joints_px,
            "faces": faces[:, ::-1] if left else faces,  # a mirrored surface is turned inside out
            "confidence": sighting.confidence,
            "presence": sighting.presence,
            "box": box,
            "bone_length_m": where.bone_length_m,
        }

    def close(self) -> None:
        """Let the runtime and its memory go."""
        self._backend = None

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def load(
    bundle: Bundle | str | os.PathLike[str] | None = None,
    backend: str | backends.Backend = "auto",
    threads: int | None = None,
) -> Predictor:
    """A `Predictor`, for those who run more than one photo or choose the runtime."""
    return Predictor(bundle, backend, threads)


def predict(
    image: ImageLike,
    box: BoxLike | None = None,
    camera: Camera | None = None,
    handedness: Handedness | None = None,
    bone_length_m: float | None = None,
    root_depth_m: float | None = None,
    mirrored: bool = False,
    max_hands: int = 1,
    min_presence: float = 0.5,
) -> list[Hand]:
    """The hands in a photo, the surest first: `Predictor.predict`, where the arguments are told.

    The shipped bundle is loaded on the first call and kept.
    """
    global _default
    with _default_lock:
        if _default is None:
            _default = Predictor()
    return _default.predict(
        image,
        box=box,
        camera=camera,
        handedness=handedness,
        bone_length_m=bone_length_m,
        root_depth_m=root_depth_m,
        mirrored=mirrored,
        max_hands=max_hands,
        min_presence=min_presence,
    )


_default: Predictor | None = None
_default_lock = threading.Lock()


def _sighting(view: View, raw: backends.RawOutput, n: int) -> Sighting:
    """The n-th result of a batch, its mirroring undone."""
    vertices, joints = raw.vertices[n].copy(), raw.joints[n].copy()
    looks_right = float(raw.handedness[n])
    if view.mirrored:
        vertices[:, 0], joints[:, 0] = 1 - vertices[:, 0], 1 - joints[:, 0]
        looks_right = 1 - looks_right
    presence = float(raw.presence[n])
    return Sighting(view, vertices, joints, raw.confidence[n], presence, looks_right)


def _looks_left(handedness: Handedness | None, mirrored: bool) -> bool | None:
    """Whether the hand looks like a left one in the photo as given; None if nobody knows."""
    if handedness is None:
        return None
    if handedness not in ("left", "right"):
        raise InputError(f"handedness must be 'left', 'right' or None, not {handedness!r}")
    return (handedness == "left") != mirrored


def _checked_count(max_hands: int) -> int:
    try:
        count = operator.index(max_hands)
    except TypeError as cause:
        raise InputError(f"max_hands must be a whole number, not {max_hands!r}") from cause
    if count < 1:
        raise InputError(f"max_hands must be at least 1, not {count}")
    return count


def _checked_camera(camera: Camera | None, width: int, height: int) -> Camera:
    if camera is None:
        return Camera.default(width, height)
    if not isinstance(camera, Camera):
        raise CameraError(
            f"camera must be a handmesh.Camera, not {type(camera).__name__}: "
            "make one with Camera.from_matrix(K, width, height)"
        )
    if (camera.width, camera.height) != (width, height):
        raise CameraError(
            f"the camera is of {camera.width} x {camera.height} images and this one has "
            f"{width} x {height} pixels: focal lengths scale with the image"
        )
    return camera


def _checked_box(box: BoxLike, width: int, height: int) -> Box:
    if not isinstance(box, Box):
        try:
            x0, y0, x1, y1 = (float(value) for value in box)
        except (TypeError, ValueError) as cause:
            raise BoxError(
                f"box must be a handmesh.Box, or (x0, y0, x1, y1) in pixels, not {box!r}"
            ) from cause
        box = Box.from_xyxy(x0, y0, x1, y1)
    if not (-0.5 <= box.cx <= width - 0.5 and -0.5 <= box.cy <= height - 0.5):
        raise BoxError(
            f"the centre of the box, ({box.cx:g}, {box.cy:g}), lies outside the image of "
            f"{width} x {height} pixels"
        )
    if not 4 <= box.size <= 8 * max(width, height):
        raise BoxError(
            f"the box has a side of {box.size:g} pixels: expected at least 4, and at most 8 times "
            f"the longer side of the image of {width} x {height} pixels"
        )
    return box


class _Stopwatch:
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
