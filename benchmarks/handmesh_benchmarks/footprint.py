"""Memory of one network in one runtime, in a process in which nothing else was loaded::

python -m handmesh_benchmarks.footprint BUNDLE BACKEND THREADS
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from handmesh import Bundle, backends
from handmesh.errors import BackendError

from . import device

__all__ = ["measure"]

_PATIENCE_S = 300.0


def measure(bundle: Path, backend: str, threads: int) -> dict[str, float]:
    """As `device.footprint`, of a bundle's network in a fresh process.

    Raises:
        BackendError: the process failed.
    """
    command = [sys.executable, "-m", f"{__package__}.footprint", str(bundle), backend, str(threads)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE_S, check=True
        )
        found: dict[str, float] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as cause:
        raise BackendError(f"the memory of {backend} could not be measured: {cause}") from cause
    return found


def main(folder: str, backend: str, threads: str) -> None:
    """Of this process, which does nothing else; prints it as JSON."""
    bundle = Bundle.load(folder)
    module = importlib.import_module(f"handmesh.backends.{backend}")
    names = (module.REQUIRES,) if isinstance(module.REQUIRES, str) else module.REQUIRES
    importlib.import_module(next(name for name in names if importlib.util.find_spec(name)))
    size = bundle.image_size
    images = np.zeros((1, size, size, 3), dtype=np.uint8)
    if backend == "torch":
        importlib.import_module("handmesh.nn")

    def load() -> object:
        network = backends.create(backend, bundle, int(threads))
        return lambda: network.run(images)

    sys.stdout.write(json.dumps(device.footprint(load)) + "\n")  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
