"""The losses of the paper's section 4.3, Eqs. (2) to (6), and those of the three extra heads.

Every term is first reduced over one sample, then over the batch.
- Over a sample, `reduction` is "sum", as the paper writes it, or "mean" over the summed-up terms
  (joints x pixels, vertices, edges, ...), the default: its size does not depend on the mesh or the
  heat-map. `paper_weights` gives the weights with which either reduction is the paper's Eq. (6).
- Over the batch it is the mean weighted with `weight` (B,), None for all ones, 0 for samples
  without the label (which may hold any finite value). All zero gives a loss of 0.

Frames. A point of the network is (u, v, d): crop fractions and depth in bones. The 3D losses need
axes of one unit, so they act on `to_metric_like` points, all in bones. Squared terms are bones^2,
the edge term bones^4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from handmesh.nn import NetworkOutput
from handmesh.nn.config import JOINT_COUNT

from .surface import Surface

Reduction = Literal["mean", "sum"]

HEATMAP_SIGMAS_PER_SIDE = 16  # the paper's 4 px of 64


@dataclass(frozen=True)
class LossWeights:
    """Every weight of a run. The terms of Eq. (6) are told in multiples of the paper's weights, so
    that 1 is the paper's for any mesh, size of maps and reduction; the others are absolute.

    Attributes:
        heatmap: L_H. The paper trains its hourglass on heat-maps alone first; trained together
            from nothing, the dense mesh terms drown them.
        vertex, normal, edge, laplacian: L_M.
        pose: L_J, which in the paper's proportion is 21 points among a thousand vertices.
        huber: bones beyond which squared distances go on linearly; None, never. Far-off joints,
            the hard ones, would otherwise drown the many that are nearly right.
        heatmap_uv: (u, v) read off the heat-maps, where the network reads them.
        image: (u, v) of the joints, for every labelled picture, real photos included.
        whole: edges no longer or shorter than hands have, where joints alone are labelled.
        outline: the mesh's silhouette, where the hand's outline in a photo is known.
        confidence, presence, handedness: of the heads that the paper does not have.
    """

    heatmap: float = 20.0
    vertex: float = 1.0
    normal: float = 1.0
    edge: float = 1.0
    laplacian: float = 1.0
    pose: float = 50.0
    huber: float | None = 0.2
    heatmap_uv: float = 20.0
    image: float = 40.0
    whole: float = 2.0
    outline: float = 40.0
    confidence: float = 0.05
    presence: float = 0.1
    handedness: float = 0.3


# L_fully as it is published: its own terms in its own proportion, and nothing else.
PAPER = LossWeights(
    heatmap=1.0,
    pose=1.0,
    huber=None,
    heatmap_uv=0.0,
    image=0.0,
    whole=0.0,
    outline=0.0,
    confidence=0.0,
    presence=0.0,
    handedness=0.0,
)


def paper_weights(
    surface: Surface, heatmap_size: int, reduction: Reduction = "mean", stacks: int = 1
) -> dict[str, float]:
    """The paper's weights by term: lambda_H 0.5, lambda_v, n, e 1, lambda_l 50, lambda_J 1.

    Under "mean" each is multiplied by its number of summands over the number of vertices, so that
    the total is Eq. (6) divided by V: the terms stand in the paper's proportion.
    """
    published = {
        "heatmap": 0.5 * stacks,  # `heatmap_loss` averages over them
        "vertex": 1.0,
        "normal": 1.0,
        "edge": 1.0,
        "laplacian": 50.0,
        "pose": 1.0,
    }
    if reduction == "sum":
        return published
    summands = summands_of(surface, heatmap_size)
    return {k: weight * summands[k] / surface.vertex_count for k, weight in published.items()}


def summands_of(surface: Surface, heatmap_size: int) -> dict[str, int]:
    """How many squares each term of Eq. (6) adds up for one sample."""
    return {
        "heatmap": JOINT_COUNT * heatmap_size**2,
        "vertex": surface.vertex_count,
        "normal": 3 * surface.face_count,
        "edge": surface.edge_count,
        "laplacian": surface.vertex_count,
        "pose": JOINT_COUNT,
    }


def to_metric_like(points: Tensor, crop_in_bones: Tensor) -> Tensor:
    """Network coordinates to bones on all three axes, by weak perspective.

    x = (u - 1/2) s, y = (v - 1/2) s, z = d, with s = `crop_in_bones`, the crop's side at the
    wrist's depth over the length of the middle finger's first bone. Neglected is that nearer parts
    look larger, and that hands beside the camera's axis are seen aslant. With the s of the truth
    for both prediction and truth it is a fixed affine map, so it brings nothing into the loss that
    the network cannot see.

    Args:
        points: (B, N, 3) of (u, v, d).
        crop_in_bones: (B,).

    Returns:
        (B, N, 3) in bones.
    """
    xy = (points[..., :2] - 0.5) * crop_in_bones[:, None, None]
    return torch.cat([xy, points[..., 2:]], dim=-1)


def gaussian_heatmaps(joints_uv: Tensor, size: int, sigma: float | None = None) -> Tensor:
    """Target maps: a Gaussian of height 1 around each joint.

    Args:
        joints_uv: (B, J, 2) crop fractions. Of a joint outside the crop, the part of its Gaussian
            that reaches inside remains.
        size: side H of the maps; the centre of cell i is at (i + 0.5) / H.
        sigma: standard deviation in cells; None for the paper's share of the map, H / 16.

    Returns:
        (B, J, H, H).
    """
    spread = size / HEATMAP_SIGMAS_PER_SIDE if sigma is None else sigma
    cells = torch.arange(size, device=joints_uv.device, dtype=joints_uv.dtype) + 0.5
    offsets = (cells - joints_uv[..., None] * size) / spread  # (B, J, 2, H)
    bells = torch.exp(-0.5 * offsets.square())
    return bells[:, :, 1, :, None] * bells[:, :, 0, None, :]  # (B, J, H, H): rows are v


def heatmap_loss(
    maps: Tensor | Sequence[Tensor],
    target: Tensor,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    taught: Tensor | None = None,
) -> Tensor:
    """L_H = sum_j ||H_j - H^_j||^2, averaged over the stacks' maps.

    Args:
        maps: (B, J, H, H), or one for each stack.
        target: (B, J, H, H), see `gaussian_heatmaps`.
        weight: (B,) or None.
        taught: (B, J) bool, joints that count; None for all.
    """
    stacks = [maps] if isinstance(maps, Tensor) else list(maps)
    count = target.shape[-2] * target.shape[-1]
    each = [_of_taught((m - target).square().flatten(2).sum(-1), taught) for m in stacks]  # (B, J)
    losses = [reduce_rows(e, weight, reduction, terms=count * e.shape[1]) for e in each]
    return torch.stack(losses).mean()


def point_loss_2d(
    points: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    huber: float | None = None,
    taught: Tensor | None = None,
) -> Tensor:
    """sum_i ||p_i^2D - p^_i^2D||^2 in crop fractions; the second half of Eq. (2).

    Args:
        points, target: (B, N, 2 or more); only (u, v) count. Vertices or joints.
        weight: (B,) or None.
        huber: distance (crop fractions) beyond which the square goes on as a straight line.
        taught: (B, N) bool, points that count; None for all.
    """
    squares = (points[..., :2] - target[..., :2]).square().sum(-1)  # (B, N)
    return reduce_rows(_of_taught(huber_of(squares, huber), taught), weight, reduction)


def point_loss_3d(
    points: Tensor,
    target: Tensor,
    crop_in_bones: Tensor,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    huber: float | None = None,
    taught: Tensor | None = None,
) -> Tensor:
    """sum_i ||p_i^3D - p^_i^3D||^2 in bones; the first half of Eq. (2), and L_J.

    Args:
        points, target: (B, N, 3) of (u, v, d).
        crop_in_bones: (B,), see `to_metric_like`.
        weight: (B,) or None.
        huber: distance (bones) beyond which the square goes on as a straight line.
        taught: (B, N) bool, points that count; None for all.
    """
    offsets = to_metric_like(points, crop_in_bones) - to_metric_like(target, crop_in_bones)
    values = _of_taught(huber_of(offsets.square().sum(-1), huber), taught)  # (B, N)
    return reduce_rows(values, weight, reduction)


def vertex_loss(
    vertices: Tensor,
    target: Tensor,
    crop_in_bones: Tensor,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    huber: float | None = None,
) -> Tensor:
    """L_v = sum_i ||v_i^3D - v^_i^3D||^2 + ||v_i^2D - v^_i^2D||^2, Eq. (2).

    The 3D part is in bones, the 2D part in crop fractions (some 40 times smaller, the crop being
    six or seven bones wide). Arguments as in `point_loss_3d`; shapes (B, V, 3).
    """
    in_bones = point_loss_3d(vertices, target, crop_in_bones, weight, reduction, huber)
    squares = (vertices[..., :2] - target[..., :2]).square().sum(-1)  # (B, V)
    bend = None if huber is None else huber / crop_in_bones[:, None]
    return in_bones + reduce_rows(huber_of(squares, bend), weight, reduction)


def normal_loss(
    points: Tensor,
    target: Tensor,
    surface: Surface,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """L_n = sum_t sum_{(i,j) in t} <v^_i - v^_j, n_t>^2, Eq. (3); n_t from the true vertices.

    Evaluated edge by edge: the square does not see an edge's direction, so each edge is formed
    once and meets the normals of its one or two faces.

    Args:
        points, target: (B, V, 3) with one unit on all axes, see `to_metric_like`.
        weight: (B,) or None.
    """
    with torch.no_grad():
        normals = F.pad(surface.face_normals(target), (0, 0, 0, 0, 0, 1))  # (F + 1, B, 3), last 0
        first = normals.index_select(0, surface.faces_of_edge[:, 0])  # (E, B, 3)
        second = normals.index_select(0, surface.faces_of_edge[:, 1])
    edges = surface.edge_vectors(points)  # (E, B, 3)
    squares = (edges * first).sum(-1).square() + (edges * second).sum(-1).square()  # (E, B)
    return reduce_rows(squares.t(), weight, reduction, terms=3 * surface.face_count)


def edge_loss(
    points: Tensor,
    target: Tensor,
    surface: Surface,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """L_e = sum_e (||e||^2 - ||e^||^2)^2, Eq. (4).

    Args:
        points, target: (B, V, 3) with one unit on all axes, see `to_metric_like`.
        weight: (B,) or None.
    """
    lengths = surface.edge_vectors(points).square().sum(-1)  # (E, B)
    with torch.no_grad():
        true_lengths = surface.edge_vectors(target).square().sum(-1)
    return reduce_rows((lengths - true_lengths).square().t(), weight, reduction)


def laplacian_loss(
    points: Tensor,
    target: Tensor,
    surface: Surface,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """L_l = sum_i ||delta_i - sum_{k in N(i)} delta_k / B_i||^2, delta = v - v^, Eq. (5).

    Args:
        points, target: (B, V, 3) with one unit on all axes, see `to_metric_like`.
        weight: (B,) or None.
    """
    batch, count, _ = points.shape
    delta = (target - points).transpose(0, 1).reshape(count, -1)  # (V, B*3)
    rough = delta - surface.neighbour_mean(delta)
    squares = rough.view(count, batch, 3).square().sum(-1)  # (V, B)
    return reduce_rows(squares.t(), weight, reduction)


def pose_loss(
    joints: Tensor,
    target: Tensor,
    crop_in_bones: Tensor,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    huber: float | None = None,
    taught: Tensor | None = None,
) -> Tensor:
    """L_J = sum_j ||phi_j^3D - phi^_j^3D||^2. Shapes (B, 21, 3); see `point_loss_3d`."""
    return point_loss_3d(joints, target, crop_in_bones, weight, reduction, huber, taught)


def full_loss(
    output: NetworkOutput,
    target: Mapping[str, Tensor],
    surface: Surface,
    weights: LossWeights = PAPER,
    reduction: Reduction = "mean",
) -> tuple[Tensor, dict[str, Tensor]]:
    """L_fully = lambda_H L_H + lambda_M L_M + lambda_J L_J, Eq. (6).

    Args:
        output: of a network; one without a mesh has no L_M.
        target: `joints` (B, 21, 3), `vertices` (B, V, 3), `crop_in_bones` (B,), and the masks
            `has_joints`, `has_depth`, `has_mesh` (B,): heat-maps are compared where joints are
            labelled, the 3D pose where their depth is, the mesh where it is. With `taught` (B, 21)
            bool, only such joints are compared.
        surface: of the mesh.
        weights: of the terms; only those of Eq. (6) and ``huber`` count here.

    Returns:
        The weighted sum, and the terms before weighting under the names of `LossWeights`.
    """
    scale = target["crop_in_bones"]
    flat = target["has_joints"].to(scale.dtype)
    deep = target["has_depth"].to(scale.dtype)
    size, stacks = output.heatmaps[-1].shape[-1], len(output.heatmaps)
    huber = weights.huber
    joints, taught = target["joints"], target.get("taught")
    maps = gaussian_heatmaps(joints[..., :2], size)
    terms = {
        "heatmap": heatmap_loss(output.heatmaps, maps, flat, reduction, taught),
        "pose": pose_loss(output.joints, joints, scale, deep, reduction, huber, taught),
    }
    if output.vertices.shape[1]:
        solid = target["has_mesh"].to(scale.dtype)
        found, true = output.vertices, target["vertices"]
        points, truth = to_metric_like(found, scale), to_metric_like(true, scale)
        terms |= {
            "vertex": vertex_loss(found, true, scale, solid, reduction, huber),
            "normal": normal_loss(points, truth, surface, solid, reduction),
            "edge": edge_loss(points, truth, surface, solid, reduction),
            "laplacian": laplacian_loss(points, truth, surface, solid, reduction),
        }
    paper = paper_weights(surface, size, reduction, stacks)
    total = sum(getattr(weights, name) * paper[name] * term for name, term in terms.items())
    return torch.as_tensor(total), terms


def confidence_loss(
    logits: Tensor,
    joints: Tensor,
    target: Tensor,
    has_joints: Tensor,
    has_hand: Tensor,
    within: float = 0.05,
    taught: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of "this joint lies within `within` of the truth"; 0 where there is no hand.

    Args:
        logits: (B, 21).
        joints, target: (B, 21, 2 or more), (u, v) first, crop fractions. Both are detached: the
            loss judges the joints as they are.
        has_joints: (B,) bool, joints are labelled.
        has_hand: (B,) bool; where False, no joint can be right.
        within: crop fraction; 0.05 is 7.5 % of the hand's box.
        taught: (B, 21) bool, joints that count where there is a hand; None for all.
    """
    distance = (joints[..., :2] - target[..., :2]).detach().norm(dim=-1)  # (B, 21)
    right = (distance < within) & has_hand[:, None]
    values = F.binary_cross_entropy_with_logits(logits, right.to(logits.dtype), reduction="none")
    if taught is not None:
        values = _of_taught(values, taught | ~has_hand[:, None])
    return reduce_rows(values, (has_joints | ~has_hand).to(logits.dtype), "mean")


def presence_loss(logit: Tensor, has_hand: Tensor, weight: Tensor | None = None) -> Tensor:
    """Cross-entropy of "a hand is there". Shapes (B,)."""
    values = F.binary_cross_entropy_with_logits(logit, has_hand.to(logit.dtype), reduction="none")
    return reduce_rows(values[:, None], weight, "mean")


def handedness_loss(logit: Tensor, is_right: Tensor, weight: Tensor | None = None) -> Tensor:
    """Cross-entropy of "the crop shows a right hand". Shapes (B,); weight 0 without a hand."""
    values = F.binary_cross_entropy_with_logits(logit, is_right.to(logit.dtype), reduction="none")
    return reduce_rows(values[:, None], weight, "mean")


def _of_taught(values: Tensor, taught: Tensor | None) -> Tensor:
    """Summands (B, N), those that do not count as 0; they must be finite, too."""
    return values if taught is None else torch.where(taught, values, 0.0)


def huber_of(squares: Tensor, delta: float | Tensor | None) -> Tensor:
    """r^2 up to r = delta, then its tangent 2 delta r - delta^2. `delta` may be (B, 1)."""
    if delta is None:
        return squares
    bend = torch.as_tensor(delta, dtype=squares.dtype, device=squares.device)
    # Clamped from below: the derivative of the square root at 0 is infinite.
    line = 2.0 * bend * torch.maximum(squares, bend.square()).sqrt() - bend.square()
    return torch.where(squares <= bend.square(), squares, line)


def reduce_rows(
    values: Tensor, weight: Tensor | None, reduction: Reduction, terms: int | None = None
) -> Tensor:
    """(B, M) summands to one number: summed or averaged over M, then averaged over the batch.

    Args:
        weight: (B,) of the samples, or None; with all of them 0 the result is 0.
        terms: how many summands M stands for, where it is another number.
    """
    samples = values.sum(dim=1)
    if reduction == "mean":
        samples = samples / (values.shape[1] if terms is None else terms)
    if weight is None:
        return samples.mean()
    total = weight.sum()
    return (samples * weight).sum() / torch.where(total > 0, total, torch.ones_like(total))
