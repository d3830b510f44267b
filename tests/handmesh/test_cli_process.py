"""The command as a process: what its streams cannot take, and signals that end it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from handmesh.cli_shared import same_file

linux = pytest.mark.skipif(sys.platform != "linux", reason="/dev/full, and signals")
HANDMESH = [sys.executable, "-m", "handmesh"]


@linux
def test_an_output_that_takes_nothing_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*HANDMESH, "info", "detector"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "handmesh: reading or writing failed: No space left on device\n"


def test_a_name_that_the_output_cannot_encode_is_printed_escaped(tmp_path: Path) -> None:
    (tmp_path / "手.jpg").write_bytes(b"no photo")
    program = (
        "import sys, handmesh.cli as c;"
        "c.add_info = lambda commands: commands.add_parser('info').set_defaults(run=run);"
        "run = lambda args: print('手.jpg') or 0;"
        "sys.argv[1:] = ['info'];"
        "sys.exit(c.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONIOENCODING": "cp1252"}, capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.split() == [rb"\u624b.jpg"]


@linux
@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_is_closed_ends_it_as_termination_does(ignored: bool) -> None:
    program = """
import signal, sys, handmesh.cli as c
def run(args):
    try:
        signal.raise_signal(signal.SIGHUP)
        return 0
    finally:
        print("cleared away")
c.add_info = lambda commands: commands.add_parser("info").set_defaults(run=run)
sys.argv[1:] = ["info"]
sys.exit(c.main())
"""
    how = signal.SIG_IGN if ignored else signal.SIG_DFL
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, how),
    )  # fmt: skip
    assert done.stdout == "cleared away\n"
    assert done.returncode == (0 if ignored else 143)


def test_one_file_is_known_by_all_its_paths(tmp_path: Path) -> None:
    (path := tmp_path / "a").write_bytes(b"")
    (other := tmp_path / "b").hardlink_to(path)
    assert same_file(path, other)
    (tmp_path / "c").write_bytes(b"")
    for wrong in (tmp_path / "c", tmp_path / "none", Path("nul\0")):
        assert not same_file(path, wrong)
