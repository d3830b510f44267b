"""Weight files and the executor, on small things made by hand."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from handmesh.errors import ExportError
from handmesh_converters.mil import Executor, Operation, Program, TensorType, read_package
from handmesh_converters.mil.blobs import BlobFile
from handmesh_converters.mil.compression import palette

NUMBER = np.dtype("float16")


def _blob_file(path: Path, kind: int = 1, mark: int = 0xDEADBEEF, version: int = 2) -> Path:
    """One blob: 1, 2, 3 in float16, its record at 64."""
    record = struct.pack("<IIQQ", mark, kind, 6, 128).ljust(64, b"\0")
    header = struct.pack("<II", 1, version).ljust(64, b"\0")
    path.write_bytes(header + record + np.array([1, 2, 3], "<f2").tobytes())
    return path


def test_a_blob_is_read(tmp_path: Path) -> None:
    assert BlobFile(_blob_file(tmp_path / "w")).read(64, NUMBER).tolist() == [1, 2, 3]


def test_broken_weight_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="version 2"):
        BlobFile(_blob_file(tmp_path / "version", version=1))
    with pytest.raises(ExportError, match="no whole blob"):
        BlobFile(_blob_file(tmp_path / "mark", mark=1)).read(64, NUMBER)
    with pytest.raises(ExportError, match="float32"):
        BlobFile(_blob_file(tmp_path / "kind", kind=2)).read(64, NUMBER)
    with pytest.raises(ExportError, match="ends before"):
        BlobFile(_blob_file(tmp_path / "end")).read(1000, NUMBER)
    cut = _blob_file(tmp_path / "cut")
    cut.write_bytes(cut.read_bytes()[:-1])
    with pytest.raises(ExportError, match="no whole blob"):
        BlobFile(cut).read(64, NUMBER)


def _program(kind: str, dtype: str = "FLOAT32", shape: tuple[int, ...] = (2,)) -> Program:
    """y = kind(x, c), c a constant of 1 / 3."""
    third = TensorType("FLOAT32", ())
    none: frozenset[str] = frozenset()
    return Program(
        {"x": TensorType("FLOAT32", (2,))},
        [
            Operation("const", {}, {"val": torch.tensor(1 / 3)}, none, {"c": third}),
            Operation(kind, {"x": ["x"], "y": ["c"]}, {}, none, {"y": TensorType(dtype, shape)}),
        ],
        ["y"],
        None,
    )


def test_unknown_operations_are_named() -> None:
    with pytest.raises(ExportError, match="einsum"):
        Executor(_program("einsum"))


@pytest.mark.parametrize(("dtype", "rounding"), [("FLOAT16", True), ("FLOAT16", False)])
def test_results_are_rounded_as_the_program_says(dtype: str, rounding: bool) -> None:
    x = torch.tensor([1.0, 1e6])
    found = Executor(_program("mul", dtype), rounding).run(x=x)["y"]
    exact = x / 3
    torch.testing.assert_close(found, exact.half().float() if rounding else exact)
    assert bool(found[1].isinf()) == rounding
    torch.testing.assert_close(Executor(_program("mul")).run(x=x)["y"], exact)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ExportError, match=r"mul \(y\) gives shape \(2,\).*\(3,\)"):
        Executor(_program("mul", shape=(3,))).run(x=torch.zeros(2))
    with pytest.raises(ExportError, match=r"input 'x' must have shape \(2,\), not \(1,\)"):
        Executor(_program("mul")).run(x=torch.zeros(1))
    with pytest.raises(ExportError, match=r"softmax \(y\) failed: TypeError"):
        Executor(_program("softmax")).run(x=torch.zeros(2))


def _largest(outputs: dict[str, TensorType]) -> Program:
    none: frozenset[str] = frozenset()
    given = {"k": torch.tensor(2), "axis": torch.tensor(0)}
    return Program(
        {"x": TensorType("FLOAT32", (3,))},
        [Operation("topk", {"x": ["x"]}, given, none, outputs)],
        list(outputs),
        None,
    )


def test_an_operation_may_give_several_values() -> None:
    half, places = TensorType("FLOAT16", (2,)), TensorType("INT32", (2,))
    x = torch.tensor([1 / 3, 2.0, 0.1])
    found = Executor(_largest({"v": half, "i": places})).run(x=x)
    assert found["i"].tolist() == [1, 0]
    assert found["v"].tolist() == [2.0, float(np.float16(1 / 3))]
    with pytest.raises(ExportError, match=r"topk \(v\) gives 2 values, and the program says 1"):
        Executor(_largest({"v": half})).run(x=x)


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("coremltools", reason="its protos describe the packages")
    with pytest.raises(ExportError, match="not a Core ML package"):
        read_package(tmp_path / "nothing")
    (tmp_path / "Manifest.json").write_text(
        '{"rootModelIdentifier": "a", "itemInfoEntries": {"a": {"path": "m"}}}'
    )
    with pytest.raises(ExportError, match="which is missing"):
        read_package(tmp_path)
    (tmp_path / "Data").mkdir()
    (tmp_path / "Data" / "m").write_bytes(b"\xff\xff\xff")
    with pytest.raises(ExportError, match="not a Core ML model"):
        read_package(tmp_path)
    (tmp_path / "Data" / "m").write_bytes(b"")
    with pytest.raises(ExportError, match="no ML program"):
        read_package(tmp_path)


def test_a_palette_is_close() -> None:
    weight = np.random.default_rng(0).normal(size=(64, 300)).astype(np.float16)
    table, places = palette(weight)
    assert (table.dtype, table.shape, places.dtype) == (weight.dtype, (256,), np.uint8)
    off = np.abs(table[places].astype(np.float64) - weight)
    nearest = np.abs(weight[:4, :20, None].astype(np.float64) - table).min(axis=2)
    np.testing.assert_array_equal(off[:4, :20], nearest)
    assert np.sqrt((off**2).mean()) < 0.01  # an even grid over the same range: 0.01 and more


def test_few_values_are_a_palette_without_loss() -> None:
    weight = np.repeat(np.array([-2.0, 0.0, 0.5], np.float16), 50).reshape(3, 50)
    table, places = palette(weight)
    np.testing.assert_array_equal(table[places], weight)
