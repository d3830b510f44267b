"""Losses of the weakly-supervised stage, Ge et al., CVPR 2019, section 4.4: Eqs. 7 and 8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from handmesh.nn import NetworkOutput

from .depth_renderer import DepthRenderer
from .losses import (
    Reduction,
    edge_loss,
    gaussian_heatmaps,
    heatmap_loss,
    laplacian_loss,
    pose_loss,
    reduce_rows,
    summands_of,
    to_metric_like,
)
from .surface import Surface


@dataclass(frozen=True)
class WeakWeights:
    """Weights of L_weakly, as published: lambda_H 0.1, lambda_D 0.1, lambda_pM 1, and lambda_J 10
    where 3D joints are labelled.

    Attributes:
        heatmap: lambda_H. depth: lambda_D. pseudo_mesh: lambda_pM.
        edge, laplacian: lambda_e and lambda_l inside L_pM.
        pose: lambda_J, 0 for training without 3D joints.
    """

    heatmap: float = 0.1
    depth: float = 0.1
    pseudo_mesh: float = 1.0
    edge: float = 1.0
    laplacian: float = 50.0
    pose: float = 0.0


WITHOUT_POSE = WeakWeights()
WITH_POSE = WeakWeights(pose=10.0)


def depth_map_loss(
    rendered: Tensor,
    reference: Tensor,
    known: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """L_D = smooth_L1(D, D^), Eq. (7), with the bend at one bone.

    Args:
        rendered, reference: (B, S, S) depth relative to the wrist, in bones, a far constant where
            there is no hand: both as a depth camera has it, `DepthMap.sharp`. A soft outline
            against a camera's sharp one is a difference that a hand too near makes smaller.
        known: (B, S, S) bool, pixels that have a reference: a sensor has holes. None for all. The
            others may hold anything, NaN too.
        weight: (B,) or None.
        reduction: "sum" over pixels, or "mean" over all pixels of a map, known or not.
    """
    if known is not None:  # replaced before the loss: NaN times a gradient of 0 would be NaN
        reference = torch.where(known, reference, rendered.detach())
    values = F.smooth_l1_loss(rendered, reference, reduction="none")
    return reduce_rows(values.flatten(1), weight, reduction)


def pseudo_mesh_loss(
    points: Tensor,
    pseudo: Tensor,
    surface: Surface,
    weights: WeakWeights = WITHOUT_POSE,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> tuple[Tensor, dict[str, Tensor]]:
    """L_pM = lambda_e L_e + lambda_l L_l against the mesh of the pretrained network.

    That mesh "usually has reasonable edge length and good surface smoothness, although it suffers
    from the relative depth error": so neither vertices nor normals are compared.

    Args:
        points, pseudo: (B, V, 3) with one unit on all axes, see `losses.to_metric_like`.

    Returns:
        The sum, and its two terms before weighting.
    """
    edge = edge_loss(points, pseudo, surface, weight, reduction)
    laplacian = laplacian_loss(points, pseudo, surface, weight, reduction)
    total = weights.edge * edge + weights.laplacian * laplacian
    return total, {"pseudo_edge": edge, "pseudo_laplacian": laplacian}


def weak_loss(
    output: NetworkOutput,
    target: Mapping[str, Tensor],
    surface: Surface,
    renderer: DepthRenderer,
    weights: WeakWeights = WITHOUT_POSE,
    reduction: Reduction = "mean",
) -> tuple[Tensor, dict[str, Tensor]]:
    """L_weakly = lambda_H L_H + lambda_D L_D + lambda_pM L_pM (+ lambda_J L_J), Eq. (8).

    Under "mean" each term is multiplied by its number of summands over the number of vertices, so
    that the total is Eq. (8) divided by V, as `losses.full_loss` is Eq. (6) divided by V.

    Args:
        output: of a network with a mesh.
        target: `joints` (B, 21, 3), `crop_in_bones` (B,), `has_joints`, `has_depth` (B,) as in
            `losses.full_loss`, and `taught`, if it is there; `depth_map` (B, S, S) bones from the
            wrist, `depth_known` (B, S, S) bool, `has_depth_map` (B,); `pseudo` (B, V, 3) network
            coordinates, `has_pseudo` (B,).
            Where a flag is False, what it is about may hold anything, NaN too; labels of
            joints that are not taught must be finite.
        surface, renderer: of the mesh; S is the renderer's size.

    Returns:
        The weighted sum, and the terms before weighting; a depth term without a weight is 0.
    """
    scale = target["crop_in_bones"]

    def flag(name: str) -> Tensor:
        return target[name].to(scale.dtype)

    def given(name: str, flag_name: str) -> Tensor:
        """The label, 0 where there is none: a NaN there times a weight of 0 would be NaN."""
        return torch.where(target[flag_name][:, None, None], target[name], 0.0)

    joints, joints_3d = given("joints", "has_joints"), given("joints", "has_depth")
    maps = gaussian_heatmaps(joints[..., :2], output.heatmaps[-1].shape[-1])
    taught = target.get("taught")
    heatmap = heatmap_loss(output.heatmaps, maps, flag("has_joints"), reduction, taught)
    depth = heatmap.new_zeros(())
    if weights.depth:  # rendering takes as long as the network
        depth = depth_map_loss(
            renderer(output.vertices).sharp,
            target["depth_map"],
            target["depth_known"] & target["has_depth_map"][:, None, None],
            flag("has_depth_map"),
            reduction,
        )
    _, pseudo = pseudo_mesh_loss(
        to_metric_like(output.vertices, scale),
        to_metric_like(given("pseudo", "has_pseudo"), scale),
        surface,
        weights,
        flag("has_pseudo"),
        reduction,
    )
    pose = pose_loss(output.joints, joints_3d, scale, flag("has_depth"), reduction, taught=taught)
    terms = {"heatmap": heatmap, "depth": depth, **pseudo, "pose": pose}
    factors = {
        "heatmap": weights.heatmap * len(output.heatmaps),
        "depth": weights.depth,
        "pseudo_edge": weights.pseudo_mesh * weights.edge,
        "pseudo_laplacian": weights.pseudo_mesh * weights.laplacian,
        "pose": weights.pose,
    }
    if reduction == "mean":
        counts = summands_of(surface, output.heatmaps[-1].shape[-1])
        counts |= {
            "depth": renderer.size**2,
            "pseudo_edge": counts["edge"],
            "pseudo_laplacian": counts["laplacian"],
        }
        factors = {k: v * counts[k] / surface.vertex_count for k, v in factors.items()}
    total = sum((factors[name] * terms[name] for name in terms), start=heatmap.new_zeros(()))
    return total, terms
