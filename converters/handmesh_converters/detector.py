"""A detector's bundle: from a training checkpoint to artifacts that prove themselves."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handmesh import __version__
from handmesh.archive import read_arrays, write_arrays
from handmesh.bundle import Bundle, detector_specs, write_manifest
from handmesh.detector_verification import (
    DETECTOR_TOLERANCE,
    DetectorDifference,
    compare_hands,
)
from handmesh.errors import CheckpointError, ExportError, InputError, ParityError
from handmesh.nn import (
    DetectorConfig,
    DetectorNetwork,
    from_dict,
    load_weights,
    read_config,
    save_weights,
)
from handmesh.nn.checkpoint import read_state
from handmesh.nn.config import to_dict
from handmesh.nn.detector import PicturesToHands, decode
from handmesh.nn.weights import Precision

from . import formats
from .export import CALIBRATION, REFERENCE, WEIGHTS
from .fold import Twin, fold_norms
from .replacing import replacing_folder
from .request import Job, Request

__all__ = [
    "DetectorTwin",
    "export_detector",
    "is_detector",
    "load_detector",
    "write_detector",
]

# How far weights that are stored in half may lead from those that were trained; a detector's boxes
# have a margin of a quarter.
ROUNDING_TOLERANCE = {"missing": 0, "score": 0.01, "px": 1.0, "degrees": 5.0}
# Pictures shown at once where artifacts are proven.
_BATCH = 8


class DetectorTwin(Twin):
    """A detector in its running form, norms folded into convolutions.

    Its output is hands (N, K, 7) float32, see `handmesh.nn.detector.decode`.

    Args:
        network: trained; only read.
    """

    network: DetectorNetwork
    outputs = ("hands",)

    def __init__(self, network: DetectorNetwork) -> None:
        own = copy.deepcopy(network).cpu().eval().requires_grad_(False)
        fold_norms(own)
        super().__init__(own, network.config.input_size)

    def of_normalised(self, x: Tensor) -> tuple[Tensor, ...]:
        return (decode(self.network(x), self.network.config.candidates),)


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
) -> tuple[Bundle, dict[str, DetectorDifference]]:
    """Write a detector as a bundle, with its artifacts; replaces an older one whole.

    Args:
        network: trained; left as it is.
        folder: of the bundle; its parent must exist.
        pictures: (N, S, S, 3) uint8 RGB: each artifact is proven on them, and they are kept. int8
            is calibrated on every other one and proven on the rest, or both on a single one.
        provenance, licences, name, export, request, weights: as in `export.write_bundle`.

    Returns:
        The bundle, and by format what was measured.

    Raises:
        InputError: an unknown format or one that takes no detectors, or pictures of another size
            or type.
        ParityError: an artifact is off by more than `DETECTOR_TOLERANCE`, or the network with its
            weights as stored by more than `ROUNDING_TOLERANCE`.
        MissingExtra, ExportError: as in `export.write_bundle`.
    """
    size, candidates = network.config.input_size, network.config.candidates
    fits = pictures.ndim == 4 and pictures.shape[1:] == (size, size, 3) and len(pictures) > 0
    if not fits or pictures.dtype != np.uint8:
        raise InputError(
            f"a detector is proven on (N, {size}, {size}, 3) uint8 pictures, not "
            f"{pictures.shape} {pictures.dtype}: make them with `handmesh reference --whole "
            f"--side {size}`"
        )
    for each in export:
        request.resolve(each, formats.load(each).ABLE, formats.abilities(), detector=True)
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
    parity: dict[str, DetectorDifference] = {}
    with replacing_folder(target) as temporary:
        save_weights(network, temporary / WEIGHTS, network.config, None, precision=weights)
        stored = DetectorNetwork(network.config)
        load_weights(stored, temporary / WEIGHTS, network.config, None)
        stored.eval()
        expected = _hands(stored, pictures)
        rounding = compare_hands(expected, _hands(network, pictures), size)
        manifest["artifacts"]["torch"]["rounding"] = _proven(
            "the network as stored", rounding, ROUNDING_TOLERANCE
        )
        write_arrays(temporary / REFERENCE, {"images": pictures, "hands": expected})
        for format_name in export:
            format_ = formats.load(format_name)
            _, precision = request.resolve(format_name, format_.ABLE, detector=True)
            inside = {
                "name": str(manifest["name"]),
                "network": network.config.name,
                "handmesh_version": __version__,
                "input": json.dumps(manifest["input"]),
                "outputs": json.dumps(manifest["outputs"]),
                "licences": json.dumps(manifest["licences"]),
            }
            calibration, judged = pictures, slice(None)
            if precision == "int8":  # of a single picture there is no other
                calibration, judged = (
                    pictures[CALIBRATION],
                    slice(min(1, len(pictures) - 1), None, 2),
                )
            job = Job(inside, precision, frozenset(request.optimize), calibration)
            facts = format_.export(DetectorTwin(stored), temporary / format_.FILE, job)
            entry = {"path": format_.FILE, **facts, "tolerance": dict(DETECTOR_TOLERANCE)}
            manifest["artifacts"][format_name] = entry
            write_manifest(temporary, manifest)
            backend = format_.open(Bundle.load(temporary))
            shown = pictures[judged]
            parts = range(0, len(shown), _BATCH)
            given = [backend.outputs(shown[i : i + _BATCH])["hands"] for i in parts]
            found = compare_hands(np.concatenate(given), expected[judged], size)
            entry["parity"] = _proven(f"the {format_name} artifact", found, DETECTOR_TOLERANCE)
            parity[format_name] = found
        write_manifest(temporary, manifest)
    return Bundle.load(target), parity


def export_detector(
    bundle: Bundle,
    folder: str | os.PathLike[str],
    export: Sequence[str],
    request: Request = Request(),  # noqa: B008  (frozen)
) -> tuple[Bundle, dict[str, DetectorDifference]]:
    """A detector's bundle in other formats, proven on the pictures that it holds.

    Args:
        bundle: of a detector, with its weights.
        folder: of the new bundle; its parent must exist.
        export, request: as in `write_detector`.

    Returns:
        As `write_detector`.

    Raises:
        BundleError, IntegrityError: a file of the bundle is missing or was changed.
        InputError, ParityError, MissingExtra, ExportError: as `write_detector`.
    """
    path = bundle.artifact("torch")
    config = read_config(path)
    if not isinstance(config, DetectorConfig):
        raise ExportError(f"bundle {bundle.name!r} holds no detector")
    network = DetectorNetwork(config)
    load_weights(network, path, config, None)
    pictures = read_arrays(bundle.file(REFERENCE), "export it again from its checkpoint")["images"]
    return write_detector(
        network.eval(),
        folder,
        np.asarray(pictures, dtype=np.uint8),
        provenance=bundle.manifest["provenance"],
        licences=bundle.manifest["licences"],
        export=export,
        request=request,
        weights="fp16" if bundle.precision_of("torch") == "fp16" else "fp32",
    )


def _proven(what: str, found: DetectorDifference, tolerance: Mapping[str, float]) -> dict[str, Any]:
    """The difference for a manifest.

    Raises:
        ParityError: it is more than is allowed.
    """
    over = found.over(tolerance)
    if over:
        raise ParityError(f"{what} is off by {over}, and {dict(tolerance)} is allowed")
    return {k: v for k, v in asdict(found).items() if k != "backend"}


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
    state = read_state(path, ("config", "average", "step", "images_seen"))
    try:
        config = from_dict(state["config"])
        if not isinstance(config, DetectorConfig):
            raise ExportError("of another network")
        network = DetectorNetwork(config)
        network.load_state_dict(state["average"])
        run = {"step": int(state["step"]), "images_seen": int(state["images_seen"])}
    except Exception as cause:  # values of any type, and weights of any shape
        raise CheckpointError(
            f"{path} is not a checkpoint of `handmesh train detector` ({type(cause).__name__})"
        ) from cause
    return network.eval(), run
