"""The trunk of either network under another head than the graph CNN."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from handmesh.errors import InputError
from handmesh.graph import Topology
from handmesh.nn import NetworkConfig, NetworkOutput, build


class HeadNetwork(nn.Module):
    """A trunk and a head that maps features (B, F) and anchors to vertices and joints.

    Args:
        config: of the trunk; its decoder is not used. topology: of the full model.
        head_name: what the head is called.
        head: makes the head, given the width F of the features.
        trains_trunk: whether the trunk learns; if not, its weights are fixed and its norms use
            their running statistics in training, too.

    Attributes:
        pose_regressor: None, there is none.
    """

    pose_regressor: None = None

    def __init__(
        self,
        config: NetworkConfig,
        topology: Topology,
        head_name: str,
        head: Callable[[int], nn.Module],
        trains_trunk: bool = True,
    ) -> None:
        super().__init__()
        self.config, self.head_name, self.trains_trunk = config, head_name, trains_trunk
        self.trunk = build(config, topology)
        width = self.trunk.head.decoder.expand.in_features
        del self.trunk.head  # only `latent` is called, which does not run it
        self.head = head(width)
        self.trunk.requires_grad_(trains_trunk)
        self.train()

    def train(self, mode: bool = True) -> HeadNetwork:
        """As `nn.Module.train`, but that a trunk which does not learn stays in evaluation mode."""
        super().train(mode)
        if not self.trains_trunk:
            self.trunk.eval()
        return self

    def forward(self, image: Tensor, heatmaps: Tensor | None = None) -> NetworkOutput:
        """Crops (B, 3, S, S) to hands; arguments and errors as those of `HandNetwork.forward`."""
        latent = self.trunk.latent(image, heatmaps)
        with torch.autocast(image.device.type, enabled=False):
            vertices, joints = self.head(latent.features, latent.anchors)
        return latent.output(vertices, joints)

    def trunk_parameters(self) -> Iterator[nn.Parameter]:
        """Of all that makes the latent, the logits beside it included."""
        return self.trunk.parameters()

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Of the head: in "transfer", all that is trained."""
        return self.head.parameters()


def load_trunk(network: nn.Module, full_model: Mapping[str, Tensor]) -> None:
    """Copy a trained full model's trunk: the start of "Full model, task transfer" (section 5.4).

    Args:
        network: whose trunk is overwritten; its head stays as it is. Under another head, or a full
            model.
        full_model: `state_dict` of a network made by `handmesh.nn.build` with the same config.

    Raises:
        InputError: not the weights of such a network; nothing is copied then.
    """
    trunk: nn.Module = network.trunk if isinstance(network, HeadNetwork) else network
    own = {name: t for name, t in trunk.state_dict().items() if not name.startswith("head.")}
    given = {name: t for name, t in full_model.items() if not name.startswith("head.")}
    other = sorted(
        name
        for name in own.keys() | given.keys()
        if name not in own or name not in given or own[name].shape != given[name].shape
    )
    if other:
        config: Any = network.config
        raise InputError(
            f"expected the weights of a full model with the same {config.name} trunk, got "
            f"others for {len(other)} tensors, {other[0]!r} the first of them; build both networks "
            "from one config"
        )
    trunk.load_state_dict(given, strict=False)  # all but a full model's head
