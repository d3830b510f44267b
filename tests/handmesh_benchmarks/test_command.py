"""Commands of this package end as `handmesh` does: one line that says what to do, and a code."""

from __future__ import annotations

import importlib
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from handmesh.errors import BackendUnavailable, InputError
from handmesh.installing import pip_install
from handmesh_benchmarks import command

PACKAGE = Path(command.__file__).parent
# Every module with the guard that `command` describes.
COMMANDS = sorted(
    path.stem for path in PACKAGE.glob("*.py") if "\n    run(__spec__" in path.read_text("utf-8")
)
# What imports torch, which takes seconds, and the extra that it comes with. Without torch each of
# these is run in a process of its own; otherwise in that of the tests.
IMPORTING = {
    "documentation": "bench",
    "kernels": "bench",
    "landmark_accuracy": "training",
    "rendering": "training",
    "tracking": "training",
}
# Runs one as `python -m` does, as if some packages were not installed.
PROGRAM = """
import runpy, sys
for name in sys.argv[2].split(","):
    sys.modules[name] = None
sys.argv = [sys.argv[1], *sys.argv[3:]]
runpy.run_module(f"handmesh_benchmarks.{sys.argv[0]}", run_name="__main__")
"""


def _run(
    folder: Path, name: str, *arguments: str, without: str = "none"
) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", PROGRAM, name, without, *arguments]
    return subprocess.run(program, cwd=folder, capture_output=True, text=True, check=False)


def test_every_command_is_one() -> None:
    assert COMMANDS == [
        "documentation", "kernels", "landmark_accuracy", "landmark_peer", "memory",
        "network_peers", "peers", "rendering", "tracking",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("documentation", [], "expected a checkout of handmesh, and /"),
        ("landmark_accuracy", ["--data", "nowhere"], "there is no folder nowhere: give a data"),
        ("landmark_peer", ["--bundle", "nowhere"], "no bundle at 'nowhere'"),
        ("memory", ["--backends", "onnx"], "examples/photos must hold photos and a boxes.json"),
        ("network_peers", [], "examples/photos holds no picture"),
        ("peers", [], "examples/photos holds no picture"),
        ("rendering", ["--devices", "cpu", "--skins", "nowhere"], "nowhere/crop.json: expected"),
        ("tracking", ["--skins", "nowhere"], "nowhere/crop.json: expected"),
    ],
)
def test_outside_a_checkout_one_line_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    name: str, arguments: list[str], said: str,
) -> None:  # fmt: skip
    if name in IMPORTING:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(f"handmesh_benchmarks.{name}", run_name="__main__")
        code, errors = ended.value.code, capfd.readouterr().err
    else:
        done = _run(tmp_path, name, *arguments)
        code, errors = done.returncode, done.stderr

    assert code == 2, errors
    assert errors.startswith(f"handmesh: {said}")
    assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "extra"), IMPORTING.items())
def test_without_a_package_one_line_names_the_extra(tmp_path: Path, name: str, extra: str) -> None:
    done = _run(tmp_path, name, without="torch")

    assert done.returncode == 3, done.stderr
    assert done.stderr == (
        f"handmesh: the package 'torch' is not installed; it comes with the extra '{extra}': "
        f"{pip_install(extra)}\n"
    )


def test_every_command_says_what_it_does_and_how_it_is_called(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in COMMANDS:
        module = importlib.import_module(f"handmesh_benchmarks.{name}")
        with pytest.raises(SystemExit) as ended:
            module.main(["--help"])
        shown = " ".join(capsys.readouterr().out.split())
        assert ended.value.code == 0
        assert shown.startswith(f"usage: python -m handmesh_benchmarks.{name} [-h]")
        first = " ".join(str(module.__doc__).split("\n\n")[0].split()).rstrip(":")
        assert f"] {first} options: -h" in shown


@pytest.mark.parametrize("name", ["kernels", "landmark_peer", "memory", "network_peers", "peers"])
def test_a_place_that_cannot_be_written_is_told_before_anything_is_measured(name: str) -> None:
    module = importlib.import_module(f"handmesh_benchmarks.{name}")
    with pytest.raises(InputError, match=r"--out /nowhere/at/all\.json cannot be written: No such"):
        module.main(["--out", "/nowhere/at/all.json"])


@pytest.mark.parametrize(
    ("ends", "code", "said"),
    [
        (lambda: 1, 1, ""),
        (InputError("two\nlines"), 2, "handmesh: two lines\n"),
        (BackendUnavailable("no GPU"), 3, "handmesh: no GPU\n"),
        (KeyboardInterrupt(), 130, "handmesh: interrupted\n"),
    ],
)
def test_codes_are_those_of_handmesh(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    ends: Any, code: int, said: str,
) -> None:  # fmt: skip
    _stand_in(monkeypatch, ends)

    with pytest.raises(SystemExit) as ended:
        command.run(SimpleNamespace(name="handmesh_benchmarks.stand_in"))  # type: ignore[arg-type]

    assert ended.value.code == code
    assert capsys.readouterr().err == said


def test_a_mistake_of_ours_is_not_taken_for_a_missing_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _stand_in(monkeypatch, ModuleNotFoundError("no", name="handmesh_benchmarks.gone"))

    with pytest.raises(ModuleNotFoundError):
        command.run(SimpleNamespace(name="handmesh_benchmarks.stand_in"))  # type: ignore[arg-type]


def _stand_in(monkeypatch: pytest.MonkeyPatch, ends: Any) -> None:
    def main() -> int:
        if isinstance(ends, BaseException):
            raise ends
        return int(ends())

    module = SimpleNamespace(main=main)
    monkeypatch.setitem(sys.modules, "handmesh_benchmarks.stand_in", module)  # type: ignore[arg-type]
