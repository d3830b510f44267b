"""`handmesh render`: what it writes, and what it says of a set that is damaged or not complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from handmesh.cli import main
from handmesh_training.rendered import HandRenderer
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


@pytest.mark.parametrize("mode", ["--preview", "--statistics"])
@pytest.mark.parametrize("name", ["sheet.foo", "sheet", "sheet.json", "sheet.jpg"])
def test_pictures_of_other_formats_are_refused_before_the_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mode: str,
    name: str,
) -> None:
    monkeypatch.setattr(HandRenderer, "__init__", lambda *_: pytest.fail("work begun"))
    assert main(["render", mode, str(tmp_path / name), "--count", "2"]) == 2
    told = capsys.readouterr().err
    assert f"{mode} must end in .png, not '{name}'" in told
    assert main(["render", mode, str(tmp_path / "none" / "sheet.png"), "--count", "2"]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "in_python"),
    [("--skins", "SkinSet.procedural()"), ("--environments", "EnvironmentSet.procedural()")],
)
def test_folders_that_lack_something_are_told_to_whoever_reads_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, in_python: str
) -> None:
    folder = tmp_path / "nowhere"
    told = []
    assert main(["render", "--preview", str(tmp_path / "a.png"), option, str(folder)]) == 2
    told.append(capsys.readouterr().err)
    folder.mkdir()
    (folder / "crop.json").write_text('{"atlas_size": [9, 9], "crop_xyxy": [0, 0, 9, 9]}')
    assert main(["render", "--preview", str(tmp_path / "a.png"), option, str(folder)]) == 2
    told.append(capsys.readouterr().err)
    for text in told:
        assert str(folder) in text
        assert f"leave {option} away, or take {in_python} in Python, for made-up ones" in text


@pytest.mark.parametrize("size", ["0", "-3"])
def test_pictures_of_no_size_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: str
) -> None:
    assert main(["render", "--out", str(tmp_path / "s"), "--count", "2", "--size", size]) == 2
    assert f"--size must be at least 1, not {size}" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()
