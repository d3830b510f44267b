"""Write how the networks' mesh hangs on its joints: ``python -m handmesh_training.template.rig``.

Makes ``handmesh/assets/rig.npz``, which the SDK needs for skinned files and joint rotations, from
the committed ``hand.npz``, whose weights are of the same CC0 body. It is a file of its own, so that
``topology.npz`` and every weight that was trained on its hash stay valid. With ``--check`` nothing
is written: the arrays are compared with those of the committed file.
"""

from __future__ import annotations

if __name__ == "__main__":
    from handmesh.cli_shared import run_module

    run_module(__spec__, "training")

import argparse
import sys

import numpy as np
from numpy.typing import NDArray

from handmesh.archive import read_arrays, write_arrays
from handmesh.errors import TrainingError
from handmesh.rig import INFLUENCES, RIG_PATH

from ..hand import FOREARM, PIVOT_JOINTS, HandAsset


def rig_arrays(asset: HandAsset) -> dict[str, NDArray[np.generic]]:
    """``joints`` (V, 4) uint8 and ``shares`` (V, 4) float32 of the networks' mesh.

    The forearm's share goes to the wrist: a hand in a photo has no forearm joint.

    Raises:
        TrainingError: a vertex hangs on more joints than a row holds.
    """
    weights = asset.weights[asset.template_subset].astype(np.float64)  # (V, 17)
    weights[:, 0] += weights[:, FOREARM]
    weights = weights[:, :FOREARM]
    if ((weights > 0).sum(axis=1) > INFLUENCES).any():
        raise TrainingError(f"a vertex of the hand hangs on more than {INFLUENCES} joints")
    order = np.argsort(-weights, axis=1, kind="stable")[:, :INFLUENCES]  # (V, 4), largest first
    shares = np.take_along_axis(weights, order, axis=1)
    joints = np.where(shares > 0, np.array(PIVOT_JOINTS)[order], 0)  # 0 is an unused place's
    return {"joints": joints.astype(np.uint8), "shares": shares.astype(np.float32)}


def main(arguments: list[str] | None = None) -> int:
    """Write the file, or compare it; 0 unless ``--check`` finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the committed file")
    options = parser.parse_args(arguments)
    arrays = rig_arrays(HandAsset.load())
    if options.check:
        committed = read_arrays(RIG_PATH, "rebuild it without --check")
        same = committed.keys() == arrays.keys() and all(
            np.array_equal(committed[name], array) for name, array in arrays.items()
        )
        sys.stdout.write(f"{RIG_PATH.name}: {'same' if same else 'DIFFERENT'}\n")
        return 0 if same else 1
    write_arrays(RIG_PATH, arrays)
    sys.stdout.write(f"{RIG_PATH}\n")
    return 0
