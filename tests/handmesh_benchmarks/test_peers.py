"""The comparison with MediaPipe: its arithmetic, and its process with a stand-in for MediaPipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from handmesh import BackendError, InputError
from handmesh_benchmarks import peers
from handmesh_benchmarks.mediapipe_peer import MediaPipe
from handmesh_benchmarks.peers import Comparison, Rates, clip, compare, fitted, rates

# As many hands as the first pixel's red value says; of a video's first frame none.
STAND_IN = """
__version__ = "0.0"
class _Result:
    def __init__(self, count): self.multi_hand_landmarks = [0] * count or None
class _Hands:
    def __init__(self, static_image_mode, max_num_hands):
        self.still, self.most, self.seen = static_image_mode, max_num_hands, 0
    def reset(self): self.seen = 0
    def process(self, picture):
        print("a log line of MediaPipe's")
        assert picture.flags.c_contiguous
        if picture[0, 0, 0] == 255: raise RuntimeError("it crashed")
        self.seen += 1
        shown = self.still or self.seen > 1
        return _Result(min(self.most, int(picture[0, 0, 0])) if shown else 0)
class solutions:
    class hands:
        Hands = _Hands
"""


@pytest.fixture
def interpreter(tmp_path: Path) -> Path:
    """One that finds the stand-in."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "mediapipe.py").write_text(STAND_IN)
    script = tmp_path / "python"
    site, executable = tmp_path / "site", sys.executable
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{site}" exec "{executable}" "$@"\n')
    script.chmod(0o755)
    return script


@pytest.fixture
def peer(interpreter: Path, tmp_path: Path) -> Iterator[MediaPipe]:
    with MediaPipe(interpreter, tmp_path) as peer:
        yield peer


def _picture(hands: int) -> np.ndarray:
    image = np.zeros((48, 64, 3), np.uint8)
    image[0, 0, 0] = hands
    return image


posix = pytest.mark.skipif("sys.platform == 'win32'", reason="its stand-in is a shell script")


@posix
def test_the_process_tells_times_and_hands(peer: MediaPipe) -> None:
    assert peer.versions["mediapipe"] == "0.0"
    assert peer.versions["numpy"] == np.__version__
    handle = peer.hand_over("some", [_picture(n) for n in (0, 1, 3)])
    times, found = peer.run(handle, still=True, hands=2)
    assert found == [0, 1, 2]
    assert len(times) == 3
    assert all(t >= 0 for t in times)


@posix
def test_every_video_begins_anew(peer: MediaPipe) -> None:
    handle = peer.hand_over("video", [_picture(1)] * 3)
    assert [peer.run(handle, still=False, hands=1)[1] for _ in range(2)] == [[0, 1, 1]] * 2


@posix
def test_a_crash_of_the_process_is_told(interpreter: Path, tmp_path: Path) -> None:
    peer = MediaPipe(interpreter, tmp_path)
    handle = peer.hand_over("bad", [_picture(255)])
    with pytest.raises(BackendError, match="ended with code 1"):
        peer.run(handle, still=True, hands=1)
    peer.close()


class Ours:
    """A Predictor, and a Tracker, that are right."""

    def predict(self, picture: np.ndarray, max_hands: int = 1) -> list[int]:
        return [0] * min(max_hands, int(picture[0, 0, 0]))


@posix
def test_turns_are_measured_for_both(peer: MediaPipe) -> None:
    pictures = [_picture(n) for n in (1, 0, 2, 1)]
    found = compare("photos", Ours(), peer, pictures, rounds=3, hands=1)  # type: ignore[arg-type]
    assert found.ours_ms.shape == found.theirs_ms.shape == (3, 4)
    assert (found.ours_found, found.theirs_found) == (0.75, 0.75)


@posix
def test_rates_of_a_folder(peer: MediaPipe, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for n in range(6):
        cv2.imwrite(str(folder / f"{n}.png"), _picture(n % 3)[..., ::-1])

    class Blind(Ours):
        def predict(self, picture: np.ndarray, max_hands: int = 1) -> list[int]:
            return [0] if picture[0, 0, 0] == 2 else []

    found = rates(Blind(), peer, folder, 1, 1)  # type: ignore[arg-type]
    assert found == Rates("photos", 6, ours=2, theirs=4, both=2)
    every_second = rates(Blind(), peer, folder, 2, 1)  # type: ignore[arg-type]
    assert every_second.count == 3
    with pytest.raises(InputError, match="no picture"):
        rates(Blind(), peer, tmp_path / "site", 1, 1)  # type: ignore[arg-type]


def test_the_ratio_is_of_each_rounds_medians() -> None:
    # The machine is three times as slow in the second round, for both.
    theirs = np.array([[10.0, 10, 10, 90], [30, 30, 30, 30], [10, 10, 10, 10]])
    ours = np.array([[5.0, 5, 5, 5], [15, 15, 15, 15], [8, 8, 8, 8]])
    found = Comparison("photos", ours, theirs, 1.0, 1.0)
    np.testing.assert_allclose(found.ratios, (0.5, 0.5, 0.8))
    described = found.to_dict()
    assert described["ratio"] == pytest.approx({"median": 0.5, "p25": 0.5, "p75": 0.65})
    assert described["ours_ms"]["p50"] == 8
    json.dumps(described)


def test_photos_are_fitted_undistorted() -> None:
    image = np.zeros((1000, 500, 3), np.uint8)
    cv2.circle(image, (250, 500), 200, (255, 255, 255), -1)
    found = fitted(image)
    assert found.shape == (480, 640, 3)
    rows, columns = np.nonzero(found[..., 0] > 127)
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=2)
    assert np.ptp(rows) == pytest.approx(400 * 0.48, abs=3)
    assert rows.mean() == pytest.approx(239.5, abs=1)
    assert columns.mean() == pytest.approx(319.5, abs=1)


def test_the_clip_moves_and_comes_back() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    cv2.circle(image, (320, 240), 20, (255, 255, 255), -1)
    places = []
    for frame in clip(image):
        rows, columns = np.nonzero(frame[..., 0] > 127)
        places.append((columns.mean(), rows.mean()))
    steps = np.linalg.norm(np.diff([*places, places[0]], axis=0), axis=1)
    assert 1 < steps.mean() < 8
    assert steps.max() < 12
    assert np.ptp([x for x, _ in places]) > 60


def test_tables_say_both_names_and_the_ratio() -> None:
    one = Comparison("video", np.full((2, 3), 5.0), np.full((2, 3), 10.0), 1.0, 0.5)
    text = peers.markdown({"processor": "X"}, [one], [Rates("asl", 200, 150, 190, 148)])
    assert "| video | 5.0 | 5.0 | 10.0 | 10.0 | 0.50 (0.50 to 0.50) | 100 % / 50 % |" in text
    assert "| asl | 200 | 75.0 % | 95.0 % | 74.0 % |" in text
    assert "- processor: X" in text


def test_the_clip_is_of_the_photo_whose_hand_is_seen_best() -> None:
    class Finder:
        def predict(self, picture: np.ndarray, **_: Any) -> list[SimpleNamespace]:
            return [SimpleNamespace(presence=0.1 * n) for n in range(picture[0, 0, 0], 0, -1)]

    finder: Any = Finder()
    assert peers._surest(finder, [_picture(n) for n in (0, 1, 3, 2, 0)])[0, 0, 0] == 3
    with pytest.raises(InputError, match="none of the photos shows a hand"):
        peers._surest(finder, [_picture(0), _picture(0)])
