"""The artifacts to measure: those that a bundle has, and every other precision that can be made of
it here.

What is exported is kept in a folder, in a bundle each under the hashes of the manifest it was made
from and of the code that makes it, so that a second run measures the very same bytes and need not
wait, and none measures what another version made.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import handmesh
from handmesh import Bundle, backends
from handmesh.errors import BackendError, BundleError, ExportError, MissingExtra

__all__ = [
    "Variant",
    "able_there",
    "artifact_facts",
    "code_hash",
    "find",
    "on_devices",
    "precision_of",
]

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class Variant:
    """One artifact of a network.

    Attributes:
        bundle: that holds it. backend: what runs it.
        precision: as `handmesh export --precision` names it, with optimizations behind a plus.
        device: as `Predictor` takes it, "cuda"; None for the backend's default.
    """

    bundle: Bundle
    backend: str
    precision: str
    device: str | None = None

    @property
    def name(self) -> str:
        where = "" if self.device is None else f" {self.device}"
        return f"{self.bundle.name} {self.backend} {self.precision}{where}"


def find(
    bundle: Bundle,
    names: Sequence[str],
    precisions: Sequence[str],
    folder: Path,
    *,
    judge: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[list[Variant], list[str]]:
    """What of a bundle can be measured here.

    Args:
        bundle: the trained model.
        names: backends. precisions: wanted; what the bundle has already is always taken.
        folder: for what is exported; exists.
        judge: leave out what is off by more than its precision may be. Not for random weights,
            whose errors mean nothing.
        say: told of each export before it begins.

    Returns:
        The artifacts, and why others are missing.

    Raises:
        InputError: an unknown backend.
    """
    found: list[Variant] = []
    missing: list[str] = []
    for name in names:
        # Before exports that take minutes: could it run here, had it an artifact?
        reason = backends.unavailable(name, _with_artifact(bundle, name))
        if reason is not None:
            missing.append(f"{bundle.name} by {name}: {reason}")
            continue
        before = len(found)
        stored = precision_of(bundle, name) if name in bundle.artifacts else None
        if stored is not None:
            found.append(Variant(bundle, name, stored))
        requests = [] if name == "torch" else _requests(name, precisions, missing)
        for precision, optimize in requests:
            words = "+".join([precision, *optimize])
            if words == stored:
                continue
            try:
                made = _made(bundle, name, precision, optimize, folder, judge, say)
                found.append(Variant(made, name, words))
            except (ExportError, BackendError, MissingExtra) as error:
                missing.append(f"{bundle.name} by {name}, {words}: {error}")
        if len(found) == before and not requests:
            missing.append(f"{bundle.name} by {name}: {backends.unavailable(name, bundle)}")
    return found, list(dict.fromkeys(missing))


def able_there(
    bundle: Bundle, names: Sequence[str], devices: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Backends that can run on one of the devices at least, had they an artifact.

    For before exports that take minutes; `on_devices` says the same of artifacts.

    Args:
        bundle: the trained model. names: backends.
        devices: as `Predictor` takes them; none for the backends' defaults.

    Returns:
        Names, among them those whose package is missing, which `find` tells; and why others cannot.

    Raises:
        InputError: an unknown backend, or a device that makes no sense, as "cuda:x".
    """
    able, missing = [], []
    for name in names:
        given = _with_artifact(bundle, name)
        reasons = {device: backends.unavailable(name, given, device) for device in devices}
        if None in reasons.values() or not devices or backends.unavailable(name, given) is not None:
            able.append(name)
        else:
            missing += [f"{bundle.name} by {name} on {d}: {why}" for d, why in reasons.items()]
    return able, missing


def on_devices(found: Sequence[Variant], devices: Sequence[str]) -> tuple[list[Variant], list[str]]:
    """Each artifact on each device, and why it cannot run on others.

    Args:
        found: artifacts. devices: as `Predictor` takes them; none for the backends' defaults.

    Raises:
        InputError: a device that makes no sense, as "cuda:x".
    """
    if not devices:
        return list(found), []
    able, missing = [], []
    for variant in found:
        for device in devices:
            reason = backends.unavailable(variant.backend, variant.bundle, device)
            if reason is None:
                able.append(replace(variant, device=device))
            else:
                missing.append(f"{variant.bundle.name} by {variant.backend} on {device}: {reason}")
    return able, list(dict.fromkeys(missing))


def artifact_facts(bundle: Bundle, backend: str) -> dict[str, Any]:
    """What the results say of an artifact: which bytes, whose weights, how exact."""
    entry = bundle.artifacts[backend]
    parity = entry.get("parity")
    return {
        "bytes": bundle.size_of(backend),
        "sha256": sha256_of(bundle, backend),
        "computes": str(entry.get("precision", "unknown")),
        "graph": str(entry.get("graph_form", "torch")),
        "weights": _weights(bundle),
        "accuracy": _accuracy(bundle, backend),
        "parity": None
        if parity is None
        else {
            "crops": parity["crops"],
            "worst_mm": parity["mm"]["worst"],
            "p99_mm": parity["mm"]["p99"],
            "worst_px": parity["crop_px"]["worst"],
        },
    }


def sha256_of(bundle: Bundle, backend: str) -> str:
    """Of an artifact: its file's, or of a folder's files in order, each with its path."""
    path = bundle.artifacts[backend]["path"]
    files = bundle.manifest["files"]
    if path in files:
        return str(files[path]["sha256"])
    inside = sorted(name for name in files if name.startswith(path + "/"))
    text = "\n".join(f"{name[len(path) :]} {files[name]['sha256']}" for name in inside)
    return hashlib.sha256(text.encode()).hexdigest()


def precision_of(bundle: Bundle, backend: str) -> str:
    """Of an artifact's large weights, as `handmesh export --precision` names it, with its
    optimizations behind a plus: what every table calls it."""
    entry = bundle.artifacts[backend]
    stored = str(entry.get("weights", entry.get("precision", "unknown")))
    return "+".join([stored, *entry.get("optimizations", [])])


@functools.cache
def code_hash(*also: Path) -> str:
    """Of what makes exports, networks and further files of code: another version makes others."""
    import handmesh_converters

    digest = hashlib.sha256()
    for package in (handmesh_converters, handmesh):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*.py")):
            if package is handmesh_converters or path.parent.name == "nn":
                digest.update(path.read_bytes())
    for path in also:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_random(bundle: Bundle) -> bool:
    """Whether nobody trained its weights, so that its errors mean nothing."""
    return str(bundle.manifest["provenance"].get("weights", "")).startswith("random")


def _weights(bundle: Bundle) -> str:
    provenance = bundle.manifest["provenance"]
    if "weights" in provenance:
        return str(provenance["weights"])
    seen = provenance.get("images_seen")
    return "not stated" if seen is None else f"trained on {seen:,} crops"


def _accuracy(bundle: Bundle, backend: str) -> dict[str, Any] | None:
    """Against the labels of the bundle's crops, as its manifest states it.

    The torch artifact is the network that the others were compared with, so any of theirs tells.
    """
    if is_random(bundle):
        return None
    entries = bundle.artifacts.values() if backend == "torch" else [bundle.artifacts[backend]]
    which = "network" if backend == "torch" else "artifact"
    for entry in entries:
        stated = (entry.get("parity") or {}).get("accuracy")
        if stated:
            return {
                "crops": stated["crops"],
                "mm": stated[f"{which}_mm"],
                "px": stated[f"{which}_px"],
                "network_mm": stated["network_mm"],
            }
    return None


def _with_artifact(bundle: Bundle, name: str) -> Bundle:
    """The bundle as if it had an artifact of that name."""
    artifacts = {name: {"path": name}, **bundle.artifacts}
    return Bundle(bundle.folder, {**bundle.manifest, "artifacts": artifacts})


def _requests(
    name: str, precisions: Sequence[str], missing: list[str]
) -> list[tuple[str, tuple[str, ...]]]:
    """What an export can be asked for, as (precision, optimizations)."""
    if not set(precisions) & set(PRECISIONS):
        return []
    try:
        from handmesh_converters import formats

        able = formats.load(name).ABLE
    except ImportError as error:
        told = error
        package = (error.name or "").partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and not package.startswith("handmesh"):
            told = MissingExtra(package, "converters")
        enough = isinstance(told, MissingExtra) and name == "onnx"
        less = "; for ONNX alone the extra 'bench' is enough" if enough else ""
        missing.append(f"exports for {name}: {told}{less}")
        return []
    plain = [(p, ()) for p in PRECISIONS if p in able.precisions and p in precisions]
    optimized = [
        (goes_with[0], (optimization,))
        for optimization, (goes_with, _) in able.optimizations.items()
        if goes_with[0] in precisions
    ]
    return [*plain, *optimized]


def _made(
    bundle: Bundle,
    name: str,
    precision: Any,
    optimize: tuple[str, ...],
    folder: Path,
    judge: bool,
    say: Callable[[str], None],
) -> Bundle:
    from handmesh_converters.export import add_formats
    from handmesh_converters.parity import Tolerance
    from handmesh_converters.request import Request

    words = "+".join([precision, *optimize])
    made_by = f"{str(bundle.manifest['sha256'])[:12]}-{code_hash()[:12]}"
    place = folder / f"{bundle.name}-{name}-{words}-{made_by}"
    try:
        kept = Bundle.load(place)
        kept.artifact(name)
        return kept
    except BundleError:
        say(f"exporting {bundle.name} for {name}, {words}")
    tolerance = None if judge else Tolerance(*[1e9] * 6)
    return add_formats(bundle, [name], place, Request(None, precision, optimize), tolerance).bundle
