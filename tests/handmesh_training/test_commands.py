"""Modules of this package that are commands end as `handmesh` does: one line and a code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import handmesh_training
from handmesh.installing import pip_install

PACKAGE = Path(handmesh_training.__file__).parent
COMMANDS = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if '__name__ == "__main__"' in path.read_text("utf-8")
)
# Runs one as `python -m` does, as if a package was not installed.
PROGRAM = """
import runpy, sys
sys.modules[sys.argv[2]] = None
sys.argv = [sys.argv[1], *sys.argv[3:]]
runpy.run_module(f"handmesh_training.{sys.argv[0]}", run_name="__main__")
"""


def _run(name: str, without: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", PROGRAM, name, without, *arguments]
    return subprocess.run(program, capture_output=True, text=True, check=False)


def _missing(package: str) -> str:
    return (
        f"handmesh: the package '{package}' is not installed; it comes with the extra 'training': "
        f"{pip_install('training')}\n"
    )


def test_every_command_is_one() -> None:
    assert COMMANDS == [
        "blend", "depth_report", "finger_ends", "gestures.build", "outline_fit",
        "quality_report", "revive", "template.build", "template.rig",
    ]  # fmt: skip


@pytest.mark.parametrize("name", sorted({*COMMANDS} - {"finger_ends"}))  # which needs no torch
def test_without_torch_one_line_names_the_extra(name: str) -> None:
    done = _run(name, "torch", "--check")
    assert (done.returncode, done.stderr) == (3, _missing("torch"))


def test_a_check_that_passes_is_told() -> None:
    done = _run("template.rig", "anny", "--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "rig.npz: same\n", "")


def test_without_the_body_the_template_is_not_built() -> None:
    done = _run("template.build", "anny", "--check")
    assert (done.returncode, done.stderr) == (3, _missing("anny"))
