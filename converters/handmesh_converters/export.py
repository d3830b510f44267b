"""Writing bundles: from a trained network to a folder that the SDK opens, proven before it exists.

A bundle is built in a hidden folder beside its place and renamed into it when everything in it has
been checked. Whatever fails before leaves the old bundle as it was and nothing new behind.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from handmesh import __version__
from handmesh.archive import write_arrays
from handmesh.backends import RawOutput
from handmesh.bundle import Bundle, io_specs, write_manifest
from handmesh.errors import (
    CheckpointError,
    GraphMismatchError,
    InputError,
)
from handmesh.graph import Topology
from handmesh.nn import build, from_dict, load_weights, read_config, save_weights, to_dict
from handmesh.nn.checkpoint import not_a_checkpoint, read_state
from handmesh.nn.config import JOINT_COUNT
from handmesh.nn.weights import Precision
from handmesh.types import JOINT_NAMES
from handmesh.verification import read_reference

from . import formats
from .fold import Network, fold
from .forms import form_named
from .parity import TOLERANCES, Parity, Tolerance, measure, network_outputs
from .replacing import carry_engines, replacing_folder
from .request import Job, Request

__all__ = ["Written", "add_formats", "load_bundle", "load_checkpoint", "write_bundle"]

TOPOLOGY, WEIGHTS, REFERENCE = "topology.npz", "weights.safetensors", "reference.npz"
# Crops kept in a bundle, evenly chosen out of those that it was proven on.
REFERENCE_CROPS = 48
# Of the crops that an artifact is proven on, those that int8 is calibrated on instead.
CALIBRATION = slice(None, None, 2)
# Formats whose artifacts TensorRT builds engines of.
_BUILT_OF = {"cuda", "onnx"}
LABELS = "labels"  # beside the crops, if there are any
LICENCES = {"code": "Apache-2.0", "weights": "not stated", "data": "not stated"}


@dataclass(frozen=True)
class Written:
    """A bundle that was written.

    Attributes:
        bundle: opened where it lies now.
        parity: by format, what was measured on every crop that was given.
    """

    bundle: Bundle
    parity: Mapping[str, Parity]


def write_bundle(
    network: Network,
    topology: Topology,
    folder: str | os.PathLike[str],
    reference_crops: NDArray[np.uint8],
    *,
    labels: NDArray[np.float32] | None = None,
    provenance: Mapping[str, Any],
    licences: Mapping[str, str] = LICENCES,
    name: str | None = None,
    export: Sequence[str] = ("onnx",),
    request: Request = Request(),  # noqa: B008  (frozen)
    weights: Precision = "fp16",
    tolerance: Tolerance | None = None,
) -> Written:
    """Write a network as a bundle, with its artifacts; replaces an older one whole.

    Args:
        network: trained; left as it is.
        topology: the graph that it was built on.
        folder: of the bundle; its parent must exist.
        reference_crops: (N, S, S, 3) uint8 RGB at the network's input size. Every artifact is
            proven on all of them; `REFERENCE_CROPS` of them are kept in the bundle.
        labels: (N, 21, 3) float32, true (u, v, d) of the crops' joints, NaN where unknown: what an
            artifact's rounding does to the error is stated then.
        provenance: where the weights came from; JSON-compatible.
        licences: of code, weights and data.
        name: of the bundle; by default the folder's.
        export: formats, see `handmesh_converters.formats`.
        request: what is wanted of the artifacts.
        weights: precision in which the bundle stores large weights. With "fp16" its network is
            the rounded one: its artifacts are proven against that, and it against ``network``.
        tolerance: that every artifact must keep; by default that of its precision.

    Raises:
        InputError: an unknown format, a request that one of them cannot fulfil, or a place where no
            bundle can or should be written.
        MissingExtra: the packages of a format are not installed.
        GraphMismatchError: the network was not built on this topology.
        ParityError: an artifact is off by more than the tolerance.
        ExportError: a converter failed, the crops do not fit the network, or the disk is full.
    """
    for each in export:
        request.resolve(each, formats.load(each).ABLE)
    _check_graph(network, topology)
    labels = _checked(reference_crops, labels, network.config.input_size)
    target = Path(folder)
    config = network.config
    manifest: dict[str, Any] = {
        "name": target.resolve().name if name is None else name,
        "network": config.name,
        "config": to_dict(config),
        "graph_sha256": topology.sha256,
        **io_specs(config.input_size, topology.vertex_count),
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
    with replacing_folder(target) as temporary:
        topology.save(temporary / TOPOLOGY)
        save_weights(network, temporary / WEIGHTS, config, topology, precision=weights)
        stored = _read_network(temporary / WEIGHTS, topology)
        expected = network_outputs(stored, reference_crops)
        manifest["artifacts"]["torch"]["rounding"] = _rounding(
            network, expected, reference_crops, topology, tolerance or TOLERANCES[weights]
        )
        kept = np.unique(
            np.linspace(0, len(reference_crops) - 1, REFERENCE_CROPS).round().astype(np.int64)
        )
        named = {key: value[kept] for key, value in expected._asdict().items()}
        known = {} if labels is None else {LABELS: labels[kept]}
        write_arrays(temporary / REFERENCE, {"images": reference_crops[kept], **named, **known})
        proof = _Proof(reference_crops, labels, expected, topology, tolerance)
        parity = _add(temporary, manifest, stored, export, request, proof)
    return Written(Bundle.load(target), parity)


def add_formats(
    bundle: Bundle,
    export: Sequence[str],
    out: str | os.PathLike[str] | None = None,
    request: Request = Request(),  # noqa: B008  (frozen)
    tolerance: Tolerance | None = None,
) -> Written:
    """Export the network of a bundle again or to further formats, proven on its own crops.

    Args:
        bundle: its weights are exported; every file of it is verified first.
        export: formats; artifacts that the bundle has in others are kept.
        out: folder of the new bundle; by default the bundle is replaced.
        request, tolerance: as in `write_bundle`.

    Raises:
        BundleError, IntegrityError, GraphMismatchError: the bundle is damaged.
        InputError, MissingExtra, ParityError, ExportError: as `write_bundle`.
    """
    for each in export:
        request.resolve(each, formats.load(each).ABLE)
    bundle.check()
    network = load_bundle(bundle)
    images, _ = read_reference(bundle)
    with np.load(bundle.file(REFERENCE), allow_pickle=False) as arrays:
        labels = arrays[LABELS] if LABELS in arrays.files else None
    expected = network_outputs(network, images)
    proof = _Proof(images, labels, expected, bundle.topology, tolerance)
    manifest = json.loads(json.dumps(bundle.manifest))
    manifest["graph_sha256"] = bundle.topology.sha256
    target = bundle.folder if out is None else Path(out)
    with replacing_folder(target) as temporary:
        for path in bundle.manifest["files"]:
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.folder / path, temporary / path)
        parity = _add(temporary, manifest, network, export, request, proof)
        if out is None and not _BUILT_OF & set(export):
            carry_engines(bundle.folder, temporary)
    return Written(Bundle.load(target), parity)


def load_bundle(bundle: Bundle) -> Network:
    """The network of a bundle, with its weights.

    Raises:
        BundleError, IntegrityError, GraphMismatchError: the bundle is damaged.
    """
    return _read_network(bundle.artifact("torch"), bundle.topology)


def _read_network(path: Path, topology: Topology) -> Network:
    config = read_config(path)
    network = build(config, topology)
    load_weights(network, path, config, topology)
    return network.eval()


def load_checkpoint(
    path: str | os.PathLike[str], topology: Topology
) -> tuple[Network, dict[str, Any]]:
    """The averaged weights of a training checkpoint, and what it says of the run.

    Returns:
        The network, and {"step", "images_seen"}.

    Raises:
        CheckpointError: missing, unreadable, or not a training checkpoint.
        GraphMismatchError: trained on another graph.
    """
    state = read_state(path, ("graph", "config", "average", "step", "images_seen"))
    try:
        graph, config = state["graph"], from_dict(state["config"])
        run = {"step": int(state["step"]), "images_seen": int(state["images_seen"])}
        weights, head = dict(state["average"]), state.get("head", "mesh")
        if not isinstance(graph, str):
            raise TypeError(f"a graph is named by its hash, not by {type(graph).__name__}")
    except (TypeError, ValueError, OverflowError) as cause:
        raise not_a_checkpoint(path, cause) from cause
    topology.check_sha256(graph, str(path))
    if head != "mesh":
        raise CheckpointError(
            f"{path} is of a network that ends in {head!r}: only the graph CNN's mesh is exported"
        )
    network = build(config, topology)
    try:
        network.load_state_dict(weights)
    except RuntimeError as cause:
        raise CheckpointError(
            f"the weights in {path} do not fit their own network ({cause}); it was written by "
            "another version"
        ) from cause
    return network.eval(), run


@dataclass(frozen=True, eq=False)
class _Proof:
    """What an artifact has to stand up to.

    int8 is calibrated on every other crop, and proven on those that it has not seen.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.float32] | None
    expected: RawOutput
    topology: Topology
    tolerance: Tolerance | None

    def calibration(self) -> NDArray[np.uint8]:
        """Crops for an artifact to be calibrated on."""
        return self.images[CALIBRATION]

    def without_calibration(self) -> _Proof:
        """The proof on the other crops; a single one has to serve for both."""
        others = slice(1 if len(self.images) > 1 else 0, None, 2)
        return replace(
            self,
            images=self.images[others],
            labels=None if self.labels is None else self.labels[others],
            expected=RawOutput(*(array[others] for array in self.expected)),
        )


def _rounding(
    network: Network,
    stored: RawOutput,
    images: NDArray[np.uint8],
    topology: Topology,
    allowed: Tolerance,
) -> dict[str, Any]:
    """How far the network as stored is from the one that was trained; both in torch.

    Raises:
        ParityError: too far.
    """
    trained = network_outputs(network, images)
    rows = iter(range(len(images)))

    def as_stored(batch: NDArray[np.uint8]) -> RawOutput:
        chosen = list(itertools.islice(rows, len(batch)))
        return RawOutput(*(array[chosen] for array in stored))

    found = measure(as_stored, "the rounded network", images, trained, topology.bone_ratios)
    found.check(allowed)
    return found.to_dict()


def _add(
    folder: Path,
    manifest: dict[str, Any],
    network: Network,
    export: Sequence[str],
    request: Request,
    proof: _Proof,
) -> dict[str, Parity]:
    """Export into a folder, run each artifact as the SDK will, and write the manifest."""
    inside = {
        "name": str(manifest["name"]),
        "network": str(manifest["network"]),
        "handmesh_version": __version__,
        "graph_sha256": proof.topology.sha256,
        "input": json.dumps(manifest["input"]),
        "outputs": json.dumps(manifest["outputs"]),
        "joints": json.dumps(JOINT_NAMES),
        "licences": json.dumps(manifest["licences"]),
    }
    parity = {}
    # On a terminal only; converters take up to a minute each.
    bar = tqdm(export, unit="format", disable=None, leave=False)
    for name in bar:
        bar.set_description(f"{name}: converting")
        format_ = formats.load(name)
        graph, precision = request.resolve(name, format_.ABLE)
        twin = fold(network, form_named(graph))
        _remove(folder / format_.FILE)
        job = Job(
            inside,
            precision,
            frozenset(request.optimize),
            proof.calibration(),
            proof.topology.bone_ratios,
        )
        facts = format_.export(twin, folder / format_.FILE, job)
        allowed = proof.tolerance or TOLERANCES[precision]
        entry = {
            "path": format_.FILE,
            "graph_form": twin.form.name,
            **facts,
            "optimizations": sorted(request.optimize),
            "tolerance": allowed.to_dict(),
        }
        manifest["artifacts"][name] = entry
        bar.set_description(f"{name}: proving")
        # A backend wants a bundle.
        write_manifest(folder, manifest)
        backend = format_.open(Bundle.load(folder))
        against = proof.without_calibration() if precision == "int8" else proof
        found = measure(
            backend.run, backend.description, against.images, against.expected,
            proof.topology.bone_ratios, against.labels,
        )  # fmt: skip
        found.check(allowed)
        entry["parity"] = found.to_dict()
        parity[name] = found
    write_manifest(folder, manifest)
    return parity


def _remove(path: Path) -> None:
    """An artifact of before, so that nothing of it is left in its place."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _checked(
    crops: NDArray[np.uint8], labels: NDArray[Any] | None, size: int
) -> NDArray[np.float32] | None:
    """Labels as float32.

    Raises:
        InputError: the crops are no list of pictures, or the labels not theirs.
    """
    if crops.ndim != 4:
        raise InputError(
            f"reference crops must be (N, {size}, {size}, 3) uint8 RGB, not {crops.shape} "
            f"{crops.dtype}: `handmesh reference` makes them"
        )
    if labels is None:
        return None
    count = len(crops)
    if labels.shape != (count, JOINT_COUNT, 3) or labels.dtype.kind not in "fiu":
        raise InputError(
            f"labels must be ({count}, {JOINT_COUNT}, 3) as there are {count} reference crops, and "
            f"numbers, not {labels.shape} {labels.dtype}"
        )
    return labels.astype(np.float32)


def _check_graph(network: Network, topology: Topology) -> None:
    """Raise `GraphMismatchError` unless the network was built on this graph."""
    fresh = build(network.config, topology).head.decoder.named_buffers()
    own = dict(network.head.decoder.named_buffers())
    for name, buffer in fresh:
        if "norm" not in name and not torch.equal(own[name].cpu(), buffer):
            raise GraphMismatchError(
                f"the network was built on another graph than {topology.sha256[:12]}... "
                f"({name} differs); give the topology that it was built on"
            )
