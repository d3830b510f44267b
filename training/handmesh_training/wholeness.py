"""What keeps a mesh a hand on pictures whose joints alone are labelled.

A mesh may meet labelled joints by bending its surface: their regressor is linear, and most of a
mesh's motions it does not see. The paper keeps meshes whole by pseudo-ground truth (Fig. 6). Here
edges may be as long as those of drawn hands, relief aside, in any pose and shape, and no longer or
shorter.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

from handmesh.graph import Topology
from handmesh.types import UNIT_BONE

from .hand import HandModel
from .losses import reduce_rows, to_metric_like
from .poses import draw_poses
from .seeds import Purpose, generator
from .surface import Surface

DRAWN, SEED = 1024, 0
# Of an edge's lengths in drawn hands this share is cut off at both ends: few stretch so far.
TAIL = 0.01
# The bones that a picture's scale is solved from: the palm's four, and the unit of length itself.
SCALE_BONES = ((0, 5), (0, 9), (0, 13), (0, 17), UNIT_BONE)


class HandEdges(nn.Module):
    """Bounds of the lengths of a hand mesh's edges, in lengths of the middle finger's first bone.

    Attributes:
        low, high: (E,) logarithms. bones: (5,) usual lengths of `SCALE_BONES`.
    """

    low: Tensor
    high: Tensor
    bones: Tensor

    def __init__(self, low: Tensor, high: Tensor, bones: Tensor) -> None:
        super().__init__()
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("high", high, persistent=False)
        self.register_buffer("bones", bones, persistent=False)

    @classmethod
    def drawn(cls) -> HandEdges:
        """Of hands in random poses and shapes, the same for every run."""
        return cls(*_bounds())

    def scale(self, joints: Tensor) -> Tensor:
        """(B,) crop's side in bones that makes joints (B, 21, 3) of (u, v, d) as large as a hand.

        By least squares on squared lengths, which are linear in its square; no gradient.
        """
        with torch.no_grad():
            ends = torch.tensor(SCALE_BONES, device=joints.device)
            bone = joints[:, ends[:, 1]] - joints[:, ends[:, 0]]  # (B, 5, 3)
            flat = bone[..., :2].square().sum(-1)
            rest = (self.bones.square() - bone[..., 2].square()).clamp(min=0)
            square = (flat * rest).sum(1) / flat.square().sum(1).clamp(min=1e-8)
            return square.sqrt().clamp(2.0, 30.0)

    def loss(
        self, vertices: Tensor, joints: Tensor, surface: Surface, weight: Tensor | None
    ) -> Tensor:
        """Mean square of the logarithm by which edges are too short or too long.

        Args:
            vertices: (B, V, 3), joints: (B, 21, 3), both of (u, v, d): crop fractions and depth in
                bones. surface: of the hand mesh. weight: (B,) of the samples, or None.
        """
        points = to_metric_like(vertices, self.scale(joints))
        lengths = surface.edge_vectors(points).square().sum(-1)  # (E, B)
        size = 0.5 * (lengths + 1e-6).log()
        beyond = (self.low[:, None] - size).clamp(min=0) + (size - self.high[:, None]).clamp(min=0)
        return reduce_rows(beyond.square().t(), weight, "mean")


@lru_cache(maxsize=1)
def _bounds() -> tuple[Tensor, Tensor, Tensor]:
    """`HandEdges`' arguments."""
    surface, model = Surface.from_topology(Topology.default()), HandModel()
    poses = draw_poses(generator(SEED, Purpose.EDGES), model, DRAWN)
    with torch.no_grad():
        hand = model(poses.shape, model.rotations(poses.angles))
        unit = (hand.joints[:, UNIT_BONE[1]] - hand.joints[:, UNIT_BONE[0]]).norm(dim=-1)  # (B,)
        subset = torch.from_numpy(model.asset.template_subset).long()
        points = hand.vertices[:, subset] / unit[:, None, None]
        size = surface.edge_vectors(points).norm(dim=-1).clamp(min=1e-3).log()  # (E, B)
        ends = torch.tensor(SCALE_BONES)
        bones = (hand.joints[:, ends[:, 1]] - hand.joints[:, ends[:, 0]]).norm(dim=-1)
        usual = (bones / unit[:, None]).median(dim=0).values
    low = torch.quantile(size, TAIL, dim=1)
    high = torch.quantile(size, 1 - TAIL, dim=1)
    return low, high, usual
