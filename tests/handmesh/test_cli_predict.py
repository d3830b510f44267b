"""Which photos `handmesh predict` takes, how a batch goes on, and what it says."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import handmesh.cli as cli
import handmesh.imaging
import handmesh.predictor
from handmesh.backends import RawOutput
from handmesh.bundle import Bundle
from handmesh.cli_photos import find_photos
from handmesh.errors import InputError
from handmesh.graph import Topology
from handmesh.predictor import Predictor
from handmesh.types import Box, Camera

pytestmark = pytest.mark.usefixtures("found_by_windows")

CAMERA = Camera.default(320, 240)
Make = Callable[..., Any]


class Simple:
    """Sees a right hand, always the same one, wherever a crop is bright."""

    name, description, threads = "simple", "sees what is bright", 1

    def __init__(self, hand: Any, topology: Topology) -> None:
        points = CAMERA.project(hand.joints_m)
        uv = Box.from_points(points).to_crop(points)  # (21, 2)
        self._joints = np.column_stack([uv, hand.depths]).astype(np.float32)  # (21, 3)
        self._vertices = (topology.joint_blend @ self._joints).astype(np.float32)  # (V, 3)

    def run(self, images: np.ndarray) -> RawOutput:
        count = len(images)
        presence = np.where((images[..., 1] > 250).any(axis=(1, 2)), 0.99997, 1e-5)
        return RawOutput(
            np.repeat(self._vertices[None], count, axis=0),
            np.repeat(self._joints[None], count, axis=0),
            np.full((count, 21), 0.9, np.float32),
            presence.astype(np.float32),
            np.full(count, 0.999, np.float32),
        )


@pytest.fixture(scope="module")
def hand() -> bytes:
    """A photo of what `Simple` takes for a hand, as PNG."""
    return _png(np.full((240, 320, 3), 255, np.uint8))


NOTHING = np.full((240, 320, 3), 90, np.uint8)


def _png(pixels: Any) -> bytes:
    return bytes(cv2.imencode(".png", pixels[..., ::-1])[1])


@pytest.fixture
def album(tmp_path: Path, hand: bytes) -> Path:
    """Two photos, one of them without a hand, a text, and a folder with one more."""
    album = tmp_path / "album"
    (album / "deep" / "deeper").mkdir(parents=True)
    (album / "b.PNG").write_bytes(hand)
    (album / "a.png").write_bytes(_png(NOTHING))
    (album / "notes.txt").write_text("none")
    (album / ".hidden.png").write_bytes(hand)
    (album / "deep" / "deeper" / "b.png").write_bytes(hand)
    return album


class Command:
    """The command with `Simple`; it counts how often that is loaded."""

    def __init__(self, capsys: pytest.CaptureFixture[str], made: list[Predictor]) -> None:
        self._capsys, self._made = capsys, made

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        try:
            code = cli.main(["predict", *map(str, arguments)])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err

    @property
    def loaded(self) -> int:
        return len(self._made)


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    bundle: Bundle,
    make_hand: Make,
    topology: Topology,
) -> Command:
    made: list[Predictor] = []

    def make(*arguments: Any, **options: Any) -> Predictor:
        made.append(Predictor(bundle, Simple(make_hand(), topology)))
        return made[-1]

    monkeypatch.setattr(handmesh.predictor, "Predictor", make)
    return Command(capsys, made)


def _stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


def _names(arguments: list[str], **options: Any) -> list[str]:
    return [str(source.stem) for source in find_photos(arguments, **options)]


def test_a_folder_is_its_photos(album: Path) -> None:
    assert _names([str(album)]) == ["a", "b"]
    assert _names([str(album)], recursive=True) == ["a", "b", str(Path("deep/deeper/b"))]


def test_patterns_are_expanded_here_too(album: Path) -> None:
    assert _names([str(album / "[ab].*")]) == ["a", "b"]
    assert _names([str(album / "*.png")]) == ["a"]
    assert _names([str(album / "**" / "*.png")]) == ["a", "b"]
    with pytest.raises(InputError, match=r"no file matches .*\*\.gif"):
        find_photos([str(album / "*.gif")])


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path, hand: bytes) -> None:
    (tmp_path / "a[1].png").write_bytes(hand)
    (tmp_path / "a1.png").write_bytes(hand)
    assert _names([str(tmp_path / "a[1].png")]) == ["a[1]"]


def test_a_photo_that_is_meant_twice_is_taken_once(album: Path) -> None:
    assert _names([str(album), str(album / "a.png"), str(album / "*.png")]) == ["a", "b"]


def test_folders_without_photos_are_refused(album: Path) -> None:
    with pytest.raises(InputError, match="--recursive looks into its sub-folders"):
        find_photos([str(album / "deep")])
    with pytest.raises(InputError, match="no photo is named"):
        find_photos([])


def test_an_empty_argument_is_not_the_current_folder(
    album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(album)
    assert len(find_photos(["."])) == 2
    with pytest.raises(InputError, match="a PHOTO is empty"):
        find_photos([""])


def test_lists_of_files(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"{album / 'a.png'}\n\n{album / 'b.PNG'}\n"
    (listed := tmp_path / "list.txt").write_text(text)
    assert _names([], files_from=str(listed)) == ["a", "b"]
    _stdin(monkeypatch, text.encode())
    assert _names([], files_from="-") == ["a", "b"]
    for wrong in (str(tmp_path / "none.txt"), str(tmp_path)):
        with pytest.raises(InputError, match="cannot read the list"):
            find_photos([], files_from=wrong)
    with pytest.raises(InputError, match="standard input is either"):
        find_photos(["-"], files_from="-")


def test_standard_input_is_one_photo(
    run: Command, hand: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stdin(monkeypatch, hand)
    code, text, _ = run("-", "--json", "--out", tmp_path / "out")
    line = json.loads(text)
    assert (code, line["photo"]) == (0, "-")
    assert line["hands"][0]["handedness"] == "right"
    assert (tmp_path / "out" / "stdin_hand.glb").exists()
    _stdin(monkeypatch, b"no photo")
    assert run("-", "--json")[0] == 2


def test_results_of_sub_folders_go_into_sub_folders(
    run: Command, album: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, text, _ = run(album, "--recursive", "--out", out)
    assert code == 1
    assert text.splitlines()[-1] == "3 photos: 2 with hands, 1 without a hand"
    found = {path.relative_to(out).as_posix() for path in out.rglob("*.json")}
    assert found == {"b_hand.json", "deep/deeper/b_hand.json"}


def test_results_beside_the_photos_are_no_photos(run: Command, album: Path) -> None:
    first = run(album, "--out", album, "--json")[1].splitlines()
    assert (album / "b_hand.png").exists()
    again = run(album, "--out", album, "--json")[1].splitlines()
    assert [json.loads(line)["photo"] for line in again] == [
        json.loads(line)["photo"] for line in first
    ]
    # A photo of somebody's is not a result for its name alone.
    (album / "left_hand.png").write_bytes((album / "b.PNG").read_bytes())
    assert "left_hand" in _names([str(album)])


def test_a_batch_goes_on_where_it_stopped(run: Command, album: Path, tmp_path: Path) -> None:
    arguments = (album, "--recursive", "--out", tmp_path / "out", "--skip-existing")
    assert run(*arguments)[0] == 1
    code, text, _ = run(*arguments)
    assert text == "3 photos: 3 left out\n"
    assert code == 1, "the same as if it had run in one go"
    assert run.loaded == 1, "where nothing is left to do, no network is loaded"
    # What was stopped before its last file is done again, and so is what is newer.
    (tmp_path / "out" / "b_hand.json").unlink()
    later = (tmp_path / "out" / ".a_no_hand").stat().st_mtime + 10
    os.utime(album / "a.png", (later, later))
    assert (
        run(*arguments)[1].splitlines()[-1]
        == "3 photos: 1 with hands, 1 without a hand, 1 left out"
    )


def test_the_last_file_of_a_photo_is_the_one_that_resuming_asks_for(
    run: Command, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from handmesh.types import Hand

    saved: list[str] = []
    save = Hand.save

    def watched(self: Hand, path: Any) -> Path:
        saved.append(Path(path).name)
        return save(self, path)

    monkeypatch.setattr(Hand, "save", watched)
    run(album / "b.PNG", "--out", tmp_path / "out")
    assert saved == ["b_hand.glb", "b_hand.json"]


def test_more_looks_are_passed_on(run: Command, album: Path) -> None:
    seen = []
    for looks in (1, 4):
        _, text, _ = run(album / "b.PNG", "--json", f"--looks={looks}")
        (found,) = json.loads(text)["hands"]
        seen.append(found["crops_seen"])
    assert seen[1] == seen[0] + 3


def test_the_time_of_reading_a_photo_is_told(
    run: Command, album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = handmesh.imaging.decode

    def slowly(image: Any) -> Any:
        time.sleep(0.05)
        return decode(image)

    monkeypatch.setattr(handmesh.imaging, "decode", slowly)
    _, text, _ = run(album / "b.PNG", "--json")
    (found,) = json.loads(text)["hands"]
    assert found["timings_ms"]["decode"] >= 50
    assert found["timings_ms"]["network"] >= 0


def test_resuming_needs_files(run: Command, album: Path) -> None:
    code, _, errors = run(album, "--json", "--skip-existing")
    assert code == 2
    assert "give --out DIR" in errors


def test_photos_that_cannot_be_read_have_a_line_too(run: Command, album: Path) -> None:
    (album / "c.jpg").write_bytes(b"none")
    code, text, errors = run(album, "--json")
    lines = [json.loads(line) for line in text.splitlines()]
    assert code == 2
    assert [Path(line["photo"]).name for line in lines] == ["a.png", "b.PNG", "c.jpg"]
    assert [set(line) for line in lines] == [{"photo", "hands"}] * 2 + [{"photo", "error"}]
    assert "3 photos: 1 with hands, 1 without a hand, 1 failed" in errors


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--max-hands=0", "max_hands"),
        ("--min-presence=1.5", "min_presence"),
        ("--looks=6", "looks must be from 1 to 5"),
        ("--bone-length=47", "bone_length_m must be at most 0.5 metres"),
        ("--fov=200", "fov_deg"),
        ("--box=50,50,10,10", "x0 < x1"),
    ],
)
def test_what_fits_no_photo_is_told_once_and_before_all(
    run: Command, album: Path, option: str, message: str
) -> None:
    code, text, errors = run(album, "--json", option)
    assert (code, text) == (2, "")
    assert message in errors
    assert errors.startswith(f"handmesh: {option.partition('=')[0]}: ")
    assert errors.count("\n") == 1
    assert run.loaded == 0


def test_a_box_that_is_no_box_is_told_as_one(run: Command, album: Path) -> None:
    for box in ("a,b,c,d", "1,2,3", ""):
        code, _, errors = run(album, f"--box={box}")
        assert code == 2
        assert f"argument --box: expected X0,Y0,X1,Y1, not {box!r}" in errors


def test_a_box_outside_names_each_photo_that_it_is_outside_of(run: Command, album: Path) -> None:
    code, _, errors = run(album, "--box=9000,9000,9100,9100", "-q")
    assert code == 2
    assert [line.split(":")[:2] for line in errors.splitlines()] == [
        ["handmesh", f" {album / name}"] for name in ("a.png", "b.PNG")
    ]


def test_the_least_presence_reaches_the_search(run: Command, album: Path) -> None:
    assert run(album / "b.PNG", "--json", "-q")[0] == 0
    assert run(album / "b.PNG", "--json", "-q", "--min-presence", "1")[0] == 1


def test_quiet_says_nothing_but_errors(run: Command, album: Path, tmp_path: Path) -> None:
    assert run(album, "--out", tmp_path / "out", "-q") == (1, "", "")
    assert (tmp_path / "out" / "b_hand.json").exists()
    code, text, errors = run(album / "b.PNG", tmp_path / "none.png", "--json", "-q")
    assert (code, len(text.splitlines())) == (2, 2)
    assert errors.startswith("handmesh: cannot read the image file")


def test_verbose_says_what_runs_and_why(
    run: Command, album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, text, errors = run(album / "b.PNG", "--json", "-v")
    json.loads(text)
    assert errors.splitlines()[0].startswith("bundle test: ")
    assert errors.splitlines()[1] == "backend simple: handed over"
    assert run(album, "-q", "-v")[0] == 2


def test_options_choose_the_network(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def make(*arguments: Any, **options: Any) -> Predictor:
        seen.append((arguments, options))
        raise InputError("enough")

    monkeypatch.setattr(handmesh.predictor, "Predictor", make)
    options = ("--backend", "onnx", "--device", "cuda:1", "--precision", "int8", "--threads", "3")
    assert cli.main(["predict", str(album), "--json", "--bundle", "mine", *options]) == 2
    assert seen == [(("mine", "onnx", 3), {"device": "cuda:1", "precision": "int8"})]


def test_styles_are_those_of_the_drawings(run: Command, album: Path, tmp_path: Path) -> None:
    pictures = []
    for style in ("skeleton", "depth"):
        run(album / "b.PNG", "--out", tmp_path / style, "--style", style)
        pictures.append(cv2.imread(str(tmp_path / style / "b_hand.png")))
    assert not np.array_equal(*pictures)
    run(album / "b.PNG", "--out", tmp_path / "wide", "--style", "side")
    assert cv2.imread(str(tmp_path / "wide" / "b_hand.png")).shape == (240, 320 + 240, 3)
    assert run(album, "--style", "sid")[0] == 2


def test_a_terminal_gets_a_bar_and_a_file_none(
    run: Command, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert "photo" not in run(album, "--out", tmp_path / "out", "--json")[2].splitlines()[0][:5]
    for arguments, shown in (((album,), True), ((album / "b.PNG",), False), ((album, "-q"), False)):
        monkeypatch.setattr(sys, "stderr", screen := Terminal())
        run(*arguments, "--out", tmp_path / "out")
        assert ("photo/s" in screen.getvalue() or "?photo" in screen.getvalue()) == shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("predikt", "photo.jpg"), "did you mean 'predict'"),
        (("verify", "lite"), "did you mean 'light'"),
        (("predict", "{photo}", "--json", "--backend", "onxx"), "did you mean 'onnx'"),
        (("predict", "{photo}", "--json", "--device", "gpux"), "did you mean 'gpu'"),
    ],
)
def test_mistyped_names_are_understood(
    arguments: tuple[str, ...], said: str, album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [argument.format(photo=album / "b.PNG") for argument in arguments]
    try:
        code = cli.main(given)
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code == 2
    assert said in capsys.readouterr().err


def test_a_device_that_is_missing_is_exit_code_three(
    album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["predict", str(album), "--json"], ["verify"]):
        assert cli.main([*command, "--backend", "onnx", "--device", "nnapi"]) == 3
        assert "an onnxruntime built for Android" in capsys.readouterr().err


def test_a_reader_who_has_seen_enough_is_no_traceback(album: Path, example_photos: Any) -> None:
    photos = [str(example_photos["pointing"]), str(example_photos["open"])]
    command = [sys.executable, "-m", "handmesh", "predict", *photos, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 141
    assert errors == b""


def test_completion_knows_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab", reason="shtab is not installed")
    for shell in ("bash", "zsh", "fish"):
        assert cli.main(["completion", shell]) == 0
        script = capsys.readouterr().out
        for word in ("predict", "track", "info", "verify", "completion", "export", "train"):
            assert word in script, (shell, word)
        for word in ("skip-existing", "openvino", "wireframe", "tflite"):
            assert word in script, (shell, word)


def test_bash_completes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("shtab", reason="shtab is not installed")
    cli.main(["completion", "bash"])
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "shot.jpg").touch()

    def complete(*words: str) -> list[str]:
        ask = 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_handmesh handmesh "${@: -1}"'
        done = subprocess.run(
            ["bash", "-c", f'source ./script; {ask}; echo "${{COMPREPLY[@]}}"', "_", *words],
            cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        return done.stdout.split()

    assert complete("handmesh", "ver") == ["verify"]
    assert complete("handmesh", "predict", "--skip") == ["--skip-existing"]
    assert complete("handmesh", "predict", "--backend", "tf") == ["tflite"]
    assert complete("handmesh", "predict", "--style", "w") == ["wireframe"]
    assert complete("handmesh", "predict", "sho") == ["shot.jpg"]


def test_completion_without_its_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert cli.main(["completion", "zsh"]) == 3
    assert "pip install '.[completion]'" in capsys.readouterr().err


def test_nothing_to_do_is_bad_input(run: Command) -> None:
    code, _, errors = run()
    assert code == 2
    assert "give files, folders, patterns" in errors
