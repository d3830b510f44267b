"""Everything handmesh raises on purpose, in one tree.

    HandMeshError
    ├── InputError (also ValueError)           what the caller handed over
    │   ├── ImageError                         not an image, or not one we can use
    │   ├── BoxError                           not a box, or not one in this image
    │   └── CameraError                        impossible intrinsics
    ├── BundleError                            a trained model that cannot be found or read
    │   ├── IntegrityError                     a file of it is not the file that was shipped
    │   └── GraphMismatchError                 weights made for another mesh graph
    ├── BackendUnavailable (also ImportError)  a runtime that is not installed, or not in the bundle
    ├── BackendError                           a runtime that failed while running
    ├── DeviceError                            a device that cannot be reached, or that fails
    ├── MissingExtra (also ImportError)        an optional package that is not installed
    ├── ExportError
    │   └── ParityError                        an artifact that computes something else
    ├── ShardError                             a sharded set that cannot be found, read or written
    │   ├── ShardIntegrityError                a shard of it is missing, or not what was written
    │   └── ShardMismatchError                 the set in the folder is another one
    └── TrainingError
        ├── DivergedError                      the loss is no longer a number
        └── CheckpointError                    a checkpoint that cannot be resumed

Each message says what was expected, what came, and what to do. Errors of other libraries do not
leave the package: they are mapped where they arise and kept as ``__cause__``.
"""

from __future__ import annotations

from .installing import pip_install

__all__ = [
    "BackendError",
    "BackendUnavailable",
    "BoxError",
    "BundleError",
    "CameraError",
    "CheckpointError",
    "DeviceError",
    "DivergedError",
    "ExportError",
    "GraphMismatchError",
    "HandMeshError",
    "ImageError",
    "InputError",
    "IntegrityError",
    "MissingExtra",
    "ParityError",
    "ShardError",
    "ShardIntegrityError",
    "ShardMismatchError",
    "TrainingError",
]


class HandMeshError(Exception):
    """Base of every error that handmesh raises on purpose."""


class InputError(HandMeshError, ValueError):
    """An argument has the wrong type, shape, unit or range."""


class ImageError(InputError):
    """The photo cannot be read, or its pixels cannot be used."""


class BoxError(InputError):
    """The box is not a box, or does not lie in the image."""


class CameraError(InputError):
    """The intrinsics are not those of a camera."""


class BundleError(HandMeshError):
    """A bundle, or a file that its manifest names, is missing or malformed."""


class IntegrityError(BundleError):
    """A file of a bundle differs from the one its manifest describes."""


class GraphMismatchError(BundleError):
    """Weights were trained on another mesh graph than the one given."""


class BackendUnavailable(HandMeshError, ImportError):
    """The runtime asked for is not installed, or the bundle holds nothing that it can run."""


class BackendError(HandMeshError):
    """A runtime failed to load an artifact or to run it."""


class DeviceError(HandMeshError):
    """Another device cannot be reached, or what was started there failed."""


class MissingExtra(HandMeshError, ImportError):
    """An optional package is not installed.

    Args:
        package: import name of the missing package, as ``torch``.
        extra: the extra of handmesh that brings it, as ``training``.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"the package '{package}' is not installed; it comes with the extra '{extra}': "
            f"{pip_install(extra)}"
        )
        self.package = package
        self.extra = extra

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str]]:
        """By what it was made of: errors of other processes arrive pickled."""
        return MissingExtra, (self.package, self.extra)


class ExportError(HandMeshError):
    """A network could not be turned into an artifact."""


class ParityError(ExportError):
    """An artifact's outputs differ from the network's by more than the tolerance."""


class ShardError(HandMeshError):
    """A sharded set is not there, not complete, or cannot be read or written."""


class ShardIntegrityError(ShardError):
    """A shard is missing, truncated, or differs from the one that was written."""


class ShardMismatchError(ShardError):
    """A folder holds a set with other settings, or one that is rendered otherwise."""


class TrainingError(HandMeshError):
    """A training run cannot go on."""


class DivergedError(TrainingError):
    """The loss or a gradient is no longer finite."""


class CheckpointError(TrainingError):
    """A checkpoint is unreadable, or belongs to another run."""
