"""Supplies to compose scenes of: a red hand, before grey."""

from __future__ import annotations

import numpy as np
import pytest
from red_hand import flat_joints, red_layer

from handmesh_training.detection.grounds import Grounds
from handmesh_training.detection.layers import Layers
from handmesh_training.detection.scenes import Supplies


@pytest.fixture(scope="package")
def supplies() -> Supplies:
    grey = np.full((64, 128, 3), 0.2, np.float32)
    joints = flat_joints()[None].astype(np.float32)
    cut_outs = Layers(red_layer()[None], joints, np.ones(1, bool))
    picture = np.full((1, 128, 128, 3), 90, np.uint8)
    pictures = Layers(picture, joints, np.zeros(1, bool))
    return Supplies(Grounds([grey], views=4), cut_outs, pictures)
