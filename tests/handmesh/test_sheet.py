"""Contact sheets: where pictures and captions lie, and the command `handmesh sheet`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import handmesh.cli as cli
from handmesh.errors import InputError
from handmesh.sheet import CAPTION_PX, GAP, PAPER, Tile, contact_sheet

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
RED, BLUE = (255, 0, 0), (0, 0, 255)


def plain(width: int, height: int, colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def test_pictures_keep_their_shape_and_lie_in_rows() -> None:
    tiles = [Tile(plain(200, 100, RED), "wide"), Tile(plain(50, 100, BLUE), "")] * 2

    sheet = contact_sheet(tiles[:3], tile_px=100, columns=2)

    assert sheet.shape == (2 * (100 + CAPTION_PX + GAP) + GAP, 2 * (100 + GAP) + GAP, 3)
    red = (sheet == RED).all(axis=-1)
    blue = (sheet == BLUE).all(axis=-1)
    assert red.sum() == 2 * 100 * 50, "reduced to the tile's width, in the first and third tile"
    assert blue.sum() == 50 * 100
    rows, columns = np.nonzero(blue)
    assert (rows.min(), rows.max()) == (GAP, GAP + 99)
    assert (columns.min(), columns.max()) == (GAP + 100 + GAP + 25, GAP + 100 + GAP + 74)
    captions = sheet[GAP + 100 : GAP + 100 + CAPTION_PX]
    assert (captions[:, : GAP + 100] != PAPER).any(), "wide"
    assert (captions[:, GAP + 100 :] == PAPER).all(), "no caption"


@pytest.mark.parametrize(
    ("tiles", "tile_px", "columns", "message"),
    [
        ([], 240, 5, "at least one"),
        ([Tile(plain(8, 8, RED), "")], 16, 5, "32 to 2048"),
        ([Tile(plain(8, 8, RED), "")], 240, 0, "at least 1 column"),
        ([Tile(plain(8, 8, RED), "")] * 100, 2000, 1, "fewer photos"),
    ],
)
def test_what_makes_no_sheet(tiles: list[Tile], tile_px: int, columns: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        contact_sheet(tiles, tile_px, columns)


def test_the_command_draws_what_is_found_and_shows_what_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), plain(64, 48, (90, 90, 90)))
    (tmp_path / "text.jpg").write_text("not a photo")
    out = tmp_path / "made.png"
    photos = [PHOTOS / "open.jpg", tmp_path / "grey.png", tmp_path / "text.jpg"]

    code = cli.main(["sheet", *map(str, photos), "--out", str(out), "--tile", "160"])

    captured = capsys.readouterr()
    assert code == 2, "as of predict: one photo could not be read"
    assert "text.jpg" in captured.err
    assert "2 photos, 1 with hands" in captured.out
    sheet = cv2.imread(str(out))[..., ::-1]
    assert sheet.shape[:2] == (160 + CAPTION_PX + 2 * GAP, 2 * (160 + GAP) + GAP)
    photo = cv2.resize(cv2.imread(str(photos[0]))[..., ::-1], (160, 120))
    shown = sheet[GAP + 20 : GAP + 140, GAP : GAP + 160]
    assert np.abs(shown.astype(int) - photo).mean() > 10, "a hand is drawn over it"
    grey = sheet[GAP + 20 : GAP + 140, 2 * GAP + 160 : 2 * GAP + 320]
    assert (grey == 90).all(), "enlarged, with nothing drawn over it"


def test_a_folder_is_no_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sheet", str(PHOTOS), "--out", str(tmp_path)]) == 2
    assert "it is a folder; name a file" in capsys.readouterr().err


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handmesh.cli_sheet.load_network", lambda args: pytest.fail("work begun"))


@pytest.mark.parametrize("name", ["sheet.gif", "missing/sheet.png", "folder.png"])
@pytest.mark.usefixtures("no_work")
def test_a_sheet_that_cannot_be_written_is_refused_before_the_work(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "folder.png").mkdir()

    assert cli.main(["sheet", str(PHOTOS), "--out", str(tmp_path / name)]) == 2


@pytest.mark.usefixtures("no_work")
def test_too_few_hands_are_refused_once_and_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "sheet.png")

    assert cli.main(["sheet", str(PHOTOS), "--out", out, "--max-hands", "0"]) == 2
    assert capsys.readouterr().err.count("max_hands must be at least 1") == 1


@pytest.mark.parametrize("means", ["a.png", ".", "*.png"])
@pytest.mark.usefixtures("no_work")
def test_a_sheet_replaces_no_photo(
    means: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "a.png"
    cv2.imwrite(str(photo), plain(64, 48, RED))
    before = photo.read_bytes()
    (tmp_path / "deeper").mkdir()
    out = tmp_path / "deeper" / ".." / "a.png"

    code = cli.main(["sheet", str(tmp_path / means), str(tmp_path / "gone.png"), "--out", str(out)])

    assert code == 2
    assert "one of the photos" in capsys.readouterr().err
    assert photo.read_bytes() == before
