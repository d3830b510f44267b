"""The example programs, run as they stand."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from handmesh.sheet import CAPTION_PX, GAP

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"


def _run(name: str, *arguments: object, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_predict_photo_says_where_the_finger_is(tmp_path: Path) -> None:
    said = _run("predict_photo.py", folder=tmp_path)
    assert "index finger tip at pixel" in said
    assert (tmp_path / "pointing_1.glb").read_bytes()[:4] == b"glTF"


def test_contact_sheet_shows_each_photo(tmp_path: Path, example_photos: dict[str, Path]) -> None:
    photos = (example_photos["open"], example_photos["pointing"])
    _run("contact_sheet.py", *photos, "--out", "sheet.png", "--side", 100, folder=tmp_path)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape == (100 + CAPTION_PX + 2 * GAP, 4 * (100 + GAP) + GAP, 3)
    for i in range(4):  # a photo and the hand's other side, twice
        tile = sheet[GAP : GAP + 100, GAP + i * (100 + GAP) :][:, :100]
        assert tile[20:80, 20:80].std() > 10, i


def test_a_contact_sheet_that_cannot_be_written_is_told(
    tmp_path: Path, example_photos: dict[str, Path]
) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "contact_sheet.py", example_photos["open"],
         "--out", tmp_path / "none" / "sheet.png"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert "is its folder there" in done.stderr


def test_batch_folder_goes_on_where_it_stopped(
    tmp_path: Path, example_photos: dict[str, Path]
) -> None:
    (photos := tmp_path / "photos" / "deep").mkdir(parents=True)
    shutil.copy(example_photos["pointing"], photos / "one.jpg")
    (photos / "two.jpg").write_bytes(b"no photo")
    out = tmp_path / "hands.jsonl"
    assert _run("batch_folder.py", "photos", out, folder=tmp_path) == "2 photos, 0 done already\n"
    whole = out.read_text()
    first, second = map(json.loads, whole.splitlines())
    assert first["photo"] == os.path.join("deep", "one.jpg")
    assert len(first["hands"]) == 1
    assert "no image" in second["error"] or "not" in second["error"]
    # Stopped in the middle of the second line.
    for stored in (whole, whole.replace("\n", "\r\n")):  # the latter as Windows has it
        out.write_bytes(stored[:-10].encode())
        said = _run("batch_folder.py", "photos", out, folder=tmp_path)
        assert said == "2 photos, 1 done already\n"
        assert out.read_text() == whole


def test_batch_folder_says_how_many_failed_at_any_time(
    tmp_path: Path, example_photos: dict[str, Path]
) -> None:
    (photos := tmp_path / "photos").mkdir()
    shutil.copy(example_photos["pointing"], photos / "good.jpg")
    said = []
    for bad in (None, "a.jpg", "b.jpg", None):
        if bad is not None:
            (photos / bad).write_bytes(b"no photo")
        done = subprocess.run(
            [sys.executable, EXAMPLES / "batch_folder.py", "photos", "hands.jsonl"],
            cwd=tmp_path, capture_output=True, text=True, check=True,
        )  # fmt: skip
        said.append([line for line in done.stderr.splitlines() if "failed" in line])
    told = '{} failed: their lines in hands.jsonl have an "error"'
    assert said == [[], [told.format(1)], [told.format(2)], [told.format(2)]]


def test_every_example_is_on_the_page() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [p.name for p in EXAMPLES.glob("*.py") if f"(examples/{p.name})" not in page] == []


def test_webcam_follows_a_video(
    tmp_path: Path,
    example_photos: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In a window that only remembers what it was shown, as a headless OpenCV has none."""
    photo = cv2.imread(str(example_photos["pointing"]))
    frame = cv2.resize(photo, (320, round(320 * photo.shape[0] / photo.shape[1]) // 2 * 2))
    clip = tmp_path / "clip.avi"
    size = (frame.shape[1], frame.shape[0])
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 10, size)
    for _ in range(3):
        writer.write(frame)
    writer.release()
    shown: list[np.ndarray] = []

    def show(title: str, picture: Any) -> None:
        shown.append(np.array(picture))

    monkeypatch.setattr(cv2, "imshow", show)
    monkeypatch.setattr(cv2, "waitKey", lambda _: ord("q") if len(shown) == 2 else -1)
    monkeypatch.setattr(sys, "argv", ["webcam.py", str(clip)])
    runpy.run_path(str(EXAMPLES / "webcam.py"), run_name="__main__")
    assert len(shown) == 2, "q ends it"
    assert shown[0].shape == frame.shape
    assert capsys.readouterr().out.count("hand 1 (") == 2
    # BGR, as windows take it: the picture is the frame but for what is drawn.
    assert np.median(np.abs(shown[0].astype(int) - frame)) < 8


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("predict_photo.py", ["none.jpg"], "cannot read the image file none.jpg"),
        ("batch_folder.py", [], "usage: "),
        ("batch_folder.py", ["none", "hands.jsonl"], "usage: "),
        ("batch_folder.py", [".", "no/r.jsonl"], f"cannot read or write {Path('no/r.jsonl')}: No"),
        ("contact_sheet.py", ["none"], "cannot read the image file none: No such"),
        ("contact_sheet.py", [Path(__file__)], f"{__file__} is not a complete image"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    tmp_path: Path, name: str, arguments: list[str | Path], message: str
) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_every_example_is_run_here() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    assert [p.name for p in EXAMPLES.glob("*.py") if f'"{p.name}"' not in tests] == []
