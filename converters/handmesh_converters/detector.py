"""A detector's bundle: from a training checkpoint to artifacts that prove themselves."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from handmesh import __version__, backends
from handmesh.archive import write_arrays
from handmesh.bundle import Bundle, detector_specs, write_manifest
from handmesh.errors import CheckpointError, ExportError, InputError, ParityError
from handmesh.nn import DetectorConfig, DetectorNetwork, from_dict, load_weights, save_weights
from handmesh.nn.config import to_dict
from handmesh.nn.detector import PicturesToHands
from handmesh.nn.weights import Precision

from . import formats
from .export import REFERENCE, WEIGHTS
from .fold import fold_norms
from .replacing import replacing
from .request import Job, Request

__all__ = [
    "DetectorParity",
    "DetectorTwin",
    "compare_hands",
    "is_detector",
    "load_detector",
    "write_detector",
]

# Pictures shown at once where artifacts are proven.
_BATCH = 8
# Hands that are less sure than this may come and go with rounding: they are not compared.
_SURE = 0.05
# A hand of one list is that of the other within this share of the picture.
_SAME = 0.02


class DetectorTwin(nn.Module):
    """A detector for running: uint8 pictures in, hands out, norms folded into convolutions.

    Args:
        network: trained; only read.
    """

    outputs = ("hands",)

    def __init__(self, network: DetectorNetwork) -> None:
        super().__init__()
        self.image_size = network.config.input_size
        own = copy.deepcopy(network).cpu().eval()
        fold_norms(own)
        self.pictures_to_hands = PicturesToHands(own)

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """(N, S, S, 3) uint8 RGB to (N, K, 7) float32, see `handmesh.nn.detector.decode`."""
        return (self.pictures_to_hands(image),)


@dataclass(frozen=True)
class DetectorParity:
    """How far an artifact is from the torch network, at worst, over all sure hands.

    Attributes:
        pictures: compared. hands: in them. missing: hands that only one of both gives.
        score: of scores and sides. px: of centres and sizes, pixels of the input.
        degrees: of directions.
    """

    pictures: int
    hands: int
    missing: int
    score: float
    px: float
    degrees: float

    def check(self, tolerance: Mapping[str, float]) -> None:
        """
        Raises:
            ParityError: more than is allowed.
        """
        found = asdict(self)
        over = {k: found[k] for k, most in tolerance.items() if not found[k] <= most}
        if over:
            raise ParityError(f"the artifact is off by {over}, and {dict(tolerance)} is allowed")

    def render(self) -> str:
        """For a reader."""
        return (
            f"{self.pictures} pictures, {self.hands} hands, {self.missing} missing; at worst "
            f"score {self.score:.1e}, {self.px:.1e} px, {self.degrees:.1e} degrees"
        )


# What an artifact may differ by.
TOLERANCE = {"missing": 0, "score": 1e-3, "px": 0.05, "degrees": 0.2}


def write_detector(
    network: DetectorNetwork,
    folder: str | os.PathLike[str],
    pictures: NDArray[np.uint8],
    *,
    provenance: Mapping[str, Any],
    licences: Mapping[str, str],
    name: str | None = None,
    export: Sequence[str] = ("onnx",),
    request: Request = Request(),  # noqa: B008  (frozen)
    weights: Precision = "fp16",
) -> tuple[Bundle, dict[str, DetectorParity]]:
    """Write a detector as a bundle, with its artifacts; replaces an older one whole.

    Args:
        network: trained; left as it is.
        folder: of the bundle; its parent must exist.
        pictures: (N, S, S, 3) uint8 RGB: each artifact is proven on them, and they are kept.
        provenance, licences, name, export, request, weights: as in `export.write_bundle`.

    Returns:
        The bundle, and by format what was measured.

    Raises:
        InputError: an unknown format, or pictures of another size.
        ParityError: an artifact is off by more than `TOLERANCE`.
        MissingExtra, ExportError: as in `export.write_bundle`.
    """
    size, candidates = network.config.input_size, network.config.candidates
    if pictures.ndim != 4 or pictures.shape[1:] != (size, size, 3) or not len(pictures):
        raise InputError(
            f"a detector is proven on (N, {size}, {size}, 3) uint8 pictures, not "
            f"{pictures.shape}: make them with `handmesh reference --whole --side {size}`"
        )
    for each in export:
        request.resolve(each, formats.load(each).ABLE)
    target = Path(folder)
    manifest: dict[str, Any] = {
        "name": target.resolve().name if name is None else name,
        "network": network.config.name,
        "config": to_dict(network.config),
        **detector_specs(size, candidates),
        "artifacts": {
            "torch": {
                "path": WEIGHTS,
                "precision": "fp32",
                "weights": weights,
                "tools": {"handmesh": __version__, "torch": version("torch")},
            }
        },
        "licences": dict(licences),
        "provenance": dict(provenance),
    }
    parity: dict[str, DetectorParity] = {}
    with replacing(target) as temporary:
        save_weights(network, temporary / WEIGHTS, network.config, None, precision=weights)
        stored = DetectorNetwork(network.config)
        load_weights(stored, temporary / WEIGHTS, network.config, None)
        stored.eval()
        expected = _hands(stored, pictures)
        write_arrays(temporary / REFERENCE, {"images": pictures, "hands": expected})
        for format_name in export:
            format_ = formats.load(format_name)
            _, precision = request.resolve(format_name, format_.ABLE)
            inside = {
                "name": str(manifest["name"]),
                "network": network.config.name,
                "handmesh_version": __version__,
                "input": json.dumps(manifest["input"]),
                "outputs": json.dumps(manifest["outputs"]),
                "licences": json.dumps(manifest["licences"]),
            }
            job = Job(inside, precision, frozenset(request.optimize), pictures)
            twin: Any = DetectorTwin(stored)
            facts = format_.export(twin, temporary / format_.FILE, job)
            entry = {"path": format_.FILE, **facts, "tolerance": TOLERANCE}
            manifest["artifacts"][format_name] = entry
            write_manifest(temporary, manifest)
            backend = backends.create(format_name, Bundle.load(temporary), threads=1)
            parts = range(0, len(pictures), _BATCH)
            given = [backend.outputs(pictures[i : i + _BATCH])["hands"] for i in parts]
            found = compare_hands(np.concatenate(given), expected, size)
            found.check(TOLERANCE)
            entry["parity"] = asdict(found)
            parity[format_name] = found
        write_manifest(temporary, manifest)
    return Bundle.load(target), parity


def compare_hands(
    hands: NDArray[np.float32], expected: NDArray[np.float32], size: int
) -> DetectorParity:
    """Two lists of hands (N, K, 7) of the same pictures of ``size`` pixels."""
    missing, count = 0, 0
    worst = np.zeros(3)  # score, px, degrees
    for got, wanted in zip(hands, expected, strict=True):
        apart = np.abs(got[:, None, 1:3] - wanted[None, :, 1:3]).max(axis=-1)  # (K, K)
        apart[(got[:, 0] <= 0)[:, None] | (wanted[:, 0] <= 0)[None]] = np.inf
        missing += int(((apart.min(axis=1) > _SAME) & (got[:, 0] > _SURE)).sum())
        for row in np.flatnonzero(wanted[:, 0] > _SURE):
            count += 1
            other = int(apart[:, row].argmin())
            if apart[other, row] > _SAME:
                missing += 1
                continue
            a, b = got[other].astype(np.float64), wanted[row].astype(np.float64)
            turn = np.arctan2(a[5] * b[4] - a[4] * b[5], a[4] * b[4] + a[5] * b[5])
            score = np.abs(a[[0, 6]] - b[[0, 6]]).max()
            here = (score, np.abs(a[1:4] - b[1:4]).max() * size, abs(np.degrees(turn)))
            worst = np.maximum(worst, here)
    score, px, degrees = (float(value) for value in worst)
    return DetectorParity(len(hands), count, missing, score, px, degrees)


@torch.no_grad()
def _hands(network: DetectorNetwork, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    run = PicturesToHands(network).eval()
    parts = [
        run(torch.from_numpy(np.ascontiguousarray(pictures[i : i + _BATCH]))).numpy()
        for i in range(0, len(pictures), _BATCH)
    ]
    return np.concatenate(parts)


def is_detector(path: Path) -> bool:
    """Whether a training checkpoint is of a detector; False also where it cannot be read."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return bool(state["config"]["network"] == DetectorConfig.name)
    except Exception:  # torch raises what its reader raises: who reads it next tells
        return False


def load_detector(path: Path) -> tuple[DetectorNetwork, dict[str, Any]]:
    """The averaged weights of a detector's training checkpoint, and what it says of the run.

    Raises:
        CheckpointError: unreadable, or not of a detector.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        config = from_dict(state["config"])
        if not isinstance(config, DetectorConfig):
            raise ExportError("of another network")
        network = DetectorNetwork(config)
        network.load_state_dict(state["average"])
        run = {"step": int(state["step"]), "images_seen": int(state["images_seen"])}
    except Exception as cause:  # torch raises what its archive reader or unpickler raises
        raise CheckpointError(
            f"{path} is not a checkpoint of `handmesh train detector` ({type(cause).__name__})"
        ) from cause
    return network.eval(), run
