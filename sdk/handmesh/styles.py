"""The styles of drawings, apart from the other types: commands name them without NumPy."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["STYLES", "Style"]

Style = Literal["full", "mesh", "skeleton", "wireframe", "depth", "side"]
STYLES: tuple[Style, ...] = get_args(Style)
