"""What each of the paper's stages trains, and by which loss (sections 4.3 and 4.4)."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from handmesh.errors import InputError
from handmesh.graph import Topology
from handmesh.nn import LightNetwork, PaperNetwork

from . import losses
from .depth_renderer import DepthRenderer
from .objective import objective
from .pseudo_meshes import origin_of
from .samples import Crops
from .sources import Batch
from .surface import Surface
from .train import Loss, Task
from .validate import BONE_MM, heatmap_errors
from .weak_losses import WeakWeights, weak_loss
from .wholeness import HandEdges


class HeatmapPart(nn.Module):
    """The part of a network that makes heat-maps: images to one (B, 21, H, H) per stack."""

    def __init__(self, network: nn.Module) -> None:
        """
        Raises:
            InputError: a network whose heat-maps cannot be had alone.
        """
        super().__init__()
        trunk = getattr(network, "trunk", network)
        if isinstance(trunk, PaperNetwork):
            self.stem: nn.Module = trunk.stem
            self.stacks = trunk.stacks
        elif isinstance(trunk, LightNetwork):
            self.stem = nn.Sequential(trunk.backbone, trunk.pyramid, trunk.heatmaps)
            self.stacks = nn.ModuleList()
        else:
            raise InputError(f"a {type(network).__name__} has no heat-maps to train alone")

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.stem(images)
        if not self.stacks:
            return [x.float()]
        found = []
        for stack in self.stacks:
            x, maps = stack(x)
            found.append(maps.float())
        return found


def _whole(network: nn.Module) -> nn.Module:
    return network


def _surface(device: torch.device) -> Surface:
    return Surface.from_topology(Topology.default()).to(device)


def _trained_maps(network: nn.Module) -> nn.Module:
    part = HeatmapPart(network)
    if not any(parameter.requires_grad for parameter in part.parameters()):
        raise InputError("the trunk under this head is fixed: its heat-maps cannot be trained")
    return part


def heatmap_task(fine_tuning: bool = False) -> Task:
    """Stages (a) and (d): the hourglass alone, by L_H."""

    def make(device: torch.device) -> Loss:
        surface = _surface(device)

        def loss(maps: list[Tensor], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            joints, flat = batch["joints"], batch["has_joints"].float()
            size = maps[-1].shape[-1]
            target = losses.gaussian_heatmaps(joints[..., :2], size)
            term = losses.heatmap_loss(maps, target, flat, taught=batch["taught"])
            # As large as it is in L_fully as published: one learning rate serves both.
            weight = losses.paper_weights(surface, size, stacks=len(maps))["heatmap"]
            return weight * term, {"heatmap": term}

        return loss

    name = "fine-tune-heatmaps" if fine_tuning else "heatmaps"
    # The last stack's maps go nowhere else here: what would hand them on gets no gradient.
    return Task(
        name, _trained_maps, make, heatmap_errors, fine_tuning=fine_tuning, some_unused=True
    )


def _regressor(network: nn.Module) -> nn.Module:
    regressor: Any = getattr(network, "pose_regressor", None)
    if regressor is None:
        raise InputError("a network with this head has no pose regressor to train")
    part: nn.Module = regressor
    return part


@torch.no_grad()
def _regressor_errors(part: nn.Module, meshes: Crops, device: torch.device) -> dict[str, float]:
    """``joints``: mean distance to the true joints in mm, of a hand of 47 mm first bone."""
    part.eval()
    found = part(torch.from_numpy(meshes.vertices).to(device)).cpu()
    scale = torch.from_numpy(meshes.crop_in_bones)
    truth = torch.from_numpy(meshes.joints)
    miss = losses.to_metric_like(found, scale) - losses.to_metric_like(truth, scale)
    return {"joints": float(np.linalg.norm(miss.numpy(), axis=-1).mean()) * BONE_MM}


def pose_task() -> Task:
    """Stage (b): the linear pose regressor alone, true meshes to joints, by L_J."""

    def make(device: torch.device) -> Loss:
        def loss(joints: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            term = losses.pose_loss(joints, batch["joints"], batch["crop_in_bones"])
            return term, {"pose": term}

        return loss

    return Task(
        "pose", _regressor, make, _regressor_errors, lambda batch: batch["vertices"],
        autocast=False,
    )  # fmt: skip


def full_task(weights: losses.LossWeights, fine_tuning: bool = False) -> Task:
    """Stage (c): all but the pose regressor, by L_fully, Eq. (6), and the other heads' losses."""

    def make(device: torch.device) -> Loss:
        surface = _surface(device)
        edges = HandEdges.drawn().to(device)
        return lambda output, batch: objective(output, batch, surface, weights, edges)

    return Task(
        "full", _whole, make, terms=asdict(weights), fine_tuning=fine_tuning, some_unused=True
    )


def weak_task(
    weights: WeakWeights, far: float, depth_px: int = 32, pseudo: Path | None = None
) -> Task:
    """Stage (f): all but the pose regressor, by L_weakly, Eq. (8).

    Args:
        weights: of the terms. far, depth_px: background and side of the rendered depth maps, and
            pseudo: file of pseudo-ground-truth meshes, as in `cropped_stream.CroppedSettings`.

    Raises:
        InputError: no such file.
    """
    terms: dict[str, float | str | None] = {**asdict(weights), "far": far, "depth_px": depth_px}
    terms["pseudo"] = None if pseudo is None else origin_of(pseudo)

    def make(device: torch.device) -> Loss:
        surface = _surface(device)
        renderer = DepthRenderer(surface, depth_px, background=far).to(device)
        return lambda output, batch: weak_loss(output, batch, surface, renderer, weights)

    return Task("weak", _whole, make, terms=terms, fine_tuning=True, some_unused=True)
