"""Figures of a run's held-out crops, from networks whose answers are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from handmesh.nn import LightConfig
from handmesh_training.hand import HandModel
from handmesh_training.losses import LossWeights
from handmesh_training.metrics import procrustes_error
from handmesh_training.rendered import HandRenderer, RenderSettings
from handmesh_training.samples import Crops
from handmesh_training.tasks import full_task
from handmesh_training.train import Trainer, TrainSettings
from handmesh_training.validate import BONE_MM

pytestmark = pytest.mark.usefixtures("quick_surroundings")


def perfect(crops: Crops, offset: float) -> nn.Module:
    """A network that knows the answers, but for an offset of the joints in u."""

    class Oracle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen = 0

        def forward(self, images: Tensor) -> Any:
            rows = slice(self.seen, self.seen + len(images))
            self.seen += len(images)
            joints = torch.from_numpy(crops.joints[rows]).clone()
            joints[:, 9, 0] += offset
            vertices = torch.from_numpy(crops.vertices[rows])
            return type("Output", (), {"joints": joints, "vertices": vertices})()

    return Oracle()


def test_evaluation_of_known_answers(tiny_config: LightConfig, tmp_path: Path) -> None:
    settings = RenderSettings(crop_px=64, margin=1.5, empty=0.0)
    crops = HandRenderer(settings, 7).chunk(0, 70)
    flat = Crops.concatenate([crops])
    flat.has_depth[:] = flat.has_mesh[:] = False
    run = TrainSettings(steps=4, tensorboard=False)
    validation = {"all": crops, "flat": flat}
    trainer = Trainer(tiny_config, run, tmp_path, full_task(LossWeights()), validation)

    trainer.average = perfect(Crops.concatenate([crops, flat]), 0.0)
    figures = trainer.evaluate()

    assert set(figures) == {"all_2d", "all_joints", "all_joints_pa", "all_mesh", "flat_2d"}
    assert max(figures.values()) < 1e-3
    trainer.average = perfect(Crops.concatenate([crops, flat]), 0.1)
    figures = trainer.evaluate()
    # One joint of 21 is off by 0.1 of the crop, which has 1.5 times the box's side.
    assert figures["all_2d"] == pytest.approx(0.1 * 1.5 / 21, rel=1e-3)
    off_mm = 0.1 * crops.crop_in_bones.mean() * BONE_MM
    assert figures["all_joints"] == pytest.approx(off_mm / 21, rel=1e-3)
    scale = np.stack([crops.crop_in_bones, crops.crop_in_bones, np.ones(70)], axis=1)[:, None]
    moved = crops.joints.astype(np.float64)
    moved[:, 9, 0] += 0.1
    aligned = procrustes_error(moved * scale, crops.joints * scale).mean() * BONE_MM
    assert figures["all_joints_pa"] == pytest.approx(aligned, rel=1e-3)
    assert figures["all_mesh"] < 1e-3


def test_bone_mm_is_the_template_s() -> None:
    joints = HandModel().joints

    assert float((joints[10] - joints[9]).norm()) * 1000 == pytest.approx(BONE_MM, abs=1)
