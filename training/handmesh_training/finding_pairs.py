"""What needs no labels: left and right in a photo and its mirrored twin, and both hands of two
photos set side by side.

This is what `handmesh evaluate --pairs` prints. A hand and its mirror image are a left and a right
one, whichever is which; whoever calls both the same is wrong about one of them. And a picture made
of two photos shows two hands, one in each half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from handmesh import Hand, Predictor
from handmesh.errors import InputError
from handmesh.imaging import decode

from .evaluation_sets import spread
from .finding import SUFFIXES, picture_files
from .seeds import Purpose, generator

__all__ = ["PairsReport", "evaluate_pairs", "pair_files", "side_by_side"]

Image = NDArray[np.uint8]

# Each half of a pair, pixels: two of them fill a usual picture of 640 x 320.
HALF = 320
# By lot, but by the same each time.
SEED = 0


@dataclass(frozen=True)
class PairsReport:
    """Of one folder of photos with one hand each.

    Attributes:
        name: of the folder.
        photos: how many, each of them shown as it is and mirrored.
        found: in how many a hand was found, as they are; found_mirrored: in the twins.
        found_both: in how many in both.
        consistent: of these, how many have the other handedness in the twin.
        pairs: pictures of two photos side by side.
        both_alone: of these, in how many both photos had their hand found by itself, at the same
            size.
        both: in how many a hand was found in either half. astray: a further or doubled one.
        both_of_alone: of `both_alone`, how many have both found.
    """

    name: str
    photos: int
    found: int
    found_mirrored: int
    found_both: int
    consistent: int
    pairs: int
    both_alone: int
    both: int
    both_of_alone: int
    astray: int

    def to_dict(self) -> dict[str, int | str]:
        """For JSON."""
        return asdict(self)

    def to_table(self) -> str:
        """For a reader."""
        return "\n".join(
            [
                f"{self.name}, without a box",
                f"  hand found in the photo {_share(self.found, self.photos)}, in its mirrored "
                f"twin {_share(self.found_mirrored, self.photos)}",
                f"  left in one and right in the other {_share(self.consistent, self.found_both)} "
                "where found in both",
                f"  two photos side by side: both hands found {_share(self.both, self.pairs)}; "
                f"where each is found alone {_share(self.both_of_alone, self.both_alone)}",
                f"  two hands reported, but not one in each half {_share(self.astray, self.pairs)}",
            ]
        )


def pair_files(folder: Path | str, limit: int | None = None) -> list[Path]:
    """Photos of one hand each, at most ``limit``, evenly spread.

    Raises:
        InputError: there is no such folder, or fewer than two photos.
    """
    files = picture_files(folder)
    if len(files) < 2:
        raise InputError(f"{folder} holds no two photos ({', '.join(SUFFIXES)})")
    if limit is not None and limit < 2:
        raise InputError(f"a pair takes two photos: the limit must be at least 2, not {limit}")
    return [files[i] for i in spread(len(files), limit)]


def evaluate_pairs(
    predictor: Predictor, folder: Path | str, limit: int | None = None
) -> PairsReport:
    """Search photos, their mirrored twins, and pairs of photos by lot.

    Args:
        folder: photos of one hand each, with sub-folders.
        limit: at most so many photos, evenly spread, and half as many pairs.

    Raises:
        InputError: as `pair_files`.
        ImageError: a photo that cannot be read.
    """
    name, files = Path(folder).name, pair_files(folder, limit)
    counts = dict.fromkeys(("found", "found_mirrored", "found_both", "consistent"), 0)
    for path in tqdm(files, desc=f"{name}, mirrored", unit="photo"):
        image = decode(path)
        hands = predictor.predict(image, looks=1)
        twins = predictor.predict(np.ascontiguousarray(image[:, ::-1]), looks=1)
        counts["found"] += bool(hands)
        counts["found_mirrored"] += bool(twins)
        if hands and twins:
            counts["found_both"] += 1
            counts["consistent"] += hands[0].handedness != twins[0].handedness

    order = generator(SEED, Purpose.PAIRS).permutation(len(files))
    pairs = [(files[a], files[b]) for a, b in zip(order[::2], order[1::2], strict=False)]
    counts |= dict.fromkeys(("both_alone", "both", "both_of_alone", "astray"), 0)
    for paths in tqdm(pairs, desc=f"{name}, in pairs", unit="pair"):
        halves = [_square(decode(path)) for path in paths]
        hands = predictor.predict(side_by_side(*halves), max_hands=2, looks=1)
        both = _one_in_each(hands, HALF)
        alone = all(predictor.predict(half, looks=1) for half in halves)
        counts["both_alone"] += alone
        counts["both"] += both
        counts["both_of_alone"] += alone and both
        counts["astray"] += len(hands) == 2 and not both
    return PairsReport(name, len(files), pairs=len(pairs), **counts)


def side_by_side(left: Image, right: Image) -> Image:
    """Two pictures of the same height, (H, W, 3) uint8, as one of (H, 2 W, 3)."""
    return np.hstack([left, right])


def _square(image: Image) -> Image:
    """A photo in the middle of a square half; its own edge goes on where it is narrower."""
    scale = HALF / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    left, top = (HALF - size[0]) // 2, (HALF - size[1]) // 2
    square = cv2.copyMakeBorder(
        small, top, HALF - size[1] - top, left, HALF - size[0] - left, cv2.BORDER_REPLICATE
    )
    return np.asarray(square, dtype=np.uint8)


def _one_in_each(hands: Sequence[Hand], middle: float) -> bool:
    sides = [float(hand.joints_px[:, 0].mean()) < middle for hand in hands]
    return sorted(sides) == [False, True]


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} % ({part} of {whole})" if whole else "- (of none)"
