"""What keeps a mesh a hand on pictures whose joints alone are labelled.

A mesh may meet labelled joints by bending its surface: their regressor is linear, and most of a
mesh's motions it does not see. The paper keeps meshes whole by pseudo-ground truth (Fig. 6). Here
edges may be as long as those of drawn hands before cameras, in any pose, shape and view, and no
longer or shorter. They are measured as the loss sees a mesh, by weak perspective: at arm's length
that makes what is nearer to the camera larger, in true hands too.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

from handmesh.graph import Topology
from handmesh.types import UNIT_BONE

from .hand import HandModel
from .losses import reduce_rows, to_metric_like
from .sampling import sample_views
from .seeds import Purpose, generator
from .surface import Surface

DRAWN, SEED = 1024, 0
# Of crops; lengths in bones depend on neither.
CROP_PX, MARGIN = 128, 1.5
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
        """Of hands in random poses, shapes and views, the same for every run."""
        return cls(*_bounds())

    def scale(self, joints: Tensor) -> Tensor:
        """(B,) crop's side in bones that makes joints (B, 21, 3) of (u, v, d) as large as a hand.

        By least squares on squared lengths, which are linear in its square; no gradient.
        """
        return _scale(joints, self.bones)

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


def _scale(joints: Tensor, usual: Tensor) -> Tensor:
    with torch.no_grad():
        bone = _bones(joints)  # (B, 5, 3)
        flat = bone[..., :2].square().sum(-1)
        rest = (usual.square() - bone[..., 2].square()).clamp(min=0)
        square = (flat * rest).sum(1) / flat.square().sum(1).clamp(min=1e-8)
        return square.sqrt().clamp(2.0, 30.0)


def _bones(joints: Tensor) -> Tensor:
    ends = torch.tensor(SCALE_BONES, device=joints.device)
    return joints[:, ends[:, 1]] - joints[:, ends[:, 0]]


@lru_cache(maxsize=1)
def _bounds() -> tuple[Tensor, Tensor, Tensor]:
    """`HandEdges`' arguments."""
    surface = Surface.from_topology(Topology.default())
    views = sample_views(generator(SEED, Purpose.EDGES), HandModel(), DRAWN, CROP_PX, MARGIN)
    bones = _bones(torch.from_numpy(views.joints_m)).norm(dim=-1)  # (B, 5) metres
    usual = (bones / bones[:, -1:]).median(dim=0).values  # the last one is the unit
    scale = _scale(torch.from_numpy(views.joints), usual)
    points = to_metric_like(torch.from_numpy(views.vertices), scale)
    size = surface.edge_vectors(points).norm(dim=-1).clamp(min=1e-3).log()  # (E, B)
    low = torch.quantile(size, TAIL, dim=1)
    high = torch.quantile(size, 1 - TAIL, dim=1)
    return low, high, usual
