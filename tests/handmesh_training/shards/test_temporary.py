"""Temporary files of writers that were killed go, those of others stay."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from handmesh_training.shards import temporary as module
from handmesh_training.shards.temporary import sweep, write_whole

# Writes a file beside the path it is given until it is told to go on.
WRITER = """
import sys
from pathlib import Path
from handmesh_training.shards.temporary import temporary_beside
with temporary_beside(Path(sys.argv[1])) as (temporary, file):
    file.write(b"half")
    file.flush()
    print(temporary, flush=True)
    sys.stdin.read()
"""


def test_only_what_nobody_writes_is_swept(tmp_path: Path) -> None:
    path = tmp_path / "hands-00000.tar"
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        temporary = Path(process.stdout.readline().strip())
        sweep(path)
        assert temporary.read_bytes() == b"half", "it is being written"
        process.kill()
    assert temporary.exists()
    sweep(path)
    assert not list(tmp_path.iterdir())


# What a system without fcntl, as Windows, makes of the same.
WITHOUT_LOCKS = """
import sys
from pathlib import Path
sys.modules["fcntl"] = None
import handmesh_training.cropped_set
from handmesh_training.shards.temporary import sweep, write_whole
path = Path(sys.argv[1])
left_over = path.with_name(f".{path.name}.1.tmp")
left_over.write_bytes(b"perhaps somebody is writing it")
write_whole(path, b"old")
write_whole(path, b"new")
sweep(path)
assert left_over.exists()
"""


def test_sets_are_read_and_written_where_files_have_no_locks(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    command = [sys.executable, "-c", WITHOUT_LOCKS, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == b"new"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are told by /proc")
@pytest.mark.parametrize("locks", [True, False])
def test_a_file_is_locked_until_it_has_its_name_or_closed_where_it_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    rename, held = os.replace, []

    def replace(source: Path, target: Path) -> None:
        places = [os.path.realpath(file) for file in Path("/proc/self/fd").iterdir()]
        held.append(str(source) in places)
        sweep(target)  # of another process, at the worst moment
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    if not locks:
        monkeypatch.setattr(module, "HAS_LOCKS", False)
    write_whole(tmp_path / "manifest.json", b"whole")
    assert held == [locks]
    assert (tmp_path / "manifest.json").read_bytes() == b"whole"
