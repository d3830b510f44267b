"""Folders, names and lists that the file system makes difficult."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handmesh import cli
from handmesh.cli_photos import SUFFIXES, UNREAD, Source, find_photos
from handmesh.cli_predict import _write
from handmesh.errors import InputError

posix = pytest.mark.skipif(os.name != "posix", reason="names of POSIX")


def _paths(arguments: list[str], **options: Any) -> list[str]:
    return [str(source) for source in find_photos(arguments, **options)]


def _stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


@posix
def test_a_name_that_is_too_long_is_left_to_the_reader() -> None:
    for name in ("a" * 300 + ".jpg", "*" + "a" * 300):
        if "*" in name:
            with pytest.raises(InputError, match="no file matches"):
                find_photos([name])
        else:
            assert _paths([name, "b.jpg"]) == [name, "b.jpg"]


def test_a_folder_that_may_not_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(InputError, match=r"cannot read the folder .*: Permission denied"):
        find_photos([str(tmp_path)])


def test_files_that_may_not_be_asked_for_are_left_to_the_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")

    def refuse(self: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    assert _paths([str(tmp_path)]) == [str(tmp_path / "a.jpg")]


@posix
def test_a_photo_whose_results_would_have_too_long_names_fails_alone(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(InputError, match="File name too long"):
        _write(pixels, [], tmp_path / ("a" * 250), None)  # type: ignore[arg-type]


def test_standard_input_that_cannot_be_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Folder(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise IsADirectoryError(21, "Is a directory")

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Folder()))
    with pytest.raises(InputError, match="cannot read standard input: Is a directory"):
        Source(None, Path("stdin")).photo()


def test_standard_input_that_is_closed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # as of `<&-`
    with pytest.raises(InputError, match="cannot read standard input: it is closed"):
        Source(None, Path("stdin")).photo()
    with pytest.raises(InputError, match="cannot read the list -: it is closed"):
        find_photos([], files_from="-")


@pytest.mark.parametrize("stdin", [False, True])
def test_lists_may_begin_with_a_mark_and_hold_all_but_line_feeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stdin: bool
) -> None:
    names = ["first.jpg", "a\u2028b.jpg", "c\x0cd\x85.jpg", "last.jpg"]
    data = "\r\n".join(names).encode("utf-8-sig")
    (listed := tmp_path / "list.txt").write_bytes(data)
    _stdin(monkeypatch, data)
    assert _paths([], files_from="-" if stdin else str(listed)) == names


@posix
def test_a_name_of_any_bytes_may_be_on_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    _stdin(monkeypatch, b"good.jpg\nv\xff.jpg\n")
    assert _paths([], files_from="-") == ["good.jpg", os.fsdecode(b"v\xff.jpg")]


def test_a_list_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (listed := tmp_path / "list.txt").write_bytes(b"\xff\xfea\0")
    with pytest.raises(InputError, match="not text in UTF-8"):
        find_photos([], files_from=str(listed))


def _touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_pictures_that_no_folder_is_read_for_are_told(tmp_path: Path) -> None:
    assert not SUFFIXES & UNREAD
    names = ("a.jpg", "b.HEIC", "c.heic", "d.gif", "deep/e.dng", ".f.heic", "g.txt", "h.pdf")
    folder = _touched(tmp_path, *names)
    for recursive, wanted in ((False, "bcd"), (True, "bcde")):
        left_out: set[Path] = set()
        find_photos([str(folder), str(folder)], None, recursive, left_out)
        assert sorted(path.stem for path in left_out) == [*wanted]
    named: set[Path] = set()  # one that is named is read, wherever it lies
    find_photos([str(folder), os.path.join(folder, "deep", "..", "d.gif")], left_out=named)
    assert sorted(path.stem for path in named) == ["b", "c"]


def test_an_address_is_told_as_it_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    url = "https://example.org/a.jpg"
    assert cli.main(["predict", url, "--json"]) == 2
    assert capsys.readouterr().err == (
        f"handmesh: cannot read {url}: addresses are not opened: download it first\n"
    )


def test_a_folder_of_other_pictures_says_which(tmp_path: Path) -> None:
    folder = _touched(tmp_path / "heics", "a.heic", "b.AVIF", "c.avif", "d.txt")
    with pytest.raises(InputError) as told:
        find_photos([str(folder)], recursive=True)
    assert str(told.value) == (
        f"no photo in the folder {folder} that can be read: 2 .avif, 1 .heic there; "
        "export them as JPEG"
    )
    with pytest.raises(InputError, match=r"as JPEG; --recursive looks into its sub-folders$"):
        find_photos([str(folder)])
    with pytest.raises(InputError, match=r"no photo in the folder \S*deep; --recursive looks"):
        find_photos([str(_touched(tmp_path / "deep", "notes.txt"))])


@pytest.mark.parametrize("command", ["predict", "sheet"])
def test_a_batch_says_once_what_it_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    folder = _touched(tmp_path / "album", "a.jpg", "b.heic", "c.gif", "d.avif", "e.txt")
    out = ["--out", str(tmp_path / "sheet.png")] if command == "sheet" else ["--json"]
    told = "handmesh: left out, not read: 1 .avif, 1 .gif, 1 .heic"
    for quiet in ([], ["--quiet"]):
        assert cli.main([command, str(folder), *out, *quiet]) == 2  # a.jpg is empty
        lines = capsys.readouterr().err.splitlines()
        assert lines.count(told) == (not quiet)
        assert any("a.jpg is empty" in line for line in lines)
