"""Eight threads that share one Predictor give what one thread gives."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from handmesh import Box, Bundle, Hand, Predictor, Tracker, backends
from handmesh import predictor as predictor_module
from handmesh.errors import BackendError
from handmesh.imaging import decode

THREADS = 8
BOXES = {
    "open": (15, 8, 548, 448),
    "open_turned": (8, 5, 595, 455),
    "pointing": (158, 95, 398, 500),
    "hooked": (145, 190, 392, 500),
    "fist": (132, 255, 370, 500),
}
# The same instructions on the same numbers: nothing may differ, and does not on one thread.
EXACT = 0.0


@pytest.fixture(scope="module")
def photos(example_photos: dict[str, Path]) -> dict[str, NDArray[np.uint8]]:
    return {name: decode(path) for name, path in example_photos.items()}


def _at_once(works: Sequence[Callable[[], Any]]) -> list[Any]:
    """The results of all works, each in a thread of its own, begun together."""
    start = threading.Barrier(len(works))

    def begin(work: Callable[[], Any]) -> Any:
        start.wait(60)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(begin, works))


def _assert_same(found: Sequence[Hand], expected: Sequence[Hand]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.handedness == other.handedness
        assert one.box == other.box
        assert one.presence == other.presence
        assert one.crops_seen == other.crops_seen
        for name in ("joints_m", "joints_px", "vertices_m", "vertices_px", "confidence"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=EXACT)


def test_the_search_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    def load(threads: int | None) -> Any:
        time.sleep(0.05)  # long enough for all others to ask meanwhile
        made.append(threads)
        return lambda *_: []

    monkeypatch.setattr(predictor_module, "default_finder", load)
    with Predictor(threads=2) as predictor:
        found = _at_once([lambda: predictor.find] * THREADS)
    assert made == [2], "with the threads of the predictor"
    assert len(set(map(id, found))) == 1


def test_the_network_of_predict_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    class Slow:
        def __init__(self) -> None:
            time.sleep(0.05)
            made.append(self)

        def predict(self, image: Any, **_: Any) -> list[Hand]:
            return []

    monkeypatch.setattr(predictor_module, "Predictor", Slow)
    monkeypatch.setattr(predictor_module, "_default", None)
    assert _at_once([lambda: predictor_module.predict("photo.jpg")] * THREADS) == [[]] * THREADS
    assert len(made) == 1


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_boxes_from_eight_threads(backend: str, photos: dict[str, NDArray[np.uint8]]) -> None:
    rng = np.random.default_rng(0)
    jobs = []
    for n in range(THREADS * 6):
        name = list(BOXES)[n % len(BOXES)]
        box = Box.from_xyxy(*BOXES[name])
        shift = rng.uniform(-0.05, 0.05, 2) * box.size
        jobs.append((photos[name], Box(box.cx + shift[0], box.cy + shift[1], box.size, 0.1 * n)))
    with Predictor(backend=backend, threads=1) as predictor:
        alone = [predictor.predict(image, box=box) for image, box in jobs]

        def share(k: int) -> list[list[Hand]]:
            return [predictor.predict(image, box=box) for image, box in jobs[k::THREADS]]

        found = _at_once([lambda k=k: share(k) for k in range(THREADS)])  # type: ignore[misc]
    for k, hands in enumerate(found):
        for one, expected in zip(hands, alone[k::THREADS], strict=True):
            _assert_same(one, expected)
    places = {tuple(hands[0].joints_px[0]) for hands in alone}
    assert len(places) == len(jobs)  # no two jobs have the same answer that could be mixed up


def test_searches_from_eight_threads(photos: dict[str, NDArray[np.uint8]]) -> None:
    """Sizes differ, and some photos hold no hand: states of one must not leak into another."""
    plain = np.full((300, 400, 3), 90, np.uint8)
    half = {name: cv2.resize(image, None, fx=0.5, fy=0.5) for name, image in photos.items()}
    images = [photos["pointing"], half["open"], plain, half["hooked"], photos["open"], half["fist"]]
    images += [photos["pointing"][:, ::-1], half["open_turned"]]
    with Predictor(backend="onnx", threads=1) as predictor:
        alone = [predictor.predict(image, max_hands=2) for image in images]
        works = [
            lambda image=image: predictor.predict(image, max_hands=2)  # type: ignore[misc]
            for image in images
        ]
        found = _at_once(works)
    assert sum(map(len, alone)) >= 4
    for one, expected in zip(found, alone, strict=True):
        _assert_same(one, expected)


def test_trackers_of_eight_threads_share_a_predictor(
    photos: dict[str, NDArray[np.uint8]],
) -> None:
    image = cv2.resize(photos["pointing"], None, fx=0.5, fy=0.5)

    def follow(predictor: Predictor, k: int) -> list[NDArray[np.float32]]:
        tracker = Tracker(predictor)
        joints = []
        for n in range(8):
            matrix = np.array([[1.0, 0, n * (k - 4)], [0, 1, n]])
            frame = cv2.warpAffine(image, matrix, image.shape[1::-1])
            hands = tracker.update(np.asarray(frame, np.uint8), n / 30).hands
            joints += [hand.hand.joints_px for hand in hands]
        return joints

    with Predictor(backend="onnx", threads=1) as predictor:
        alone = [follow(predictor, k) for k in range(THREADS)]
        works = [lambda k=k: follow(predictor, k) for k in range(THREADS)]  # type: ignore[misc]
        found = _at_once(works)
    assert all(len(joints) == 8 for joints in alone)
    for one, expected in zip(found, alone, strict=True):
        np.testing.assert_allclose(one, expected, atol=EXACT)


def test_the_first_use_of_predict_from_eight_threads(
    photos: dict[str, NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Predictor behind `handmesh.predict` is made once, whoever comes first."""
    from handmesh import predictor as module

    made: list[Predictor] = []

    class Counted(Predictor):
        def __init__(self) -> None:
            super().__init__(backend="onnx", threads=1)
            made.append(self)

    monkeypatch.setattr(module, "_default", None)
    monkeypatch.setattr(module, "Predictor", Counted)
    box = BOXES["open"]
    found = _at_once([lambda: module.predict(photos["open"], box=box)] * THREADS)
    assert len(made) == 1
    for hands in found:
        _assert_same(hands, found[0])


def test_a_bundle_is_checked_once_by_eight_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    from handmesh import bundle as module

    checked: list[Path] = []
    verify = module.verify_file

    def counted(path: Path, described: Any) -> None:
        checked.append(path)
        verify(path, described)

    monkeypatch.setattr(module, "verify_file", counted)
    bundle = Bundle.load()
    created = _at_once([lambda: backends.create("onnx", bundle, 1)] * THREADS)
    assert len(created) == THREADS
    assert len(checked) == len(set(checked))


def test_a_predictor_closed_meanwhile_loads_no_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that asks for the search, and gets its turn only after another one has closed."""
    made: list[object] = []
    monkeypatch.setattr(predictor_module, "default_finder", made.append)
    predictor = Predictor(threads=1)
    lock = predictor._find_lock

    class Late:
        def __enter__(self) -> None:
            predictor._find_lock = lock
            predictor.close()
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    monkeypatch.setattr(predictor, "_find_lock", Late())
    with pytest.raises(BackendError, match="closed"):
        _ = predictor.find
    assert made == []
