"""The check that runs on a device, here on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_shim import ShimBinding
from numpy.typing import NDArray

from handmesh_kernels import cache
from handmesh_kernels import check as checking
from handmesh_kernels.constants import HeadConstants, Storage
from handmesh_kernels.errors import NoDevice

Shim = Callable[[HeadConstants], ShimBinding]


def test_a_right_device_passes(shipped: HeadConstants, halved: HeadConstants, shim: Shim) -> None:
    found = list(checking.check(shipped, [1, 2], shim(shipped), b""))
    found += checking.check(halved, [1], shim(halved), b"", exact=shipped)
    assert [(c.storage, c.tensor_cores, c.batch) for c in found] == [
        ("fp32", False, 1), ("fp32", False, 2), ("fp16", True, 1), ("fp16", False, 1)
    ]  # fmt: skip
    assert all(each.passed for each in found)
    assert found[0].render().endswith("ok")


def test_a_wrong_one_does_not(shipped: HeadConstants, shim: Shim) -> None:
    binding = shim(shipped)
    binding.skip("decoder.cu", _line("    if (first + r < g.rows) store4") + 2)
    try:
        (found,) = checking.check(shipped, [1], binding, b"")
    finally:
        binding.skip()
    assert not found.passed
    assert "FAILED" in found.render()


def test_results_that_vary_fail() -> None:
    good = checking.Checked("fp32", False, 1, (0.0,) * 6, True)
    assert good.passed
    assert not replace(good, same_twice=False).passed
    assert not replace(good, errors=(float("nan"),) * 6).passed


@pytest.mark.parametrize("wrong", range(6))
@pytest.mark.parametrize("storage", ["fp32", "fp16"])
def test_one_array_that_is_off_fails(storage: Storage, wrong: int) -> None:
    allowed = checking.TOLERANCE[storage]
    errors = [0.9 * allowed] * 6
    assert checking.Checked(storage, False, 1, tuple(errors), True).passed
    errors[wrong] = 1.1 * allowed
    assert not checking.Checked(storage, False, 1, tuple(errors), True).passed


@pytest.mark.parametrize("batches", ["a", "", "1,,2", "0", "-1", "1.5"])
def test_batches_that_are_none_are_told(batches: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert checking.main(["none.npz", f"--batches={batches}"]) == 2
    assert f"numbers of samples, as 1,3,8; not {batches!r}" in capsys.readouterr().err


def test_the_command(
    arrays: dict[str, NDArray[Any]],
    shipped: HeadConstants,
    shim: Shim,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.savez(tmp_path / "head.npz", **arrays)  # type: ignore[arg-type]
    monkeypatch.setattr(checking, "open_binding", lambda name: shim(shipped))
    monkeypatch.setattr(cache, "kernel_code", lambda *_: b"")
    command = [str(tmp_path / "head.npz"), "--batches", "1"]
    assert checking.main(command) == 0
    assert "fp32 scalar" in capsys.readouterr().out

    def none(name: str | None) -> None:
        raise NoDevice("no GPU here")

    monkeypatch.setattr(checking, "open_binding", none)
    assert checking.main(command) == 2
    assert "no GPU here" in capsys.readouterr().err


def _line(text: str) -> int:
    from handmesh_kernels import sources

    lines = sources.text("decoder.cu").splitlines()
    (number,) = (i for i, line in enumerate(lines, start=1) if line.startswith(text))
    assert lines[number + 1].strip() == "__syncthreads();"
    return number
