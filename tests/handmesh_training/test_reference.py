"""Reference crops for bundles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from handmesh.cli import main
from handmesh.errors import InputError
from handmesh_training import reference
from handmesh_training.reference import reference_crops

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


@pytest.mark.usefixtures("quick_surroundings")  # the command's test has the usual ones
def test_crops_are_reproducible_and_hold_both_kinds() -> None:
    crops, labels = reference_crops(PHOTOS, 64, rendered=3, views=2, seed=5)
    assert crops.shape == (3 + 5 * 2, 64, 64, 3)
    assert crops.dtype == np.uint8
    np.testing.assert_array_equal(
        crops, reference_crops(PHOTOS, 64, rendered=3, views=2, seed=5).images
    )
    assert not np.array_equal(
        crops, reference_crops(PHOTOS, 64, rendered=3, views=2, seed=6).images
    )
    # Rendered hands are labelled, photos are not; labels lie on the hand, about the crop's middle.
    known = np.isfinite(labels).all(axis=(1, 2))
    assert labels.shape == (13, 21, 3)
    assert 1 <= known[:3].sum() <= 3
    assert not known[3:].any()
    assert (np.abs(labels[known][..., :2].mean(axis=1) - 0.5) < 0.2).all()
    # Every photo's crop shows something: the middle is neither border nor one colour.
    assert (crops[:, 16:48, 16:48].std(axis=(1, 2, 3)) > 4).sum() >= 11


def test_missing_boxes_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"boxes\.json"):
        reference_crops(tmp_path, 64)


@pytest.mark.parametrize("name", ["crops.txt", "crops", "none/crops.npz"])
@pytest.mark.parametrize("whole", [[], ["--whole"]])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    whole: list[str],
) -> None:
    for function in ("reference_crops", "reference_pictures"):
        monkeypatch.setattr(reference, function, lambda *_: pytest.fail("work begun"))
    command = ["reference", "--photos", str(PHOTOS), "--out", str(tmp_path / name), *whole]
    assert main(command) == 2
    told = "there is no folder" if "/" in name else f"--out must end in .npz, not '{name}'"
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
