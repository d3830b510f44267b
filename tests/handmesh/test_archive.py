"""Arrays in files: reproducible bytes, whole files only, errors that say what to do."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from handmesh.archive import hash_arrays, read_arrays, write_arrays
from handmesh.errors import BundleError

ARRAYS = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.array(["x", "yz"]),
    "c": np.array(3.5),
}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_arrays(tmp_path / "some.npz", ARRAYS)

    found = read_arrays(tmp_path / "some.npz", "restore it")

    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    with np.load(tmp_path / "some.npz") as plain:  # an ordinary file for everybody else
        np.testing.assert_array_equal(plain["b"], ARRAYS["b"])


def test_bytes_depend_on_the_arrays_alone(tmp_path: Path) -> None:
    write_arrays(tmp_path / "one.npz", ARRAYS)
    write_arrays(tmp_path / "two.npz", dict(reversed(ARRAYS.items())))

    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "some.npz"
    write_arrays(path, ARRAYS)

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np.lib.format, "write_array", fail)
        with pytest.raises(KeyboardInterrupt):
            write_arrays(path, {"b": np.zeros(3)})
    np.testing.assert_array_equal(read_arrays(path, "")["b"], ARRAYS["b"])


def test_the_hash_is_of_label_names_types_shapes_and_bytes() -> None:
    array = np.array([[1, 2]], dtype="<i4")
    by_hand = hashlib.sha256(b"label" + b"n<i4(1, 2)" + b"\x01\0\0\0\x02\0\0\0").hexdigest()

    assert hash_arrays("label", {"n": array}) == by_hand
    others = [
        hash_arrays("other", {"n": array}),
        hash_arrays("label", {"m": array}),
        hash_arrays("label", {"n": array.astype("<u4")}),
        hash_arrays("label", {"n": array.T}),
        hash_arrays("label", {"n": array + 1}),
    ]
    assert len({by_hand, *others}) == 6
    assert hash_arrays("", ARRAYS) == hash_arrays("", dict(reversed(ARRAYS.items())))
    fortran = {"b": np.asfortranarray(ARRAYS["b"])}
    assert hash_arrays("", fortran) == hash_arrays("", {"b": ARRAYS["b"]})


def test_errors_name_the_file_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"there is no file .*none\.npz; build it") as caught:
        read_arrays(tmp_path / "none.npz", "build it")
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    (tmp_path / "bad.npz").write_bytes(os.urandom(100))
    with pytest.raises(BundleError, match=r"bad\.npz is not a readable .* build it"):
        read_arrays(tmp_path / "bad.npz", "build it")
