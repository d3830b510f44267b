"""Skinning undone: hands that are posed come back to the rest pose that they were posed from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from handmesh.errors import InputError
from handmesh_training.hand import HandModel
from handmesh_training.other_hand.rest import at_rest


def bent(model: HandModel, degrees: float) -> torch.Tensor:
    angles = torch.zeros(1, 17, 3)
    angles[0, 1:16, 2] = model.rest_flexion[1:16] + np.deg2rad(degrees)
    angles[0, 4:16:3, 1] = torch.tensor([0.15, 0.0, -0.1, -0.2])
    angles[0, 0] = torch.tensor([0.3, -0.5, 0.8])
    return model.rotations(angles).double()


def test_the_rest_pose_is_found_again(hand_model: HandModel) -> None:
    asset = hand_model.asset
    rest = asset.vertices_m.astype(np.float64)
    rest = 1.1 * rest + 0.003 * np.sin(60 * rest[:, [1, 2, 0]])
    rest -= asset.joint_regressor[0].astype(np.float64) @ rest
    own = replace(asset, vertices_m=rest.astype(np.float32))
    model = HandModel(own).double()
    turns = bent(hand_model, 25)
    with torch.no_grad():
        posed = model(torch.zeros(1, model.shape_count).double(), turns)
    wrist_elsewhere = posed.vertices[0].numpy() + (0.2, -0.1, 0.5)

    found = at_rest(asset, wrist_elsewhere, turns[0].numpy())

    np.testing.assert_allclose(found.vertices_m, own.vertices_m, atol=2e-6)
    joints = asset.joint_regressor @ found.vertices_m
    np.testing.assert_allclose(joints, own.joint_regressor @ own.vertices_m, atol=2e-6)
    np.testing.assert_array_equal(found.faces, asset.faces)
    axes = np.linalg.norm(found.flexion_axes, axis=1)
    np.testing.assert_allclose(axes, 1, atol=1e-5)


@pytest.mark.parametrize("degrees", [100, 180])
def test_what_no_rest_pose_gives_is_told(hand_model: HandModel, degrees: float) -> None:
    asset = hand_model.asset
    turns = bent(hand_model, degrees)[0].numpy()
    with pytest.raises(InputError, match="skinning cannot be undone"):
        at_rest(asset, asset.vertices_m.astype(np.float64), turns)
