"""Core ML, on macOS: on whichever of CPU, GPU and Neural Engine it chooses."""

from __future__ import annotations

import platform
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError
from . import BundleBackend, Device, proven_anywhere

if TYPE_CHECKING:
    from ..bundle import Bundle

REQUIRES = "coremltools"
BESIDES = ("PIL",)  # hands pictures over; coremltools does not bring it
EXTRA = "coreml"
# After all others: it compiles the model each time that it is loaded, which takes seconds.
RANK = 200

# Members of coremltools.ComputeUnit.
_UNITS = {"all": "ALL", "cpu": "CPU_ONLY", "gpu": "CPU_AND_GPU", "ane": "CPU_AND_NE"}
DEVICES = tuple(_UNITS)
EXPORTS = ("fp16", "fp32", "int8")
DETECTOR_EXPORTS = ("fp32",)


def unavailable(bundle: Bundle) -> str | None:
    """Why it cannot run on this system; None if it can."""
    if sys.platform == "darwin":
        return None
    return (
        f"backend 'coreml' runs on macOS only, and this is {platform.system() or sys.platform}: "
        f"choose another backend{proven_anywhere('coreml', bundle)}"
    )


def create(bundle: Bundle, threads: int, device: Device) -> CoreMLBackend:
    return CoreMLBackend(bundle, threads, device)


class CoreMLBackend(BundleBackend):
    """The bundle's `coreml` artifact in Core ML. See `handmesh.backends.Backend`.

    Core ML has no setting for threads: ``threads`` is what was asked for, and does nothing.

    Args:
        device: the units that Core ML may use: "all", "cpu", "gpu" (and CPU) or "ane" (the Neural
            Engine, and CPU). Which of them it does use, operator by operator, it does not tell.
    """

    name = "coreml"

    def __init__(
        self,
        bundle: Bundle,
        threads: int,
        device: Device = Device("all"),  # noqa: B008  (immutable)
    ) -> None:
        import coremltools
        from PIL import Image

        super().__init__(bundle, threads)
        self._picture = Image.fromarray
        units = _UNITS[device.kind]
        self.description = f"Core ML, macOS {platform.mac_ver()[0]}, compute units {units}"
        self._one_run = threading.Lock()
        path = bundle.artifact(self.name)
        try:
            self._model = coremltools.models.MLModel(
                str(path), compute_units=coremltools.ComputeUnit[units]
            )
        except Exception as cause:  # Core ML's errors arrive as RuntimeError and others
            raise BackendError(f"Core ML cannot load {path}: {cause}") from cause

    def _infer(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        # Apple promises nothing about one model in several threads.
        with self._one_run:
            outputs = [self._predict(image) for image in images]
        return {name: np.concatenate([output[name] for output in outputs]) for name in outputs[0]}

    def _predict(self, image: NDArray[np.uint8]) -> dict[str, Any]:
        """One crop (S, S, 3): a model that takes a picture takes one at a time."""
        outputs: dict[str, Any] = self._model.predict({"image": self._picture(image)})
        return outputs
