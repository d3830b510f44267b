from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from handmesh.errors import InputError
from handmesh.video import CODECS, LiveVideo, VideoFile, VideoWriter, open_video


def _gray(level: int) -> np.ndarray:
    pixels = np.full((64, 96, 3), level, np.uint8)
    pixels[:, 48:] = (level, 0, 0)  # red on the right
    return pixels


def _write(path: Path, levels: list[int], fps: float = 25.0) -> Path:
    with VideoWriter(path, fps) as writer:
        for n, level in enumerate(levels):
            writer.write(_gray(level), n / fps)
        assert writer.finish() == path
    return path


@pytest.mark.parametrize("suffix", sorted(CODECS))
def test_what_is_written_is_read_again(tmp_path: Path, suffix: str) -> None:
    levels = [40, 80, 120, 160, 200]
    path = _write(tmp_path / f"clip{suffix}", levels)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with open_video(path) as video:
        assert video.fps == pytest.approx(25, rel=0.01)
        frames = list(video)
    assert [frame.index for frame in frames] == list(range(5))
    assert [frame.time_s for frame in frames] == pytest.approx([n / 25 for n in range(5)], abs=2e-3)
    for frame, level in zip(frames, levels, strict=True):
        assert frame.pixels.shape == (64, 96, 3)
        assert frame.pixels[:, :40].mean() == pytest.approx(level, abs=6)
        red, _, blue = frame.pixels[:, 56:].mean(axis=(0, 1))
        assert red > blue + 20, "RGB, not BGR"


@pytest.mark.parametrize("suffix", sorted(CODECS))
def test_each_pass_over_a_file_begins_anew(tmp_path: Path, suffix: str) -> None:
    path = _write(tmp_path / f"clip{suffix}", [40, 80, 120, 160])
    with VideoFile(path) as video:
        first = next(iter(video))
        passes = [list(video), list(video)]
        two = [(a.index, b.index) for a, b in zip(video, video, strict=True)]
    for frames in passes:
        assert [frame.index for frame in frames] == [0, 1, 2, 3]
        np.testing.assert_array_equal(frames[0].pixels, first.pixels)
    for once, again in zip(*passes, strict=True):
        assert again.time_s == once.time_s
        np.testing.assert_array_equal(again.pixels, once.pixels)
    assert two == [(n, n) for n in range(4)], "passes at once do not take each other's frames"
    with pytest.raises(InputError, match="was closed: open it again"):
        list(video)


def test_a_file_that_is_closed_while_it_is_read_is_told(tmp_path: Path) -> None:
    path = _write(tmp_path / "clip.avi", [40, 80, 120, 160])
    for read in (0, 1, 3):
        video = VideoFile(path)
        frames = iter(video)
        for _ in range(read):
            next(frames)
        video.close()
        with pytest.raises(InputError, match="was closed: open it again"):
            next(frames)


def test_frames_that_were_left_out_are_made_up_for(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "live.avi", 10.0) as writer:
        for time_s, level in ((5.0, 50), (5.1, 100), (5.4, 150), (5.42, 200)):
            writer.write(_gray(level), time_s)
        writer.finish()
    with VideoFile(tmp_path / "live.avi") as video:
        levels = [int(frame.pixels[:, :40].mean().round(-1)) for frame in video]
    assert levels == [50, 100, 150, 150, 150]


def test_what_is_not_finished_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"old")
    with VideoWriter(path, 25.0) as writer:
        writer.write(_gray(9), 0.0)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]
    with VideoWriter(path, 25.0) as writer:
        assert writer.finish() is None, "there was no frame"
    assert path.read_bytes() == b"old"


def test_a_file_that_was_finished_takes_no_frame(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "clip.avi", 25.0) as writer:
        writer.write(_gray(9), 0.0)
        writer.finish()
        with pytest.raises(InputError, match=r"clip\.avi was finished"):
            writer.write(_gray(9), 0.04)
    with VideoWriter(tmp_path / "empty.avi", 25.0) as writer:
        writer.finish()
        with pytest.raises(InputError, match=r"empty\.avi was finished"):
            writer.write(_gray(9), 0.0)
    with VideoWriter(tmp_path / "left.avi", 25.0) as writer:
        writer.write(_gray(9), 0.0)
    with pytest.raises(InputError, match=r"left\.avi was finished"):
        writer.write(_gray(9), 0.04)
    assert [p.name for p in tmp_path.iterdir()] == ["clip.avi"]


def test_files_that_cannot_be_read_or_written_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no video file"):
        open_video(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(InputError, match="not a video"):
        open_video(str(tmp_path / "text.mp4"))
    with pytest.raises(InputError, match="camera 97"):
        open_video(97)
    with pytest.raises(InputError, match=r"\.mp4, .*'clip\.gif' ends in '\.gif'"):
        VideoWriter(tmp_path / "clip.gif", 25.0)
    with pytest.raises(InputError, match="folder"):
        VideoWriter(tmp_path / "none" / "clip.mp4", 25.0)
    for path in (5, None, b"clip.mp4"):
        with pytest.raises(InputError, match="written to a path, not to"):
            VideoWriter(path, 25.0)  # type: ignore[arg-type]
    with VideoWriter(tmp_path / "clip.mp4", 25.0) as writer:
        writer.write(_gray(0), 0.0)
        with pytest.raises(InputError, match="one size"):
            writer.write(_gray(0)[:32], 1.0)


@pytest.mark.skipif(sys.platform != "linux", reason="names elsewhere are always Unicode")
def test_names_that_opencv_cannot_be_told_are_refused(tmp_path: Path) -> None:
    named = _write(tmp_path / "clip.avi", [0, 100])
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/v\xff.avi"))
    named.rename(path)
    with pytest.raises(InputError, match="UTF-8"):
        open_video(path)
    with pytest.raises(InputError, match="UTF-8"):
        VideoWriter(path, 25.0)
    path.rename(named := tmp_path / "Hände.avi")
    assert [frame.index for frame in open_video(named)] == [0, 1]


def test_a_truncated_video_gives_what_is_left_of_it(tmp_path: Path) -> None:
    path = _write(tmp_path / "clip.avi", list(range(0, 250, 5)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with VideoFile(path) as video:
        count = len(list(video))
    assert 0 < count < 50


def test_a_file_says_how_much_of_its_stated_length_is_missing(tmp_path: Path) -> None:
    whole = _write(tmp_path / "whole.mkv", list(range(0, 250, 5)))  # two seconds
    data = whole.read_bytes()
    with VideoFile(whole) as video:
        assert video.missing_s == 0
        list(video)
        assert video.missing_s == 0
    for share, missing_s in ((0.98, 0), (0.5, pytest.approx(1, abs=0.2))):
        cut = tmp_path / "cut.mkv"
        cut.write_bytes(data[: int(len(data) * share)])
        with VideoFile(cut) as video:
            next(iter(video))
            assert video.missing_s == 0, "a pass that was not ended says nothing"
            frames = list(video)
            assert video.missing_s == missing_s
            assert frames[-1].time_s + video.missing_s == pytest.approx(2, abs=0.1)


class Sensor:
    """A camera that gives a frame whenever it is told to."""

    def __init__(self, count: int) -> None:
        self.frames = iter(range(count))
        self.go = threading.Semaphore(0)
        self.given = threading.Semaphore(0)
        self.now = 0.0
        self.closed = False

    def read(self) -> np.ndarray | None:
        self.given.release()  # the frame before is in its place now
        self.go.acquire()
        self.now += 0.04
        level = next(self.frames, None)
        return None if level is None else _gray(level)

    def let_pass(self, count: int) -> None:
        for _ in range(count):
            self.go.release()
            self.given.acquire()

    def close(self) -> None:
        self.closed = True


def test_a_slow_reader_of_a_camera_gets_the_newest_frame_and_a_count_of_the_others() -> None:
    sensor = Sensor(10)
    video = LiveVideo(sensor.read, sensor.close, clock=lambda: sensor.now)
    sensor.given.acquire()
    frames = iter(video)
    seen = []
    for passing in (1, 1, 5, 2):
        sensor.let_pass(passing)
        frame = next(frames)
        seen.append((frame.index, frame.dropped, int(frame.pixels[0, 0, 0])))
    assert seen == [(0, 0, 0), (1, 0, 1), (6, 4, 6), (8, 1, 8)]
    assert frame.time_s == pytest.approx(8 * 0.04)
    for _ in range(2):
        sensor.go.release()
    assert [frame.index for frame in frames] in ([9], []), "then it ends"
    video.close()
    assert sensor.closed


def test_a_second_loop_over_a_camera_counts_from_where_the_first_one_ended() -> None:
    sensor = Sensor(20)
    video = LiveVideo(sensor.read, sensor.close, clock=lambda: sensor.now)
    sensor.given.acquire()
    seen = []
    for passing in (3, 1, 4):
        sensor.let_pass(passing)
        for frame in video:
            seen.append((frame.index, frame.dropped))
            break
    assert seen == [(2, 2), (3, 0), (7, 3)]
    sensor.go.release(20)
    video.close()


def test_an_error_of_the_camera_s_thread_arrives() -> None:
    def read() -> np.ndarray:
        raise OSError("unplugged")

    with LiveVideo(read) as video, pytest.raises(OSError, match="unplugged"):
        list(video)


def test_a_camera_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handmesh.video.CAMERA_TIMEOUT_S", 0.05)

    def read() -> None:
        time.sleep(0.4)

    with LiveVideo(read) as video, pytest.raises(InputError, match="no frame for"):
        next(iter(video))


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of files' sizes")
@pytest.mark.parametrize("suffix", sorted(CODECS))
def test_a_film_that_the_disk_did_not_take_replaces_nothing(tmp_path: Path, suffix: str) -> None:
    """Writes fail behind a size as on a full disk; in a process of its own, as that has no way
    back."""
    path = tmp_path / f"clip{suffix}"
    path.write_bytes(b"old")
    program = f"""
import resource
import numpy as np
from handmesh.errors import InputError
from handmesh.video import VideoWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
noise = np.random.default_rng(0)
with VideoWriter({str(path)!r}, 25.0) as writer:
    for n in range(40):
        writer.write(noise.integers(0, 255, (240, 320, 3), dtype=np.uint8), n / 25)
    try:
        writer.finish()
    except InputError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert "of 40 frames" in done.stdout
    assert "is the disk full?" in done.stdout
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("held", "refused"), [(40, False), (39, False), (38, True), (0, True)])
def test_a_film_may_lack_a_frame_by_rounding_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int, refused: bool
) -> None:
    monkeypatch.setattr("handmesh.video._frames_held", lambda *_: held)
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, 25.0) as writer:
        for n in range(40):
            writer.write(np.zeros((48, 64, 3), np.uint8), n / 25)
        if refused:
            with pytest.raises(InputError, match=f"of 40 frames {held} can be read again"):
                writer.finish()
        else:
            writer.finish()
    assert path.exists() != refused


def test_a_film_of_one_frame_that_cannot_be_read_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One frame may be lacking, but not the only one."""
    monkeypatch.setattr("handmesh.video._frames_held", lambda *_: 0)
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"old")
    with VideoWriter(path, 25.0) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8), 0.0)
        with pytest.raises(InputError, match="of 1 frames 0 can be read again"):
            writer.finish()
    assert path.read_bytes() == b"old"


def test_a_film_that_could_not_be_begun_is_finished_without_a_file(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"old")
    with VideoWriter(path, 25.0) as writer:
        with pytest.raises(InputError, match="OpenCV cannot write"):
            writer.write(np.zeros((1, 1, 3), np.uint8), 0.0)
        assert writer.finish() is None
    assert [path.read_bytes(), list(tmp_path.iterdir())] == [b"old", [path]]


@pytest.mark.skipif(sys.platform == "win32", reason="no colons in names")
def test_a_relative_name_may_hold_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = _write(Path("12:30.mp4"), [40, 80, 120])
    with open_video(path) as video:
        assert len(list(video)) == 3


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("empty.mp4", "empty.mp4 is empty"),
        (".", ". is a folder"),
        ("", "no video file ''"),
        ("http://example.org/a.mp4", "cannot read http://example.org/a.mp4: addresses are not"),
        ("rtsp://camera:554/live", "rtsp://camera:554/live: addresses are not opened: download"),
        (Path("https://example.org/a.mp4"), "https://example.org/a.mp4: addresses are not"),
        ("c:/none.mp4", "no video file 'c:/none.mp4'"),
    ],
)
def test_what_is_no_video_file_is_told_as_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str | Path, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.mp4").touch()
    with pytest.raises(InputError, match=re.escape(said)):
        open_video(source)


def test_a_photo_is_no_video(tmp_path: Path) -> None:
    for suffix in (".jpg", ".PNG", ".webp", ".bmp", ".tif"):
        cv2.imwrite(str(path := tmp_path / f"photo{suffix}"), _gray(90))
        with pytest.raises(InputError, match=r"photo\.\w+ is a photo, no video: use handmesh pred"):
            open_video(path)
    # What only has its name is read for what it is.
    _write(tmp_path / "clip.avi", [40, 80]).rename(tmp_path / "clip.jpg")
    with open_video(tmp_path / "clip.jpg") as video:
        assert len(list(video)) == 2


def test_an_animation_is_no_photo(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    frames = [image.fromarray(_gray(level)) for level in (40, 80, 120)]
    path = tmp_path / "clip.png"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    with open_video(path) as video:
        assert len(list(video)) == 3


@pytest.mark.parametrize(("name", "said"), [("there", "is a folder: name a file"),
                                            ("there.mp4", "is a folder: name a file"),
                                            ("clip", "'clip' ends in none of them")])  # fmt: skip
def test_a_name_that_no_film_can_have_says_what_is_wanted(
    tmp_path: Path, name: str, said: str
) -> None:
    for folder in ("there", "there.mp4"):
        (tmp_path / folder).mkdir()
    with pytest.raises(InputError, match=rf"written as one of \.mp4, .*{said}"):
        VideoWriter(tmp_path / name, 25.0)
