"""Joints straight from the latent vector: Baseline 1, task transfer, and what direct LBS rests on.

The paper leaves the layers to its supplement. Here they are three fully-connected ones, as many as
the paper gives its other rival, the parametric head.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from handmesh.nn.config import JOINT_COUNT

# As wide as the latent vector of the paper's network.
HIDDEN = 512


def fully_connected(width: int, outputs: int, last_std: float) -> nn.Sequential:
    """Three layers with ReLU between them; small last weights, so that outputs start near 0.

    Args:
        width: of the input. outputs: number of them.
        last_std: standard deviation of the last layer's weights; its biases are 0.
    """
    last = nn.Linear(HIDDEN, outputs)
    nn.init.normal_(last.weight, std=last_std)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), last
    )


class JointsHead(nn.Module):
    """Latent vector to (u, v, d) of the joints; no mesh.

    Where the mesh head's vertices are offsets from the heat-maps' joints (`light`), so are these
    joints: both see what the heat-maps say with the same precision, and a comparison of the two is
    one of mesh against none. Else (`paper`) both start from the crop's middle.

    Args:
        width: F, of the latent vector.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = fully_connected(width, JOINT_COUNT * 3, last_std=0.1 / HIDDEN**0.5)

    def forward(self, latent: Tensor, anchors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """No vertices (B, 0, 3), and joints (B, 21, 3), the wrist's depth subtracted from all.

        Args:
            latent: (B, F) float32.
            anchors: (B, 21, 2) crop fractions from which the joints' (u, v) are offsets; None,
                from the crop's middle.
        """
        offsets = self.layers(latent).unflatten(1, (JOINT_COUNT, 3))  # (B, 21, 3)
        if anchors is None:
            joints = offsets + offsets.new_tensor([0.5, 0.5, 0.0])
        else:
            joints = offsets + F.pad(anchors, (0, 1))
        wrist = F.pad(joints[:, :1, 2:], (2, 0))  # (B, 1, 3): (0, 0, wrist depth)
        return joints.new_zeros(len(joints), 0, 3), joints - wrist
