"""The pose regressor with max pooling against a padded network in float64 NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from handmesh.errors import InputError
from handmesh.graph import Topology
from handmesh.nn.config import DecoderConfig
from handmesh.nn.graph_head import MaxPoseRegressor
from handmesh.nn.graph_layers import ChebConv

Array = NDArray[np.float64]

CONFIG = DecoderConfig(
    pose_fine_channels=(4, 5), pose_middle_channels=(6, 3), pose_hidden=8, pose_pooling="max"
)


def made(topology: Topology) -> MaxPoseRegressor:
    torch.manual_seed(3)
    regressor = MaxPoseRegressor(CONFIG, topology).double()
    for conv in (regressor.conv1, regressor.conv2, regressor.conv3, regressor.conv4):
        torch.nn.init.normal_(conv.bias)
    return regressor


def padded_conv(conv: ChebConv, laplacian: Array, x: Array) -> Array:
    """On every node (N, C), padding or not."""
    theta = conv.weight.detach().numpy().reshape(conv.channels_out, 3, conv.channels_in)
    terms = [x, laplacian @ x, 2 * laplacian @ laplacian @ x - x]
    return sum(term @ theta[:, k].T for k, term in enumerate(terms)) + conv.bias.detach().numpy()


def padded_reference(regressor: MaxPoseRegressor, topology: Topology, vertices: Array) -> Array:
    dense = {level.node_count: level.dense() for level in topology.levels}
    x = np.zeros((1280, 3))
    x[topology.node_of_vertex] = vertices
    for count, convs in (
        (1280, (regressor.conv1, regressor.conv2)),
        (320, (regressor.conv3, regressor.conv4)),
    ):
        for conv in convs:
            x = padded_conv(conv, dense[count], x)
        x = x.reshape(count // 4, 4, -1).max(axis=1)
    x = x[topology.levels[-1].mask].reshape(-1)
    for fc in (regressor.fc1, regressor.fc2):
        x = fc.weight.detach().numpy() @ x + fc.bias.detach().numpy()
    return x.reshape(21, 3)


@pytest.mark.parametrize("graph", ["topology", "padded"])
def test_padding_nodes_take_part_in_the_maximum(graph: str, request: pytest.FixtureRequest) -> None:
    topology: Topology = request.getfixturevalue(graph)
    regressor = made(topology)
    vertices = torch.randn(2, topology.vertex_count, 3, dtype=torch.float64)
    # Far below the padding nodes, which must win, and around them.
    vertices[1] *= 0.01

    joints = regressor(vertices).detach().numpy()

    for found, each in zip(joints, vertices.numpy(), strict=True):
        # The Laplacian is stored in float32.
        expected = padded_reference(regressor, topology, each)
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_it_is_no_affine_map(topology: Topology) -> None:
    regressor = made(topology)
    vertices = torch.randn(1, topology.vertex_count, 3, dtype=torch.float64)
    before = regressor(vertices)

    with pytest.raises(InputError, match="not linear"):
        regressor.affine()
    regressor.freeze()

    torch.testing.assert_close(regressor(vertices), before)
    assert not any(parameter.requires_grad for parameter in regressor.parameters())
    regressor.unfreeze()
    assert all(parameter.requires_grad for parameter in regressor.parameters())
