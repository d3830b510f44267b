"""Searches of a predictor whose answers are known in advance."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest

from handmesh import Box, Predictor
from handmesh.detector import Detection, Detector
from handmesh.errors import InputError
from handmesh.finding import DetectedHands, Finder, search_windows
from handmesh.pipeline import Photo, Stopwatch
from handmesh.search import Sighting
from handmesh_training.finding import FindingReport, evaluate_finding


class _Sure:
    """Its presence is the picture's grey value in percent; its joints are where the labels are, or
    far off in photos with "off" in their name."""

    def __init__(self, joints_px: np.ndarray, find: Finder = search_windows) -> None:
        self.joints_px, self.find = joints_px, find

    def predict(self, path: Path, min_presence: float, looks: int) -> list[SimpleNamespace]:
        assert min_presence == 0.0  # or the unsure ones would be lost
        assert looks == 1  # presence is the first one's
        presence = int(cv2.imread(str(path))[0, 0, 0]) / 100
        offset = 50.0 if "off" in path.name else 1.0
        return [SimpleNamespace(presence=presence, joints_px=self.joints_px + offset)]


def _picture(path: Path, percent: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((8, 8, 3), percent, dtype=np.uint8))


@pytest.fixture
def joints_px() -> np.ndarray:
    points = np.random.default_rng(0).uniform(0, 90, (21, 2))
    points[0], points[1] = (0, 0), (90, 90)
    return points


@pytest.fixture
def report(tmp_path: Path, joints_px: np.ndarray) -> FindingReport:
    for i, percent in enumerate((3, 20, 50, 90)):
        _picture(tmp_path / "none" / f"folder{i % 2}" / f"{i}.png", percent)
    (tmp_path / "none" / "notes.txt").write_text("no picture")
    photos = {"a.png": 95, "b.png": 40, "off.png": 99, "c.png": 70}
    hand = {
        "uv": (joints_px + 0.5).tolist(),
        "world_m": np.zeros((21, 3)).tolist(),
        "handedness_as_reported": "Left",
    }
    for name, percent in photos.items():
        _picture(tmp_path / "some" / name, percent)
    labels = {name: {"hands": [hand]} for name in photos}
    (tmp_path / "some" / "pseudo_labels.json").write_text(json.dumps(labels))
    predictor = cast(Predictor, _Sure(joints_px))
    return evaluate_finding(predictor, tmp_path / "none", [tmp_path / "some"])


def test_false_alarms_and_found_hands_at_each_threshold(report: FindingReport) -> None:
    assert report.negatives.tolist() == [0.03, 0.2, 0.5, 0.9]
    assert [report.false_alarms(t) for t in (0.0, 0.1, 0.5, 0.95)] == [1.0, 0.75, 0.5, 0.0]
    # What is reported in the wrong place is not found, however sure.
    assert [report.found("some", t) for t in (0.0, 0.5, 0.9)] == [0.75, 0.5, 0.25]


def test_the_report_says_so_in_words_and_in_json(report: FindingReport) -> None:
    table = report.to_table()
    assert "4 pictures without hands" in table
    assert "0.500" in table
    assert "50.00 %" in table
    figures = json.loads(json.dumps(report.to_dict()))
    assert figures["false_alarms"]["0.5"] == 0.5
    assert figures["presence"]["highest"] == 0.9
    assert figures["found"]["some"]["count"] == 4
    assert [figures["found"]["some"][t] for t in ("0.35", "0.8", "0.97")] == [0.75, 0.25, 0.0]


def test_the_prior_that_gives_a_rate_of_false_alarms() -> None:
    log_odds = np.linspace(-4, 6, 1001)
    presences = 1 / (1 + np.exp(-log_odds))
    report = FindingReport(presences, {}, "it")
    for rate in (0.05, 0.1, 0.5):
        shift = report.prior_shift(rate)
        assert shift is not None
        moved = FindingReport(1 / (1 + np.exp(-log_odds - shift)), {}, "it")
        assert moved.false_alarms() == pytest.approx(rate, abs=0.002)


def test_pictures_in_which_nothing_is_looked_at_are_moved_by_no_prior() -> None:
    # A detector finds nothing in 85 of 100 pictures; in the others the log-odds are -7.5 to -0.5.
    log_odds = np.arange(-7.5, 0, 0.5)
    presences = np.concatenate([np.zeros(85), 1 / (1 + np.exp(-log_odds))])
    report = FindingReport(presences, {}, "PRIOR of handmesh.finding")

    for rate, least, most in ((0.02, 0.5, 1.5), (0.1, 4.5, 5.5), (0.15, 7.4, 7.6)):
        shift = report.prior_shift(rate)
        assert shift is not None
        assert least <= shift <= most, "odds of the pictures that can have a false alarm"
    assert report.prior_shift(0.2) is None
    assert "to PRIOR of handmesh.finding add " in report.to_table()
    assert "nothing (out of its reach) for 20 %" in report.to_table()
    figures = json.loads(json.dumps(report.to_dict()))
    assert figures["prior"] == "PRIOR of handmesh.finding"
    assert figures["prior_shift"]["0.2"] is None


class _Scene:
    """A photo of a hand that neither network is sure of, wherever it is looked at."""

    width, height, clock = 400, 300, Stopwatch()

    def look(self, views: list[Any]) -> list[Sighting]:
        joints = np.zeros((21, 3), np.float32)
        joints[:, :2] = np.random.default_rng(0).uniform(0.2, 0.8, (21, 2))
        ones = np.ones(21, np.float32)
        return [Sighting(view, joints, joints, ones, 0.6, 0.9) for view in views]


class _Detector:
    def find(self, photo: object, min_presence: float) -> list[Detection]:
        return [Detection(Box(200, 150, 120), 0.6, 0.9)]


@pytest.mark.parametrize("find", [DetectedHands(cast(Detector, _Detector())), search_windows])
def test_the_constant_that_is_named_moves_what_the_finder_says(
    find: Finder, tmp_path: Path, joints_px: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    _picture(tmp_path / "none.png", 50)
    report = evaluate_finding(cast(Predictor, _Sure(joints_px, find)), tmp_path)
    name, module = report.prior.split(" of ")

    def surest() -> float:
        presence = max(hand.presence for hand in find(cast(Photo, _Scene()), False, 1, 0.0))
        return float(np.log(presence / (1 - presence)))

    before = surest()
    constant = getattr(importlib.import_module(module), name)
    monkeypatch.setattr(f"{module}.{name}", constant + 1.5)
    assert surest() == pytest.approx(before + 1.5)


def test_a_finder_of_ones_own_has_a_prior_of_its_own(tmp_path: Path, joints_px: np.ndarray) -> None:
    _picture(tmp_path / "none.png", 50)
    predictor = cast(Predictor, _Sure(joints_px, lambda *_: []))
    assert "to the finder's own prior add" in evaluate_finding(predictor, tmp_path).to_table()


def test_a_limit_spreads_over_the_pictures(tmp_path: Path, joints_px: np.ndarray) -> None:
    for i in range(6):
        _picture(tmp_path / f"{i}.png", 10 * i)
    report = evaluate_finding(cast(Predictor, _Sure(joints_px)), tmp_path, limit=3)
    assert report.negatives.tolist() == [0.0, 0.2, 0.4]


def test_a_folder_without_pictures_is_refused(tmp_path: Path, joints_px: np.ndarray) -> None:
    with pytest.raises(InputError, match="holds no picture"):
        evaluate_finding(cast(Predictor, _Sure(joints_px)), tmp_path)


def test_photo_sets_of_one_name_keep_their_own_figures(
    report: FindingReport, tmp_path: Path, joints_px: np.ndarray
) -> None:
    twin = tmp_path / "elsewhere" / "some"
    shutil.copytree(tmp_path / "some", twin)
    _picture(twin / "a.png", 10)
    predictor = cast(Predictor, _Sure(joints_px))
    both = evaluate_finding(predictor, tmp_path / "none", [tmp_path / "some", twin])
    assert list(both.hands) == ["some", f"some in {twin}"]
    np.testing.assert_array_equal(both.hands["some"], report.hands["some"])
    assert both.found(f"some in {twin}") == both.found("some") - 0.25
