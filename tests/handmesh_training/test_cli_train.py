"""`handmesh train`: what its options make of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from handmesh.cli import main
from handmesh_training.rendered import HandRenderer, RenderSettings
from handmesh_training.shards import SetSettings
from handmesh_training.shards.writer import render_shards

pytestmark = pytest.mark.usefixtures("quick_surroundings")


def test_training_takes_size_and_margin_from_the_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from handmesh_training import stages

    made: list[stages.Run] = []
    monkeypatch.setattr(stages, "train_fully", made.append)
    monkeypatch.setattr(HandRenderer, "chunk", lambda *_: None)
    folder = tmp_path / "set"
    render_shards(SetSettings(26, 4, 5, RenderSettings(crop_px=40, margin=1.7)), folder)

    assert main(["train", "--out", str(tmp_path / "run"), "--shards", str(folder)]) == 0
    assert main(["train", "--out", str(tmp_path / "run"), "--reuse", "2"]) == 0
    assert main(["train", "--out", str(tmp_path / "run"), "--shards", str(tmp_path)]) == 2

    stored, rendered = (run.stream for run in made)
    assert (stored.render.crop_px, stored.render.margin, stored.reuse) == (40, 1.7, 1)
    assert stored.augment.stored_margin == 1.7
    assert (stored.shards, rendered.shards, rendered.reuse) == (folder, None, 2)
