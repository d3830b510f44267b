"""Points and line segments."""

from __future__ import annotations

from torch import Tensor


def segment_distances(points: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """(N,) distances of points (N, 3) to the segment from start (3,) to end (3,), in their unit."""
    line = end - start
    along = ((points - start) @ line / (line @ line).clamp(min=1e-30)).clamp(0, 1)
    return (points - start - along[:, None] * line).norm(dim=1)
