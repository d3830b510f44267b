"""The differentiable depth renderer: brute force, finite differences, and what it fits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from z_buffer import nearest_depth

from handmesh.errors import InputError
from handmesh.graph import Topology
from handmesh_training.depth_renderer import DepthRenderer
from handmesh_training.hand import HandModel
from handmesh_training.sampling import sample_views
from handmesh_training.surface import Surface

torch.set_num_threads(1)
SIZE = 32


@pytest.fixture(scope="module")
def surface() -> Surface:
    return Surface.from_topology(Topology.default())


@pytest.fixture(scope="module")
def hands() -> torch.Tensor:
    views = sample_views(np.random.default_rng(4), HandModel(), 6, 128, 1.5)
    return torch.from_numpy(views.vertices).double()


@pytest.mark.parametrize("root", [None, 6.0])
def test_depth_inside_is_that_of_the_nearest_face(
    surface: Surface, hands: torch.Tensor, root: float | None
) -> None:
    # So sharp an outline leaves every pixel wholly in or out.
    renderer = DepthRenderer(surface, SIZE, softness=1e-4, background=9.0)
    distance = None if root is None else torch.full((2,), root, dtype=torch.float64)
    found = renderer(hands[:2], distance)
    for i in range(2):
        wanted = nearest_depth(hands[i].numpy(), surface.faces.numpy(), SIZE, root)
        covered = np.isfinite(wanted)
        assert covered.sum() > 50
        np.testing.assert_array_equal(found.face[i].numpy() >= 0, covered)
        np.testing.assert_array_equal(found.coverage[i].numpy() > 0.5, covered)
        clear = np.abs(found.coverage[i].numpy() - covered) < 1e-6  # not right on the outline
        assert clear.mean() > 0.98
        wanted = np.where(covered, wanted, 9.0)
        np.testing.assert_allclose(found.depth[i].numpy()[clear], wanted[clear], atol=1e-4)


@pytest.mark.parametrize("softness", [0.1, 0.5, 2.0])
def test_the_sharp_map_is_a_depth_camera_s_whatever_the_softness(
    surface: Surface, hands: torch.Tensor, softness: float
) -> None:
    renderer = DepthRenderer(surface, SIZE, softness, background=9.0)
    found = renderer(hands[:2])
    for i in range(2):
        wanted = nearest_depth(hands[i].numpy(), surface.faces.numpy(), SIZE)
        wanted = np.where(np.isfinite(wanted), wanted, 9.0)
        np.testing.assert_allclose(found.sharp[i].numpy(), wanted, atol=1e-9)


def test_depth_of_a_slanted_square_is_its_plane() -> None:
    corners = [[0.2, 0.2], [0.8, 0.2], [0.8, 0.8], [0.2, 0.8]]
    square = torch.tensor([[[u, v, 2 * u - v] for u, v in corners]], dtype=torch.float64)
    renderer = DepthRenderer(Surface(np.array([[0, 1, 2], [0, 2, 3]]), 4), SIZE, softness=0.3)
    found = renderer(square)
    centre = (torch.arange(SIZE, dtype=torch.float64) + 0.5) / SIZE
    v, u = torch.meshgrid(centre, centre, indexing="ij")
    middle = slice(12, 20)
    torch.testing.assert_close(found.depth[0, middle, middle], (2 * u - v)[middle, middle])
    assert torch.all(found.depth[0, :3] == renderer.background)
    # Coverage along a row through an edge at 0.2 * 32 = 6.4 px: a sigmoid of the distance to it.
    wanted = torch.sigmoid((torch.arange(4, 9, dtype=torch.float64) + 0.5 - 6.4) / 0.3)
    torch.testing.assert_close(found.coverage[0, 16, 4:9], wanted)


def test_gradients_by_finite_differences(surface: Surface, hands: torch.Tensor) -> None:
    renderer = DepthRenderer(surface, SIZE)
    rng = np.random.default_rng(0)
    looks = torch.from_numpy(rng.normal(size=(2, SIZE, SIZE)))
    vertices = hands[2:4].clone().requires_grad_()

    def weighed(points: torch.Tensor) -> torch.Tensor:
        return (renderer(points).depth * looks).sum()

    weighed(vertices).backward()
    gradient = vertices.grad
    assert gradient is not None
    touched = torch.nonzero(gradient.abs() > 1e-3)
    misses = []
    for row in rng.permutation(len(touched))[:40]:
        place = tuple(touched[row].tolist())
        step = torch.zeros_like(hands[2:4])
        step[place] = 1e-6
        slope = (weighed(hands[2:4] + step) - weighed(hands[2:4] - step)) / 2e-6
        misses.append(float((slope - gradient[place]).abs() / gradient[place].abs()))
    # A pixel that just then changes its face may spoil one of them.
    assert np.quantile(misses, 0.95) < 1e-4


def test_gradients_of_the_sharp_map_are_of_the_faces_and_of_the_coverage(
    surface: Surface, hands: torch.Tensor
) -> None:
    """By finite differences of the values: of what is seen, and of the coverage times the step from
    the background to the surface, the step held."""
    renderer = DepthRenderer(surface, SIZE)
    rng = np.random.default_rng(1)
    looks = torch.from_numpy(rng.normal(size=(2, SIZE, SIZE)))
    vertices = hands[2:4].clone().requires_grad_()
    found = renderer(vertices)
    (found.sharp * looks).sum().backward()
    gradient = vertices.grad
    assert gradient is not None
    with torch.no_grad():
        height = (found.depth - renderer.background) / found.coverage.clamp(min=1e-12)

    def weighed(points: torch.Tensor) -> torch.Tensor:
        now = renderer(points)
        same = now.face == found.face  # a pixel that changes its face jumps
        inside = torch.where(same, now.sharp, found.sharp.detach())
        return ((inside + now.coverage * height) * looks).sum()

    touched = torch.nonzero(gradient.abs() > 1e-3)
    misses = []
    for row in rng.permutation(len(touched))[:40]:
        place = tuple(touched[row].tolist())
        step = torch.zeros_like(hands[2:4])
        step[place] = 1e-6
        slope = (weighed(hands[2:4] + step) - weighed(hands[2:4] - step)) / 2e-6
        misses.append(float((slope - gradient[place]).abs() / gradient[place].abs()))
    assert np.quantile(misses, 0.95) < 1e-4
    # What is bare pulls the outline in the image, not in depth.
    vertices.grad = None
    (renderer(vertices).sharp * (found.face < 0)).sum().backward()
    assert float(vertices.grad[..., :2].abs().max()) > 0.1
    assert torch.all(vertices.grad[..., 2] == 0)


def test_pulls_a_hand_that_misses_a_part_of_the_picture_over_it(
    surface: Surface, hands: torch.Tensor
) -> None:
    """From a start displaced in u, v and d, with gradients of the depth map alone."""
    renderer = DepthRenderer(surface, SIZE)
    truth = hands[4:6]
    with torch.no_grad():
        target = renderer(truth).depth
    offset = torch.tensor([[0.06, -0.05, 0.5], [-0.05, 0.06, -0.4]], dtype=torch.float64)
    offset.requires_grad_()
    optimizer = torch.optim.Adam([offset], lr=0.01)
    for step in range(70):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (1 - step / 70)
        optimizer.zero_grad()
        depth = renderer(truth + offset[:, None]).depth
        F.smooth_l1_loss(depth, target, beta=0.1).backward()
        optimizer.step()
    assert float(offset[:, :2].detach().abs().max()) < 0.004  # an eighth of a pixel
    assert float(offset[:, 2].detach().abs().max()) < 0.02


def test_hand_outside_the_picture_is_background_with_finite_gradients(
    surface: Surface, hands: torch.Tensor
) -> None:
    renderer = DepthRenderer(surface, SIZE)
    far = (hands[:2] + torch.tensor([3.0, 0.0, 0.0])).requires_grad_()
    found = renderer(far)
    assert torch.all(found.depth == renderer.background)
    (found.depth.sum() + hands.sum()).backward()
    # Half in view, and edge-on with no area at all.
    half = torch.stack(
        [hands[0] + torch.tensor([0.5, 0.0, 0.0]), hands[1] * torch.tensor([0.0, 1.0, 1.0])]
    )
    half.requires_grad_()
    renderer(half).depth.sum().backward()
    assert half.grad is not None
    assert torch.isfinite(half.grad).all()


def test_wrong_input() -> None:
    surface = Surface(np.array([[0, 1, 2]]), 3)
    with pytest.raises(InputError, match="softness"):
        DepthRenderer(surface, 32, softness=0.0)
    with pytest.raises(InputError, match=r"\(B, V, 3\)"):
        DepthRenderer(surface)(torch.zeros(3, 3))
