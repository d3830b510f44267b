"""Checkpoints of the paper's authors' layout, brought by their owner, as our `paper` network.

The layout is that of the state dicts which the code of Ge et al., CVPR 2019, saves: one file for
the heat-maps, one for features and mesh, one for the pose; with them belongs the graph they were
trained on. None of these files is this project's, and none comes with it.
"""

from __future__ import annotations

from .graph import Scaling, read_graph
from .weights import AUTHORS, Channels, import_network

__all__ = ["AUTHORS", "Channels", "Scaling", "import_network", "read_graph"]
