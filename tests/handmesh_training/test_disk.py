"""Files whose room on the disk is taken before they are written to."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handmesh.errors import InputError
from handmesh_training.disk import free_space, new_array


def test_a_new_array_has_no_holes(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    array: Any = new_array(path, np.float32, (300, 1000))
    status = path.stat()
    if hasattr(os, "posix_fallocate"):
        assert status.st_blocks * 512 >= status.st_size > 1_200_000
    array[7] = 3
    array.flush()
    stored = np.load(path)
    assert (stored.dtype, stored.shape, stored.sum()) == (np.float32, (300, 1000), 3000)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no room can be taken here")
def test_a_full_disk_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    words = r"cannot write .*a\.npy, which takes 40 bytes \(No space left.*MB are free there: make"
    with pytest.raises(InputError, match=words):
        new_array(tmp_path / "a.npy", np.float32, (10,))
    assert not any(tmp_path.iterdir())

    def cannot(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", cannot)
    assert new_array(tmp_path / "a.npy", np.float32, (10,)).shape == (10,)


def test_free_space_of_a_disk_that_is_not_there(tmp_path: Path) -> None:
    assert "not known" in free_space(tmp_path / "nowhere" / "a.npy")
