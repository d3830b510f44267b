"""The runtimes behind one small protocol. A backend is a module of this package, and its name is
the module's: adding one is adding a file with `REQUIRES`, `EXTRA`, `RANK` and `create`.

    REQUIRES    import name of the package that it needs, as "onnxruntime", or a tuple of names any
                one of which will do, the preferred one first
    EXTRA       the extra of handmesh that installs it
    RANK        its place in "auto", the lowest first
    create      (bundle, threads) -> Backend; imports the package, and only here
    unavailable () -> None, or why it cannot run on this system; only where that can be

A backend opens the bundle's artifact of its own name. Nothing falls back silently: what was asked
for runs, or an error says why not; `Backend.description` says what runs.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, BackendUnavailable, InputError
from ..types import JOINT_NAMES

if TYPE_CHECKING:
    from ..bundle import Bundle

__all__ = [
    "Backend",
    "NamedBackend",
    "RawOutput",
    "check_images",
    "create",
    "names",
    "raw_output",
    "unavailable",
]


class RawOutput(NamedTuple):
    """What the network says of N crops, all float32.

    Attributes:
        vertices: (N, V, 3), (u, v, d): crop fractions, and depth behind the wrist in bone lengths.
        joints: (N, 21, 3), the same.
        confidence: (N, 21) in 0..1.
        presence: (N,) in 0..1, that a hand is there, roughly centred and at a usable size.
        handedness: (N,) in 0..1, that the crop as given shows a right hand.
    """

    vertices: NDArray[np.float32]
    joints: NDArray[np.float32]
    confidence: NDArray[np.float32]
    presence: NDArray[np.float32]
    handedness: NDArray[np.float32]


class Backend(Protocol):
    """A network, loaded and ready."""

    @property
    def name(self) -> str:
        """The backend's module, as "onnx"."""

    @property
    def description(self) -> str:
        """What runs where, as "onnxruntime 1.32.0, CPU, 2 threads"."""

    @property
    def threads(self) -> int:
        """Threads that one `run` may use."""

    def run(self, images: NDArray[np.uint8]) -> RawOutput:
        """The network on (N, S, S, 3) uint8 RGB crops. May be called from several threads.

        Raises:
            InputError: the crops have another shape or type.
            BackendError: the runtime failed, or the bundle's network is a detector.
        """


class NamedBackend(Backend, Protocol):
    """A backend that runs networks of any outputs, detectors too: all of ours are."""

    def outputs(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[Any]]:
        """As `run`, the outputs by name as the artifact gives them."""


def names() -> list[str]:
    """All backends that handmesh knows, in the order in which "auto" tries them."""
    found = [module.name for module in pkgutil.iter_modules(__path__)]
    return sorted(found, key=lambda name: (_module(name).RANK, name))


def unavailable(name: str, bundle: Bundle) -> str | None:
    """Why a backend cannot run a bundle here, and what to do; None if it can.

    Raises:
        InputError: there is no backend of that name.
    """
    if name not in names():
        raise InputError(f"backend must be one of auto, {', '.join(names())}; not {name!r}")
    module = _module(name)
    reason: str | None = module.unavailable() if hasattr(module, "unavailable") else None
    if reason is not None:
        return reason
    packages = (module.REQUIRES,) if isinstance(module.REQUIRES, str) else module.REQUIRES
    if not any(importlib.util.find_spec(package) for package in packages):
        return (
            f"backend {name!r} needs the package {packages[0]!r}, which is not installed: "
            f"pip install 'handmesh[{module.EXTRA}]'"
        )
    if name not in bundle.artifacts:
        return (
            f"backend {name!r} has nothing to run in bundle {bundle.name!r}, which holds "
            f"{', '.join(sorted(bundle.artifacts)) or 'no artifacts'}: "
            f"add it with `handmesh export --format {name}`"
        )
    return None


def create(name: str, bundle: Bundle, threads: int | None = None) -> NamedBackend:
    """Load a bundle's network into a runtime.

    Args:
        name: a backend, or "auto": the first of `names` that is installed and in the bundle.
        bundle: the trained model.
        threads: CPU threads, at least 1; by default those this process may use, at most 4, beyond
            which networks this small gain little.

    Raises:
        InputError: an unknown backend, or a number of threads below 1.
        BackendUnavailable: its package is not installed, or the bundle has no artifact for it.
        BackendError: the runtime refuses the artifact.
        BundleError, IntegrityError: the artifact is missing or was changed.
    """
    if threads is None:
        threads = min(4, _usable_cpus())
    if threads < 1:
        raise InputError(f"threads must be at least 1, not {threads}")
    reasons = {}
    for candidate in names() if name == "auto" else [name]:
        reason = unavailable(candidate, bundle)
        if reason is None:
            backend: NamedBackend = _module(candidate).create(bundle, threads)
            return backend
        reasons[candidate] = reason
    raise BackendUnavailable("; ".join(reasons.values()))


def check_images(images: NDArray[Any], size: int) -> None:
    """Raise `InputError` unless images are (N, size, size, 3) uint8 with N > 0."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3):
        raise InputError(
            f"the network takes (N, {size}, {size}, 3) uint8 RGB, not {images.shape} {images.dtype}"
        )
    if len(images) == 0:
        raise InputError("the network takes at least one crop, not an empty batch")


def raw_output(named: Mapping[str, Any], batch: int, vertex_count: int, source: str) -> RawOutput:
    """Named arrays of a runtime as `RawOutput`, checked.

    Raises:
        BackendError: an output is missing, has another shape, or holds NaN or infinity.
    """
    joints = len(JOINT_NAMES)
    shapes = {
        "vertices": (batch, vertex_count, 3),
        "joints": (batch, joints, 3),
        "confidence": (batch, joints),
        "presence": (batch,),
        "handedness": (batch,),
    }
    for name, shape in shapes.items():
        found = np.shape(named[name]) if name in named else None
        if found != shape:
            raise BackendError(f"{source}: output {name!r} must have shape {shape}, not {found}")
    output = RawOutput(*(np.asarray(named[name], dtype=np.float32) for name in shapes))
    for name, array in output._asdict().items():
        if not np.isfinite(array).all():
            raise BackendError(
                f"{source}: output {name!r} holds NaN or infinity, so this runtime does not "
                "compute the network: choose another backend, or see what `handmesh verify` says"
            )
    return output


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS or Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
