"""The objective of end-to-end training: L_fully, and what the heads of `light` need beside it."""

from __future__ import annotations

from torch import Tensor

from handmesh.nn import NetworkOutput

from . import losses
from .silhouette import outline_loss
from .sources import Batch
from .wholeness import HandEdges

# Lengths in bones become crop fractions by this usual size of a crop.
USUAL_CROP_IN_BONES = 6.5


def objective(
    output: NetworkOutput,
    batch: Batch,
    surface: losses.Surface,
    weights: losses.LossWeights,
    edges: HandEdges,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and its unweighted terms. Samples contribute to what they are labelled for.

    Args:
        output: of the network. batch: its labels, named like the fields of `Crops`.
        surface: of the network's mesh.
        weights: of the terms; one whose weight is 0 is told, but moves nothing.
        edges: how long the mesh's may be where joints alone are labelled.
    """
    total, terms = losses.full_loss(output, batch, surface, weights)
    taught = batch["taught"]
    joints, flat, present = batch["joints"], batch["has_joints"].float(), batch["has_hand"]
    bend = None if weights.huber is None else weights.huber / USUAL_CROP_IN_BONES
    others = {"image": losses.point_loss_2d(output.joints, joints, flat, huber=bend, taught=taught)}
    if output.vertices.shape[1]:
        alone = flat * (~batch["has_mesh"]).float()
        others["whole"] = edges.loss(output.vertices, output.joints, surface, alone)
        others["outline"] = outline_loss(
            output.vertices, batch["outline"], batch["outline_known"], bend
        )
    if output.heatmap_uv is not None:
        others["heatmap_uv"] = losses.point_loss_2d(
            output.heatmap_uv, joints, flat, huber=bend, taught=taught
        )
    if output.confidence_logits.requires_grad:
        others["confidence"] = losses.confidence_loss(
            output.confidence_logits, output.joints, joints, batch["has_joints"], present,
            taught=taught,
        )  # fmt: skip
    if output.presence_logit.requires_grad:
        others["presence"] = losses.presence_loss(output.presence_logit, present)
    if output.handedness_logit is not None:
        others["handedness"] = losses.handedness_loss(
            output.handedness_logit, batch["is_right"], present.float()
        )
    for name, term in others.items():
        total = total + getattr(weights, name) * term
    return total, terms | others
