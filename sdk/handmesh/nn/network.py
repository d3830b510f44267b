"""What both networks have in common: a trunk that makes a latent vector, a head that reads it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from handmesh.nn.blocks import Latent, NetworkOutput
from handmesh.nn.graph_head import GraphHead, PoseRegressor


class HandNetwork(nn.Module):
    """A trunk, which is everything that `latent` runs, and the mesh head on top of it.

    Subclasses build both in `__init__` and define `latent`.

    Attributes:
        head: latent features to vertices and joints.
        head_name: "mesh"; networks with another head have the same attribute.
    """

    head: GraphHead
    head_name = "mesh"

    @property
    def pose_regressor(self) -> PoseRegressor:
        """The linear mesh-to-joints module, trainable by itself on true meshes."""
        return self.head.pose_regressor

    def latent(self, image: Tensor, heatmaps: Tensor | None = None) -> Latent:
        """Run the trunk alone; arguments and errors as in `forward`."""
        raise NotImplementedError

    def forward(self, image: Tensor, heatmaps: Tensor | None = None) -> NetworkOutput:
        """Crops to hands.

        Args:
            image: (B, 3, S, S) float32, RGB, value / 255 - 0.5.
            heatmaps: (B, 21, H, H) read in place of the network's own last maps by all that
                comes after them, such as true ones for the pseudo-true meshes of the paper's
                section 4.4. The output's `heatmaps` are the network's own all the same.

        Raises:
            InputError: heat-maps of another shape than the network's own.
        """
        latent = self.latent(image, heatmaps)
        with torch.autocast(image.device.type, enabled=False):
            vertices, joints = self.head(latent.features, latent.anchors)
        return latent.output(vertices, joints)

    def trunk_parameters(self) -> Iterator[nn.Parameter]:
        """Of all that makes the latent, the logits beside it included."""
        return (p for name, p in self.named_parameters() if not name.startswith("head."))

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Of all that reads the latent, the pose regressor included."""
        return self.head.parameters()
