"""Points and line segments."""

from __future__ import annotations

from torch import Tensor


def nearest_on_segment(points: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """(N, 3) points of the segment from start (3,) to end (3,) nearest to points (N, 3)."""
    line = end - start
    along = ((points - start) @ line / (line @ line).clamp(min=1e-30)).clamp(0, 1)
    return start + along[:, None] * line


def segment_distances(points: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """(N,) distances of points (N, 3) to the segment from start (3,) to end (3,), in their unit."""
    return (points - nearest_on_segment(points, start, end)).norm(dim=1)
