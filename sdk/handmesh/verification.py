"""Proof that a bundle computes, on this machine, what its network computed when it was made.

`reference.npz` holds crops and what the torch network gave for them: `images` (N, S, S, 3) uint8,
and `vertices`, `joints`, `confidence`, `presence`, `handedness` float32 as in
`handmesh.backends.RawOutput`. Each backend is run on the crops, and its difference is stated in
tensor units, in pixels of the crop, and in millimetres of an adult's hand. For these a crop stands
for a hand in a usual photo: it fills half of the width of a 640-pixel image, in its middle, of a
camera with default intrinsics.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import backends
from .archive import read_arrays
from .backends import RawOutput
from .bundle import Bundle
from .errors import BackendError, BundleError, InputError
from .geometry import lift, place, solve_root_depth
from .types import Box, Camera

__all__ = [
    "PHOTO_BOX",
    "Difference",
    "compare",
    "distances_mm",
    "from_wrist",
    "read_reference",
    "verify",
]

# What an artifact may differ by where its manifest entry gives no `tolerance` of its own.
DEFAULT_TOLERANCE = {
    "tensor": 1e-4, "px": 0.05, "mm": 0.05, "p99_mm": 0.05, "point_mm": 0.05, "scores": 1e-3,
}  # fmt: skip

# The photo that a crop stands for, and where in it.
_PHOTO_PX = (640, 480)
PHOTO_BOX = Box(cx=319.5, cy=239.5, size=320.0)


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far a backend is from the reference, at worst.

    Attributes:
        backend: what ran, as `Backend.description`.
        crops: number of crops compared.
        outputs: largest absolute difference by output, in tensor units.
        px: largest distance of a vertex or joint, in pixels of the crop.
        mm: largest distance of a vertex or joint from its place, in millimetres, wrists aligned.
        p99_mm: 99th percentile of these distances.
        point_mm: of the vertex or joint that is off most, the median over the crops.
        tolerance: what was allowed: "tensor" of the points' (u, v, d), "px", "mm", "p99_mm",
            "point_mm", and "scores" of confidence, presence and handedness.
    """

    backend: str
    crops: int
    outputs: Mapping[str, float]
    px: float
    mm: float
    p99_mm: float
    point_mm: float
    tolerance: Mapping[str, float]

    @property
    def tensor(self) -> float:
        """Largest absolute difference of a point's normalised coordinates."""
        return self._worst("vertices", "joints")

    @property
    def scores(self) -> float:
        """Largest absolute difference of a confidence, a presence or a handedness."""
        return self._worst("confidence", "presence", "handedness")

    def _worst(self, *names: str) -> float:
        # Not Python's max, which may lose what is not a number.
        return float(np.max([self.outputs[name] for name in names]))

    @property
    def passed(self) -> bool:
        found = {
            "tensor": self.tensor, "px": self.px, "mm": self.mm, "p99_mm": self.p99_mm,
            "point_mm": self.point_mm, "scores": self.scores,
        }  # fmt: skip
        # A difference that is not a number must not pass.
        return all(found[unit] <= allowed for unit, allowed in self.tolerance.items())

    def render(self) -> str:
        """For a reader."""
        return (
            f"{self.crops} crops, off by at most {self.tensor:.2e} in (u, v, d), "
            f"{self.px:.2e} px, {self.mm:.2e} mm (p99 {self.p99_mm:.2e}), "
            f"{self.scores:.2e} in confidence, presence and handedness"
        )


def verify(
    bundle: Bundle,
    names: list[str] | None = None,
    device: str | None = None,
    threads: int | None = None,
) -> list[Difference]:
    """Check every file of a bundle, then run backends on its reference crops.

    Args:
        bundle: the bundle.
        names: backends; by default all that are installed and in the bundle.
        device, threads: as in `handmesh.backends.choose`.

    Raises:
        BundleError, IntegrityError: a file is missing or damaged, or a tolerance is none.
        BackendUnavailable: a backend that was asked for cannot run, or none can.
        BackendError: a runtime failed.
    """
    bundle.check()
    images, reference = read_reference(bundle)
    if names is None:
        names = [n for n in backends.names() if backends.unavailable(n, bundle, device) is None]
    differences = []
    for name in names or ["auto"]:
        backend = backends.create(name, bundle, threads, device)
        tolerance = _tolerance(bundle, backend.name)
        parts = [backend.run(images[start : start + 8]) for start in range(0, len(images), 8)]
        output = RawOutput(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
        ratios, size = bundle.topology.bone_ratios, bundle.image_size
        differences.append(compare(output, reference, ratios, size, backend.description, tolerance))
    return differences


def compare(
    output: RawOutput,
    reference: RawOutput,
    bone_ratios: NDArray[np.float32],
    image_size: int,
    backend: str,
    tolerance: Mapping[str, float],
) -> Difference:
    """The differences between two outputs for the same crops.

    Args:
        output, reference: what a backend gave and what it should have given.
        bone_ratios: (20,), see `Topology`.
        image_size: side of the crops in pixels.
        backend, tolerance: taken over into the result.
    """
    outputs = {
        name: float(np.abs(got - wanted).max())
        for name, got, wanted in zip(RawOutput._fields, output, reference, strict=True)
    }
    points, expected = (np.concatenate([o.vertices, o.joints], axis=1) for o in (output, reference))
    offsets = (points - expected)[..., :2] * image_size  # (N, V + 21, 2)
    distances = distances_mm(points, expected, reference.presence, bone_ratios)  # (H, V + 21)
    return Difference(
        backend=backend,
        crops=len(points),
        outputs=outputs,
        px=float(np.linalg.norm(offsets, axis=-1).max()),
        mm=float(distances.max()),
        p99_mm=float(np.percentile(distances, 99)),
        point_mm=float(np.median(distances, axis=0).max()),
        tolerance=dict(tolerance),
    )


def read_reference(bundle: Bundle) -> tuple[NDArray[np.uint8], RawOutput]:
    """The crops of a bundle, (N, S, S, 3) uint8, and the outputs they should give.

    Raises:
        BundleError, IntegrityError: `reference.npz` is missing, damaged, or lacks an array.
    """
    path = bundle.file("reference.npz")
    arrays: dict[str, NDArray[Any]] = dict(read_arrays(path, "make it again"))
    lacking = sorted({"images", *RawOutput._fields} - arrays.keys())
    if lacking:
        raise BundleError(f"{path} is not a reference file: it lacks {', '.join(lacking)}")
    images, named = arrays["images"], {name: arrays[name] for name in RawOutput._fields}
    try:
        backends.check_images(images, bundle.image_size)
        vertices = bundle.topology.vertex_count
        return images, backends.raw_output(named, len(images), vertices, str(path))
    except (BackendError, InputError, TypeError, ValueError) as cause:
        raise BundleError(f"{path} is not a reference file: {cause}; make it again") from cause


def _tolerance(bundle: Bundle, backend: str) -> dict[str, float]:
    """What the manifest allows an artifact, and the defaults where it is silent."""
    stated = bundle.artifacts[backend].get("tolerance", {})
    if not isinstance(stated, dict) or not all(
        name in DEFAULT_TOLERANCE and isinstance(value, (int, float))
        for name, value in stated.items()
    ):
        raise BundleError(
            f"artifacts[{backend!r}].tolerance of bundle {bundle.name!r} must hold numbers under "
            f"the names {', '.join(DEFAULT_TOLERANCE)}, not {stated!r}"
        )
    # Who states the worst case alone, as bundles did before there were more figures, means just it.
    worst = stated.get("mm", DEFAULT_TOLERANCE["mm"])
    return {**DEFAULT_TOLERANCE, "p99_mm": worst, "point_mm": worst, **stated}


def distances_mm(
    points: NDArray[np.floating],
    expected: NDArray[np.floating],
    presence: NDArray[np.floating],
    bone_ratios: NDArray[np.float32],
) -> NDArray[np.float64]:
    """How far points come to lie from where they should, (H, V + 21) millimetres.

    Of the H crops that show a hand as the reference has it: elsewhere bones have no proportions,
    and what depth follows from them is chance. All N where it sees none, as untrained networks do.

    Args:
        points, expected: (N, V + 21, 3) (u, v, d) of vertices, then joints.
        presence: (N,) of the reference. bone_ratios: (20,), see `Topology`.
    """
    shows = presence > 0.5
    chosen = np.flatnonzero(shows if shows.any() else np.ones_like(shows))
    placed, expected_placed = (
        np.stack([from_wrist(side[i], bone_ratios) for i in chosen]) for side in (points, expected)
    )
    return np.asarray(np.linalg.norm(placed - expected_placed, axis=-1) * 1e3)


def from_wrist(
    points: NDArray[np.floating], bone_ratios: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Places in camera space, in metres from the wrist, of an adult's hand in the photo above.

    Args:
        points: (V + 21, 3) (u, v, d) of vertices, then joints. bone_ratios: (20,), see `Topology`.

    Returns:
        (V + 21, 3) float64.
    """
    camera = Camera.default(*_PHOTO_PX)
    exact = points.astype(np.float64)
    pixels, depth = PHOTO_BOX.to_image(exact[:, :2]), exact[:, 2]
    root = solve_root_depth(pixels[-21:], depth[-21:], camera, bone_ratios)
    placed = lift(pixels, depth, camera, place(root))  # (V + 21, 3)
    return placed - placed[-21]
