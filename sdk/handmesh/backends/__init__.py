"""The runtimes behind one small protocol. A backend is a module of this package, and its name is
the module's: adding one is adding a file with these members. Modules whose name begins with "_" are
none.

    REQUIRES    import name of the package that it needs, as "onnxruntime", or a tuple of names any
                one of which will do, the preferred one first
    BESIDES     import names of the packages that it needs as well, all of them; only where there
                are such
    EXTRA       the extra of handmesh that installs it
    RANK        its place in "auto", the lowest first
    DEVICES     kinds of `Device` that it knows, its default first
    create      (bundle, threads, device) -> Backend; imports the package
    ARGUMENTS   kinds among DEVICES that take an argument, as "cuda:1"; only where there are such
    ENGINES     kinds among DEVICES that build an engine when they are loaded; `create` then takes
                `engine_cache`, see `choose`; only where there are such
    EXPORTS     precisions in which `handmesh export --format NAME` makes its artifact; only where
                an export does
    DETECTOR_EXPORTS  the same of networks that find hands; only where these are others
    unavailable (bundle) -> None, or why it cannot run on this system; only where that can be
    refuses     (device) -> None, or why it cannot run on that device here; called where the package
                is installed, which it may import; only where there is more than one device

A backend opens the bundle's artifact of its own name; `BundleBackend` is what all of ours have in
common. Nothing falls back silently: what was asked
for runs, or an error says why not; `Backend.description` says what runs.
"""

from __future__ import annotations

import importlib
import importlib.util
import operator
import os
import pkgutil
import shlex
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..camera import shown
from ..errors import BackendUnavailable, InputError
from ..installing import pip_install
from ..spelling import did_you_mean
from ._running import BundleBackend, RawOutput, check_images, raw_output

if TYPE_CHECKING:
    from ..bundle import Bundle

__all__ = [
    "Backend",
    "BundleBackend",
    "Choice",
    "Device",
    "NamedBackend",
    "RawOutput",
    "check_images",
    "choose",
    "create",
    "devices",
    "export_command",
    "names",
    "proven_anywhere",
    "raw_output",
    "unavailable",
]

PRECISIONS = ("fp32", "fp16", "int8")
# Each takes memory, and runtimes start all that they are told to.
MOST_THREADS = 512


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


class Device(NamedTuple):
    """Where a backend is to run: "cuda:1" is kind "cuda" and argument "1".

    Attributes:
        kind: one of the backend's DEVICES.
        argument: what stands behind the colon, "" if nothing: the number of a GPU, from 0, or what
            the kind says.
    """

    kind: str
    argument: str = ""

    @classmethod
    def parse(cls, text: str) -> Device:
        """Kind and argument.

        Raises:
            InputError: it is no text.
        """
        if not isinstance(text, str):
            raise InputError(f"a device is text, as 'cpu' or 'cuda:1', not {shown(text)}")
        kind, _, argument = text.partition(":")
        return cls(kind, argument)

    @property
    def number(self) -> int:
        """The argument as the number of a GPU, 0 if there is none.

        Raises:
            InputError: it is no number.
        """
        if not (self.argument or "0").isdecimal():
            raise InputError(
                f"a device {self.kind!r} has a number, as {self.kind}:0, not {self.argument!r}"
            )
        return int(self.argument or 0)

    def __str__(self) -> str:
        return f"{self.kind}:{self.argument}" if self.argument else self.kind


class Choice(NamedTuple):
    """A backend, and why it was chosen.

    Attributes:
        backend: loaded.
        reasons: a line for each candidate, in the order in which they were looked at.
    """

    backend: NamedBackend
    reasons: tuple[str, ...]


def names() -> list[str]:
    """All backends that handmesh knows, in the order in which "auto" tries them."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    found = [name for name in modules if not name.startswith("_")]
    return sorted(found, key=lambda name: (_module(name).RANK, name))


def devices() -> list[str]:
    """Every kind of device that some backend knows."""
    return list(dict.fromkeys(kind for name in names() for kind in _module(name).DEVICES))


def unavailable(
    name: str, bundle: Bundle, device: str | None = None, precision: str | None = None
) -> str | None:
    """Why a backend cannot run a bundle here, and what to do; None if it can.

    Args:
        name: of the backend. bundle: the trained model.
        device, precision: as in `choose`. Without a device no package is imported.

    Raises:
        InputError: there is no backend of that name, or no precision, or the device is no text.
    """
    if name not in names():
        raise InputError(
            f"backend must be one of auto, {', '.join(names())}; not {name!r}"
            f"{did_you_mean(name, names())}"
        )
    if precision is not None and precision not in PRECISIONS:
        raise InputError(
            f"precision must be one of {', '.join(PRECISIONS)}; not {shown(precision)}"
            f"{did_you_mean(str(precision), PRECISIONS)}"
        )
    module = _module(name)
    reason: str | None = module.unavailable(bundle) if hasattr(module, "unavailable") else None
    if reason is not None:
        return reason
    packages = (module.REQUIRES,) if isinstance(module.REQUIRES, str) else module.REQUIRES
    missing = [] if any(map(importlib.util.find_spec, packages)) else [packages[0]]
    besides = getattr(module, "BESIDES", ())
    missing += [package for package in besides if importlib.util.find_spec(package) is None]
    if missing:
        return (
            f"backend {name!r} needs the package {missing[0]!r}, which is not installed: "
            f"{pip_install(module.EXTRA)}"
        )
    if name not in bundle.artifacts:
        return (
            f"backend {name!r} has nothing to run in bundle {bundle.name!r}, which holds "
            f"{', '.join(sorted(bundle.artifacts)) or 'no artifacts'}: "
            f"{_what_brings(name, bundle, precision)}"
        )
    stored = bundle.precision_of(name)
    if precision not in (None, stored):
        return (
            f"backend {name!r} has no {precision} artifact in bundle {bundle.name!r}, but "
            f"{stored or 'one of a precision that nothing states'}: "
            f"{_what_brings(name, bundle, precision)}"
        )
    if device is None:
        return None
    wanted = Device.parse(device)
    if wanted.kind not in module.DEVICES:
        return f"backend {name!r} knows no device {device!r}, but {', '.join(module.DEVICES)}"
    if wanted.argument and wanted.kind not in getattr(module, "ARGUMENTS", ()):
        return (
            f"backend {name!r} runs on {wanted.kind!r} without an argument, as {device!r} has one"
        )
    reason = module.refuses(wanted) if hasattr(module, "refuses") else None
    return reason


def export_command(name: str, bundle: Bundle, precision: str | None = None) -> str | None:
    """What to type for the artifact that a backend opens; None where no export makes it.

    What the bundle has already is not replaced: the command writes another bundle then, as it does
    where the bundle must not or cannot be added to.

    Args:
        name: of the backend; None comes back of what is none.
        bundle: whose network is exported.
        precision: of the artifact's large weights; by default whatever the format makes.
    """
    made = _exports(name, bundle)
    if not made or precision not in (None, *made) or not bundle.can_be_exported:
        return None
    words = ["handmesh", "export", bundle.argument, "--format", name]
    if precision is not None:
        words += ["--precision", precision]
    if bundle.is_shipped or bundle.is_detector or name in bundle.artifacts:
        words += ["--out", "DIR"]
    return _typed(words)


def _typed(words: list[str]) -> str:
    """A command as it is typed."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def proven_anywhere(name: str, bundle: Bundle) -> str:
    """The end of a sentence about a backend that this system cannot have: what it can do."""
    command = export_command(name, bundle)
    return "" if command is None else f"; `{command}` proves the artifact anywhere"


def _exports(name: str, bundle: Bundle) -> tuple[str, ...]:
    """Precisions in which an export of the bundle makes the backend's artifact."""
    module = _module(name) if name in names() else None
    made: tuple[str, ...] = getattr(module, "EXPORTS", ())
    return getattr(module, "DETECTOR_EXPORTS", made) if bundle.is_detector else made


def _what_brings(name: str, bundle: Bundle, precision: str | None) -> str:
    """What to do about an artifact that a bundle lacks, or has in another precision."""
    command = export_command(name, bundle, precision)
    if command is not None:
        return f"{'make a bundle' if command.endswith(' DIR') else 'add one'} with `{command}`"
    made = _exports(name, bundle)
    if made and precision not in (None, *made):
        return f"exports make {' or '.join(made)}, so ask for that or choose another backend"
    return "no export of this bundle makes one, so choose another backend or another bundle"


def choose(
    name: str,
    bundle: Bundle,
    threads: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    engine_cache: bool | str | os.PathLike[str] = False,
) -> Choice:
    """Load a bundle's network into a runtime, and say why into that one.

    Args:
        name: a backend, or "auto": the first of `names` that is installed, in the bundle, and can
            do what else is asked for.
        bundle: the trained model.
        threads: CPU threads, 1 to 512; by default those this process may use, at most 4, beyond
            which networks this small gain little.
        device: a kind of the backend's ``DEVICES``, perhaps with an argument, as "cuda:1"; by
            default its first one.
        precision: "fp32", "fp16" or "int8": that of the artifact's large weights, as `handmesh
            export --precision` names it; by default whatever the bundle has.
        engine_cache: keep the engines that device "tensorrt" builds, for minutes, whenever it is
            loaded: True for the folder `.engines` in the bundle, or a folder. They are of this very
            GPU and version of TensorRT, and must not be shipped.

    Raises:
        InputError: an unknown backend, device or precision, an impossible number of threads, or an
            engine cache for another device or that cannot be made.
        BackendUnavailable: its package is not installed, the bundle has no such artifact, or the
            device is not there. Nothing else is run instead.
        BackendError: the runtime refuses the artifact.
        BundleError, IntegrityError: the artifact is missing or was changed.
    """
    threads = min(4, _usable_cpus()) if threads is None else _checked_threads(threads)
    candidates = names() if name == "auto" else [name]
    _check_device(device, candidates)
    _check_engine_cache(engine_cache, device, candidates)
    kept = {} if engine_cache is False else {"engine_cache": engine_cache}
    reasons: dict[str, str] = {}
    refused: list[str] = []
    for place, candidate in enumerate(candidates, start=1):
        reason = unavailable(candidate, bundle, device, precision)
        if reason is None:
            module = _module(candidate)
            wanted = Device.parse(device or module.DEVICES[0])
            try:
                backend: NamedBackend = module.create(bundle, threads, wanted, **kept)
            except BackendUnavailable as cause:  # what only the runtime itself could tell
                if name != "auto":
                    raise
                reason = str(cause)
                refused.append(candidate)
            else:
                why = "asked for" if name != "auto" else "chosen, the first that can run"
                lines = [f"{other}: passed over: {text}" for other, text in reasons.items()]
                lines.append(f"{candidate}: {why}: {backend.description}")
                lines += [f"{rest}: not tried, as it comes later" for rest in candidates[place:]]
                return Choice(backend, tuple(lines))
        reasons[candidate] = reason
    raise BackendUnavailable(
        reasons[name] if name != "auto" else _none_can(bundle, device, precision, reasons, refused)
    )


def _none_can(
    bundle: Bundle,
    device: str | None,
    precision: str | None,
    reasons: Mapping[str, str],
    refused: Sequence[str],
) -> str:
    """Why no backend runs a bundle here: those that refused when they were started, which nothing
    else tells, or the first that is for that device, and better for what the bundle holds; and
    what to type for all of them, which would fill a page."""
    kind = None if device is None else Device.parse(device).kind
    able = [name for name in reasons if kind is None or kind in _module(name).DEVICES]
    first = sorted(able, key=lambda name: name not in bundle.artifacts)[:1]
    told = "; ".join(f"{name}: {reasons[name]}" for name in refused or first)
    asked = "" if device is None else f" on device {device!r}"
    words = ["handmesh", "info", bundle.argument]
    for option, value in (("--device", device), ("--precision", precision)):
        words += [] if value is None else [option, value]
    return (
        f"no backend can run {bundle.name!r}{asked}{f' in {precision}' if precision else ''} here: "
        f"{told}; for the others see `{_typed(words)}`"
    )


def create(
    name: str,
    bundle: Bundle,
    threads: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    engine_cache: bool | str | os.PathLike[str] = False,
) -> NamedBackend:
    """The backend of `choose`, which tells the arguments and errors."""
    return choose(name, bundle, threads, device, precision, engine_cache).backend


def _checked_threads(threads: int) -> int:
    try:
        count = operator.index(threads)
    except TypeError as cause:
        raise InputError(f"threads must be a whole number, not {shown(threads)}") from cause
    if not 1 <= count <= MOST_THREADS:
        raise InputError(f"threads must be at least 1 and at most {MOST_THREADS}, not {count}")
    return count


def _check_device(device: str | None, candidates: Iterable[str]) -> None:
    """Raise `InputError` where none of the backends knows such a device, whatever is installed."""
    if device is None:
        return
    modules = [_module(name) for name in candidates if name in names()]
    known = {kind: None for module in modules for kind in module.DEVICES}
    kind, argument = Device.parse(device)
    if known and kind not in known:
        raise InputError(
            f"device must be one of {', '.join(known)}; not {device!r}{did_you_mean(kind, known)}"
        )
    if argument and not any(kind in getattr(module, "ARGUMENTS", ()) for module in modules):
        raise InputError(f"device {kind!r} takes no argument, {argument!r} was given")


def _check_engine_cache(
    engine_cache: object, device: str | None, candidates: Iterable[str]
) -> None:
    """Raise `InputError` where there would be nothing to keep."""
    if engine_cache is False:
        return
    modules = [_module(name) for name in candidates if name in names()]
    building = {kind: None for module in modules for kind in getattr(module, "ENGINES", ())}
    if device is None or Device.parse(device).kind not in building:
        raise InputError(
            "engine_cache keeps the engines that a device builds: it goes with device "
            f"{' or '.join(map(repr, building)) or 'tensorrt, of another backend'}, not "
            f"{'the default one' if device is None else repr(device)}"
        )


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS or Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
