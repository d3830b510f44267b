"""Shape and pose of a parametric hand instead of free vertices: the rival of section 5.3, Table 2.

The paper regresses the parameters of MANO, whose licence does not let it travel with this package;
here they are those of our own `HandModel`, which also drew the rendered hands. That favours this
head: there are parameters that reproduce every true mesh exactly, so what it misses, it failed to
regress.

Rotations are told in six numbers each (Zhou et al., On the continuity of rotation representations
in neural networks, CVPR 2019), not as angles: a hand is seen from everywhere, and no three numbers
describe all its turns without a jump. Finger bones have them as well, without limits: as MANO's,
they may do what anatomy forbids, and limits narrower than somebody's hand would be errors that
cannot be unlearnt.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..bones import web_share
from ..hand import PIVOT_COUNT, HandModel
from .joints import fully_connected

# Side of a crop over the larger side of the joints' tight box, as training has it on the average.
_MARGIN = 1.5
# Half a metre from the camera, in bones.
_USUAL_WRIST_DEPTH = 10.0
# Depth of a point over that of the wrist, below which it is held. True views stay above 0.3.
_NEAREST = 0.1
# Metres: a hand whose bone shrank to nothing gives no unit.
_SHORTEST_BONE_M = 1e-3


class HandParameters(NamedTuple):
    """A posed hand and the place of it in a crop. Lengths in bones: its middle finger's MCP to PIP.

    Attributes:
        shape: (B, S) coefficients, see `HandModel.shape_names`.
        rotations: (B, 17, 3, 3), see `HandModel.forward`; index 0 turns hand to camera.
        wrist_uv: (B, 2) where the wrist is, crop fractions.
        tilt: (B, 2) tangents x / z, y / z of the ray through the wrist in the camera's frame.
        crop_in_bones: (B,) positive, side of the crop at the wrist's depth.
        wrist_depth: (B,) positive, distance of the wrist from the camera's plane.
    """

    shape: Tensor
    rotations: Tensor
    wrist_uv: Tensor
    tilt: Tensor
    crop_in_bones: Tensor
    wrist_depth: Tensor


def rotation_of_six(six: Tensor) -> Tensor:
    """(..., 3, 3) rotations from (..., 6): the first two columns, before Gram-Schmidt."""
    first = F.normalize(six[..., :3], dim=-1)
    second = six[..., 3:] - (first * six[..., 3:]).sum(dim=-1, keepdim=True) * first
    second = F.normalize(second, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)


def mesh_hand() -> HandModel:
    """The hand with the vertices of the networks' mesh alone, in its order: about half the work.

    Nothing of it goes into a network's `state_dict`: it is an asset, not weights.
    """
    model = HandModel()
    rows = torch.from_numpy(model.asset.template_subset).long()
    share = web_share(model.weights[rows])
    web_rows = share.nonzero()[:, 0]
    cut = {
        "vertices": model.vertices[rows],
        "weights": model.weights[rows],
        "directions": model.directions[:, rows],
        "web_rows": web_rows,
        "web_share": share[web_rows],
    }
    for name, whole in list(model.named_buffers()):
        model.register_buffer(name, cut.get(name, whole), persistent=False)
    return model


class ParametricHead(nn.Module):
    """Latent vector to hand parameters by three fully-connected layers, and to their mesh.

    It starts from a flat, upright hand in the middle of the crop. Anchors are not used: one hand
    cannot follow 21 points each on its own, and the latent vector of `light` holds them anyway.

    Args:
        width: F, of the latent vector.
    """

    start_six: Tensor
    start_uv: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hand = mesh_hand()
        self.outputs = self.hand.shape_count + 6 * PIVOT_COUNT + 6
        self.layers = fully_connected(width, self.outputs, last_std=0.0)
        flat = self.hand.rotations(torch.zeros(1, PIVOT_COUNT, 3))  # (1, 17, 3, 3)
        start_six = flat[0, :, :, :2].transpose(1, 2).flatten(1)  # (17, 6)
        self.register_buffer("start_six", start_six, persistent=False)
        joints = self.hand.pose_joints(torch.zeros(1, self.hand.shape_count), flat)[0]  # (21, 3)
        bone = float((joints[10] - joints[9]).norm())
        low, high = joints[:, :2].amin(dim=0), joints[:, :2].amax(dim=0)
        self.start_crop_in_bones = _MARGIN * float((high - low).max()) / bone
        middle = 0.5 * (low + high) / bone / self.start_crop_in_bones  # seen from the wrist
        self.register_buffer("start_uv", 0.5 - middle, persistent=False)

    def forward(self, latent: Tensor, anchors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Vertices (B, V, 3) and joints (B, 21, 3), (u, v, d), from (B, F) float32."""
        return self.project(self.parameters_of(self.layers(latent)))

    def parameters_of(self, outputs: Tensor) -> HandParameters:
        """What the last layer's outputs (B, `outputs`) mean; all 0 is where the head starts."""
        shape, six, wrist_uv, tilt, log_crop, log_depth = outputs.split(
            [self.hand.shape_count, 6 * PIVOT_COUNT, 2, 2, 1, 1], dim=1
        )
        return HandParameters(
            shape=shape,
            rotations=rotation_of_six(self.start_six + six.unflatten(1, (PIVOT_COUNT, 6))),
            wrist_uv=self.start_uv + wrist_uv,
            tilt=tilt,
            crop_in_bones=self.start_crop_in_bones * log_crop[:, 0].exp(),
            wrist_depth=_USUAL_WRIST_DEPTH * log_depth[:, 0].exp(),
        )

    def project(self, parameters: HandParameters) -> tuple[Tensor, Tensor]:
        """Vertices (B, V, 3) and joints (B, 21, 3) of posed hands seen by a pinhole camera.

        A point (x, y, z) from the wrist, in bones, is seen at

            u = t_u + (x - tilt_x z) / (s (1 + z / z0)),  d = z,

        v alike, with the wrist at (t_u, t_v) and depth z0, and s the side of the crop there. That
        is the perspective picture of the hand, crop and all: with X / Z for the wrist's tilt,
        (X + x) / (Z + z) - X / Z = (x - (X / Z) z) / (Z + z).
        """
        posed = self.hand(parameters.shape, parameters.rotations)
        bone = (posed.joints[:, 10] - posed.joints[:, 9]).norm(dim=-1)  # (B,)
        bone = bone.clamp(min=_SHORTEST_BONE_M)[:, None, None]
        depth = parameters.wrist_depth[:, None, None]
        side = parameters.crop_in_bones[:, None, None]

        def seen(points_m: Tensor) -> Tensor:
            xy, z = (points_m / bone).split([2, 1], dim=-1)
            across = xy - parameters.tilt[:, None] * z
            nearness = (1 + z / depth).clamp(min=_NEAREST)
            return torch.cat(
                [parameters.wrist_uv[:, None] + across / (side * nearness), z], dim=-1
            )  # (B, N, 3)

        return seen(posed.vertices), seen(posed.joints)
