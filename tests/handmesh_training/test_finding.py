"""Searches of a predictor whose answers are known in advance."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import cv2
import numpy as np
import pytest

from handmesh import Predictor
from handmesh.errors import InputError
from handmesh_training.finding import FindingReport, evaluate_finding


class _Sure:
    """Its presence is the picture's grey value in percent; its joints are where the labels are, or
    far off in photos with "off" in their name."""

    def __init__(self, joints_px: np.ndarray) -> None:
        self.joints_px = joints_px

    def predict(self, path: Path, min_presence: float) -> list[SimpleNamespace]:
        assert min_presence == 0.0  # or the unsure ones would be lost
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
    report = FindingReport(presences, {})
    for rate in (0.05, 0.1, 0.5):
        moved = FindingReport(1 / (1 + np.exp(-log_odds - report.prior_shift(rate))), {})
        assert moved.false_alarms() == pytest.approx(rate, abs=0.002)


def test_a_limit_spreads_over_the_pictures(tmp_path: Path, joints_px: np.ndarray) -> None:
    for i in range(6):
        _picture(tmp_path / f"{i}.png", 10 * i)
    report = evaluate_finding(cast(Predictor, _Sure(joints_px)), tmp_path, limit=3)
    assert report.negatives.tolist() == [0.0, 0.2, 0.4]


def test_a_folder_without_pictures_is_refused(tmp_path: Path, joints_px: np.ndarray) -> None:
    with pytest.raises(InputError, match="holds no picture"):
        evaluate_finding(cast(Predictor, _Sure(joints_px)), tmp_path)
