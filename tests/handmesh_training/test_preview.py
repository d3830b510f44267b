"""Contact sheets: every view of every sample where it belongs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from handmesh.cli import main
from handmesh.draw import FINGER_COLORS
from handmesh.errors import InputError
from handmesh_training.datasets.sample import Sample
from handmesh_training.preview import GAP, GUTTER, PAPER, contact_sheet
from handmesh_training.rendered import HandRenderer, RenderSettings

pytestmark = pytest.mark.usefixtures("quick_surroundings")


@pytest.fixture
def samples() -> list[Sample]:
    renderer = HandRenderer(RenderSettings(crop_px=96, margin=1.5, empty=0.0), seed=2)
    return [record.to_sample() for record in renderer.records(range(5))]


def tile(sheet: np.ndarray, sample: int, view: int, views: int, columns: int) -> np.ndarray:
    top = GUTTER + sample // columns * (96 + GUTTER)
    left = GUTTER + sample % columns * (views * (96 + GAP) - GAP + GUTTER) + view * (96 + GAP)
    return sheet[top : top + 96, left : left + 96].astype(int)


def test_each_view_shows_its_label(samples: list[Sample]) -> None:
    sheet = contact_sheet(samples, tile=96, columns=2)

    assert sheet.shape == (3 * (96 + GUTTER) + GUTTER, 2 * (5 * 97 - 1 + GUTTER) + GUTTER, 3)
    told = 0
    for i, sample in enumerate(samples):
        picture, skeleton, mesh, depth, mask = (tile(sheet, i, k, 5, 2) for k in range(5))
        assert sample.mask is not None
        assert sample.depth_m is not None
        np.testing.assert_array_equal(picture, sample.image)
        np.testing.assert_array_equal(mask[..., 0], sample.mask)
        np.testing.assert_array_equal(depth.any(axis=-1), sample.depth_m > 0)
        # The finger tips, where the labels say, in their fingers' colours.
        tips = sample.joints_px[[4, 8, 12, 16, 20]].round().astype(int)
        colours = np.array(list(FINGER_COLORS.values()))
        for view, sign in ((skeleton, 1), (picture, -1)):
            at = np.abs(view[tips[:, 1], tips[:, 0]] - colours).max(axis=-1)
            told += sign * int((at < 60).sum())
        # The mesh is drawn over most of the hand (it ends at the wrist).
        drawn = np.abs(mesh - picture).max(axis=-1) > 12
        assert drawn[sample.depth_m > 0].mean() > 0.5
    assert told > 10, "of 25 tips; some are hidden by nearer bones"
    # The sixth place is empty.
    assert (tile(sheet, 5, 0, 5, 2) == PAPER).all()


def test_a_mesh_that_covers_the_hand_is_seen_there(samples: list[Sample]) -> None:
    """Moved labels show: that is what the sheet is for."""
    assert samples[0].vertices_m is not None
    moved = replace(samples[0], vertices_m=samples[0].vertices_m + np.float32([0.2, 0, 0]))
    views = ("picture", "mesh")
    right, wrong = (contact_sheet([s], views, tile=96) for s in (samples[0], moved))
    assert np.abs(tile(right, 0, 1, 2, 1) - tile(wrong, 0, 1, 2, 1)).mean() > 5


def test_samples_without_labels_leave_views_dark(samples: list[Sample]) -> None:
    bare = Sample(
        key="x",
        image=np.full((40, 80, 3), 200, dtype=np.uint8),
        is_right=None,
        joints_px=np.full((21, 2), np.nan),
        joint_known=np.zeros(21, dtype=bool),
    )
    sheet = contact_sheet([bare], tile=96)
    picture = tile(sheet, 0, 0, 5, 1)
    assert (picture[24:72] == 200).all(), "a wide picture keeps its shape"
    assert (picture[:20] == 0).all()
    for view in range(1, 5):
        assert (tile(sheet, 0, view, 5, 1) == PAPER).all()
    # A mesh that is not ours cannot be shown; the joints can.
    other = replace(samples[0], vertices_m=np.zeros((778, 3), dtype=np.float32), our_mesh=False)
    sheet = contact_sheet([other], ("skeleton", "mesh"), tile=96)
    assert (tile(sheet, 0, 1, 2, 1) == PAPER).all()
    assert (tile(sheet, 0, 0, 2, 1) != samples[0].image).any()


@pytest.mark.parametrize("views", [(), ("picture", "x-ray")])
def test_unknown_views_are_refused(samples: list[Sample], views: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="views are picture, skeleton, mesh, depth, mask"):
        contact_sheet(samples, views)
    with pytest.raises(InputError, match="at least one sample"):
        contact_sheet([])


def test_the_command_writes_a_sheet(tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    common = ["render", "--preview", str(out), "--size", "32", "--threads", "1"]
    assert main([*common, "--count", "3", "--views", "picture,mask"]) == 0
    sheet = cv2.imread(str(out))
    assert sheet is not None
    assert sheet.shape == (128 + 2 * GUTTER, 3 * (2 * 128 + GAP + GUTTER) + GUTTER, 3)
    assert main([*common, "--count", "0"]) == 2
    assert main([*common, "--count", "1", "--views", "sound"]) == 2
