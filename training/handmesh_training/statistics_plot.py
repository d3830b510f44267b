"""Statistics of rendered samples as one picture."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .gestures.library import default_library
from .rendering.skins import skin_tones
from .statistics import Coverage, cell_counts, joint_names

COLOUR = "#3b6ea8"


def plot(coverage: Coverage) -> bytes:
    """A PNG: views on the sphere, rolls, bends, skin tones, distances, sizes and gestures."""
    figure = Figure(figsize=(16, 12), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(3, 3, width_ratios=(1.15, 1, 1))
    empty = f"{coverage.empty_share:.1%} more samples show none"
    figure.suptitle(f"{len(coverage):,} rendered hands ({empty})", fontsize=14)
    _views(figure.add_subplot(grid[0, :2], projection="mollweide"), coverage)
    _rolls(figure.add_subplot(grid[0, 2], projection="polar"), coverage)
    _bends(figure.add_subplot(grid[1:, 0]), coverage)
    _tones(figure.add_subplot(grid[1, 1]), coverage)
    _gestures(figure.add_subplot(grid[1, 2]), coverage)
    inner = grid[2, 1:].subgridspec(1, 3)
    for place, (values, title) in enumerate(
        (
            (coverage.distance_m, "distance of the hand, m"),
            (coverage.crop_fov_deg, "field of view of the crop, degrees"),
            (coverage.hand_length_m * 100, "wrist to middle tip, cm"),
        )
    ):
        axes = figure.add_subplot(inner[0, place])
        axes.hist(values, 40, color=COLOUR)
        axes.set_title(title)
        axes.set_yticks([])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return buffer.getvalue()


def _views(axes: Axes, coverage: Coverage) -> None:
    counts = cell_counts(coverage.view_deg)
    rows, columns = counts.shape
    latitude = np.arcsin(np.linspace(-1, 1, rows + 1))
    longitude = np.linspace(-np.pi, np.pi, columns + 1)
    shown = axes.pcolormesh(longitude, latitude, counts, cmap="viridis", vmin=0)
    points = np.deg2rad(coverage.view_deg[:3000])
    axes.scatter(points[:, 0], points[:, 1], s=1, color="white", alpha=0.35, linewidths=0)
    axes.set_xticks(
        np.deg2rad([-135, -90, -45, 0, 45, 90, 135]),
        ["", "little finger's\nside", "", "palm", "", "thumb's\nside", ""],
        color="white",
    )
    axes.set_yticks(np.deg2rad([-60, -30, 0, 30, 60]))
    axes.grid(alpha=0.25)
    seen = int((counts > 0).sum())
    axes.set_title(
        f"where the camera stands, north = finger tips; hands in cells of equal area, {seen} of "
        f"{counts.size} seen"
    )
    axes.figure.colorbar(shown, ax=axes, shrink=0.7)


def _rolls(axes: Axes, coverage: Coverage) -> None:
    counts, edges = np.histogram(np.deg2rad(coverage.roll_deg), 36, (-np.pi, np.pi))
    axes.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=COLOUR)
    axes.set_theta_zero_location("N")  # type: ignore[attr-defined]
    axes.set_theta_direction(-1)  # type: ignore[attr-defined]
    axes.set_yticks([])
    axes.set_title("direction of the hand in the picture")


def _bends(axes: Axes, coverage: Coverage) -> None:
    bends = coverage.bend_deg.reshape(len(coverage), -1)  # (N, 15)
    rows = [np.histogram(values, 60, (0, 120))[0] / len(values) for values in bends.T]
    axes.imshow(np.sqrt(np.array(rows)), aspect="auto", extent=(0, 120, 14.5, -0.5), cmap="magma")
    axes.set_yticks(range(15), list(joint_names()))
    axes.set_xlabel("degrees")
    axes.set_title("bend of each joint (brightness: root of the share)")


def _tones(axes: Axes, coverage: Coverage) -> None:
    counts = np.bincount(coverage.skin_tone, minlength=11)[1:]
    shown = np.clip(skin_tones(), 0, 1) ** (1 / 2.2)
    axes.bar(range(1, 11), counts / len(coverage), color=shown, edgecolor="grey")
    axes.set_xticks(range(1, 11))
    axes.set_title("skin: nearest tone of the Monk scale, share")


def _gestures(axes: Axes, coverage: Coverage) -> None:
    library = default_library()
    known = coverage.gesture[coverage.gesture >= 0]
    kinds, counts = np.unique(np.array(library.kinds)[known], return_counts=True)
    order = np.argsort(counts)
    names = [*(str(kind) for kind in kinds[order]), "transition or free"]
    heights = [*counts[order], len(coverage) - len(known)]
    axes.barh(names, np.array(heights) / len(coverage), color=COLOUR)
    axes.set_title(f"gestures by kind, share; {len(np.unique(known))} of {len(library)} seen")
