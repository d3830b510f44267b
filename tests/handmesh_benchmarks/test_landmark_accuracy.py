"""Our errors beside MediaPipe's, on planted networks whose errors are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.planted import Planted, hand

from handmesh import Bundle, Predictor
from handmesh.errors import InputError
from handmesh_benchmarks import landmark_accuracy
from handmesh_benchmarks.landmark_accuracy import main, rows_of, to_text
from handmesh_benchmarks.landmark_network import PEERS
from handmesh_training.datasets import Sample
from handmesh_training.evaluate import evaluate
from handmesh_training.evaluation_report import Report
from handmesh_training.photos import LABELS
from handmesh_training.protocols import IN_THE_WILD

SETS = {"few": [hand(0)], "more": [hand(n) for n in (1, 2, 3)]}
EVERY = [sample for samples in SETS.values() for sample in samples]


def _reports(planted: Planted, boxes: int = 1) -> list[Report]:
    return [
        evaluate(planted, samples, IN_THE_WILD, name, boxes=boxes) for name, samples in SETS.items()
    ]


def test_means_over_all_sets_are_of_hands() -> None:
    near, far = (
        Planted(EVERY, offset_share=0.1, crops_seen=2),
        Planted(EVERY, offset_share=0.3, crops_seen=6),
    )
    reports = {"near": _reports(near), "far": _reports(far)}
    one, three = (report["image_share"] for report in reports["near"])
    assert (one.count, three.count) == (1, 3)

    rows = rows_of(reports)

    assert [(row.name, row.network) for row in rows] == [
        (name, network) for name in ("few", "more", "all") for network in ("near", "far")
    ]
    mean, hands = rows[4].figures["image_share"]
    assert (mean, hands) == (pytest.approx((one.value + 3 * three.value) / 4), 4)
    assert rows[5].figures["image_share"][0] == pytest.approx(3 * mean)


def test_a_table_counts_hands_once_and_leaves_out_what_is_not_labelled() -> None:
    table = to_text(
        rows_of({"near": _reports(Planted(EVERY, offset_share=0.1, crops_seen=2), boxes=4)}), 4
    )
    *_, few, more, every = table.split("\n")
    assert [row.split(" | ")[0:2] for row in (few, more, every)] == [
        ["| few", "1"], ["| more", "3"], ["| all", "4"],
    ]  # fmt: skip
    assert "| 0.0 mm (4) |" in every, "alignment takes out what all joints are off by"


def test_the_command_asks_all_for_the_same_boxes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = (
        Planted(EVERY, offset_share=0.1, crops_seen=2),
        Planted(EVERY, offset_share=0.2, crops_seen=6),
    )
    limits: list[int | None] = []

    def samples(data: list[Sample], limit: int | None) -> Sequence[Sample]:
        limits.append(limit)
        return data

    monkeypatch.setattr(landmark_accuracy, "_sets", lambda folders: dict(SETS))
    monkeypatch.setattr(landmark_accuracy, "dataset_samples", samples)
    monkeypatch.setattr(landmark_accuracy, "prepare", lambda environment: environment)
    looks: list[int] = []

    def estimator(predictor: Predictor, count: int) -> Planted:
        looks.append(count)
        return ours

    monkeypatch.setattr(landmark_accuracy, "PredictorEstimator", estimator)
    monkeypatch.setattr(
        landmark_accuracy, "_peers", lambda environment, threads: [("peer", theirs)]
    )
    out = tmp_path / "accuracy.json"

    assert (
        main(["--data", "x", "--boxes", "2", "--limit", "9", "--looks", "1", "--out", str(out)])
        == 0
    )

    assert limits == [9] * 4
    assert looks == [1]
    boxes = [
        [(q.box.cx, q.box.cy, q.box.size) for q in one.asked if q.box] for one in (ours, theirs)
    ]
    assert boxes[0] == boxes[1]
    assert len(boxes[0]) == 2 * len(EVERY)
    assert all(query.camera is None and query.handedness is None for query in theirs.asked)
    shown = capsys.readouterr().out
    assert f"| all | 4 | {Bundle.load().name}, 1 look |" in shown
    assert "| all | 4 | peer |" in shown
    written = json.loads(out.read_text())
    assert written["boxes"] == 2
    assert [row["set"] for row in written["rows"]] == ["few", "few", "more", "more", "all", "all"]
    # What is of no metric joints is not written in millimetres.
    for row in written["rows"]:
        assert set(row["figures"]) == {"image_share", "joints_pa_mm", "handedness", "crops_seen"}


def test_each_network_of_mediapipe_is_asked_for_both_kinds_of_joints(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = {name: tmp_path / f"{name}.tflite" for name in PEERS}
    monkeypatch.setattr(landmark_accuracy, "landmark_files", lambda environment: files)
    monkeypatch.setattr(
        landmark_accuracy.LandmarkEstimator, "load", lambda path, threads, joints: (path, joints)
    )
    assert dict(landmark_accuracy._peers(tmp_path, 1)) == {
        "hand_landmark_full, world landmarks": (files[PEERS[0]], "world"),
        "hand_landmark_full, landmarks of the picture": (files[PEERS[0]], "picture"),
        "hand_landmark_lite, world landmarks": (files[PEERS[1]], "world"),
        "hand_landmark_lite, landmarks of the picture": (files[PEERS[1]], "picture"),
    }


def test_a_teacher_s_labels_are_no_truth(tmp_path: Path) -> None:
    (tmp_path / LABELS).write_text("{}")
    with pytest.raises(InputError, match="teacher's labels, not the truth"):
        main(["--data", str(tmp_path)])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--boxes", "17"], "--boxes must be from 1 to 16"),
        (["--threads", "0"], "at least 1"),
        (["--limit", "0"], "at least 1"),
        (["--looks", "6"], "looks must be from 1 to 5"),
    ],
)
def test_counts_that_cannot_be_are_refused_before_anything_is_installed(
    given: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no(environment: Any) -> Any:
        raise AssertionError("nothing is to be installed")

    monkeypatch.setattr(landmark_accuracy, "prepare", no)
    with pytest.raises(InputError, match=said):
        main(["--data", "x", *given])
