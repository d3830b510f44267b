"""What the commands are given beside a network: reference crops, and a card of where it is from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handmesh.errors import InputError

__all__ = ["read_card", "read_crops"]


def read_crops(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    """Images (N, S, S, 3) uint8 RGB of an .npz file, and labels (N, 21, 3) if it has any.

    Raises:
        InputError: it is not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["images"], file["labels"] if "labels" in file.files else None
    except Exception as cause:  # damaged bytes make zipfile, zlib and NumPy raise a dozen types
        # Not always its text: NumPy advises to load what is no array unsafely.
        reason = f" ({cause.strerror})" if isinstance(cause, OSError) and cause.strerror else ""
        raise InputError(
            f"{path} is not an .npz file with an array `images`{reason}: `handmesh reference` "
            "makes them"
        ) from cause


def read_card(path: Path) -> dict[str, Any]:
    """`provenance` and `licences` of a bundle, whichever are stated.

    Raises:
        InputError: it is not a JSON file of that form.
    """
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise InputError(f"cannot read {path} as JSON: {cause}") from cause
    known = {"provenance", "licences"}
    if (
        not isinstance(card, dict)
        or set(card) - known
        or not all(isinstance(value, dict) for value in card.values())
    ):
        raise InputError(
            f"{path} must hold an object with objects under `provenance` and `licences` only"
        )
    return card
