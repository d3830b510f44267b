"""What makes a mesh as broad as the hand in a photo: its silhouette against a known outline."""

from __future__ import annotations

import torch
from torch import Tensor

from .losses import huber_of, reduce_rows

# Crop fractions that count for nothing. Vertices lie some 0.02 apart, so a mesh that ends at the
# outline may have none within 0.012 of a point of it; and an outline of chords cuts corners.
REACH_SLACK, SPILL_SLACK = 0.012, 0.008


def outline_loss(vertices: Tensor, outline: Tensor, known: Tensor, bend: float | None) -> Tensor:
    """How far a mesh ends before, or beyond, the known points of an outline.

    Mean over a sample's known points, then over the samples with any, of two squares: of the
    distance to the nearest vertex, and of how far beyond the outline lies the farthest of those
    vertices that the point is nearest to. A mesh that covers a point and ends there has neither.

    Args:
        vertices: (B, V, 2 or more) of (u, v), crop fractions; what follows them does not count.
        outline: (B, P, 2) (u, v), closed, in order.
        known: (B, P) bool. bend: distance beyond which squares go on as a straight line, or None.
    """
    rows = known.any(dim=1)
    counted = known[rows].float()  # (R, P)
    points, ring = vertices[rows, :, :2].float(), outline[rows].float()
    if not len(points):
        return vertices.sum() * 0.0
    squares = torch.cdist(ring.detach(), points.detach()).square()  # (R, P, V)
    nearest = squares.argmin(dim=2)  # (R, P) vertices
    reached = points.gather(1, nearest[..., None].expand(-1, -1, 2))  # (R, P, 2)
    bare = _beyond((ring - reached).square().sum(-1), REACH_SLACK)

    owner = squares.argmin(dim=1)  # (R, V) outline points
    index = owner[..., None].expand(-1, -1, 2)  # (R, V, 2)
    offset = points - ring.gather(1, index)
    over = (offset * outward_normals(ring).gather(1, index)).sum(-1) - SPILL_SLACK  # (R, V)
    farthest = torch.zeros_like(counted).scatter_reduce(1, owner, over.clamp(min=0), "amax")
    misses = huber_of(bare.square(), bend) + huber_of(farthest.square(), bend)  # (R, P)
    share = counted / counted.sum(dim=1, keepdim=True)
    return reduce_rows(misses * share, None, "sum")


def _beyond(squares: Tensor, slack: float) -> Tensor:
    """Distances, of which so much counts for nothing; their gradient is finite at 0."""
    return squares.clamp(min=slack**2).sqrt() - slack


def outward_normals(ring: Tensor) -> Tensor:
    """(R, P, 2) unit normals of closed outlines at their points, whichever way these run."""
    along = ring.roll(-1, dims=1) - ring.roll(1, dims=1)
    along = along / along.norm(dim=-1, keepdim=True).clamp(min=1e-9)
    following = ring.roll(-1, dims=1)
    area = (ring[..., 0] * following[..., 1] - following[..., 0] * ring[..., 1]).sum(dim=1)
    side = torch.where(area > 0, 1.0, -1.0)[:, None, None]
    return torch.stack([along[..., 1], -along[..., 0]], dim=-1) * side
