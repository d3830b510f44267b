"""Environments of peers: kept where they are there, told where they cannot be made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handmesh import BackendError, BackendUnavailable
from handmesh_benchmarks import mediapipe_peer
from handmesh_benchmarks.environments import Environment, Process


def _environment(*packages: str) -> Environment:
    return Environment("peer-1", "Peer 1", packages, needs="a Python that it likes")


def _made(folder: Path) -> Path:
    """An environment whose interpreter is ours."""
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return folder


posix = pytest.mark.skipif("sys.platform == 'win32'", reason="its stand-in is a shell script")


@posix
def test_one_that_is_there_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _made(tmp_path / "peer")
    true_run = subprocess.run

    def run(command: list[str], **options: Any) -> Any:
        assert "-c" in command, "it was installed anew"
        return true_run(command, **options)

    monkeypatch.setattr(subprocess, "run", run)
    environment = _environment(f"numpy=={np.__version__}", "pytest>=1")

    assert environment.prepare(folder) == folder / "bin" / "python"


@posix
def test_a_build_s_local_version_is_the_version_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.CompletedProcess([], 0, stdout="2.13.0+cpu 1.0\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)

    _environment("torch==2.13.0", "peer==1.0").prepare(tmp_path)  # no attempt to install


@posix
@pytest.mark.parametrize("package", ["numpy==0.1", "no-such-package-of-ours==1.0"])
def test_one_of_another_version_is_installed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    folder, asked = _made(tmp_path / "peer"), []
    true_run = subprocess.run

    def run(command: list[str], **options: Any) -> Any:
        if "-c" in command:
            return true_run(command, **options)
        asked.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    _environment(package).prepare(folder, "python3.9")

    assert asked[0] == ["python3.9", "-m", "venv", str(folder)]
    assert asked[1][-1] == package


def test_an_installation_that_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def run(command: list[str], **_: Any) -> Any:
        asked.append(command)
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(BackendUnavailable, match=r"MediaPipe 0\.10\.21 cannot be installed"):
        mediapipe_peer.prepare(tmp_path / "new", "python3.9")
    assert asked[-1][0] == "python3.9"
    with pytest.raises(BackendUnavailable, match=r"Peer 1 cannot be installed.*that it likes"):
        _environment("peer==1").prepare(tmp_path / "new")


def test_the_default_folder_is_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert _environment().default() == tmp_path / "handmesh" / "peer-1"


ECHO = "import sys\nfor line in sys.stdin:\n    print(line.strip(), flush=True)\n"


def test_a_process_answers_and_its_end_is_told() -> None:
    with Process([sys.executable, "-c", ECHO], "Echo") as process:
        assert process.ask({"n": 1}) == {"n": 1}
    with (
        Process([sys.executable, "-c", "raise SystemExit(3)"], "Mute") as process,
        pytest.raises(BackendError, match="Mute's process ended with code 3"),
    ):
        process.ask({})
