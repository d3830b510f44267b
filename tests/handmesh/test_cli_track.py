from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import handmesh.predictor
import handmesh.tracker
import handmesh.video
from handmesh import cli
from handmesh.bundle import Bundle
from handmesh.errors import BackendUnavailable, InputError
from handmesh.predictor import Predictor
from handmesh.types import Camera
from handmesh.video import Frame, Video, VideoFile, VideoWriter

pytestmark = pytest.mark.usefixtures("found_by_windows")

CAMERA = Camera.default(320, 240)
FRAMES = 8
Make = Callable[..., Any]


@pytest.fixture
def clip(tmp_path: Path, make_hand: Make, paint: Make) -> Path:
    """A hand that moves to the right, without losses of a codec that mix colours."""
    path = tmp_path / "clip.mkv"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), 20.0, (320, 240))
    for n in range(FRAMES):
        pixels = paint(CAMERA, make_hand(wrist_m=(0.004 * n, 0.05, 0.5)))
        writer.write(pixels[..., ::-1].copy())
    writer.release()
    return path


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bundle: Bundle,
    make_hand: Make,
    reading_backend: Make,
) -> Callable[..., tuple[int, str, str]]:
    """The command with a network that reads painted joints, in a folder of its own; (exit code,
    stdout, stderr)."""

    def make(*arguments: Any, **options: Any) -> Predictor:
        return Predictor(bundle, reading_backend(make_hand()))

    monkeypatch.setattr(handmesh.predictor, "Predictor", make)
    monkeypatch.chdir(tmp_path)

    def command(*arguments: object) -> tuple[int, str, str]:
        try:
            code = cli.main(["track", *(str(argument) for argument in arguments)])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def _frames(path: Path) -> list[np.ndarray]:
    with VideoFile(path) as video:
        return [frame.pixels for frame in video]


def test_a_file_becomes_a_video_with_hands_over_it(run: Make, clip: Path, tmp_path: Path) -> None:
    code, out, _ = run(clip.name, "--max-hands", 1)
    assert code == 0
    assert "8 frames: hand 1 (right) in 8; searched 1 times" in out
    assert "clip_hand.mp4" in out
    drawn, plain = _frames(tmp_path / "clip_hand.mp4"), _frames(clip)
    assert len(drawn) == FRAMES
    for before, after in zip(plain, drawn, strict=True):
        assert after.shape == (240, 320, 3)
        assert (abs(before.astype(int) - after).max(axis=2) > 60).sum() > 500


def test_json_has_a_line_a_frame_and_writes_nothing(run: Make, clip: Path, tmp_path: Path) -> None:
    before = {path.name for path in tmp_path.iterdir()}
    code, out, err = run(clip, "--json", "--max-hands", 1, "--fov", 65, "--bone-length", 0.047)
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["frame"] for line in lines] == list(range(FRAMES))
    assert [line["time_s"] for line in lines] == pytest.approx([n / 20 for n in range(FRAMES)])
    assert [[hand["id"] for hand in line["hands"]] for line in lines] == [[1]] * FRAMES
    places = [line["hands"][0]["joints_px"][0][0] for line in lines]
    assert places == sorted(places)
    assert places[0] < places[-1] - 10
    assert {line["hands"][0]["depth"] for line in lines} == {"metric"}
    assert "vertices_m" not in lines[0]["hands"][0]
    assert "8 frames" in err
    assert {path.name for path in tmp_path.iterdir()} == before
    _, out, _ = run(clip, "--json", "--mesh", "--max-hands", 1)
    assert len(json.loads(out.splitlines()[0])["hands"][0]["vertices_m"]) > 500


def test_a_file_that_ends_too_early_is_told(run: Make, tmp_path: Path) -> None:
    path = tmp_path / "cut.mkv"
    noise = np.random.default_rng(0).integers(0, 255, (40, 120, 160, 3), dtype=np.uint8)
    with VideoWriter(path, 20.0) as writer:
        for n, pixels in enumerate(noise):
            writer.write(pixels, n / 20)
        writer.finish()
    _, _, err = run(path, "--json")
    assert "states" not in err
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    _, out, err = run(path, "--json")
    told = re.search(r"cut\.mkv ended (\d\.\d) s before the length that it states", err)
    assert told
    assert len(out.splitlines()) / 20 + float(told[1]) == pytest.approx(2, abs=0.06)
    _, _, err = run(path, "--json", "--quiet")
    assert err == ""


def test_each_hand_becomes_an_animation(run: Make, clip: Path, tmp_path: Path) -> None:
    code, out, _ = run(clip, "--glb", "hand.glb", "--no-smoothing")
    assert code == 0
    assert out.splitlines()[1:] == ["  hand_1.glb"]
    assert {path.name for path in tmp_path.iterdir()} <= {"clip.mkv", "hand_1.glb", "bundle"}
    data = (tmp_path / "hand_1.glb").read_bytes()
    length = int.from_bytes(data[12:16], "little")
    document, binary = json.loads(data[20 : 20 + length]), data[28 + length :]
    sampler = document["animations"][0]["samplers"][0]

    def floats(accessor: int) -> np.ndarray:
        of = document["accessors"][accessor]
        start = document["bufferViews"][of["bufferView"]].get("byteOffset", 0)
        width = {"SCALAR": 1, "VEC3": 3}[of["type"]]
        return np.frombuffer(binary, "<f4", of["count"] * width, start).reshape(-1, width)

    seconds, wrists = floats(sampler["input"])[:, 0], floats(sampler["output"])
    np.testing.assert_allclose(seconds, np.arange(FRAMES) / 20, atol=1e-3)
    np.testing.assert_allclose(np.diff(wrists[:, 0]), 0.004, atol=0.002)  # as the clip moves


def test_mirrored_and_handedness_reach_the_tracker(run: Make, clip: Path) -> None:
    for options, side in ((["--mirrored"], "left"), (["--handedness", "right"], "right")):
        _, out, _ = run(clip, "--json", "--max-hands", 1, *options)
        assert {json.loads(line)["hands"][0]["handedness"] for line in out.splitlines()} == {side}


def test_no_hand_is_exit_code_1(run: Make, tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "empty.avi", 10.0) as writer:
        writer.write(np.full((240, 320, 3), 90, np.uint8), 0.0)
        writer.finish()
    code, out, _ = run(tmp_path / "empty.avi", "--out", tmp_path / "seen.webm")
    assert code == 1
    assert "empty.avi: 1 frame: no hand found" in out
    assert len(_frames(tmp_path / "seen.webm")) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["none.mp4"], 2, "no video file"),
        (["0"], 2, "--show, --out FILE, --glb or --json"),
        (["97", "--json"], 2, "camera 97"),
        (["clip.mkv", "--out", "clip.gif"], 2, "ends in '.gif'"),
        (["clip.mkv", "--out", "none/clip.mp4"], 2, "folder does not exist"),
        (["clip.mkv", "--out", "clip.mkv"], 2, "would replace"),
        (["clip.mkv", "--out", "."], 2, ".webm; '.' is a folder: name a file"),
        (["clip.mkv", "--glb", "hand.obj"], 2, "ends in '.obj'"),
        (["clip.mkv", "--glb", "."], 2, "animations are .glb; not '.'"),
        ([""], 2, "VIDEO is empty (''): name a file"),
        (["https://example.org/a.mp4"], 2, "cannot read https://example.org/a.mp4: addresses are"),
        (["clip.mkv", "--glb", "none/hand.glb"], 2, "folder does not exist"),
        (["clip.mkv", "--json", "--max-hands", "0"], 2, "max_hands"),
        (["clip.mkv", "--json", "--fov", "200"], 2, "fov_deg"),
        (["clip.mkv", "--json", "--min-presence", "2"], 2, "min_presence"),
        (["clip.mkv", "--max-hands", "0"], 2, "handmesh: --max-hands: max_hands must be"),
        (["clip.mkv", "--fov", "200"], 2, "handmesh: --fov: fov_deg must lie"),
        (["clip.mkv", "--bone-length", "47"], 2, "handmesh: --bone-length: bone_length_m must be"),
    ],
)
@pytest.mark.usefixtures("clip")
def test_what_cannot_be_done_is_told(
    run: Make, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    seen, _, err = run(*arguments)
    assert seen == code
    assert message in err
    assert {path.name for path in tmp_path.iterdir()} <= {"clip.mkv", "bundle"}


def test_a_file_that_is_no_video_is_one_line(tmp_path: Path) -> None:
    """FFmpeg, which reads it, says nothing of its own: in a process of its own, as it asks once."""
    (tmp_path / "text.mp4").write_text("no video")
    done = subprocess.run(
        [sys.executable, "-m", "handmesh", "track", "text.mp4"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("handmesh: text.mp4 is not a video")
    assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("clip")
def test_an_opencv_without_windows_is_a_missing_package(
    run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_window(*_: object) -> None:
        raise cv2.error("The function is not implemented")

    monkeypatch.setattr(cv2, "namedWindow", no_window)
    code, _, err = run("clip.mkv", "--show")
    assert code == 3
    assert "opencv-python" in err


def test_a_window_shows_the_frames_until_q(
    run: Make, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[np.ndarray] = []
    monkeypatch.setattr(cv2, "namedWindow", lambda *_: None)
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: None)
    monkeypatch.setattr(cv2, "imshow", lambda _, picture: shown.append(picture))
    monkeypatch.setattr(cv2, "waitKey", lambda _: ord("q") if len(shown) == 3 else -1)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: 1.0)
    code, out, _ = run(clip, "--show", "--max-hands", 1)
    assert code == 0
    assert len(shown) == 3
    assert "3 frames" in out


@pytest.mark.parametrize(
    ("stop", "code"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)], ids=["ctrl-c", "term"]
)
def test_an_interruption_leaves_a_whole_file_of_what_was_done(
    run: Make,
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop: BaseException,
    code: int,
) -> None:
    class Interrupted(Video):
        def __iter__(self) -> Any:
            for n, pixels in enumerate(_frames(clip)):
                if n == 5:
                    raise stop
                yield Frame(n, n / 30, pixels)

    monkeypatch.setattr(handmesh.video, "open_video", lambda _: Interrupted())
    seen, out, err = run(clip, "--out", tmp_path / "part.mp4", "--max-hands", 1)
    assert seen == code
    assert "interrupted" in err
    assert "5 frames" in out
    assert len(_frames(tmp_path / "part.mp4")) == 5


def test_a_failure_leaves_no_file(
    run: Make, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(Video):
        def __iter__(self) -> Any:
            yield Frame(0, 0.0, _frames(clip)[0])
            yield Frame(1, 0.0, _frames(clip)[1])  # a time that does not go on

    monkeypatch.setattr(handmesh.video, "open_video", lambda _: Failing())
    before = {path.name for path in tmp_path.iterdir()}
    code, _, err = run(clip, "--out", tmp_path / "part.mp4")
    assert code == 2
    assert "not later" in err
    assert {path.name for path in tmp_path.iterdir()} == before


def test_ctrl_c_in_a_process_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "long.avi"
    with VideoWriter(path, 30.0) as writer:
        for n in range(20000):
            writer.write(np.full((64, 96, 3), 90, np.uint8), n / 30)
        writer.finish()
    command = [sys.executable, "-m", "handmesh", "track", str(path), "--json", "--out"]
    process = subprocess.Popen(
        [*command, str(tmp_path / "part.avi")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs, and what they start, ignore the interrupt.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    done = 1 + len(out.splitlines())
    assert 1 <= done < 20000
    assert done - 1 <= len(_frames(tmp_path / "part.avi")) <= done


def test_a_reader_that_has_seen_enough_ends_it_quietly(tmp_path: Path) -> None:
    path = tmp_path / "long.avi"
    with VideoWriter(path, 30.0) as writer:
        for n in range(300):
            writer.write(np.full((64, 96, 3), 90, np.uint8), n / 30)
        writer.finish()
    process = subprocess.Popen(
        [sys.executable, "-m", "handmesh", "track", str(path), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(60) == 141
    assert "Traceback" not in err
    assert "Exception" not in err
    assert "interrupted" not in err


@pytest.mark.parametrize("link", ["symbolic", "hard"])
def test_the_video_that_is_read_is_not_replaced_by_another_of_its_names(
    run: Make, clip: Path, tmp_path: Path, link: str
) -> None:
    other = tmp_path / "other.mkv"
    other.symlink_to(clip) if link == "symbolic" else other.hardlink_to(clip)
    before = clip.read_bytes()
    code, _, err = run(clip, "--out", other)
    assert code == 2
    assert "would replace the video" in err
    assert clip.read_bytes() == before


@pytest.mark.parametrize(
    ("error", "code"),
    [(InputError("no frame"), 2), (BackendUnavailable("gone"), 3), (OSError(5, "unplugged"), 2)],
)
def test_a_source_that_fails_leaves_whole_files_of_what_was_done(
    run: Make,
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    code: int,
) -> None:
    class Stalling(Video):
        def __iter__(self) -> Any:
            for n, pixels in enumerate(_frames(clip)[:5]):
                yield Frame(n, n / 30, pixels)
            raise error

    monkeypatch.setattr(handmesh.video, "open_video", lambda _: Stalling())
    files = ("--out", tmp_path / "part.mp4", "--glb", tmp_path / "hand.glb")
    seen, out, err = run(clip, *files, "--max-hands", 1)
    assert seen == code
    assert "5 frames" in out
    assert err.count("\n") == 1
    assert (error.args[-1]) in err
    assert len(_frames(tmp_path / "part.mp4")) == 5
    assert (tmp_path / "hand_1.glb").exists()


def test_animations_are_written_where_the_film_cannot_be(
    run: Make, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handmesh.video, "_frames_held", lambda *_: 0)
    code, _, err = run(clip, "--out", "full.mp4", "--glb", "hand.glb", "--max-hands", 1)
    assert code == 2
    assert "is the disk full?" in err
    assert (tmp_path / "hand_1.glb").exists()
    assert not (tmp_path / "full.mp4").exists()
