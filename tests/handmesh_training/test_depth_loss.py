"""L_D against maps as a depth camera makes them, by a z-buffer of its own in float64: it is least
at the true hand, and gradient descent from a wrong one comes back to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from z_buffer import nearest_depth

from handmesh.graph import Topology
from handmesh_training.cropped_stream import FAR_BONES
from handmesh_training.depth_renderer import DepthRenderer
from handmesh_training.hand import PIVOT_COUNT, PIVOT_JOINTS, HandModel
from handmesh_training.sampling import sample_views
from handmesh_training.surface import Surface
from handmesh_training.weak_losses import depth_map_loss

torch.set_num_threads(1)
SIDE = 32
INDEX_FINGER = [PIVOT_JOINTS.index(joint) for joint in (5, 6, 7)]
# The crop's side in bones.
CROP = 6.5


@pytest.fixture(scope="module")
def renderer() -> DepthRenderer:
    return DepthRenderer(Surface.from_topology(Topology.default()), SIDE, background=FAR_BONES)


def camera_maps(vertices: torch.Tensor) -> torch.Tensor:
    """(B, S, S) of (B, V, 3): the nearest surface, or what is far."""
    faces = Topology.default().faces
    maps = np.stack([nearest_depth(hand, faces, SIDE) for hand in vertices.numpy()])
    return torch.from_numpy(np.where(np.isfinite(maps), maps, FAR_BONES))


def displaced(vertices: torch.Tensor, name: str, by: float) -> torch.Tensor:
    """Hands moved along an axis, in crop fractions or bones, or grown about their middles."""
    if name != "scale":
        return vertices + by * torch.eye(3, dtype=vertices.dtype)["uvd".index(name)]
    middle = vertices[..., :2].mean(dim=1, keepdim=True)
    return torch.cat([(vertices[..., :2] - middle) * (1 + by) + middle, vertices[..., 2:]], dim=-1)


@pytest.mark.parametrize("sensor", ["perfect", "noisy"])
def test_is_least_at_the_true_hand(renderer: DepthRenderer, sensor: str) -> None:
    rng = np.random.default_rng(5)
    truth = torch.from_numpy(sample_views(rng, HandModel(), 4, 128, 1.5).vertices).double()
    reference, known = camera_maps(truth), torch.ones(4, SIDE, SIDE, dtype=torch.bool)
    if sensor == "noisy":  # 7 mm, and a tenth of the readings missing
        reference = reference + torch.from_numpy(rng.normal(0, 0.15, reference.shape))
        known = torch.from_numpy(rng.random(known.shape) > 0.1)

    def loss(name: str, by: float) -> float:
        rendered = renderer(displaced(truth, name, by)).sharp
        return depth_map_loss(rendered, reference, known, reduction="sum").item()

    steps = {"u": 0.01, "v": 0.01, "d": 0.1, "scale": 0.03}
    for name, step in steps.items():
        found = {i: loss(name, i * step) for i in range(-4, 5)}
        assert min(found, key=found.__getitem__) == 0, (name, found)
        assert found[-4] > found[-2] > found[0] < found[2] < found[4], (name, found)
    if sensor == "perfect":
        assert loss("d", 0.0) < 1e-12


def test_comes_back_from_a_wrong_hand(renderer: DepthRenderer, double_model: HandModel) -> None:
    """Displaced in u, v and d, of another size, and with a finger bent that is straight."""
    turn = torch.from_numpy(
        Rotation.from_euler("xyz", [[20, 10, 15], [-15, 30, -20]], degrees=True).as_matrix()
    )
    subset = torch.from_numpy(double_model.asset.template_subset).long()
    shape = torch.zeros(2, double_model.shape_count, dtype=torch.float64)
    straight = torch.zeros(2, PIVOT_COUNT, 3, dtype=torch.float64)
    straight[:, INDEX_FINGER, 2] = 0.1

    def hands(offset: torch.Tensor, scale: torch.Tensor, bend: torch.Tensor) -> torch.Tensor:
        """(B, V, 3) by (B, 3) of u, v, d, and (B,) of the size and of each joint's bend."""
        angles = straight.clone()
        angles[:, INDEX_FINGER, 2] += bend[:, None]
        posed = double_model(shape, double_model.rotations(angles))
        bone = (posed.joints[:, 10] - posed.joints[:, 9]).norm(dim=-1)[:, None, None]
        points = posed.vertices[:, subset] @ turn.transpose(1, 2) / bone  # bones from the wrist
        middle = torch.tensor([0.0, -1.9, 0.0], dtype=torch.float64)
        uv = ((points - middle)[..., :2] * (1 + scale)[:, None, None]) / CROP + 0.5
        return torch.cat([uv, points[..., 2:]], dim=-1) + offset[:, None]

    none = torch.zeros(2, dtype=torch.float64)
    with torch.no_grad():
        truth = hands(torch.zeros(2, 3, dtype=torch.float64), none, none)
    reference = camera_maps(truth)
    offset = torch.tensor([[0.04, -0.03, 0.4], [-0.03, 0.04, -0.3]], dtype=torch.float64)
    scale = torch.tensor([0.1, -0.1], dtype=torch.float64)
    bend = torch.tensor([0.25, 0.25], dtype=torch.float64)
    for free in (offset, scale, bend):
        free.requires_grad_()
    peaks = [(offset, 0.01), (scale, 0.01), (bend, 0.025)]
    optimizer = torch.optim.Adam([{"params": [free], "lr": peak} for free, peak in peaks])
    steps = 100
    for step in range(steps):
        for group, (_, peak) in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * (1 - step / steps)
        optimizer.zero_grad()
        rendered = renderer(hands(offset, scale, bend)).sharp
        depth_map_loss(rendered, reference, reduction="sum").backward()
        optimizer.step()

    assert float(offset.detach()[:, :2].abs().max()) < 0.25 / SIDE  # a quarter of a pixel
    assert float(offset.detach()[:, 2].abs().max()) < 0.03  # 1.4 mm
    assert float(scale.detach().abs().max()) < 0.02
    assert float(bend.detach().abs().max()) < 0.05
