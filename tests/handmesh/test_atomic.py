"""Files are replaced whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from handmesh.atomic import replacing, write_atomic
from handmesh.errors import InputError


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    assert write_atomic(path, b"old") == path
    assert write_atomic(str(path), b"new") == path
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_half_way_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    write_atomic(path, b"old")

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="No space left"):
        write_atomic(path, b"a longer new text")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_block_leaves_the_old_file(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "checkpoint.pt"
    write_atomic(path, b"old")

    def half() -> None:
        with replacing(path) as temporary:
            assert temporary.parent == path.parent  # or the renaming could cross file systems
            temporary.write_bytes(b"half of the n")
            raise error

    with pytest.raises(error):
        half()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier

    path, together = tmp_path / "cache.bin", Barrier(4)

    def write(letter: bytes) -> None:
        with replacing(path) as temporary, temporary.open("wb") as file:
            together.wait()
            file.write(letter * 1000)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, (b"a", b"b", b"c", b"d")))
    assert len(set(path.read_bytes())) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_bytes_reach_the_disk_before_the_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, done = tmp_path / "checkpoint.pt", []
    flush, rename = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        done.append("folder" if folder else f"{os.fstat(descriptor).st_size} bytes")
        flush(descriptor)

    def replace(source: Path, target: Path) -> None:
        done.append("name")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    with replacing(path) as temporary:
        temporary.write_bytes(b"12345")
    write_atomic(path, b"123")
    assert done == ["5 bytes", "name", "folder", "3 bytes", "name", "folder"]


def test_what_cannot_be_brought_to_the_disk_takes_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    write_atomic(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_flushed_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(22, "Invalid argument")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    assert write_atomic(tmp_path / "result.json", b"new").read_bytes() == b"new"


posix = pytest.mark.skipif(os.name != "posix", reason="permissions, links and limits of POSIX")


@posix
@pytest.mark.parametrize("letter", ["a", "ä"])
def test_every_legal_name_can_be_written(tmp_path: Path, letter: str) -> None:
    path = tmp_path / (letter * (250 // len(letter.encode())) + ".json")
    with replacing(path, ".npz") as temporary:
        assert len(os.fsencode(temporary.name)) < 143
        temporary.write_bytes(b"old")
    assert write_atomic(path, b"new").read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_asked_for_only_where_it_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does its folder exist"):
        write_atomic(tmp_path / "none" / "result.json", b"")
    with pytest.raises(InputError, match="cannot write") as told:
        write_atomic(tmp_path / ("a" * 300), b"")
    if os.name == "posix":
        assert "does its folder exist" not in str(told.value)


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_a_file_keeps_its_permissions(tmp_path: Path, mode: int) -> None:
    path = write_atomic(tmp_path / "private.json", b"old")
    path.chmod(mode)
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == mode


@posix
def test_a_link_is_followed(tmp_path: Path) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    target = write_atomic(elsewhere / "result.json", b"old")
    (link := tmp_path / "link.json").symlink_to(target)
    write_atomic(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert list(elsewhere.iterdir()) == [target]
