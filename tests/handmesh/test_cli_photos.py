"""Folders, names and lists that the file system makes difficult."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handmesh.cli_photos import Source, find_photos
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
