"""The table of this machine: `predict()` by stage, networks alone, and networks in their parts."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from handmesh import Box, Bundle, backends
from handmesh.backends import Device
from handmesh.errors import (
    BackendError,
    BackendUnavailable,
    BundleError,
    ExportError,
    HandMeshError,
    MissingExtra,
)

from . import footprint, variants
from .busy import cores_busy
from .candidates import facts_of, locate, network_candidate, parts_facts, predict_candidate
from .protocol import Candidate, Measurement, Protocol, measure
from .random_weights import check_installed, random_bundle
from .report import short
from .results import Results
from .runner import YARDSTICK, yardstick
from .variants import Variant, code_hash, precision_of

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
            run on the CPU and on NVIDIA's GPUs.
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
    name = f"paper-{wanted.bundle.topology.sha256[:12]}-{code_hash()[:12]}"
    folder = wanted.artifacts / name
    with contextlib.suppress(BundleError):  # none yet, or a damaged one, which is made anew
        kept = Bundle.load(folder)
        kept.check()
        return kept
    formats = [name for name in ("onnx",) if name in wanted.names]
    check_installed(formats)
    say("making the network 'paper' with random weights")
    return random_bundle(folder, wanted.bundle.topology, export=formats)


def parts_of(bundle: Bundle, folder: Path, say: Say) -> dict[str, Path]:
    """A bundle's network cut into ONNX files; kept beside the exports.

    Raises:
        MissingExtra, ExportError: it cannot be made here.
    """
    try:
        from . import parts
    except ImportError as cause:
        raise MissingExtra(cause.name or "torch", "bench") from cause
    key = f"{str(bundle.manifest['sha256'])[:12]}-{code_hash(Path(parts.__file__))[:12]}"
    place = folder / f"{bundle.name}-parts-{key}"
    if not place.is_dir():
        say(f"cutting {bundle.name} into its parts")
        made = Path(tempfile.mkdtemp(dir=folder))
        try:
            parts.write_parts(bundle, made)
            made.replace(place)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return {part: place / f"{part}.onnx" for part in parts.PARTS}


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
            found, missing = [*found, *more], [*missing, *reasons, *_left_out(wanted, paper)]
        except (MissingExtra, ExportError) as error:
            missing.append(f"network 'paper': {error}")
    parts: dict[str, dict[str, Path]] = {}
    if wanted.parts and "onnx" in wanted.names:
        for variant in found:
            if variant.bundle.name not in parts and variant.backend == "onnx":
                try:
                    parts[variant.bundle.name] = parts_of(variant.bundle, wanted.artifacts, say)
                except (MissingExtra, ExportError, BackendError, BackendUnavailable) as error:
                    missing.append(f"parts of {variant.bundle.name}: {error}")
    return found, parts, list(dict.fromkeys(missing))


def _left_out(wanted: Wanted, paper: Bundle) -> list[str]:
    """That precisions of `paper` were not asked for: its rows must not look like all there are."""
    stored = {precision_of(paper, name) for name in paper.artifacts if name != "torch"}
    others = [p for p in variants.PRECISIONS if p not in {*stored, *wanted.paper_precisions}]
    if not others or set(wanted.names) <= {"torch"}:
        return []
    return [
        f"paper in {', '.join(others)}: not asked for, as these exports take minutes; "
        f"--paper-precisions {','.join(variants.PRECISIONS)} measures them"
    ]


def prepare(
    wanted: Wanted, image: NDArray[np.uint8], box: Box | Sequence[float] | None,
    photo: bytes | None, say: Say,
) -> Prepared:  # fmt: skip
    """What can be measured here, and why the rest cannot.

    Args:
        wanted: what. image: (H, W, 3) uint8 RGB. box: where the hand is, if that is known.
        photo: the image's file, to be decoded inside the clock. say: told of what takes long.

    Raises:
        BackendUnavailable: the trained model cannot be run by any of the backends, or on none of
            the devices, which is known before anything is exported.
        InputError: an unknown backend, a device that makes no sense, or no hand in the photo.
    """
    names, unable = variants.able_there(wanted.bundle, wanted.names, wanted.devices)
    if not names:
        raise BackendUnavailable("; ".join(unable))
    alone, parts, missing = artifacts(replace(wanted, names=names), say)
    alone, elsewhere = variants.on_devices(alone, wanted.devices)
    missing += [*unable, *elsewhere]
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
        missing.append(f"parts: {MissingExtra(cause.name or 'torch', 'bench')}")
        return []
    found: list[Candidate] = []
    for bundle in {v.bundle.name: v.bundle for v in reversed(networks)}.values():
        cut = files.get(bundle.name)
        slow = wanted.brief and cut is not None and bundle.name != wanted.bundle.name
        able = {"onnx": cut is not None, "torch": "torch" in wanted.names and not slow}
        for device in wanted.devices or ("cpu",):
            for backend in [name for name, is_able in able.items() if is_able]:
                reason = _no_parts(backend, bundle, device)
                if reason is not None:
                    missing.append(f"parts of {bundle.name} by {backend} on {device}: {reason}")
                    continue
                for threads in wanted.threads:
                    if backend == "onnx" and cut is not None:
                        own = parts_facts(bundle, cut, threads)
                        found.append(parts.parts_candidate(bundle, cut, threads, own, device))
                    else:
                        network = Variant(bundle, "torch", precision_of(bundle, "torch"))
                        own = facts_of("parts", network, threads)
                        found.append(parts.torch_candidate(bundle, threads, own, device))
    return found


def _no_parts(backend: str, bundle: Bundle, device: str) -> str | None:
    """Why a network's parts cannot be timed there; None if they can."""
    kinds = {"onnx": ("cpu", "cuda", "tensorrt"), "torch": ("cpu", "cuda")}[backend]
    if Device.parse(device).kind not in kinds:
        return f"parts are timed on {', '.join(kinds)} only"
    return None if device == "cpu" else backends.unavailable(backend, bundle, device)


def run(
    candidates: Sequence[Candidate],
    protocol: Protocol,
    results: Results,
    write: Callable[[Results], None],
    say: Say,
) -> Results:
    """Measure, and write after every round; what was measured is kept whatever ends the run.

    Raises:
        BackendUnavailable: nothing could be measured, or the yardstick alone.
    """

    def failed(candidate: Candidate, error: HandMeshError) -> None:
        results.missing.append(f"{candidate.name}: {error}")

    def after_round(measured: list[Measurement]) -> None:
        results.measurements = measured
        write(results)
        most = max((row.runs for row in measured), default=0)
        line = f"measured up to {most} runs of each of {len(measured)} rows"
        # Rounds in which slow rows alone are left would repeat it.
        if told[-1:] != [line]:
            told.append(line)
            say(line)

    told: list[str] = []
    results.protocol = protocol
    results.device = {**results.device, "cores_busy": cores_busy()}
    write(results)
    try:
        results.measurements = measure(
            candidates, protocol, after_round=after_round, on_failure=failed
        )
    except BaseException as error:
        results.stopped_by = type(error).__name__
        write(results)
        raise
    if all(row.facts["task"] == YARDSTICK for row in results.measurements):
        results.stopped_by = "nothing could be measured"
        write(results)
        raise BackendUnavailable(
            f"nothing could be measured: {'; '.join(map(short, results.missing))}"
        )
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
