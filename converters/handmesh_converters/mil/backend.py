"""A bundle's Core ML artifact in the executor, as a backend: for proof, where Core ML is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from handmesh.backends import BundleBackend
from handmesh.bundle import Bundle
from handmesh.errors import BackendError, ExportError

from .executor import Executor
from .packages import check_description
from .program import read_package

__all__ = ["MilBackend"]


class MilBackend(BundleBackend):
    """See `handmesh.backends.Backend`.

    Raises:
        BackendError: the artifact cannot be read, describes itself to apps otherwise than the
            manifest, or has operations that the executor does not know.
    """

    name = "coreml"
    description = "MIL program in torch (not Apple's runtime)"

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle, torch.get_num_threads())
        try:
            program = read_package(bundle.artifact(self.name))
            check_description(program.spec, bundle.manifest)
            self._executor = Executor(program)
        except ExportError as cause:
            raise BackendError(f"{self.description} cannot load the artifact: {cause}") from cause

    def _infer(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        planes = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        outputs = [self._executor.run(image=plane[None]) for plane in planes]
        names = self._executor.program.outputs
        return {name: torch.cat([o[name] for o in outputs]).numpy() for name in names}
