"""How well meshes cover the hands of photos: ``python -m handmesh_training.outline_fit DIR``.

Each hand's outline is found (`outlines`), and its known points are compared with the silhouette of
the mesh that ``predict`` gives for the labelled box and side. Printed are medians over hands of how
far the silhouette lies away, in shares of the joints' tight box as 2D errors are: in all, where it
ends before the outline and skin is left bare, and where it spills over. Joints alone do not tell
that.
"""

from __future__ import annotations

if __name__ == "__main__":
    from handmesh.cli_shared import run_module

    run_module(__spec__, "training")

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from handmesh import Predictor
from handmesh.imaging import decode
from handmesh.types import Box, Handedness

from .datasets.dataset import spread
from .outline_cache import open_outlines
from .outlines import Outline
from .photos import LabelledHand, read_labels

Array = NDArray[np.float64]

# Side of the picture that a silhouette is drawn in, and that of the box it shows over the hand's.
# OpenCV also fills the pixels that an edge touches: nearly one all round, 0.17 % of the box here.
SIDE, MARGIN = 1024, 2.0


@dataclass(frozen=True)
class Fit:
    """Distances in shares of the hand's box.

    Attributes:
        away: mean over the known points. bare: of it, where the silhouette ends before the outline.
        spill: where it lies beyond.
    """

    away: float
    bare: float
    spill: float


def outline_fit(vertices_px: Array, faces: NDArray[np.int32], outline: Outline, box: Box) -> Fit:
    """A mesh's silhouette against the known points of an outline.

    Args:
        vertices_px: (V, 2) pixels. faces: (F, 3). outline: in the same pixels. box: of the hand,
            in whose side distances are told.
    """
    wide = Box(box.cx, box.cy, box.size * MARGIN)
    corners = wide.to_crop(vertices_px)[faces] * SIDE - 0.5  # (F, 3, 2)
    drawn = np.zeros((SIDE, SIDE), dtype=np.uint8)
    for corner in np.round(corners * 16).clip(-(2**24), 2**24).astype(np.int32):
        cv2.fillConvexPoly(drawn, corner, 1, shift=4)
    outside, inside = (
        cv2.distanceTransform(part, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        for part in (1 - drawn, drawn)
    )
    x, y = (wide.to_crop(outline.points[outline.known]) * SIDE - 0.5).astype(np.float32).T
    beyond = np.asarray(outside) - np.asarray(inside)  # from the silhouette, positive outside it
    read = cv2.remap(beyond, x[None], y[None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    shares = np.float64(read[0]) / SIDE * MARGIN
    bare, spill = (float(part.mean()) for part in (shares.clip(min=0), (-shares).clip(min=0)))
    return Fit(bare + spill, bare, spill)


def measure(predictor: Predictor, hands: Sequence[LabelledHand]) -> list[Fit]:
    """Of the hands whose outline is known and that are found."""
    fits = []
    name = hands[0].path.parent.name if hands else None
    pairs = zip(hands, open_outlines(hands), strict=True)
    for hand, outline in tqdm(pairs, desc=name, total=len(hands), unit="hand"):
        if outline is None:
            continue
        box = Box.from_points(hand.joints_px)
        side: Handedness = "right" if hand.is_right else "left"
        for found in predictor.predict(decode(hand.path), box=box, handedness=side)[:1]:
            tight = Box.from_points(hand.joints_px, margin=1.0)
            fits.append(outline_fit(np.float64(found.vertices_px), found.faces, outline, tight))
    return fits


def to_line(name: str, total: int, fits: Iterable[Fit]) -> str:
    """Medians over hands, in percent."""
    each = 100 * np.array([(fit.away, fit.bare, fit.spill) for fit in fits]).reshape(-1, 3)
    if not len(each):
        return f"{name}: no outline is known of {total} hands\n"
    away, bare, spill = np.median(each, axis=0)
    return (
        f"{name}: {len(each)} of {total} hands; the silhouette is {away:.2f} % of the box away, "
        f"bare {bare:.2f}, spill {spill:.2f}\n"
    )


def main(arguments: list[str] | None = None) -> int:
    """Measure and print, a line for each set."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("photos", nargs="+", metavar="DIR", help="photo sets with labels")
    parser.add_argument("--bundle", default="light", help="name or folder (default: light)")
    parser.add_argument("--limit", type=int, help="hands of each set at most, evenly spread")
    options = parser.parse_args(arguments)
    predictor = Predictor(options.bundle)
    for folder in options.photos:
        hands = list(read_labels(folder))
        chosen = [hands[i] for i in spread(len(hands), options.limit)]
        fits = measure(predictor, chosen)
        sys.stdout.write(to_line(Path(folder).name, len(chosen), fits))
    return 0
