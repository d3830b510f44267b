"""What all backends do around their runtime: check what goes in and what comes out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, InputError
from ..types import JOINT_NAMES

if TYPE_CHECKING:
    from ..bundle import Bundle

__all__ = ["BundleBackend", "RawOutput", "check_images", "raw_output"]


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


class BundleBackend(ABC):
    """A bundle's artifact in a runtime. See `handmesh.backends.NamedBackend`.

    A backend sets `name` and `description`, and infers.

    Args:
        bundle: the trained model.
        threads: CPU threads of one run.
    """

    name: str
    description: str

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self.threads = threads
        self._bundle = bundle
        self._size = bundle.image_size

    def run(self, images: NDArray[np.uint8]) -> RawOutput:
        """See `handmesh.backends.Backend.run`."""
        named = self.outputs(images)
        return raw_output(named, len(images), self._bundle.topology.vertex_count, self.description)

    def outputs(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[Any]]:
        """See `handmesh.backends.NamedBackend.outputs`."""
        check_images(images, self._size)
        try:
            return self._infer(images)
        except Exception as cause:  # the runtimes' own errors share no base class
            raise BackendError(
                f"{self.description} failed on {images.shape[0]} crops: {cause}"
            ) from cause

    @abstractmethod
    def _infer(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[Any]]:
        """The outputs by name for (N, S, S, 3) uint8 RGB crops, N > 0. May raise anything, and be
        called from several threads."""


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
