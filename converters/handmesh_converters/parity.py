"""Proof that an artifact computes what the network computes, in units that mean something.

Three views of the same difference: of the outputs (normalised coordinates), of pixels, and of
millimetres in camera space, for which `handmesh.verification` says what a crop stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from handmesh.backends import RawOutput
from handmesh.errors import ExportError, ParityError
from handmesh.nn.blocks import scores
from handmesh.verification import PHOTO_BOX, distances_mm, from_wrist

from .fold import Network
from .request import Precision

__all__ = [
    "TOLERANCES",
    "Accuracy",
    "Deviation",
    "Parity",
    "Tolerance",
    "measure",
    "network_outputs",
]

# Sizes in which crops are given to an artifact, in turn: its batch size is open, and proven so.
_BATCHES = (1, 3, 8)


@dataclass(frozen=True)
class Tolerance:
    """What an artifact may be off by.

    Attributes:
        tensor: of the points' (u, v, d), at worst.
        scores: of confidence, presence and handedness, at worst.
        px: in pixels of the crop, at worst.
        mm: in millimetres, at worst.
        p99_mm: in millimetres, the 99th percentile.
        point_mm: in millimetres, of each vertex and joint the median over the crops: one that is
            always off is no outlier, though it be a hundredth of all points.
    """

    tensor: float
    scores: float
    px: float
    mm: float
    p99_mm: float
    point_mm: float

    def to_dict(self) -> dict[str, float]:
        """For a manifest: what `handmesh verify` asks of an artifact."""
        return asdict(self)


# By precision. Whoever rounds more is judged by its 99th percentile: a single point of a crop that
# the network itself is unsure of may move by millimetres.
TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(tensor=1e-4, scores=1e-4, px=0.05, mm=0.05, p99_mm=0.05, point_mm=0.05),
    # The depths among (u, v, d) are in bones: 0.01 is half a millimetre. (u, v) are judged by px.
    "fp16": Tolerance(tensor=1e-2, scores=5e-3, px=0.3, mm=2.0, p99_mm=0.5, point_mm=0.3),
    "int8": Tolerance(tensor=0.05, scores=0.05, px=1.0, mm=5.0, p99_mm=1.5, point_mm=1.0),
}


@dataclass(frozen=True)
class Deviation:
    """Largest and 99th percentile of a difference."""

    worst: float
    p99: float

    @classmethod
    def of(cls, differences: NDArray[np.floating]) -> Deviation:
        """Of absolute values of any shape."""
        return cls(float(differences.max()), float(np.percentile(differences, 99)))


@dataclass(frozen=True)
class Accuracy:
    """Mean error of the joints against labels, of the network and of its artifact.

    Attributes:
        crops: how many have labels.
        network_px, artifact_px: in pixels of the crop.
        network_mm, artifact_mm: in camera space as `Parity.mm`, wrists aligned.
    """

    crops: int
    network_px: float
    artifact_px: float
    network_mm: float
    artifact_mm: float


@dataclass(frozen=True)
class Parity:
    """How far an artifact is from its network.

    Attributes:
        runtime: what ran, as `Backend.description`.
        crops: number of crops compared.
        tensor: of the (u, v, d) of vertices and joints, coordinate by coordinate.
        scores: of confidence, presence and handedness.
        crop_px: distance of vertices and joints, in pixels of the crop.
        photo_px: the same in pixels of a 640-pixel photo, half of whose width the crop fills.
        mm: distance in camera space with the wrists aligned, of an adult's hand there; of crops
            that show a hand.
        point_mm: of the vertex or joint that is off most, the median of that over the crops.
        accuracy: what the difference does to the error itself; None without labels.
    """

    runtime: str
    crops: int
    tensor: Deviation
    scores: Deviation
    crop_px: Deviation
    photo_px: Deviation
    mm: Deviation
    point_mm: float
    accuracy: Accuracy | None = None

    def check(self, tolerance: Tolerance) -> None:
        """Raise `ParityError` unless all differences are within the tolerance."""
        found = {
            "tensor": (self.tensor.worst, tolerance.tensor),
            "scores": (self.scores.worst, tolerance.scores),
            "px": (self.crop_px.worst, tolerance.px),
            "mm": (self.mm.worst, tolerance.mm),
            "p99 of mm": (self.mm.p99, tolerance.p99_mm),
            "mm of one point in most crops": (self.point_mm, tolerance.point_mm),
        }
        # Not `>`: a difference that is not a number must fail.
        failed = [
            f"{name} {worst:.3g} (allowed {allowed:g})"
            for name, (worst, allowed) in found.items()
            if not worst <= allowed
        ]
        if failed:
            raise ParityError(
                f"{self.runtime} differs from the network on {self.crops} crops by "
                f"{', '.join(failed)}; the artifact was not kept: export with the versions of "
                "constraints.txt, or in a higher precision"
            )

    def to_dict(self) -> dict[str, Any]:
        """For a manifest."""
        return asdict(self)

    def render(self) -> str:
        """One line for a reader."""
        error = ""
        if self.accuracy is not None:
            change = self.accuracy.artifact_mm - self.accuracy.network_mm
            error = (
                f", {change:+.2f} mm of {self.accuracy.network_mm:.1f} mm error of the joints in "
                f"{self.accuracy.crops} crops with labels (others than those of docs/models.md)"
            )
        return (
            f"{self.runtime}, {self.crops} crops, worst (p99): "
            f"{self.tensor.worst:.1e} ({self.tensor.p99:.1e}) of (u, v, d), "
            f"{self.crop_px.worst:.1e} ({self.crop_px.p99:.1e}) px of the crop, "
            f"{self.photo_px.worst:.1e} ({self.photo_px.p99:.1e}) px of a 640 px photo, "
            f"{self.mm.worst:.1e} ({self.mm.p99:.1e}) mm, "
            f"{self.scores.worst:.1e} ({self.scores.p99:.1e}) of the scores{error}"
        )


def network_outputs(network: Network, images: NDArray[np.uint8]) -> RawOutput:
    """What the network itself says of crops (N, S, S, 3) uint8 RGB, in float32 on the CPU.

    The network is left as it was.

    Raises:
        ExportError: the crops are not of the network's size and type, or too few.
    """
    size = network.config.input_size
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3):
        raise ExportError(
            f"reference crops must be (N, {size}, {size}, 3) uint8 RGB, "
            f"not {images.shape} {images.dtype}"
        )
    if len(images) == 0:
        raise ExportError("an export needs reference crops to prove itself on; got none")
    training = network.training
    parts = []
    try:
        network.eval()
        with torch.inference_mode():
            for start in range(0, len(images), 16):
                batch = torch.from_numpy(images[start : start + 16].copy())
                # (N, 3, S, S)
                output = network(batch.permute(0, 3, 1, 2).float() / 255 - 0.5)
                named = (output.vertices, output.joints, *scores(output))
                parts.append([tensor.numpy() for tensor in named])
    finally:
        network.train(training)
    return RawOutput(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def measure(
    run: Callable[[NDArray[np.uint8]], RawOutput],
    runtime: str,
    images: NDArray[np.uint8],
    expected: RawOutput,
    bone_ratios: NDArray[np.float32],
    labels: NDArray[np.float32] | None = None,
) -> Parity:
    """Run an artifact on crops and compare.

    Args:
        run: the artifact, as `handmesh.backends.Backend.run`.
        runtime: its description.
        images: (N, S, S, 3) uint8 RGB.
        expected: what `network_outputs` gave for them.
        bone_ratios: (20,), see `handmesh.graph.Topology`.
        labels: (N, 21, 3), true (u, v, d) of the joints; NaN where they are not known.

    Raises:
        BackendError: the runtime failed, or its outputs have other shapes than they should.
    """
    parts: list[RawOutput] = []
    start = 0
    while start < len(images):
        count = _BATCHES[min(len(parts), len(_BATCHES) - 1)]
        parts.append(run(images[start : start + count]))
        start += count
    found = RawOutput(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    points, expected_points = _points(found), _points(expected)
    offsets = np.linalg.norm((points - expected_points)[..., :2], axis=-1)  # (N, V + 21)
    size = images.shape[1]
    with np.errstate(invalid="ignore"):  # what is not finite fails the check
        distances = distances_mm(points, expected_points, expected.presence, bone_ratios)
    return Parity(
        runtime=runtime,
        crops=len(images),
        tensor=Deviation.of(np.abs(points - expected_points)),
        scores=Deviation.of(np.abs(_scores(found) - _scores(expected))),
        crop_px=Deviation.of(offsets * size),
        photo_px=Deviation.of(offsets * PHOTO_BOX.size),
        mm=Deviation.of(distances),
        point_mm=float(np.median(distances, axis=0).max()),
        accuracy=None if labels is None else _accuracy(found, expected, labels, bone_ratios, size),
    )


def _accuracy(
    found: RawOutput,
    expected: RawOutput,
    labels: NDArray[np.float32],
    bone_ratios: NDArray[np.float32],
    size: int,
) -> Accuracy | None:
    """Errors of the joints on crops with labels; None if none has any."""
    known = np.flatnonzero(np.isfinite(labels).all(axis=(1, 2)))
    if len(known) == 0:
        return None
    truth = labels[known].astype(np.float64)
    placed_truth = np.stack([from_wrist(each, bone_ratios) for each in truth])  # (K, 21, 3)

    def errors(output: RawOutput) -> tuple[float, float]:
        joints = output.joints[known].astype(np.float64)
        px = np.linalg.norm((joints - truth)[..., :2], axis=-1) * size
        placed = np.stack([from_wrist(each, bone_ratios) for each in joints])
        return float(px.mean()), float(np.linalg.norm(placed - placed_truth, axis=-1).mean() * 1e3)

    (network_px, network_mm), (artifact_px, artifact_mm) = errors(expected), errors(found)
    return Accuracy(len(known), network_px, artifact_px, network_mm, artifact_mm)


def _points(output: RawOutput) -> NDArray[np.float64]:
    """Vertices, then joints: (N, V + 21, 3)."""
    return np.concatenate([output.vertices, output.joints], axis=1).astype(np.float64)


def _scores(output: RawOutput) -> NDArray[np.float64]:
    """Confidence, presence, handedness: (N, 23)."""
    scores: Sequence[NDArray[np.float32]] = (
        output.confidence,
        output.presence[:, None],
        output.handedness[:, None],
    )
    return np.concatenate(scores, axis=1).astype(np.float64)
