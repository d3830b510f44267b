"""Frames of files and cameras, and files of frames, through OpenCV."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .atomic import replacing
from .closing import Closing
from .errors import InputError
from .spelling import address

__all__ = ["CODECS", "Frame", "LiveVideo", "Video", "VideoFile", "VideoWriter", "open_video"]

Pixels = NDArray[np.uint8]

# What OpenCV's wheels can write into a file of each suffix without further libraries.
CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG", ".webm": "VP80"}
# Files of these suffixes are photos, if they are such a picture and not several: FFmpeg would make
# a video of one frame of them.
_PHOTOS = frozenset((".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff"))
# Of files and cameras that do not tell.
DEFAULT_FPS = 30.0
# Containers state lengths that are off by less than this in seconds, or as a share of the length:
# sound may be longer than the picture, and some multiply a mean rate.
_LENGTH_OFF_S, _LENGTH_OFF = 0.5, 0.05
# How long a camera may take for one frame before it is given up.
CAMERA_TIMEOUT_S = 10.0


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a video.

    Attributes:
        index: its number among all frames, from 0; of a camera, those left out count too.
        time_s: when it is shown or was taken, seconds from the start; later than the one before.
        pixels: (H, W, 3) uint8 RGB.
        dropped: frames left out before it, since the one handed over last.
    """

    index: int
    time_s: float
    pixels: Pixels
    dropped: int = 0


class Video(Closing):
    """What frames come from. Close it, or use it as a context manager.

    Attributes:
        fps: frames a second, as stated by the source, or 30.
        frame_count: how many there are, as stated; None of a camera, and where nobody knows.
        missing_s: after a pass that came to the file's end, the seconds of its stated length that
            could not be read, as of a damaged file; 0 where they are within what such statements
            are off by.
    """

    fps: float = DEFAULT_FPS
    frame_count: int | None = None
    missing_s: float = 0.0

    def __iter__(self) -> Iterator[Frame]:
        raise NotImplementedError

    def close(self) -> None:
        """Let the file or the camera go."""


class VideoFile(Video):
    """A video file, every frame of it. Each pass over it begins with the first frame.

    Raises:
        InputError: the file is missing or empty, or no video that OpenCV can read, as a photo or an
            address, or its name is not UTF-8; while it is read, it holds no frame, or was closed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = _path(path)
        self._closed = False
        capture = self._open()
        self._unread: Any = capture
        self._captures = [capture]
        self.fps = _stated_fps(capture)
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.frame_count = count if count > 0 else None
        # Of time, not frames: of files with a varying rate these are a guess.
        self._stated_s = max(count, 0) / fps if (fps := _told_fps(capture)) else 0.0

    def _open(self) -> Any:
        # Whole: FFmpeg takes what is before a colon for a protocol.
        capture = cv2.VideoCapture(os.path.abspath(self._path))
        if not capture.isOpened():
            raise InputError(
                f"{self._path} is not a video that OpenCV can read: convert it to H.264 in .mp4"
            )
        return capture

    def __iter__(self) -> Iterator[Frame]:
        self._refuse_if_closed()
        capture, self._unread = self._unread, None
        if capture is None:  # opened anew: not every format can be wound back to its first frame
            capture = self._open()
            self._captures.append(capture)
        return self._frames(capture)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise InputError(f"the video {self._path} was closed: open it again")

    def _frames(self, capture: Any) -> Iterator[Frame]:
        last_s = -1.0 / self.fps
        index = 0
        try:
            while True:
                there, pixels = capture.read()
                if not there:
                    self._refuse_if_closed()  # which looks like the end of the file
                    break
                time_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
                if not time_s > last_s:  # some files have times for some of their frames only
                    time_s = last_s + 1 / self.fps
                yield Frame(index, time_s, _rgb(pixels))
                index, last_s = index + 1, time_s
        finally:
            capture.release()
        if index == 0:
            raise InputError(f"{self._path} holds no frame that can be decoded")
        missing_s = self._stated_s - (last_s + 1 / self.fps)
        negligible = missing_s <= max(_LENGTH_OFF_S, _LENGTH_OFF * self._stated_s)
        self.missing_s = 0.0 if negligible else missing_s

    def close(self) -> None:
        """Let the file go."""
        self._closed = True
        for capture in self._captures:
            capture.release()
        self._captures.clear()


class LiveVideo(Video):
    """A camera, of which always the newest frame is handed over.

    A thread reads all frames, so that none waits in a queue: what takes longer than a frame misses
    some (`Frame.dropped`) and is never behind by more than one.

    Args:
        read: returns the next frame, (H, W, 3) uint8 RGB, or None at the end.
        close: lets the camera go.
        fps: as the camera states it.
        clock: seconds, for the frames' times.
    """

    def __init__(
        self,
        read: Callable[[], Pixels | None],
        close: Callable[[], None] | None = None,
        fps: float = DEFAULT_FPS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fps = fps
        self._read, self._close, self._clock = read, close, clock
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._last = -1  # index of the frame that was handed over last, whoever iterated
        self._ended = self._stopping = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._keep_reading, daemon=True)
        self._thread.start()

    @classmethod
    def camera(cls, index: int) -> LiveVideo:
        """The camera of that number, from 0.

        Raises:
            InputError: there is none, or it is in use.
        """
        capture = cv2.VideoCapture(index) if 0 <= index < 2**31 else None
        if capture is None or not capture.isOpened():
            raise InputError(
                f"no camera {index} can be opened: is it connected, free, and allowed to be used?"
            )

        def read() -> Pixels | None:
            there, pixels = capture.read()
            return _rgb(pixels) if there else None

        return cls(read, capture.release, _stated_fps(capture))

    def _keep_reading(self) -> None:
        start: float | None = None
        last_s, index = -1.0, 0
        try:
            while not self._stopping:
                pixels = self._read()
                if pixels is None:
                    break
                now = self._clock()
                start = now if start is None else start
                if now - start > last_s:  # else the clock is too coarse to tell them apart
                    last_s = now - start
                    with self._changed:
                        self._newest = Frame(index, last_s, pixels)
                        self._changed.notify_all()
                index += 1
        except BaseException as error:  # whoever iterates is to see it
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def __iter__(self) -> Iterator[Frame]:
        while True:
            with self._changed:
                there = self._changed.wait_for(
                    lambda: self._newest is not None or self._ended, CAMERA_TIMEOUT_S
                )
                frame, self._newest = self._newest, None
                if frame is not None:
                    frame = dataclasses.replace(frame, dropped=frame.index - self._last - 1)
                    self._last = frame.index
            if not there:
                raise InputError(f"the camera gave no frame for {CAMERA_TIMEOUT_S:g} seconds")
            if frame is None:
                if self._error is not None:
                    raise self._error
                return
            yield frame

    def close(self) -> None:
        """Stop reading and let the camera go."""
        self._stopping = True
        self._thread.join(CAMERA_TIMEOUT_S)
        if self._close is not None:
            self._close()


def open_video(source: int | str | os.PathLike[str]) -> Video:
    """A camera by its number, or a video file by its path.

    Raises:
        InputError: it cannot be opened.
    """
    if isinstance(source, bool):  # which is a whole number to Python
        raise InputError("a video is the path of a file, or the number of a camera, not bool")
    if isinstance(source, int):
        return LiveVideo.camera(source)
    return VideoFile(source)


class VideoWriter:
    """A video file, written under a temporary name and put into place by `finish`.

    Use it as a context manager: what is not finished is removed. Frames keep their times: one that
    was left out is made up for by the one after it.

    Args:
        path: its suffix, one of `CODECS`, decides the format.
        fps: frames a second of the file.

    Raises:
        InputError: no path, another suffix, a folder, or one in a folder that does not exist, or a
            name that is not UTF-8.
    """

    def __init__(self, path: str | os.PathLike[str], fps: float) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise InputError(f"a video is written to a path, not to {type(path).__name__}")
        self._path, self._fps = _nameable(Path(path)), fps
        formats = f"a video is written as one of {', '.join(CODECS)}"
        if os.path.isdir(self._path):
            raise InputError(f"{formats}; {str(self._path)!r} is a folder: name a file")
        if self._path.suffix.lower() not in CODECS:
            suffix = self._path.suffix
            ends = f"ends in {suffix!r}" if suffix else "ends in none of them"
            raise InputError(f"{formats}; {self._path.name!r} {ends}")
        if not self._path.parent.is_dir():
            raise InputError(f"cannot write {self._path}: its folder does not exist")
        self._writer: Any = None
        self._written, self._start_s = 0, 0.0
        self._finished = self._ended = False
        self._files = contextlib.ExitStack()
        self._size: tuple[int, int] = (0, 0)

    def write(self, pixels: Pixels, time_s: float) -> None:
        """The next frame, (H, W, 3) uint8 RGB, and its time in seconds.

        Raises:
            InputError: OpenCV cannot write such a video, the frame has another size, or the file
                was finished.
        """
        if self._ended:
            raise InputError(f"the video {self._path} was finished: write another one")
        size = (pixels.shape[1], pixels.shape[0])
        if self._writer is None:
            self._open(size)
            self._start_s = time_s
        elif size != self._size:
            raise InputError(f"all frames have one size: expected {self._size}, got {size}")
        due = round((time_s - self._start_s) * self._fps) + 1
        picture = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
        for _ in range(due - self._written):
            self._writer.write(picture)
        self._written = max(self._written, due)

    def _open(self, size: tuple[int, int]) -> None:
        suffix = self._path.suffix.lower()
        try:
            temporary = self._files.enter_context(self._committing(suffix))
        except OSError as cause:
            raise InputError(f"cannot write {self._path}: {cause.strerror}") from cause
        code = cv2.VideoWriter.fourcc(*CODECS[suffix])
        place = os.path.abspath(temporary)  # as it is read, whole
        self._writer, self._size = cv2.VideoWriter(place, code, self._fps, size), size
        if not self._writer.isOpened():
            self._files.close()
            self._writer = None  # no film was begun: `finish` has none to put into place
            raise InputError(
                f"OpenCV cannot write {self._path} of {size[0]} x {size[1]} pixels as "
                f"{CODECS[suffix]}: is the folder writable? Otherwise try .avi"
            )

    @contextlib.contextmanager
    def _committing(self, suffix: str) -> Iterator[Path]:
        with contextlib.suppress(_Unfinished), replacing(self._path, suffix) as temporary:
            yield temporary
            self._writer.release()
            if not self._finished:
                raise _Unfinished
            self._check(temporary)

    def _check(self, temporary: Path) -> None:
        """Refuse a file that lacks frames: OpenCV does not say when a disk is full."""
        held = _frames_held(temporary, self._written)
        if held < max(1, self._written - 1):  # containers may round, but not to no frame at all
            raise InputError(
                f"cannot write {self._path}: of {self._written} frames {held} can be read again; "
                "is the disk full? Make room, or write elsewhere"
            )

    def finish(self) -> Path | None:
        """Put the file into place; None if there was no frame.

        Raises:
            InputError: it cannot be put there, or lacks frames, as on a full disk; what was there
                stays.
        """
        self._ended = True
        if self._writer is None:
            return None
        self._finished = True
        try:
            self._files.close()
        except OSError as cause:
            reason = cause.strerror or type(cause).__name__
            raise InputError(f"cannot write {self._path}: {reason}") from cause
        return self._path

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended = True
        self._files.close()


class _Unfinished(Exception):
    """The block of a file that is not to be kept ends with this."""


def _path(path: str | os.PathLike[str]) -> Path:
    """The path of a video file that is there."""
    try:
        there = os.path.isfile(path)  # False, too, of a name that no file can have
    except TypeError as cause:
        raise InputError(
            f"a video is the path of a file, or the number of a camera, not {type(path).__name__}"
        ) from cause
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"there is no video file {str(path)!r}")
    if not there:
        raise InputError(_missing(path))
    named = _nameable(Path(path))
    if not named.stat().st_size:
        raise InputError(f"{named} is empty: expected a video file")
    if named.suffix.lower() in _PHOTOS and _is_photo(named):
        raise InputError(f"{named} is a photo, no video: use handmesh predict")
    return named


def _missing(path: str | os.PathLike[str]) -> str:
    """What is wrong with the path of a video that leads to no file."""
    if os.path.isdir(path):
        return f"{os.fspath(path)} is a folder: expected a video file"
    if (elsewhere := address(path)) is not None:
        return f"cannot read {elsewhere}: addresses are not opened: download it first"
    return f"there is no video file {os.fspath(path)!r}"


def _is_photo(path: Path) -> bool:
    """Whether it is one picture: an animated PNG is several."""
    try:
        name = os.path.abspath(path)
        return cv2.haveImageReader(name) and cv2.imcount(name) == 1
    except cv2.error:  # a damaged one: for FFmpeg to refuse
        return False


def _frames_held(path: Path, expected: int) -> int:
    """How many frames a file holds: as it states, or counted where that is too few."""
    capture = cv2.VideoCapture(os.path.abspath(path))
    try:
        held = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        if held < expected - 1:  # or it does not know
            held = 0
            while capture.grab():
                held += 1
        return held
    finally:
        capture.release()


def _nameable(path: Path) -> Path:
    """The path, if OpenCV can be told it: of names that are not UTF-8 it dies.

    Raises:
        InputError: it is not UTF-8.
    """
    try:
        os.path.abspath(path).encode()
    except UnicodeEncodeError as cause:
        raise InputError(
            f"videos need names in UTF-8, and {str(path)!r} is not: rename it or its folder"
        ) from cause
    return path


def _stated_fps(capture: Any) -> float:
    return _told_fps(capture) or DEFAULT_FPS


def _told_fps(capture: Any) -> float | None:
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return fps if 1 <= fps <= 1000 else None


def _rgb(pixels: Any) -> Pixels:
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)
