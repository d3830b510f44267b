"""Real photos with 2D joints, as crops for training and evaluation.

A photo set is a folder of images with a ``pseudo_labels.json``:
``{file: {"hands": [{"uv": 21 x [x, y] px, "world_m": 21 x [x, y, z] m, "handedness_as_reported":
"Left" or "Right", "ok": bool}]}}``. The joints are a teacher's opinion (MediaPipe Hands), not the
truth. Its finger tips in the picture are moved to where ours are (`reach_tips`), those in metres
are as it gave them. It reports handedness as for a selfie, so in un-mirrored photos its "Left" is
the person's right hand.

Wherever a set is named, ``FOLDER:train`` and ``FOLDER:held-out`` mean a part of it: four fifths
and the last fifth, by the last number in the files' names. Cameras count, so the photos of one
person, taken one after the other, fall into one part, but for a person at the border.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handmesh.errors import InputError
from handmesh.imaging import decode
from handmesh.types import FINGERS

from .datasets.crops import to_crops
from .datasets.sample import Sample
from .outlines import Outline
from .samples import Crops

LABELS = "pseudo_labels.json"
TRAIN, HELD_OUT = "train", "held-out"
HELD_OUT_SHARE = 5  # one in so many
# In pictures the teacher's finger tips lie on the pads. From the joint before, straight fingers end
# 1.36 times as far away (`finger_ends`: median of the fingers' of five sets), our tips 1.2 mm of 25
# before that; bent fingers are taken to be alike. Its tips in metres need nothing: the last bones
# are about as long as ours there, or longer.
TIP_REACH = 1.3
# Sum of the cosines between neighbouring ones of a finger's three bones, 2 where it is straight:
# above the first it is taken for stretched, below the second for bent, and there is room between.
STRETCHED, BENT = 1.6, 1.2
# Beyond its base the thumb moves freely.
_THUMB = list(FINGERS["thumb"][1:])


@dataclass(frozen=True, eq=False)
class LabelledHand:
    """One hand in one photo.

    Attributes:
        path: the photo. joints_px: (21, 2) float64 image pixels, tips moved by `reach_tips`.
        joints_m: (21, 3) float64 metres, camera axes, origin of the teacher's choosing.
        is_right: the person's right hand.
    """

    path: Path
    joints_px: NDArray[np.float64]
    joints_m: NDArray[np.float64]
    is_right: bool

    def sample(self, outline: Outline | None = None) -> Sample:
        """The photo with its 2D joints; the teacher's 3D ones lie in no camera's frame.

        Args:
            outline: of the hand, if it is known.

        Raises:
            ImageError: the photo cannot be decoded.
        """
        taught = np.ones(21, dtype=bool)
        taught[_THUMB] = not thumb_before_palm(self.joints_m)
        return Sample(
            key=self.path.name,
            image=decode(self.path),
            is_right=self.is_right,
            joints_px=self.joints_px,
            joint_known=np.ones(21, dtype=bool),
            joint_taught=taught,
            outline_px=None if outline is None else outline.points,
            outline_known=None if outline is None else outline.known,
        )


def read_labels(folder: Path | str) -> Iterator[LabelledHand]:
    """Hands of one photo set, in the order of its label file.

    Photos whose labels the set itself marks as doubtful (``ok`` false) and photos with more than
    one hand are left out.

    Raises:
        InputError: no readable label file in ``folder``, or an entry that is not as above.
    """
    for hands in labelled_photos(folder):
        if len(hands) == 1:
            yield hands[0]


def labelled_photos(folder: Path | str) -> Iterator[list[LabelledHand]]:
    """The hands of each photo of a set, of one or more, all labelled beyond doubt.

    Raises:
        InputError: as `read_labels`.
    """
    folder, part = _part_of(folder)
    if not folder.is_dir():
        raise InputError(
            f"there is no folder {folder}: a photo set is a folder of images with a {LABELS}"
        )
    try:
        labels = dict(json.loads((folder / LABELS).read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder} holds no readable {LABELS} ({error}); "
            "a photo set is a folder of images with one"
        ) from error
    left_out = _other_part(list(labels), part)
    for name, entry in labels.items():
        if name in left_out:
            continue
        try:
            hands = entry["hands"]
            if not hands or not all(hand.get("ok", True) for hand in hands):
                continue
            read = [labelled_hand(folder / name, hand) for hand in hands]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{folder / LABELS}: the entry of {name!r} is not a labelled photo ({error!r})"
            ) from error
        yield read


def one_hand(hands: Sequence[LabelledHand]) -> bool:
    """Whether a photo is of one hand, as `read_labels` takes them."""
    return len(hands) == 1


def trained_on(hands: Sequence[LabelledHand]) -> bool:
    """Whether `load_crops` takes the hand of a photo."""
    return one_hand(hands) and not points(hands[0].joints_m)


def check_photo_sets(
    folders: Iterable[Path | str], of_use: Callable[[Sequence[LabelledHand]], bool]
) -> None:
    """Read the labels of photo sets, so that wrong ones are told before work that takes long.

    Args:
        of_use: whether a photo is, by its labelled hands, one or more.

    Raises:
        InputError: as `read_labels`, or a set without any photo that is of use.
    """
    for folder in folders:
        if not any(map(of_use, list(labelled_photos(folder)))):
            raise InputError(f"{folder} holds no labelled hand that is of use here")


def _part_of(folder: Path | str) -> tuple[Path, str | None]:
    """A set's folder, and the part of it that is meant; None for all of it."""
    whole, _, part = str(folder).rpartition(":")
    return (Path(whole), part) if whole and part in (TRAIN, HELD_OUT) else (Path(folder), None)


def _other_part(names: list[str], part: str | None) -> set[str]:
    """Of the files of a set, those that are not of the part."""

    def number(name: str) -> tuple[int, str]:
        found = re.findall(r"\d+", Path(name).stem)
        return (int(found[-1]) if found else 0, name)

    ordered = sorted(names, key=number)
    border = len(ordered) - len(ordered) // HELD_OUT_SHARE
    return set({None: [], TRAIN: ordered[border:], HELD_OUT: ordered[:border]}[part])


def reach_tips(joints_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """A teacher's joints (21, 2) with tips at the fingers' ends, where the hand mesh has them."""
    moved = joints_px.copy()
    for *_, before, tip in FINGERS.values():
        moved[tip] = joints_px[before] + TIP_REACH * (joints_px[tip] - joints_px[before])
    return moved


def labelled_hand(path: Path, hand: dict[str, Any]) -> LabelledHand:
    """One hand of an entry of a label file, of the photo ``path``.

    Raises:
        KeyError, TypeError, ValueError: it is not as above.
    """
    joints_px = np.asarray(hand["uv"], dtype=np.float64)  # (21, 2)
    joints_m = np.asarray(hand["world_m"], dtype=np.float64)  # (21, 3)
    reported = hand["handedness_as_reported"]
    if joints_px.shape != (21, 2) or joints_m.shape != (21, 3):
        raise ValueError(f"uv is {joints_px.shape}, world_m {joints_m.shape}")
    if reported not in ("Left", "Right"):
        raise ValueError(f"handedness_as_reported is {reported!r}")
    # OpenCV's pixel-centre convention; the teacher counts from the image's corner.
    return LabelledHand(path, reach_tips(joints_px - 0.5), joints_m, is_right=reported == "Left")


def thumb_before_palm(joints_m: NDArray[np.float64]) -> bool:
    """Whether a hand points, or counts one or two: the index finger stretched, ring and little
    finger bent.

    In the six photo sets that `light` is trained on, 878 of 4,299 hands are such, and by eye nearly
    all have the thumb before the palm. People hold it beside the palm as well, and a network that
    sees no photo of that reads it into all such hands; so their thumbs are not taught.

    Args:
        joints_m: (21, 3) metres, in any frame. Sets without have zeros there: no such hand.
    """
    return _straightness(joints_m, "index") > STRETCHED and all(
        _straightness(joints_m, name) < BENT for name in ("ring", "little")
    )


def points(joints_m: NDArray[np.float64]) -> bool:
    """Whether a hand points: of its four fingers the index finger alone is stretched.

    Of the 4,299 hands of those sets 331 are such, nearly all seen from the palm. A network taught
    by them reads such a palm into hands that point and are seen from elsewhere, so `load_crops`
    leaves them out; rendered hands point from everywhere.

    Args:
        joints_m: as `thumb_before_palm`.
    """
    return _straightness(joints_m, "index") > STRETCHED and all(
        _straightness(joints_m, name) < BENT for name in ("middle", "ring", "little")
    )


def _straightness(joints_m: NDArray[np.float64], finger: str) -> float:
    """From -2 to 2; 2 also where a bone has no length."""
    bones = np.diff(joints_m[list(FINGERS[finger])], axis=0)  # (3, 3)
    lengths = np.linalg.norm(bones, axis=1, keepdims=True)
    if not (lengths > 0).all():
        return 2.0
    bones /= lengths
    return float((bones[:-1] * bones[1:]).sum())


def load_crops(
    folders: Sequence[Path | str],
    side: int,
    margin: float,
    vertex_count: int,
    outlines: Callable[[Sequence[LabelledHand]], Sequence[Outline | None]] | None = None,
) -> Crops:
    """The hands of photo sets that are trained on, as right-hand crops: left hands are mirrored.

    Their (u, v) are labelled, depth and mesh are not. Hands that point are left out (`points`), and
    not all thumbs are taught (`thumb_before_palm`).

    Args:
        folders: photo sets, or parts of them. side: crop side in pixels.
        margin: crop over the joints' tight box. vertex_count: V of the unlabelled vertices.
        outlines: what finds the hands' outlines, as `outline_cache.open_outlines`; None for crops
            without.

    Raises:
        InputError: a folder without labels; ImageError: a photo that cannot be decoded.
    """
    read = (hand for folder in folders for hand in read_labels(folder))
    hands = [hand for hand in read if trained_on([hand])]
    found = [None] * len(hands) if outlines is None else outlines(hands)
    samples = (hand.sample(outline) for hand, outline in zip(hands, found, strict=True))
    return to_crops(samples, side, margin, vertex_count)
