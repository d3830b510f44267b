"""Temporary files of writers that were killed go, those of others stay."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from handmesh_training.shards.temporary import sweep

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
