"""Reference crops for bundles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from handmesh.errors import InputError
from handmesh_training.reference import reference_crops

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


def test_crops_are_reproducible_and_hold_both_kinds() -> None:
    crops = reference_crops(PHOTOS, 64, rendered=3, views=2, seed=5)
    assert crops.shape == (3 + 5 * 2, 64, 64, 3)
    assert crops.dtype == np.uint8
    np.testing.assert_array_equal(crops, reference_crops(PHOTOS, 64, rendered=3, views=2, seed=5))
    assert not np.array_equal(crops, reference_crops(PHOTOS, 64, rendered=3, views=2, seed=6))
    # Every photo's crop shows something: the middle is neither border nor one colour.
    assert (crops[:, 16:48, 16:48].std(axis=(1, 2, 3)) > 4).sum() >= 11


def test_missing_boxes_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"boxes\.json"):
        reference_crops(tmp_path, 64)
