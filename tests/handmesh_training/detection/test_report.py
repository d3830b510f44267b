"""The figures of finding hands, of a finder that finds none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import handmesh
from handmesh.cli import main


class _Blind:
    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> _Blind:
        return self

    def __exit__(self, *_: object) -> None: ...

    def predict(self, *_: Any, **__: Any) -> list[Any]:
        return []


def test_what_nothing_was_measured_of_is_null_in_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((60, 80, 3), 90, np.uint8))
    points = np.random.default_rng(0).uniform(5, 55, (21, 2))
    hand = {
        "uv": points.tolist(),
        "world_m": np.zeros((21, 3)).tolist(),
        "handedness_as_reported": "Left",
    }
    labels = {"a.png": {"hands": [hand]}}
    (tmp_path / "pseudo_labels.json").write_text(json.dumps(labels))
    monkeypatch.setattr(handmesh, "Predictor", _Blind)

    command = ["evaluate-finding", "--by", "windows", "--photos", str(tmp_path)]
    assert main([*command, "--out", str(tmp_path / "figures.json")]) == 0

    def refuse(text: str) -> float:
        raise AssertionError(f"{text} is no JSON")

    text = (tmp_path / "figures.json").read_text()
    figures = json.loads(text, parse_constant=refuse)["windows"]
    assert figures["found"] == 0
    assert figures["ms_p50"] > 0
    for name in ("sides", "both", "false_alarms", "empty_ms_p50"):
        assert figures[name] is None
    (row,) = (line for line in capsys.readouterr().out.splitlines() if "false_alarms" in line)
    assert row.split() == ["false_alarms", "-"]


def test_photo_sets_are_looked_at_before_the_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last of them as well."""
    hand = {
        "uv": np.random.default_rng(0).uniform(5, 55, (21, 2)).tolist(),
        "world_m": np.zeros((21, 3)).tolist(),
        "handedness_as_reported": "Left",
    }
    (tmp_path / "pseudo_labels.json").write_text(json.dumps({"a.png": {"hands": [hand]}}))
    monkeypatch.setattr(handmesh, "Predictor", lambda *_, **__: pytest.fail("work begun"))
    command = ["evaluate-finding", "--by", "windows", "--photos", str(tmp_path)]
    assert main([*command, "--photos", str(tmp_path / "nowhere")]) == 2
    assert "there is no folder" in capsys.readouterr().err
