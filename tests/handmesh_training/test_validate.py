"""Figures of a run's held-out crops, from networks whose answers are known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from handmesh.nn import LightConfig
from handmesh_training.cropped_set import CroppedSet
from handmesh_training.hand import HandModel
from handmesh_training.losses import LossWeights
from handmesh_training.metrics import procrustes_error
from handmesh_training.rendered import HandRenderer, RenderSettings
from handmesh_training.samples import Crops
from handmesh_training.tasks import full_task
from handmesh_training.train import Trainer, TrainSettings
from handmesh_training.validate import BONE_MM, held_out

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


def test_held_out_hands_are_looked_at_as_closely_as_a_network_looks() -> None:
    """Labels by the corners of what is cut out: the middle 1.5 / 1.9 of the stored crop."""
    stored = Crops.empty(3, 38, 4)
    stored.has_joints[:] = True, False, True
    stored.crop_in_bones[:] = 3.8, 3.8, 1.9
    edge = 0.5 * 1.5 / 1.9
    stored.joints[:] = (0.5 - edge, 0.5 + edge, 0.7)
    stored.vertices[:] = (0.5, 0.5 + edge / 2, 0.2)
    stored.outline[:] = (0.5 + edge, 0.5)
    stored.images[:, 19:] = 200
    made = held_out(cast(CroppedSet, SimpleNamespace(crops=stored, margin=1.9)), (0, 1, 2), 32)

    assert made.has_joints.tolist() == [True, True]
    assert made.images.shape == (2, 32, 32, 3)
    assert (made.images[:, :14].max(), made.images[:, 18:].min()) == (0, 200)
    # Of the same hand less is seen: fewer bones across.
    np.testing.assert_allclose(made.crop_in_bones, [3.0, 1.5], rtol=1e-6)
    np.testing.assert_allclose(made.joints[0, 0], (0, 1, 0.7), atol=1e-6)
    np.testing.assert_allclose(made.vertices[1, 2], (0.5, 0.75, 0.2), atol=1e-6)
    np.testing.assert_allclose(made.outline[0, 5], (1, 0.5), atol=1e-6)
