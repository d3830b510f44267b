"""LiteRT, the runtime of .tflite files on phones and boards: on the CPU, or through a delegate.

`tflite_runtime`, its predecessor, has the same interpreter and serves where it is what a device
has. It is no longer made, and was built against NumPy 1.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, BackendUnavailable, InputError
from . import BundleBackend, Device

if TYPE_CHECKING:
    from ..bundle import Bundle

REQUIRES = ("ai_edge_litert", "tflite_runtime")
EXTRA = "tflite"
RANK = 10
# "delegate:FILE" is a library that takes operators over, as the maker of an accelerator gives it.
DEVICES = ("cpu", "delegate")
ARGUMENTS = ("delegate",)
# What the library of a delegate has.
_PLUGIN = ("tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate")
EXPORTS = ("fp16", "fp32", "int8")


def create(bundle: Bundle, threads: int, device: Device) -> TfliteBackend:
    return TfliteBackend(bundle, threads, device)


class TfliteBackend(BundleBackend):
    """The bundle's `tflite` artifact in LiteRT. See `handmesh.backends.Backend`.

    The file takes one crop, so a batch runs crop by crop. An interpreter runs for one thread at a
    time: others wait.

    Args:
        bundle: the trained model.
        threads: CPU threads.
        device: "cpu", or "delegate" with the path of a delegate's library as argument.
        delegate_options: passed on to the delegate as they are.

    Raises:
        InputError: a delegate without a path, or a path without a delegate.
        BackendUnavailable: the delegate cannot be loaded, or takes no operator.
        BackendError: the runtime refuses the artifact.
    """

    name = "tflite"

    def __init__(
        self,
        bundle: Bundle,
        threads: int,
        device: Device = Device("cpu"),  # noqa: B008  (immutable)
        delegate_options: Mapping[str, Any] | None = None,
    ) -> None:
        package = next(name for name in REQUIRES if importlib.util.find_spec(name) is not None)
        runtime = importlib.import_module(package)
        interpreters = importlib.import_module(f"{package}.interpreter")
        super().__init__(bundle, threads)
        self._one_run = threading.Lock()
        path = bundle.artifact(self.name)
        chosen = _delegate(interpreters, device, delegate_options or {})
        try:
            interpreter = interpreters.Interpreter(
                model_path=str(path), num_threads=threads, **chosen
            )
            # Delegates take their operators when tensors are allocated.
            interpreter.allocate_tensors()
            taken = _delegated(interpreter)
            self._run = interpreter.get_signature_runner()
        except Exception as cause:  # ValueError or RuntimeError, as each step likes
            raise BackendError(f"{package} cannot load {path} for {device}: {cause}") from cause
        if chosen and taken is False:
            raise BackendUnavailable(
                f"the delegate {device.argument} takes none of the network's operators, so that "
                "the CPU would run all of them: choose another device, or another artifact"
            )
        if chosen:
            where = f"delegate {Path(device.argument).name}"
        else:
            # XNNPACK is the only delegate that an interpreter applies unasked.
            where = "CPU, XNNPACK" if taken else "CPU"
        self.description = (
            f"{package} {runtime.__version__}, {where}, "
            f"{threads} thread{'s' if threads > 1 else ''}"
        )

    def _infer(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        with self._one_run:
            outputs = [self._run(image=image[None]) for image in np.ascontiguousarray(images)]
            return {
                name: np.concatenate([output[name] for output in outputs]) for name in outputs[0]
            }


def _delegate(interpreters: Any, device: Device, options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that make an interpreter use the delegate, and no other one; none for the CPU."""
    if (device.kind == "delegate") != bool(device.argument):
        raise InputError(
            f"a delegate is named by its library, as delegate:/usr/lib/libvx_delegate.so, and the "
            f"CPU by 'cpu' alone; not {str(device)!r}"
        )
    if device.kind == "cpu":
        return {}
    try:
        # What LiteRT half makes of a library that it cannot use fails once more when it is deleted.
        library = ctypes.CDLL(device.argument)
        for function in _PLUGIN:
            getattr(library, function)
        delegate = interpreters.load_delegate(device.argument, dict(options))
    except (OSError, ValueError, AttributeError) as cause:
        raise BackendUnavailable(
            f"the delegate {device.argument} cannot be loaded: {cause}; is that the library's "
            "path, and are what it needs and its hardware there?"
        ) from cause
    # Without the default one, so that what is taken over was taken by this delegate.
    resolver = interpreters.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    return {"experimental_delegates": [delegate], "experimental_op_resolver_type": resolver}


def _delegated(interpreter: Any) -> bool | None:
    """Whether a delegate took a part of the graph; None where that is not known: nothing public
    tells."""
    details = getattr(interpreter, "_get_ops_details", None)
    if details is None:
        return None
    return any(operator["op_name"] == "DELEGATE" for operator in details())
