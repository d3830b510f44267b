"""How well hands are found without a box: false alarms on pictures without hands, beside the share
of hands found, at every threshold of presence.

This is what `handmesh evaluate --negatives` prints. To tune the search for another network: the
report names the prior of the finder that searched, `PRIOR` of `handmesh.finding` behind a detector
and `_PRIOR` of `handmesh.search` with windows alone; add to it what the report says for the wanted
rate of false alarms, run again, and compare the shares of hands found; then the other constants.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from handmesh import Predictor
from handmesh.errors import InputError
from handmesh.finding import DetectedHands, Finder, search_windows

from . import metrics
from .evaluation_sets import spread
from .photos import read_labels

T = TypeVar("T")

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
THRESHOLDS = (0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.97, 0.99)
# Shares of pictures with a false alarm for which the report says how to come by them.
RATES = (0.02, 0.05, 0.1, 0.2)
# What `Predictor.predict` asks for when it is not told.
DEFAULT_THRESHOLD = 0.5
# A hand counts as found when its joints are, on average, this share of its box from their places.
FOUND_WITHIN = 1 / 3


@dataclass(frozen=True, eq=False)
class FindingReport:
    """Presences of the surest place in each picture.

    Attributes:
        negatives: (N,) float64, sorted, of pictures without hands; 0 where the finder had no place
            to look at.
        hands: by photo set, (M,) float64 of photos with one hand; -1 where the surest place is not
            at the hand. Of two folders of one name the second also says where it lies.
        prior: the constant by which the finder that searched is tuned, in words.
    """

    negatives: NDArray[np.float64]
    hands: dict[str, NDArray[np.float64]]
    prior: str

    def false_alarms(self, threshold: float = DEFAULT_THRESHOLD) -> float:
        """Hands reported per picture without hands."""
        return float((self.negatives >= threshold).mean())

    def found(self, name: str, threshold: float = DEFAULT_THRESHOLD) -> float:
        """Share of the hands of a photo set that are reported, and in the right place."""
        return float((self.hands[name] >= threshold).mean())

    def prior_shift(self, rate: float) -> float | None:
        """What to add to the finder's log-odds of a hand, so that this share of the pictures has a
        false alarm at the default threshold; None where no prior can bring so many about, since the
        finder looks at nothing in most of the others."""
        place = (1 - rate) * (len(self.negatives) - 1)
        around = self.negatives[[int(np.floor(place)), int(np.ceil(place))]]
        # Odds of nothing do not change, whatever is added: between them and others nothing lies.
        around = around[around > 0].clip(max=1 - 1e-12)
        if not len(around):
            return None
        log_odds = np.log(around / (1 - around))
        return -float(np.interp(place % 1, np.linspace(0, 1, len(log_odds)), log_odds))

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "count": len(self.negatives),
            "false_alarms": {str(t): self.false_alarms(t) for t in THRESHOLDS},
            "presence": self._quantiles(),
            "prior": self.prior,
            "prior_shift": {str(rate): self.prior_shift(rate) for rate in RATES},
            "found": {
                name: {"count": len(hands), **{str(t): self.found(name, t) for t in THRESHOLDS}}
                for name, hands in self.hands.items()
            },
        }

    def to_table(self) -> str:
        """For a reader."""
        lines = [
            f"finding without a box ({len(self.negatives)} pictures without hands)",
            f"  false alarms per picture {self.false_alarms():10.3f}",
            "  presence of the surest place there: "
            + ", ".join(f"{name} {value:.3f}" for name, value in self._quantiles().items()),
            f"  to {self.prior} add "
            + ", ".join(f"{_signed(self.prior_shift(r))} for {100 * r:g} %" for r in RATES)
            + " false alarms",
        ]
        lines += [
            f"  found, {name + f' ({len(hands)} hands)':<32}{100 * self.found(name):9.2f} %"
            for name, hands in self.hands.items()
        ]
        rows = {"false alarms": [self.false_alarms(t) for t in THRESHOLDS]}
        rows |= {f"found, {name}": [self.found(name, t) for t in THRESHOLDS] for name in self.hands}
        lines.append(f"  {'at a presence of':<26}" + "".join(f"{t:8.2f}" for t in THRESHOLDS))
        for name, values in rows.items():
            lines.append(f"  {name:<26}" + "".join(f"{value:8.3f}" for value in values))
        return "\n".join(lines)

    def _quantiles(self) -> dict[str, float]:
        shares = {"median": 0.5, "90 %": 0.9, "99 %": 0.99, "highest": 1.0}
        return {name: float(np.quantile(self.negatives, q)) for name, q in shares.items()}


def picture_files(folder: Path | str) -> list[Path]:
    """The pictures of a folder and its sub-folders, in their order.

    Raises:
        InputError: there is no such folder.
    """
    if not Path(folder).is_dir():
        raise InputError(f"there is no folder {folder}: give one with pictures")
    return sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES)


def negative_files(folder: Path | str) -> list[Path]:
    """Pictures without hands.

    Raises:
        InputError: there is no such folder, or no picture in it.
    """
    files = picture_files(folder)
    if not files:
        raise InputError(f"{folder} holds no picture ({', '.join(SUFFIXES)})")
    return files


def evaluate_finding(
    predictor: Predictor,
    negatives: Path | str,
    photos: Iterable[Path | str] = (),
    limit: int | None = None,
) -> FindingReport:
    """Search pictures without hands, and photos with one.

    Args:
        negatives: folder, with sub-folders, of pictures that show no hand.
        photos: photo sets, see `handmesh_training.photos`.
        limit: at most so many pictures of each, evenly spread.

    Raises:
        InputError: as `negative_files`, or a photo set without labels.
        ImageError: a picture that cannot be read.
    """
    files = negative_files(negatives)
    empty = [
        max(
            (hand.presence for hand in predictor.predict(file, min_presence=0.0, looks=1)),
            default=0.0,
        )
        for file in tqdm(_spread(files, limit), desc="negatives", unit="picture")
    ]
    hands: dict[str, NDArray[np.float64]] = {}
    for folder in photos:
        name = Path(folder).name
        if name in hands:  # of another folder
            name = f"{name} in {folder}"
        labels = _spread(list(read_labels(folder)), limit)
        seen = []
        for label in tqdm(labels, desc=name, unit="photo"):
            presence = -1.0
            for hand in predictor.predict(label.path, min_presence=0.0, looks=1):  # one at most
                miss = metrics.box_normalised_error(hand.joints_px[None], label.joints_px[None])[0]
                presence = hand.presence if miss < FOUND_WITHIN else -1.0
            seen.append(presence)
        hands[name] = np.array(seen)
    return FindingReport(np.sort(empty), hands, _prior_of(predictor.find))


def _prior_of(find: Finder) -> str:
    if isinstance(find, DetectedHands):
        return "PRIOR of handmesh.finding"
    return "_PRIOR of handmesh.search" if find is search_windows else "the finder's own prior"


def _signed(shift: float | None) -> str:
    return "nothing (out of its reach)" if shift is None else f"{shift:+.2f}"


def _spread(items: Sequence[T], limit: int | None) -> Sequence[T]:
    return [items[i] for i in spread(len(items), limit)]
