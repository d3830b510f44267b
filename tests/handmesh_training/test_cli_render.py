"""`handmesh render`: what it writes, and what it says of a set that is damaged or not complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from handmesh.cli import main
from handmesh_training.shards import Manifest

pytestmark = pytest.mark.usefixtures("quick_surroundings")


def test_the_command_renders_and_verifies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "set"
    arguments = f"render --count 8 --shards 2 --size 32 --world 2 --out {folder}".split()
    assert main([*arguments, "--rank", "1"]) == 0
    assert "not complete yet" in capsys.readouterr().out
    assert main(["render", "--verify", str(folder)]) == 1
    assert "lacks shard 0" in capsys.readouterr().err
    assert main(arguments) == 0
    assert main(["render", "--verify", str(folder)]) == 0
    assert "8 samples in 2 shards" in capsys.readouterr().out
    assert Manifest.load(folder).shards.keys() == {"hands-00000.tar", "hands-00001.tar"}
    data = bytearray((folder / "hands-00001.tar").read_bytes())
    data[700] ^= 0xFF
    (folder / "hands-00001.tar").write_bytes(data)
    assert main(["render", "--verify", str(folder)]) == 1
    assert main([*arguments, "--seed", "1"]) == 2
    assert main(["render", "--out", str(folder)]) == 2
    assert main(["render", "--verify", str(tmp_path)]) == 2
