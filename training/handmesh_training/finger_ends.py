"""Where fingers end beside their labelled tips: ``python -m handmesh_training.finger_ends DIR``.

From the joint before the tip a line is followed along the finger until the picture has the colour
of the ground beyond, on photos with plain grounds. Printed is how far that is, in lengths of the
labelled last bone: medians over straight, stretched fingers with nothing near their end. Where it
is far from 1, labels and hand mesh mean different points by a tip.
"""

from __future__ import annotations

if __name__ == "__main__":
    from handmesh.cli_shared import run_module

    run_module(__spec__, "training")

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from handmesh.imaging import decode
from handmesh.types import FINGERS

from .photos import TIP_REACH, LabelledHand, read_labels

Array = NDArray[np.float64]

# In lengths of the last bone beyond the labelled tip: where skin is seen, how far is looked, and
# from where on all is ground. A finger's end lies between.
SKIN, LOOKED, GROUND = (-0.3, -0.1), 1.2, 0.75
STEPS = 96
# Of CIELAB in 8 bits: a ground differs from the skin by this much, and within itself by no more.
CONTRAST, PLAIN = 25.0, 8.0
STRAIGHT = 0.97  # cosine between neighbouring bones
# A finger of this share of the palm's length, wrist to middle finger, is not foreshortened.
STRETCHED, STRETCHED_THUMB = 0.8, 0.6
SHORTEST_PX = 3.0  # bones of fewer pixels are too coarse
# No other joint is as near to the point ``PAST`` the tip as ``ALONE``, in lengths of the last bone.
PAST, ALONE = 0.3, 0.6


def finger_end(lab: NDArray[np.float32], joints: Array, finger: str) -> float | None:
    """Distance from the joint before the tip to the finger's end, over that to the labelled tip.

    Args:
        lab: (H, W, 3) float32 CIELAB, 0..255. joints: (21, 2) pixels, as a set's are read.

    Returns:
        None where the finger is bent, foreshortened, not alone or before no plain ground.
    """
    chain = np.array(FINGERS[finger])
    bones = np.diff(joints[chain], axis=0)  # (3, 2)
    lengths = np.linalg.norm(bones, axis=1)
    if lengths.min() < SHORTEST_PX:
        return None
    along = bones / lengths[:, None]
    palm = float(np.linalg.norm(joints[9] - joints[0]))
    if lengths.sum() < (STRETCHED_THUMB if finger == "thumb" else STRETCHED) * palm:
        return None
    if min(along[0] @ along[1], along[1] @ along[2]) < STRAIGHT:
        return None
    tip, last = joints[chain[-1]], lengths[-1]
    others = np.delete(joints, chain, axis=0)  # (17, 2)
    if np.linalg.norm(others - tip - PAST * bones[-1], axis=1).min() < ALONE * last:
        return None
    beyond = np.linspace(SKIN[0], LOOKED, STEPS)
    places = tip + beyond[:, None] * bones[-1]  # (STEPS, 2)
    if (places < 1).any() or (places > np.array(lab.shape[1::-1]) - 2).any():
        return None
    x, y = (np.float32(places[:, k : k + 1]) for k in (0, 1))
    seen = np.float64(cv2.remap(lab, x, y, cv2.INTER_LINEAR)[:, 0])  # (STEPS, 3)
    skin = np.median(seen[beyond < SKIN[1]], axis=0)
    ground = seen[beyond > GROUND]
    change = np.median(ground, axis=0) - skin
    contrast = float(np.linalg.norm(change))
    if contrast < CONTRAST or ground.std(axis=0).max() > PLAIN:
        return None
    # 0 on skin, 1 on the ground: the end is where it is half of both.
    end = float(beyond[np.argmax((seen - skin) @ change > 0.5 * contrast**2)])
    return 1 + end if end > SKIN[1] else None


def measure(hands: Sequence[LabelledHand]) -> dict[str, list[float]]:
    """`finger_end` of all fingers that have one, by finger."""
    found: dict[str, list[float]] = {finger: [] for finger in FINGERS}
    for hand in tqdm(hands, desc=hands[0].path.parent.name if hands else None, unit="hand"):
        lab = np.float32(cv2.cvtColor(decode(hand.path), cv2.COLOR_RGB2LAB))
        for finger, ends in found.items():
            end = finger_end(lab, hand.joints_px, finger)
            if end is not None:
                ends.append(end)
    return found


def to_table(found: dict[str, list[float]]) -> str:
    """Medians by finger, of the labels as they are read and as the teacher gave them."""
    if not any(found.values()):
        return "  no photo shows a straight finger alone before a plain ground\n"
    lines = ["  finger   fingers  as read  by the teacher"]
    for finger, ends in found.items():
        if ends:
            middle = float(np.median(ends))
            lines.append(f"  {finger:8} {len(ends):7} {middle:8.2f} {TIP_REACH * middle:15.2f}")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Measure and print, a table for each set."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("photos", nargs="+", metavar="DIR", help="photo sets with labels")
    for folder in parser.parse_args(arguments).photos:
        found = measure(list(read_labels(folder)))
        sys.stdout.write(f"{Path(folder).name}\n{to_table(found)}")
    return 0
