"""The table of this machine: `predict()` by stage, networks alone, and networks in their parts."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import handmesh
from handmesh import Box, Bundle
from handmesh.errors import (
    BackendError,
    BackendUnavailable,
    ExportError,
    HandMeshError,
    MissingExtra,
)

from . import footprint, variants
from .candidates import facts_of, locate, network_candidate, predict_candidate, yardstick
from .protocol import Candidate, Measurement, Protocol, measure
from .random_weights import random_bundle
from .results import Results
from .variants import Variant

__all__ = ["Prepared", "Wanted", "artifacts", "cache", "paper_bundle", "parts_of", "prepare", "run"]

Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """What to measure.

    Attributes:
        bundle: the trained model. names: backends.
        precisions: of the trained model; paper_precisions: of `paper`, whose exports take minutes.
        threads: each row at each of them.
        paper: also the paper's network, with random weights. parts: networks in their three parts.
        memory: also each artifact's memory, in processes of their own.
        devices: that the backends run on, as `Predictor` takes them; none for their defaults. Parts
            are the CPU's, whatever is said here.
        brief: fewer rows, for a headline run, in which each takes a minute and those of `paper`
            several: `predict()` with one artifact of each backend (the others differ in their
            network alone, which has a row), and `paper` with the first backend only.
        artifacts: folder for what is exported; exists.
    """

    bundle: Bundle
    names: Sequence[str]
    precisions: Sequence[str]
    paper_precisions: Sequence[str]
    threads: Sequence[int]
    paper: bool
    parts: bool
    memory: bool
    artifacts: Path
    brief: bool = False
    devices: Sequence[str] = ()


class Prepared(NamedTuple):
    """Candidates to measure, and sentences that say what is missing and why."""

    candidates: list[Candidate]
    missing: list[str]


def cache() -> Path:
    """Where exports are kept between runs, made if it is not there."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "handmesh" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def paper_bundle(wanted: Wanted, say: Say) -> Bundle:
    """The paper's network with random weights, on the same graph; kept beside the exports.

    Raises:
        MissingExtra, ExportError: it cannot be made here.
    """
    name = f"paper-{wanted.bundle.topology.sha256[:12]}-{_code()[:12]}"
    folder = wanted.artifacts / name
    if (folder / "manifest.json").is_file():
        return Bundle.load(folder)
    say("making the network 'paper' with random weights")
    formats = [name for name in ("onnx",) if name in wanted.names]
    return random_bundle(folder, wanted.bundle.topology, export=formats)


def parts_of(bundle: Bundle, folder: Path, say: Say) -> dict[str, Path]:
    """A bundle's network cut into ONNX files; kept beside the exports.

    Raises:
        MissingExtra, ExportError: it cannot be made here.
    """
    try:
        from . import parts
    except ImportError as cause:
        raise MissingExtra(cause.name or "torch", "converters") from cause
    place = folder / f"{bundle.name}-parts-{str(bundle.manifest['sha256'])[:12]}-{_code()[:12]}"
    files = {part: place / f"{part}.onnx" for part in parts.PARTS}
    if not all(path.is_file() for path in files.values()):
        say(f"cutting {bundle.name} into its parts")
        place.mkdir(exist_ok=True)
        parts.write_parts(bundle, place)
    return files


def artifacts(
    wanted: Wanted, say: Say
) -> tuple[list[Variant], dict[str, dict[str, Path]], list[str]]:
    """For another device: artifacts, parts by network, and why others are missing.

    Raises:
        InputError: an unknown backend.
    """
    found, missing = variants.find(
        wanted.bundle, wanted.names, wanted.precisions, wanted.artifacts, say=say
    )
    if wanted.paper:
        try:
            paper = paper_bundle(wanted, say)
            more, reasons = variants.find(
                paper, wanted.names, wanted.paper_precisions, wanted.artifacts, judge=False, say=say
            )
            found, missing = [*found, *more], [*missing, *reasons]
        except (MissingExtra, ExportError) as error:
            missing.append(f"network 'paper': {error}")
    parts: dict[str, dict[str, Path]] = {}
    if wanted.parts and "onnx" in wanted.names:
        for variant in found:
            if variant.bundle.name not in parts and variant.backend == "onnx":
                try:
                    parts[variant.bundle.name] = parts_of(variant.bundle, wanted.artifacts, say)
                except (MissingExtra, ExportError) as error:
                    missing.append(f"parts of {variant.bundle.name}: {error}")
    return found, parts, list(dict.fromkeys(missing))


def prepare(
    wanted: Wanted, image: NDArray[np.uint8], box: Box | Sequence[float] | None,
    photo: bytes | None, say: Say,
) -> Prepared:  # fmt: skip
    """What can be measured here, and why the rest cannot.

    Args:
        wanted: what. image: (H, W, 3) uint8 RGB. box: where the hand is, if that is known.
        photo: the image's file, to be decoded inside the clock. say: told of what takes long.

    Raises:
        BackendUnavailable: the trained model cannot be run by any of the backends.
        InputError: an unknown backend, or no hand in the photo.
    """
    alone, parts, missing = artifacts(wanted, say)
    alone, elsewhere = variants.on_devices(alone, wanted.devices)
    missing += elsewhere
    own = [variant for variant in alone if variant.bundle.name == wanted.bundle.name]
    if not own:
        raise BackendUnavailable("; ".join(missing))
    hand = locate(image, own[0].bundle, own[0].backend, box)
    # Decoded inside the clock where there is a file to decode.
    given = image if photo is None else photo
    candidates = [yardstick()]
    shown = own
    if wanted.brief:
        shown = _first_of_each(own)
        alone = [*own, *[v for v in alone if v not in own][:1]]
    for threads in wanted.threads:
        candidates += [predict_candidate(given, hand, variant, threads) for variant in shown]
        candidates += [network_candidate(image, hand, variant, threads) for variant in alone]
    if wanted.parts:
        candidates += _parts(wanted, alone, parts, missing)
    if wanted.memory:
        _add_memory(candidates, alone, say)
    return Prepared(candidates, list(dict.fromkeys(missing)))


def _first_of_each(found: Sequence[Variant]) -> list[Variant]:
    """The first artifact of each backend: the bundle's own, where it has one."""
    first = {(variant.backend, variant.device): variant for variant in reversed(found)}
    return list(first.values())[::-1]


def _parts(
    wanted: Wanted,
    networks: Sequence[Variant],
    files: Mapping[str, Mapping[str, Path]],
    missing: list[str],
) -> list[Candidate]:
    """Networks in their parts: cut into files for ONNX Runtime, and in torch."""
    try:
        from . import parts
    except ImportError as cause:
        missing.append(f"parts: {MissingExtra(cause.name or 'torch', 'converters')}")
        return []
    found: list[Candidate] = []
    for bundle in {v.bundle.name: v.bundle for v in reversed(networks)}.values():
        facts = facts_of("parts", Variant(bundle, "torch", "fp32"), 1)
        cut = files.get(bundle.name)
        if cut is not None:
            artifact = facts["artifact"] | {
                "bytes": sum(path.stat().st_size for path in cut.values()),
                "sha256": _sha256(cut.values()),
                "graph": "recurrence",
            }
            own = facts | {"backend": "onnx", "artifact": artifact}
            found += [
                parts.parts_candidate(bundle, cut, n, own | {"threads": n}) for n in wanted.threads
            ]
        slow = wanted.brief and cut is not None and bundle.name != wanted.bundle.name
        if "torch" in wanted.names and not slow:
            found += [
                parts.torch_candidate(bundle, n, facts | {"threads": n}) for n in wanted.threads
            ]
    return found


def run(
    candidates: Sequence[Candidate],
    protocol: Protocol,
    results: Results,
    write: Callable[[Results], None],
    say: Say,
) -> Results:
    """Measure, and write after every round; what was measured is kept whatever ends the run."""

    def failed(candidate: Candidate, error: HandMeshError) -> None:
        results.missing.append(f"{candidate.name}: {error}")

    def after_round(measured: list[Measurement]) -> None:
        results.measurements = measured
        write(results)
        most = max((row.runs for row in measured), default=0)
        say(f"measured up to {most} runs of each of {len(measured)} rows")

    results.protocol = protocol
    write(results)
    try:
        results.measurements = measure(
            candidates, protocol, after_round=after_round, on_failure=failed
        )
    except BaseException as error:
        results.stopped_by = type(error).__name__
        write(results)
        raise
    results.state = "complete"
    write(results)
    return results


def _add_memory(candidates: Sequence[Candidate], networks: Sequence[Variant], say: Say) -> None:
    """Give each network's candidates the memory of its artifact, at one thread."""
    for variant in networks:
        if variant.device is not None:
            continue  # a process's memory says nothing of a GPU's
        say(f"memory of {variant.name}")
        try:
            found = footprint.measure(variant.bundle.folder, variant.backend, 1)
        except BackendError:
            continue  # what cannot run is told of when it is measured
        sha256 = variants.sha256_of(variant.bundle, variant.backend)
        for candidate in candidates:
            facts: Any = candidate.facts
            if facts["task"] != "parts" and facts.get("artifact", {}).get("sha256") == sha256:
                facts["memory"] = found


@functools.cache
def _code() -> str:
    """Hash of what makes exports: another version of it makes others."""
    digest = hashlib.sha256()
    import handmesh_converters

    for package in (handmesh_converters, handmesh):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*.py")):
            if package is handmesh_converters or path.parent.name == "nn":
                digest.update(path.read_bytes())
    return digest.hexdigest()


def _sha256(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()
