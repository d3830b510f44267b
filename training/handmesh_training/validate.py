"""Errors during training: of a network on crops in memory, without the SDK around it.

They follow the paper's protocol but for the camera: box, root depth and scale are given, and points
are lifted by weak perspective. `evaluate` measures a finished network as an app would see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from handmesh.imaging import crop
from handmesh.types import CROP_MARGIN, Box

from . import losses
from .cropped_set import CroppedSet
from .metrics import box_normalised_error, procrustes_error, root_aligned_error
from .samples import Crops
from .sources import to_input

# Middle finger's MCP to PIP of the template: what one "bone" is when errors are told in mm.
BONE_MM = 47.0
BATCH = 64


@torch.no_grad()
def network_errors(network: nn.Module, crops: Crops, device: torch.device) -> dict[str, float]:
    """Errors of joints and mesh on crops that all show a hand.

    Returns:
        ``2d``: mean joint error over the side of the hand's box. With labelled depth also, in mm
        for a hand of 47 mm first bone: ``joints`` root-aligned, ``joints_pa`` after Procrustes
        alignment; with our mesh, and a network that has one, ``mesh`` as ``joints``.
    """
    network.eval()
    parts: list[tuple[Tensor, Tensor]] = []
    for images in _batches(crops, device):
        output = network(images)
        parts.append((output.joints.float().cpu(), output.vertices.float().cpu()))
    joints, vertices = (torch.cat(p) for p in zip(*parts, strict=True))
    truth = crops.joints
    figures = {"2d": float(box_normalised_error(joints[..., :2], truth[..., :2]).mean())}
    if not crops.has_depth.all():
        return figures
    scale = torch.from_numpy(np.array(crops.crop_in_bones))

    def metric(points: Tensor) -> NDArray[Any]:
        return losses.to_metric_like(points, scale).numpy() * BONE_MM

    true_joints, found = metric(torch.from_numpy(np.array(truth))), metric(joints)
    figures["joints"] = float(root_aligned_error(found, true_joints).mean())
    figures["joints_pa"] = float(procrustes_error(found, true_joints).mean())
    if crops.has_mesh.all() and vertices.shape[1]:
        mesh = metric(vertices) - found[:, :1]
        true_mesh = metric(torch.from_numpy(np.array(crops.vertices))) - true_joints[:, :1]
        figures["mesh"] = float(np.linalg.norm(mesh - true_mesh, axis=-1).mean())
    return figures


@torch.no_grad()
def heatmap_errors(part: nn.Module, crops: Crops, device: torch.device) -> dict[str, float]:
    """``2d`` as in `network_errors`, of the highest cells of the last maps that ``part`` gives."""
    part.eval()
    found = []
    for images in _batches(crops, device):
        maps = part(images)[-1].float()  # (B, 21, H, H)
        size = maps.shape[-1]
        cell = maps.flatten(2).argmax(dim=2)  # (B, 21)
        uv = torch.stack([cell % size, cell // size], dim=-1)
        found.append(((uv + 0.5) / size).cpu())
    return {"2d": float(box_normalised_error(torch.cat(found), crops.joints[..., :2]).mean())}


def held_out(data: CroppedSet, held: Sequence[int], input_size: int) -> Crops:
    """Of these rows of a cropped set the hands that have all their joints, as a network is shown
    them."""
    rows = np.array(held, dtype=np.int64)
    rows = rows[data.crops.has_joints[rows]]
    stored = data.crops.take(rows)
    side, zoom = stored.images.shape[1], data.margin / CROP_MARGIN
    box = Box(0.5 * side - 0.5, 0.5 * side - 0.5, side / zoom)
    made = Crops.empty(len(rows), input_size, stored.vertices.shape[1])
    places = ("images", "joints", "vertices", "outline")
    for name in (field.name for field in fields(Crops) if field.name not in places):
        getattr(made, name)[:] = getattr(stored, name)
    made.crop_in_bones[:] /= zoom
    for name in places[1:]:
        points, old = getattr(made, name), getattr(stored, name)
        points[:] = old
        points[..., :2] = (old[..., :2] - 0.5) * zoom + 0.5
    for image, old_image in zip(made.images, stored.images, strict=True):
        image[:] = crop(old_image, box, input_size)
    return made


def _batches(crops: Crops, device: torch.device) -> Any:
    for first in range(0, len(crops), BATCH):
        images = torch.from_numpy(np.array(crops.images[first : first + BATCH]))
        yield to_input(images.to(device))
