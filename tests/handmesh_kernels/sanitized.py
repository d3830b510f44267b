"""Runs in a process of its own, under AddressSanitizer and UndefinedBehaviorSanitizer.

python sanitized.py LIBRARY HEAD.npz BATCH ORDER TENSOR_CORES
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from cuda_shim import ShimBinding, error

from handmesh_kernels import twin
from handmesh_kernels.constants import HeadConstants
from handmesh_kernels.launcher import GraphHead


def main() -> None:
    library, head, batch, order, tensor_cores = sys.argv[1:]
    constants, binding = HeadConstants.load(head), ShimBinding(Path(library))
    binding.order = int(order)
    rng = np.random.default_rng(int(batch))
    latent = rng.normal(size=(int(batch), constants.features)).astype(np.float32)
    uv = rng.random((int(batch), 21, 2), dtype=np.float32)
    launcher = GraphHead(
        constants, int(batch), binding, tensor_cores=tensor_cores == "True", code=b""
    )
    vertices, joints = launcher.run(latent, uv)
    wanted = twin.run(constants, latent, uv)
    tolerance = 1e-5 if constants.storage == "fp32" else 2e-3
    assert error(launcher.fetch(vertices), wanted.vertices) < tolerance
    assert error(launcher.fetch(joints), wanted.joints) < tolerance
    print("clean")


if __name__ == "__main__":
    main()
