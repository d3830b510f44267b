"""Graph layers against dense float64 polynomials on all 1280 padded nodes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.polynomial import chebyshev

from handmesh.graph import Topology
from handmesh.nn.config import DecoderConfig
from handmesh.nn.graph_head import GraphHead, MeshDecoder, PoseRegressor
from handmesh.nn.graph_layers import ChebConv, NodeLevel, symmetric_product

SMALL = DecoderConfig(
    coarse_features=6,
    middle_channels=(7, 5),
    fine_channels=4,
    pose_fine_channels=(4, 5),
    pose_middle_channels=(6, 3),
    pose_hidden=8,
)


def levels_of(topology: Topology) -> dict[int, object]:
    return {level.node_count: level for level in topology.levels}


def node_level(topology: Topology, count: int, coarser: int | None = None) -> NodeLevel:
    levels = levels_of(topology)
    return NodeLevel(levels[count], levels[coarser] if coarser else None).double()


def polynomial_product(dense: np.ndarray, k: int, x: np.ndarray) -> np.ndarray:
    """T_k(L) x in the power basis: nothing of the recurrence in it. x is (N, B, C)."""
    out, power = np.zeros_like(x), x
    for coefficient in chebyshev.cheb2poly([0] * k + [1]):
        out = out + coefficient * power
        power = np.tensordot(dense, power, axes=1)
    return out


def reference_conv(conv: ChebConv, dense: np.ndarray, x: np.ndarray) -> np.ndarray:
    weight = conv.weight.detach().double().numpy()
    thetas = np.split(weight, conv.order, axis=1)  # K x (C_out, C_in)
    out = sum(polynomial_product(dense, k, x) @ theta.T for k, theta in enumerate(thetas))
    return out if conv.bias is None else out + conv.bias.detach().double().numpy()


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("widths", [(2, 5), (5, 2)])
def test_chebconv_is_the_polynomial_of_the_laplacian(
    topology: Topology, order: int, widths: tuple[int, int]
) -> None:
    torch.manual_seed(order)
    level = levels_of(topology)[320]
    conv = ChebConv(*widths, order=order).double()
    torch.nn.init.normal_(conv.bias)
    x = torch.randn(int(level.mask.sum()), 3, widths[0], dtype=torch.float64)
    dense = level.dense()[level.mask][:, level.mask]
    out = conv(x, node_level(topology, 320)).detach().numpy()
    np.testing.assert_allclose(out, reference_conv(conv, dense, x.numpy()), atol=1e-9)


def test_both_orders_of_evaluation_agree(topology: Topology) -> None:
    torch.manual_seed(0)
    level = node_level(topology, 80)
    conv = ChebConv(4, 4, order=4, bias=False).double()
    x = torch.randn(level.node_count, 2, 4, dtype=torch.float64)
    torch.testing.assert_close(conv._recurrence(x, level), conv._clenshaw(x, level, False))


def test_symmetric_product_gradients(topology: Topology) -> None:
    level = node_level(topology, 80)
    matrix = level.laplacian()
    x = torch.randn(level.node_count, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: symmetric_product(matrix, s), (x,))
    assert torch.autograd.gradgradcheck(lambda s: symmetric_product(matrix, s).pow(3), (x,))


def test_chebconv_gradients_with_unpooling(topology: Topology) -> None:
    level = node_level(topology, 320, 80)
    conv = ChebConv(2, 2).double()
    x = torch.randn(80, 1, 2, dtype=torch.float64, requires_grad=True)
    probe = torch.randn(level.node_count, 1, 2, dtype=torch.float64)

    def scalar(signal: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        out = torch.func.functional_call(conv, {"weight": weight}, (signal, level, True))
        return (out * probe).sum()

    weight = conv.weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(scalar, (x, weight))


def test_unpool_and_pool_follow_the_tree(padded: Topology) -> None:
    levels = levels_of(padded)
    fine, coarse = levels[320], levels[80]
    level = node_level(padded, 320, 80)
    parents = np.random.default_rng(0).normal(size=(80, 2, 3))
    parents[~coarse.mask] = 0
    up = level.unpool(torch.from_numpy(parents[coarse.mask])).numpy()
    np.testing.assert_array_equal(up, np.repeat(parents, 4, axis=0)[fine.mask])

    children = np.random.default_rng(1).normal(size=(320, 2, 3))
    down = level.pool(torch.from_numpy(children[fine.mask])).numpy()
    real = np.where(fine.mask[:, None, None], children, np.nan).reshape(80, 4, 2, 3)
    np.testing.assert_allclose(down, np.nanmean(real[coarse.mask], axis=1), atol=1e-12)


def padded_decoder(decoder: MeshDecoder, topology: Topology, latent: np.ndarray) -> np.ndarray:
    """The decoder written out on all padded nodes, with masks, dense, float64."""
    levels = levels_of(topology)

    def block(x: np.ndarray, module: torch.nn.Module, count: int) -> np.ndarray:
        x = reference_conv(module.conv, levels[count].dense(), x)
        norm = module.norm
        mean, var = norm.running_mean.numpy(), norm.running_var.numpy()
        x = (x - mean) / np.sqrt(var + norm.eps)
        x = x * norm.weight.detach().numpy() + norm.bias.detach().numpy()
        return np.maximum(x, 0) * levels[count].mask[:, None, None]

    linear = decoder.expand
    x = latent @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
    coarse = np.full((80, len(latent), decoder.coarse_features), 7.0)  # rubbish in padding
    real = levels[80].mask
    coarse[real] = x.reshape(len(latent), -1, decoder.coarse_features).transpose(1, 0, 2)
    coarse *= real[:, None, None]
    x = np.repeat(coarse, 4, axis=0) * levels[320].mask[:, None, None]
    x = block(block(x, decoder.block1, 320), decoder.block2, 320)
    x = np.repeat(x, 4, axis=0) * levels[1280].mask[:, None, None]
    x = block(x, decoder.block3, 1280)
    x = reference_conv(decoder.out, levels[1280].dense(), x)
    return x[topology.node_of_vertex].transpose(1, 0, 2)


def test_decoder_equals_the_masked_network_on_padded_nodes(padded: Topology) -> None:
    torch.manual_seed(0)
    decoder = MeshDecoder(9, SMALL, padded).double()
    decoder.train()
    for _ in range(3):  # running statistics that are not 0 and 1
        decoder(torch.randn(8, 9, dtype=torch.float64))
    decoder.eval()
    latent = torch.randn(2, 9, dtype=torch.float64)
    expected = padded_decoder(decoder, padded, latent.numpy())
    np.testing.assert_allclose(decoder(latent).detach().numpy(), expected, atol=1e-9)


def padded_regressor(module: PoseRegressor, topology: Topology, nodes: np.ndarray) -> np.ndarray:
    """The regressor written out on padded nodes (1280, B, 3): mean over real children."""
    levels = levels_of(topology)

    def pool(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
        grouped = (x * mask[:, None, None]).reshape(-1, 4, *x.shape[1:]).sum(1)
        return grouped / np.maximum(mask.reshape(-1, 4).sum(1), 1)[:, None, None]

    x = nodes
    for conv in (module.conv1, module.conv2):
        x = reference_conv(conv, levels[1280].dense(), x) * levels[1280].mask[:, None, None]
    x = pool(x, levels[1280].mask)
    for conv in (module.conv3, module.conv4):
        x = reference_conv(conv, levels[320].dense(), x) * levels[320].mask[:, None, None]
    x = pool(x, levels[320].mask)[levels[80].mask]
    x = x.transpose(1, 0, 2).reshape(nodes.shape[1], -1)
    for linear in (module.fc1, module.fc2):
        x = x @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
    return x.reshape(-1, 21, 3)


def test_pose_regressor_equals_the_padded_network(padded: Topology) -> None:
    torch.manual_seed(1)
    module = PoseRegressor(SMALL, padded).double()
    for conv in (module.conv1, module.conv2, module.conv3, module.conv4):
        torch.nn.init.normal_(conv.bias)
    vertices = torch.randn(2, padded.vertex_count, 3, dtype=torch.float64)
    nodes = np.zeros((1280, 2, 3))
    nodes[padded.node_of_vertex] = vertices.numpy().transpose(1, 0, 2)
    expected = padded_regressor(module, padded, nodes)
    # The shares of a mean (a third, for one) are stored in float32.
    np.testing.assert_allclose(module(vertices).detach().numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("prior", [False, True])
def test_pose_regressor_is_affine(topology: Topology, prior: bool) -> None:
    torch.manual_seed(2)
    config = DecoderConfig(pose_hidden=64, pose_template_prior=prior)
    module = PoseRegressor(config, topology).double()
    torch.nn.init.normal_(module.fc2.weight, std=0.1)
    a, b = torch.randn(2, 2, topology.vertex_count, 3, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(
            module(a) + module(b) - module(torch.zeros_like(a)), module(a + b)
        )
        weight, bias = module.affine()
        torch.testing.assert_close(
            (a.flatten(1) @ weight.T + bias).view(-1, 21, 3), module(a), rtol=0, atol=1e-10
        )


def test_prior_starts_at_the_template_joints(topology: Topology) -> None:
    module = PoseRegressor(DecoderConfig(pose_template_prior=True), topology)
    rest = torch.from_numpy(topology.template_vertices_m)[None]
    expected = topology.joint_regressor @ topology.template_vertices_m
    np.testing.assert_allclose(module(rest)[0].detach().numpy(), expected, atol=1e-6)


def test_freezing_keeps_the_function_and_follows_new_weights(topology: Topology) -> None:
    torch.manual_seed(3)
    module, other = (PoseRegressor(SMALL, topology).double() for _ in range(2))
    x = torch.randn(2, topology.vertex_count, 3, dtype=torch.float64)
    before, target = module(x), other(x)
    module.freeze()
    assert not any(p.requires_grad for p in module.parameters())
    torch.testing.assert_close(module(x), before)
    module.load_state_dict(other.state_dict())
    torch.testing.assert_close(module(x), target)
    module.unfreeze()
    assert all(p.requires_grad for p in module.parameters())
    assert module.collapsed_weight is None
    torch.testing.assert_close(module(x), target)


def test_head_anchors_and_wrist(topology: Topology) -> None:
    torch.manual_seed(4)
    head = GraphHead(5, SMALL, topology).double().eval()
    latent = torch.randn(2, 5, dtype=torch.float64)
    uv = torch.rand(2, 21, 2, dtype=torch.float64)
    with torch.no_grad():
        offsets = head.decoder(latent)
        anchored, joints = head(latent, uv)
        plain, _ = head(latent)
    blend = topology.joint_blend.astype(np.float64)
    expected = offsets.numpy()[..., :2] + np.einsum("vj,bjc->bvc", blend, uv.numpy())
    np.testing.assert_allclose(anchored.numpy()[..., :2], expected, atol=1e-12)
    np.testing.assert_allclose(plain.numpy()[..., :2], offsets.numpy()[..., :2] + 0.5, atol=1e-12)
    assert torch.all(joints[:, 0, 2] == 0)
    # One shift for the whole hand: depths relative to each other are the decoder's.
    shift = (anchored - offsets)[..., 2]
    torch.testing.assert_close(shift, shift[:, :1].expand_as(shift))
    # The joints are those that the regressor sees in the unshifted mesh, less its wrist.
    unshifted = torch.cat([anchored[..., :2], offsets[..., 2:]], dim=-1)
    regressed = head.pose_regressor(unshifted).detach()
    torch.testing.assert_close(joints[..., :2], regressed[..., :2])
    torch.testing.assert_close(joints[..., 2], regressed[..., 2] - regressed[:, :1, 2])
