"""The pytest-benchmark suites can all be collected; `make bench` keeps what it compares."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_every_suite_can_be_collected() -> None:
    pytest.importorskip("pytest_benchmark")
    suites = sorted(path.name for path in (ROOT / "benchmarks" / "suites").glob("test_*.py"))

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "benchmarks/suites", "--collect-only", "-q"]
        + ["-p", "no:cacheprovider"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    collected = {line.split("::")[0] for line in done.stdout.splitlines() if "::" in line}
    assert sorted(Path(name).name for name in collected) == suites


def test_make_bench_compares_with_the_run_before(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    tools = tmp_path / ".venv" / "bin"
    tools.mkdir(parents=True)
    # Stand-ins that tell what they are asked and write what they are to.
    (tools / "python").write_text(
        "#!/bin/sh\necho python $* >> asked\n"
        'case "$*" in *benchmark-json=*) echo new >> benchmark_suites.json;; esac\n'
    )
    (tools / "handmesh").write_text(
        "#!/bin/sh\necho handmesh $* >> asked\n"
        'case "$*" in *--out*) echo new > benchmark.json;; *--compare*) exit 1;; esac\n'
    )
    for tool in tools.iterdir():
        tool.chmod(0o755)
    for name in ("setup.py", "constraints.txt"):
        (tmp_path / name).touch()

    def bench() -> list[str]:
        (tmp_path / "asked").unlink(missing_ok=True)
        # Not the environment that a make around this test may have named.
        done = subprocess.run(
            ["make", "bench", "VENV=.venv"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={
                k: v for k, v in os.environ.items() if k not in ("VENV", "MAKEFLAGS", "MAKELEVEL")
            },
        )
        assert done.returncode == 0, done.stderr
        return (tmp_path / "asked").read_text().splitlines()

    for stamp in (".base", ".dev"):  # as if all were installed
        (tmp_path / ".venv" / stamp).touch()
    assert not any("--compare" in line for line in bench())
    (tmp_path / "benchmark_suites.json").write_text("old")
    asked = bench()

    compared = [line for line in asked if "--compare" in line]
    assert compared == [
        "handmesh bench --compare benchmark.before.json benchmark.json",
        "handmesh bench --compare benchmark_suites.before.json benchmark_suites.json",
    ]
    assert (tmp_path / "benchmark_suites.before.json").read_text() == "old"
    assert (tmp_path / "benchmark_suites.json").read_text() == "new\n"
