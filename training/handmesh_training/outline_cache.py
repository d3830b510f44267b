"""Outlines of the hands of photo sets, found once and kept: finding takes some 60 ms a hand.

They lie in the user's cache folder under a name made of everything that decides them, so that runs
and their resumptions start at once.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from handmesh.atomic import write_atomic
from handmesh.errors import ImageError, InputError
from handmesh.imaging import decode

from .outlines import REVISION, Outline, find_outline
from .photos import LabelledHand
from .rendering.native import cache_folder


def open_outlines(hands: Sequence[LabelledHand]) -> list[Outline | None]:
    """The outline of each hand, None where it cannot be told.

    Raises:
        ImageError: a photo that cannot be decoded.
        InputError: the cache folder cannot be written to.
    """
    place = cache_folder() / f"outlines-{_digest(hands)[:20]}.npz"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)  # before the work, not after
        if place.is_file():
            try:
                with np.load(place) as kept:
                    return _unpacked(kept["found"], kept["points"], kept["known"])
            except (ValueError, KeyError, EOFError, zipfile.BadZipFile):
                pass  # damaged: found anew and written over
        bar = tqdm(hands, desc="outlines", unit="hand", leave=False)
        outlines = [find_outline(decode(hand.path), hand.joints_px) for hand in bar]
        there = [outline for outline in outlines if outline is not None]
        packed = io.BytesIO()
        np.savez(
            packed,
            found=np.array([outline is not None for outline in outlines], dtype=bool),
            points=np.array([outline.points for outline in there]),
            known=np.array([outline.known for outline in there]),
        )
        write_atomic(place, packed.getvalue())
    except OSError as error:
        raise InputError(
            f"outlines of {len(hands)} hands cannot be kept in {place}, about 2 kB each: {error}; "
            "make room there, or name another cache folder in XDG_CACHE_HOME"
        ) from error
    return outlines


def _unpacked(
    found: NDArray[np.bool_], points: NDArray[np.float64], known: NDArray[np.bool_]
) -> list[Outline | None]:
    rows = np.cumsum(found) - 1
    return [
        Outline(points[row], known[row]) if there else None
        for there, row in zip(found, rows, strict=True)
    ]


def _digest(hands: Sequence[LabelledHand]) -> str:
    """Of what decides the outlines: how they are found, the labels, and where each photo lies, its
    size and when it was written."""
    digest = hashlib.sha256(f"{REVISION}\0{cv2.__version__}\0".encode())
    for hand in hands:
        try:
            state = hand.path.stat()
        except OSError as cause:
            raise ImageError(f"cannot read the photo {hand.path}: {cause.strerror}") from cause
        digest.update(f"{hand.path.resolve()}\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
        digest.update(hand.joints_px.tobytes())
    return digest.hexdigest()
