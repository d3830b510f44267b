"""A training of the detector: that it learns, goes on, and begins with given weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from handmesh.bundle import DETECTOR, Bundle
from handmesh.errors import BundleError
from handmesh.nn import DetectorConfig, DetectorNetwork, StageConfig, load_weights
from handmesh_training.checkpoint import load_network
from handmesh_training.detection import run as detector_run
from handmesh_training.detection.run import DetectorRun, train_detector
from handmesh_training.detection.scenes import Supplies
from handmesh_training.recipe import Recipe
from handmesh_training.render_settings import RenderSettings
from handmesh_training.train import TrainSettings

TINY = DetectorConfig(
    input_size=64,
    stem_channels=8,
    stages=tuple(StageConfig("fused", width, 1, 1.5) for width in (8, 8, 16, 16)),
    pyramid_channels=(16, 16),
    pyramid_depth=(1, 1),
)
STEPS = 24


@pytest.fixture(autouse=True)
def prepared(supplies: Supplies, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is rendered."""
    stand_in = SimpleNamespace(open=lambda: supplies)
    monkeypatch.setattr(detector_run, "prepared", lambda *_: stand_in)


def _run(folder: Path, steps: int = STEPS, rate: float = 3e-3) -> DetectorRun:
    recipe = Recipe(learning_rate=rate, batch=4, warmup=0, schedule="constant", average=None)
    settings = TrainSettings(steps, recipe, report=steps, evaluate=steps, tensorboard=False)
    return DetectorRun(folder, RenderSettings(), (), TINY, settings, watched=8, workers=0)


def _state(folder: Path) -> dict[str, torch.Tensor]:
    return load_network(folder / "detector" / "checkpoint.pt").network.state_dict()


def test_it_learns_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = train_detector(_run(tmp_path / "whole"))
    train_detector(_run(tmp_path / "parts", steps=STEPS // 2))
    train_detector(_run(tmp_path / "parts"))

    assert whole.images_seen == 4 * STEPS
    one, other = _state(tmp_path / "whole"), _state(tmp_path / "parts")
    assert all(torch.equal(one[name], other[name]) for name in one)
    lines = (tmp_path / "parts" / "detector" / "log.jsonl").read_text().splitlines()
    first, last = (json.loads(line)["loss"] for line in lines if "loss" in line)
    assert last < first
    assert (tmp_path / "whole" / "detector" / "scenes.png").stat().st_size


def test_it_begins_with_the_weights_of_a_checkpoint(tmp_path: Path) -> None:
    train_detector(_run(tmp_path / "first"))
    begun = replace(
        _run(tmp_path / "second", steps=1, rate=1e-12),
        start_from=tmp_path / "first" / "detector" / "checkpoint.pt",
    )
    train_detector(begun)

    before, after = _state(tmp_path / "first"), _state(tmp_path / "second")
    moved = [name for name in before if "running" not in name and "num_batches" not in name]
    assert len(moved) > 20
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in moved)


def test_it_begins_with_the_shipped_weights_on_scenes_of_another_size(tmp_path: Path) -> None:
    """Those of a bundle; a detector is convolutions, which fit pictures of any size."""
    weights = Path(Bundle.load(DETECTOR).artifact("torch"))
    shipped = DetectorNetwork(DetectorConfig())
    load_weights(shipped, weights, DetectorConfig(), None)
    run = _run(tmp_path, steps=1, rate=1e-12)
    train_detector(replace(run, config=DetectorConfig(input_size=96), start_from=weights))

    after = _state(tmp_path)
    assert all(
        torch.allclose(value, after[name], atol=1e-6) for name, value in shipped.named_parameters()
    )


def test_weights_of_a_mesh_network_are_refused(tmp_path: Path) -> None:
    weights = Path(Bundle.load("light").artifact("torch"))
    with pytest.raises(BundleError, match=r"holds weights of .*light"):
        train_detector(replace(_run(tmp_path), start_from=weights))
    assert not (tmp_path / "detector" / "checkpoint.pt").exists()
