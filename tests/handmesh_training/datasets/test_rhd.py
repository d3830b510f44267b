"""RHD: made here in the set's own layout."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_sets import RHD_LABELS as LABELS
from made_sets import make_rhd
from numpy.typing import NDArray

from handmesh import JOINT_NAMES
from handmesh.errors import ImageError, InputError
from handmesh_training.datasets import open_dataset
from handmesh_training.datasets.reading import read_pickle

Array = NDArray[np.float64]


@pytest.fixture
def rhd(tmp_path: Path, known_hand: Any, write_picture: Any) -> Path:
    return make_rhd(tmp_path, known_hand, write_picture)


def test_the_hand_of_which_more_is_seen(
    rhd: Path, known_hand: Callable[[bool, int], dict[str, Array]], assert_sound: Any
) -> None:
    data = open_dataset("rhd", rhd, "test")

    assert len(data) == 4
    for number, sample in enumerate(data):
        assert sample.is_right == (number % 2 == 0)
        truth = known_hand(sample.is_right, 10 * number + sample.is_right)
        np.testing.assert_allclose(sample.joints_m, [truth[name] for name in JOINT_NAMES])
        assert sample.joint_known.all(), "labels of hidden joints are labels"
        assert_sound(sample)
        assert (sample.image == 40 + number).all()


def test_depth_and_mask(rhd: Path) -> None:
    for sample in open_dataset("rhd", rhd, "test"):
        assert sample.depth_m is not None
        assert sample.mask is not None
        assert sample.joints_m is not None
        # Pixel centres at integers: no rounding of u - 0.5 but to the pixel.
        rows, columns = np.round(sample.joints_px[:, ::-1]).astype(int).T
        seen = sample.depth_m[rows, columns]
        hidden = abs(seen - sample.joints_m[:, 2]) > 1e-3  # by the other hand's joint
        assert hidden.sum() <= 2
        assert sample.mask[60, 60] == (0 if sample.is_right else 255)
        assert sample.mask[20, 20] == (0 if sample.is_right else 255)
        assert sample.mask[301, 301] == (255 if sample.is_right else 0)
        assert sample.mask[110, 120] == 0, "the rest of the person"


def test_pickles_of_every_protocol_and_of_old_numpy(rhd: Path) -> None:
    expected = open_dataset("rhd", rhd, "test")[1].joints_m
    labels = pickle.loads((rhd / LABELS).read_bytes())
    for protocol in range(6):
        data = pickle.dumps(labels, protocol)
        (rhd / LABELS).write_bytes(data)
        np.testing.assert_array_equal(open_dataset("rhd", rhd, "test")[1].joints_m, expected)
    text = pickle.dumps(labels, 0).replace(b"numpy._core", b"numpy.core")
    (rhd / LABELS).write_bytes(text)
    np.testing.assert_array_equal(open_dataset("rhd", rhd, "test")[1].joints_m, expected)


class Trap:
    """Pickles to a call."""

    def __init__(self, call: tuple[Any, ...]) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_come_out_of_pickles_as_they_went_in(rhd: Path, protocol: int) -> None:
    values = np.arange(24.0).reshape(2, 3, 4)
    arrays = [
        values,
        np.asfortranarray(values[0]),
        values.transpose(1, 0, 2),
        values[:, ::2],
        values.astype(">f4"),
        values.astype(np.uint8),
        values[0, 0] > 1,
        np.array(5),
        np.zeros((1, 3), dtype=np.complex64),
        np.float32(0.1),
    ]
    data = pickle.dumps(arrays, protocol)
    (rhd / LABELS).write_bytes(data)

    for read, wanted in zip(read_pickle(rhd / LABELS, "labels"), pickle.loads(data), strict=True):
        np.testing.assert_array_equal(read, wanted)
        assert (read.dtype, read.shape) == (wanted.dtype, wanted.shape)


# As RHD's own files were written: Python 2, raw bytes as text, the old name of NumPy's modules.
PYTHON_2 = (
    b"(dp0\nI7\n(dp1\nS'K'\ncnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\n"
    b"tR(I1\n(I1\nI2\ntcnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
    b"I00\nS'\\x00\\x00\\x80?\\x00\\x00 \\xc1'\ntbss."
)


def test_pickles_of_python_2(tmp_path: Path) -> None:
    (tmp_path / "labels").write_bytes(PYTHON_2)

    read = read_pickle(tmp_path / "labels", "labels")[7]["K"]

    np.testing.assert_array_equal(read, np.array([[1, -10]], dtype=np.float32))


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_pickles_that_call_anything_are_refused(rhd: Path, protocol: int) -> None:
    touched = rhd / "touched"
    for trap in (
        Trap((os.system, (f"touch {touched}",))),
        Trap((eval, (f"open({str(touched)!r}, 'w')",))),
        Trap((np.load, (str(rhd / "x.npy"),))),
    ):
        (rhd / LABELS).write_bytes(pickle.dumps({1: trap}, protocol))
        with pytest.raises(InputError, match="which is refused"):
            open_dataset("rhd", rhd, "test")[1]
    assert not touched.exists()


@pytest.mark.parametrize(
    "trap",
    [
        # An array of one object, over these bytes: reading it follows them as a pointer.
        Trap((np.ndarray, ((1,), "O", b"A" * 8))),
        Trap((np.ndarray, ((1 << 40,), "u1"))),
        np.array([None, "x"], dtype=object),
        np.zeros(2, dtype=[("a", "f8")]),
        np.array(["text"]),
        np.array(["2000-01-01"], dtype="M8[D]"),
        np.dtype("O"),
    ],
    ids=["ndarray", "large", "objects", "records", "text", "dates", "dtype"],
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_arrays_of_anything_but_numbers_are_refused(
    tmp_path: Path, trap: object, protocol: int
) -> None:
    (tmp_path / "labels").write_bytes(pickle.dumps({1: trap}, protocol))
    with pytest.raises(InputError, match="not a complete pickle"):
        read_pickle(tmp_path / "labels", "labels")


def test_arrays_whose_bytes_do_not_fit_are_refused(tmp_path: Path) -> None:
    for broken in (
        PYTHON_2.replace(b"(I1\nI2\nt", b"(I1\nI3\nt"),  # more values than bytes
        PYTHON_2.replace(b"(I1\nI2\nt", b"(I1\nI1\nt"),
        PYTHON_2.replace(b"S'f4'", b"S'O'"),
        PYTHON_2.replace(b"S'f4'", b"S'f8,O'"),
        re.sub(rb"S'\\.*'", b"I9", PYTHON_2),  # so many bytes, of whatever
    ):
        assert broken != PYTHON_2
        (tmp_path / "labels").write_bytes(broken)
        with pytest.raises(InputError, match="not a complete pickle"):
            read_pickle(tmp_path / "labels", "labels")


def test_damaged_sets_are_told(rhd: Path) -> None:
    with pytest.raises(InputError, match=r"anno_training\.pickle is missing"):
        open_dataset("rhd", rhd, "train")
    data = open_dataset("rhd", rhd, "test")
    whole = (rhd / LABELS).read_bytes()
    for broken in (whole[: len(whole) // 2], b"", pickle.dumps([1])):
        (rhd / LABELS).write_bytes(broken)
        with pytest.raises(InputError, match="anno_evaluation"):
            data[0]
    labels = pickle.loads(whole)
    del labels[0]
    labels[1] = {"xyz": np.zeros((42, 3))}
    labels[2] = labels[2] | {"K": np.eye(4)}
    (rhd / LABELS).write_bytes(pickle.dumps(labels))
    for index, message in enumerate(["picture 00000", "uv_vis", r"K of shape \(3, 3\)"]):
        with pytest.raises(InputError, match=message):
            data[index]
    mask = rhd / "evaluation/mask/00003.png"
    mask.write_bytes(mask.read_bytes()[:100])
    with pytest.raises(ImageError, match="mask"):
        data[3]


def test_a_folder_without_pictures_is_told(rhd: Path) -> None:
    (rhd / "evaluation/color").rename(rhd / "elsewhere")
    with pytest.raises(InputError, match="holds no picture"):
        open_dataset("rhd", rhd, "test")
