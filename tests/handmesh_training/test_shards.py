"""Sharded sets: bytes that do not depend on crashes or on who rendered, and errors that tell."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from handmesh.errors import InputError, ShardError, ShardIntegrityError, ShardMismatchError
from handmesh_training.rendered import HandRenderer, RenderSettings
from handmesh_training.shards import Encoding, Manifest, SetSettings, ShardSet, records, verify
from handmesh_training.shards.writer import FILES, render_shards

pytestmark = pytest.mark.usefixtures("quick_surroundings")

SETTINGS = SetSettings(count=26, shards=4, seed=5, render=RenderSettings(crop_px=32, empty=0.2))


@pytest.fixture(scope="module")
def _rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the set of `folder` is rendered, by the first test that asks for it."""
    return tmp_path_factory.mktemp("shards") / "whole"


@pytest.fixture
def folder(_rendered: Path, tmp_path: Path) -> Path:
    """A whole set, rendered without disturbance; the test's own, which it may damage."""
    if not _rendered.exists():
        render_shards(SETTINGS, _rendered)
    return Path(shutil.copytree(_rendered, tmp_path / "whole"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def damage(path: Path, at: int = 700) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def test_a_set_holds_what_the_renderer_makes(folder: Path) -> None:
    data = ShardSet(folder)
    made = HandRenderer(SETTINGS.render, SETTINGS.seed).records(range(26))

    assert len(data) == 26
    for i, wanted in enumerate(made):
        record = data.record(i)
        np.testing.assert_array_equal(record.image, wanted.image)
        for name in ("intrinsics", "joints_m", "vertices_m", "mask"):
            np.testing.assert_array_equal(getattr(record, name), getattr(wanted, name))
            assert getattr(record, name).dtype == getattr(wanted, name).dtype
        # A sixteenth bit of a 6.5 m range: half a step of a tenth of a millimetre.
        np.testing.assert_allclose(record.depth_m, wanted.depth_m, atol=0.5001e-4)
        assert record.index == i
        for name in ("has_hand", "skin_tone", "gesture"):
            assert getattr(record, name) == getattr(wanted, name)
    assert len({record.gesture for record in made}) > 5
    assert data[3].key == "000000003"
    np.testing.assert_array_equal(data[-1].image, made[25].image)
    assert [sample.key for sample in data] == [record.key for record in made]
    with pytest.raises(IndexError, match="26 samples"):
        data[26]


def test_shards_share_the_samples_out(folder: Path) -> None:
    manifest = verify(folder)
    assert [manifest.span(k) for k in range(4)] == [
        range(6), range(6, 13), range(13, 19), range(19, 26)
    ]  # fmt: skip
    assert [manifest.shard_of(i) for i in range(26)] == [0] * 6 + [1] * 7 + [2] * 6 + [3] * 7
    names = []
    for k in range(4):
        with tarfile.open(folder / f"hands-{k:05d}.tar") as archive:
            names += [name.partition(".") for name in archive.getnames()]
    assert sorted({key for key, _, _ in names}) == [f"{i:09d}" for i in range(26)]
    assert len(names) == 26 * 5


def test_the_webdataset_package_reads_it(folder: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    url = f"{folder}/hands-{{00000..00003}}.tar"
    read = list(webdataset.WebDataset(url, shardshuffle=False).decode("rgb8"))

    ours = list(ShardSet(folder))
    assert [sample["__key__"] for sample in read] == [sample.key for sample in ours]
    for theirs, sample in zip(read, ours, strict=True):
        np.testing.assert_array_equal(theirs["png"], sample.image)
        labels = theirs["json"]
        assert labels["has_hand"] == sample.joint_known.all()
        if labels["has_hand"]:
            np.testing.assert_allclose(labels["joints_px"], sample.joints_px, atol=6e-4)
            np.testing.assert_array_equal(theirs["vertices.npy"], sample.vertices_m)


def test_ranks_together_make_the_same_set(folder: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    assert not render_shards(SETTINGS, shared, 1, 3).shards
    with pytest.raises(ShardError, match="not complete"):
        ShardSet(shared)
    render_shards(SETTINGS, shared, 0, 3)
    assert render_shards(SETTINGS, shared, 2, 3).shards
    assert contents(shared) == contents(folder)

    # Or each in a folder of its own, copied together afterwards.
    together = tmp_path / "together"
    for rank in range(2):
        render_shards(SETTINGS, tmp_path / f"own{rank}", rank, 2)
        shutil.copytree(tmp_path / f"own{rank}", together, dirs_exist_ok=True)
    assert verify(together).shards
    assert contents(together) == contents(folder)


# The command, with the quick surroundings of these tests.
COMMAND = """
import sys
from handmesh_training.rendering import EnvironmentSet, SkinSet
from handmesh.cli import main
places, skins = EnvironmentSet.procedural(0, count=2, height=32), SkinSet.procedural
EnvironmentSet.procedural = lambda *_: places
SkinSet.procedural = lambda seed, count, mesh, *_: skins(seed, 2, mesh, size=32)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_killed_and_resumed_it_is_the_same_set_to_the_byte(tmp_path: Path) -> None:
    killed, calm = tmp_path / "killed", tmp_path / "calm"
    options = f"--count 132 --shards 6 --size 96 --seed 3 --threads 1 --out {killed}"
    command = [sys.executable, "-c", COMMAND, "render", *options.split()]
    cut_off = 0
    for shards in (1, 3):  # killed while writing the shard after so many
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            whole = len(list(killed.glob("hands-*.json")))
            if whole >= shards and any(p.stat().st_size for p in killed.glob(".hands-*.tmp")):
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was to be killed before its end"
        cut_off += len(list(killed.glob(".hands-*.tmp")))
        finished = {path.name: path.stat().st_mtime_ns for path in killed.glob("hands-*.tar")}
        assert shards <= len(finished) < 6
        with pytest.raises(ShardError, match="not complete"):
            ShardSet(killed)
    assert cut_off, "a shard was cut off in the middle"
    subprocess.run(command, check=True, capture_output=True)
    render_shards(SetSettings(132, 6, 3, RenderSettings(crop_px=96)), calm)

    assert contents(killed) == contents(calm)
    after = {path.name: path.stat().st_mtime_ns for path in killed.glob("hands-*.tar")}
    assert finished.items() <= after.items(), "whole shards were not rendered again"
    verify(killed)
    assert [int(sample.key) for sample in ShardSet(killed)] == list(range(132))


def test_damaged_and_missing_shards_are_rendered_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(folder)
    damage(folder / "hands-00000.tar")
    (folder / "hands-00002.tar").unlink()
    (folder / "hands-00003.json").unlink()
    (folder / ".hands-00002.tar.other.1.tmp").write_bytes(b"left over")

    render_shards(SETTINGS, folder)

    assert contents(folder) == before
    assert "rendering again" in capsys.readouterr().err


def test_what_is_wrong_with_a_set_is_told(folder: Path) -> None:
    with (folder / "hands-00001.tar").open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(ShardIntegrityError, match=r"hands-00001\.tar has 5000 bytes.*truncated"):
        ShardSet(folder)
    damage(folder / "hands-00000.tar")
    (folder / "hands-00002.tar").unlink()
    (folder / "hands-00003.json").write_text("{")

    with pytest.raises(ShardIntegrityError) as caught:
        verify(folder)

    message = str(caught.value)
    assert "4 of 4 shards" in message
    for pattern in (
        r"hands-00000\.tar has SHA-256 \w{64}, but \w{64} was written",
        r"hands-00001\.tar has 5000 bytes",
        r"lacks shard 2",
        r"hands-00003\.json is damaged",
    ):
        assert re.search(pattern, message), pattern


def test_damage_is_met_while_reading(folder: Path) -> None:
    data = ShardSet(folder)
    path = folder / "hands-00000.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:2000] + bytes(len(whole) - 2000))

    with pytest.raises(ShardIntegrityError, match=r"sample 2 in .*--verify"):
        data.record(2)
    # Another set's shard under this one's name.
    path.write_bytes((folder / "hands-00002.tar").read_bytes()[: len(whole)].ljust(len(whole)))
    data.close()
    with pytest.raises(ShardIntegrityError):
        data.record(0)
    data.record(20)


def test_folders_without_a_set_are_told(tmp_path: Path) -> None:
    for wrong in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ShardError, match=r"no manifest\.json"):
            ShardSet(wrong)
        with pytest.raises(ShardError, match=r"no manifest\.json"):
            verify(wrong)
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(ShardError, match=r"holiday\.jpg.*give an empty folder"):
        render_shards(SETTINGS, tmp_path)
    for text in ("[]", "{", '{"schema": 2, "format": "handmesh-shards", "shards": {}}'):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(ShardError, match="not the manifest"):
            ShardSet(tmp_path)
    (tmp_path / "manifest.json").write_text('{"schema": 9, "format": "handmesh-shards"}')
    with pytest.raises(ShardError, match="schema 9"):
        ShardSet(tmp_path)
    with pytest.raises(ShardError, match="cannot be used"):
        render_shards(SETTINGS, tmp_path / "holiday.jpg")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 27}, "count: the set has 26, now it is 27"),
        ({"shards": 2}, "shard_count: the set has 4, now it is 2"),
        ({"seed": 6}, "seed: the set has 5, now it is 6"),
        ({"render": RenderSettings(crop_px=40, empty=0.2)}, "crop_px: the set has 32"),
        ({"render": replace(SETTINGS.render, empty=0.1)}, "empty: the set has 0.2"),
        ({"encoding": Encoding("jpg")}, "encoding.image: the set has png, now it is jpg"),
    ],
)
def test_other_settings_are_refused(folder: Path, change: dict[str, object], message: str) -> None:
    before = contents(folder)
    with pytest.raises(ShardMismatchError, match=message):
        render_shards(replace(SETTINGS, **change), folder)
    assert contents(folder) == before


def test_other_backgrounds_and_another_engine_are_refused(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    cv2.imwrite(str(photos / "a.png"), np.full((40, 50, 3), 99, dtype=np.uint8))
    settings = replace(SETTINGS, render=replace(SETTINGS.render, backgrounds=photos))
    folder = tmp_path / "set"
    render_shards(settings, folder)
    moved = photos.rename(tmp_path / "elsewhere")
    same = replace(SETTINGS, render=replace(SETTINGS.render, backgrounds=moved))
    render_shards(same, folder)  # where it lies does not matter
    cv2.imwrite(str(moved / "a.png"), np.full((40, 50, 3), 98, dtype=np.uint8))
    with pytest.raises(ShardMismatchError, match=r"sources\.backgrounds"):
        render_shards(same, folder)

    # A renderer that draws something else under the same settings.
    cv2.imwrite(str(moved / "a.png"), np.full((40, 50, 3), 99, dtype=np.uint8))
    stored = json.loads((folder / "manifest.json").read_text())
    stored["probe"]["joints_px"][1][0][0] += 0.2
    (folder / "manifest.json").write_text(json.dumps(stored))
    with pytest.raises(ShardMismatchError, match=r"joints 0\.20 px apart"):
        render_shards(same, folder)


def test_shards_of_another_set_are_met(folder: Path, tmp_path: Path) -> None:
    """As many samples under the same names, whole to the last byte, but of another seed."""
    whole = (folder / "hands-00001.tar").stat().st_size
    for seed in range(6, 16):  # tar files come in blocks: several seeds fill as many
        foreign = tmp_path / str(seed)
        render_shards(replace(SETTINGS, seed=seed), foreign)
        if (foreign / "hands-00001.tar").stat().st_size == whole:
            break
    for name in ("hands-00001.tar", "hands-00001.json"):
        shutil.copy(foreign / name, folder / name)

    with pytest.raises(ShardIntegrityError, match=r"hands-00001\.json is about a shard of another"):
        verify(folder)
    with pytest.raises(ShardIntegrityError, match="another set"):
        ShardSet(folder).record(6)
    # Nor does a manifest that has not been completed take them in.
    replace(Manifest.load(folder), shards={}).save(folder)
    with pytest.raises(ShardIntegrityError, match="1 of 4 shards"):
        verify(folder)
    assert not Manifest.load(folder).shards
    render_shards(SETTINGS, folder)
    verify(folder)


@pytest.mark.parametrize(
    "starts",
    [
        [],
        [0],
        [0, 512],  # too few
        [512, 1024, 1536, 2048, 2560, 3072, 3584],
        [0, 512, 512, 1024, 2048, 2560, 3072],
        [0, 500, 1024, 1536, 2048, 2560, 3072],
        [0, 512, 1024, 1536, 2048, 2560, 1 << 40],
        [0, None, 1024, 1536, 2048, 2560, 3072],
    ],
)
def test_starts_that_cannot_be_are_damage(folder: Path, starts: list[int]) -> None:
    path = folder / "hands-00000.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "starts": starts}))
    for read in (lambda: verify(folder), lambda: ShardSet(folder).record(0)):
        with pytest.raises(ShardIntegrityError, match=r"hands-00000\.json is damaged"):
            read()


def test_processes_that_begin_at_once_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one begins after this one has found the folder empty: the first manifest stays."""
    plain = Manifest.begin
    other = replace(SETTINGS, seed=6)

    def late(self: Manifest, folder: Path) -> None:
        monkeypatch.setattr(Manifest, "begin", plain)
        render_shards(first, folder)
        plain(self, folder)

    for first, message in ((SETTINGS, None), (other, "seed: the set has 6, now it is 5")):
        folder = tmp_path / str(first.seed)
        monkeypatch.setattr(Manifest, "begin", late)
        if message is None:
            assert render_shards(SETTINGS, folder).shards
        else:
            with pytest.raises(ShardMismatchError, match=message):
                render_shards(SETTINGS, folder)
        assert verify(folder).seed == first.seed


def test_a_set_begins_on_file_systems_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", none)
    render_shards(SETTINGS, tmp_path / "set")
    verify(tmp_path / "set")
    with pytest.raises(FileExistsError):
        Manifest.load(tmp_path / "set").begin(tmp_path / "set")


def test_the_manifest_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    for name in ("fsync", "link", "replace"):
        plain = getattr(os, name)

        def noted(*arguments: object, name: str = name, plain: Any = plain) -> None:
            steps.append(name)
            plain(*arguments)

        monkeypatch.setattr(os, name, noted)
    render_shards(replace(SETTINGS, count=2, shards=1), tmp_path / "set")

    # Begun; the shard, its index; completed. After each name its folder.
    assert steps == ["fsync", "link", *["fsync", "replace", "fsync"] * 3]


@pytest.mark.parametrize("name", ["handmesh", "engine", "numpy", "torch", "opencv"])
def test_other_versions_are_refused(folder: Path, name: str) -> None:
    stored = json.loads((folder / "manifest.json").read_text())
    stored["versions"][name] = "0.0.1"
    stored["versions"]["machine"] = "another"
    (folder / "manifest.json").write_text(json.dumps(stored))
    with pytest.raises(ShardMismatchError, match=rf"versions\.{name}: the set has 0\.0\.1, now"):
        render_shards(SETTINGS, folder)


def test_another_machine_goes_on_with_the_set(folder: Path) -> None:
    stored = json.loads((folder / "manifest.json").read_text())
    stored["versions"] |= {"machine": "another", "python": "3.99"}
    (folder / "manifest.json").write_text(json.dumps(stored))
    (folder / "hands-00000.tar").unlink()
    render_shards(SETTINGS, folder)
    verify(folder)


def test_what_is_hashed_is_what_is_read(tmp_path: Path) -> None:
    """Other files may come and go; those that are read may not, in whatever letters."""
    for name in ("a.PNG", "b.png", "crop.json", "x.HDR", "y.hdr", "in/c.jpeg", "in/d.png", "e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "folder.png").mkdir()

    def names(kind: str) -> list[str]:
        return [path.relative_to(tmp_path).as_posix() for path in FILES[kind](tmp_path)]

    assert names("skins") == ["crop.json", "a.PNG", "b.png"]
    assert names("environments") == ["x.HDR", "y.hdr"]
    assert names("backgrounds") == ["a.PNG", "b.png", "in/c.jpeg", "in/d.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((2, 2), "rank must be"), ((-1, 2), "rank must be"), ((0, 5), "too few for 5")],
)
def test_shares_that_cannot_be_are_refused(
    tmp_path: Path, arguments: tuple[int, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        render_shards(SETTINGS, tmp_path / "set", *arguments)
    assert not (tmp_path / "set").exists()


def test_jpeg_and_fewer_views(tmp_path: Path) -> None:
    settings = replace(SETTINGS, count=4, shards=1, encoding=Encoding("jpg", 97, False, False))
    render_shards(settings, tmp_path / "set")
    data = ShardSet(tmp_path / "set")
    made = HandRenderer(SETTINGS.render, SETTINGS.seed).crops(range(4))

    assert (data[0].mask, data[0].depth_m) == (None, None)
    error = np.abs(data.crops([0, 1, 2, 3]).images.astype(int) - made.images)
    assert 0 < error.mean() < 6
    with tarfile.open(tmp_path / "set" / "hands-00000.tar") as archive:
        assert archive.getnames()[:3] == [
            "000000000.jpg", "000000000.json", "000000000.vertices.npy"
        ]  # fmt: skip
    for wrong in ({"quality": 94}, {"image": "webp"}):
        with pytest.raises(InputError):
            Encoding(**wrong)  # type: ignore[arg-type]


def test_labels_tell_what_a_sample_is(folder: Path) -> None:
    made = HandRenderer(SETTINGS.render, SETTINGS.seed).records(range(3))
    for record in made:
        labels = records.to_json(record)
        assert labels["index"] == record.index
        assert 1 <= labels["skin_tone"] <= 10
        camera = labels["camera"]
        joints = np.array(labels["joints_m"])
        assert np.array_equal(joints.astype(np.float32), record.joints_m), "no digit lost"
        u = joints[:, 0] / joints[:, 2] * camera["fx"] + camera["cx"]
        np.testing.assert_allclose(u, np.array(labels["joints_px"])[:, 0], atol=1e-2)


def test_a_reader_travels_to_workers_and_keeps_few_files_open(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handmesh_training.shards.reader.OPEN_SHARDS", 2)
    data = ShardSet(folder)
    for index in (0, 25, 7, 14, 1):
        data.record(index)
    assert len(data._open) == 2
    copy = pickle.loads(pickle.dumps(data))
    assert len(copy._open) == 0
    np.testing.assert_array_equal(copy[9].image, data[9].image)
