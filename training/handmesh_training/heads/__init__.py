"""The paper's ways from a latent vector to a hand, each as a head on the trunk of either network.

- "mesh": the graph CNN and the linear pose regressor; the method itself, `handmesh.nn.build`.
  Trained without the depth map loss it is Baseline 2 of Table 3.
- "joints": Baseline 1 of Table 3 and Fig. 8. Joints alone, by fully-connected layers.
- "transfer": "Full model, task transfer" of Fig. 8. The same head on the frozen trunk of a trained
  full model, see `load_trunk`.
- "lbs": "direct LBS" of Table 2. Trained as "joints"; its mesh is what `skin_joints` makes of them.
- "parametric": in place of "MANO-based" of Table 2. Shape and pose of our hand model.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import nn

from handmesh.errors import InputError
from handmesh.graph import Topology
from handmesh.nn import DetectorConfig, DetectorNetwork, HandNetwork, NetworkConfig, build

from .inverse_kinematics import fit_pose, skin_joints
from .joints import JointsHead
from .network import HeadNetwork, load_trunk
from .parametric import HandParameters, ParametricHead

__all__ = [
    "HandParameters",
    "HeadName",
    "HeadNetwork",
    "JointsHead",
    "ParametricHead",
    "build_network",
    "fit_pose",
    "load_trunk",
    "skin_joints",
]

HeadName = Literal["mesh", "joints", "transfer", "lbs", "parametric"]

_HEADS: dict[str, type[nn.Module]] = {
    "joints": JointsHead,
    "transfer": JointsHead,
    "lbs": JointsHead,
    "parametric": ParametricHead,
}


def build_network(
    config: NetworkConfig, topology: Topology, head: HeadName
) -> HandNetwork | HeadNetwork | DetectorNetwork:
    """A freshly initialised network with the head of that name.

    Seeded alike, all have the same trunk. ``forward(image, heatmaps=None)`` gives a
    `NetworkOutput`, whose vertices are (B, 0, 3) where the head makes joints alone. All have the
    attributes `config`, `head_name` and `pose_regressor` (None but for "mesh"), and iterators
    `trunk_parameters()` and `head_parameters()`. A detector has none of this, and no head.

    Raises:
        InputError: another head.
    """
    if isinstance(config, DetectorConfig):
        return DetectorNetwork(config)
    if head == "mesh":
        return build(config, topology)
    if head not in _HEADS:
        raise InputError(f"expected a head out of {get_args(HeadName)}, got {head!r}")
    return HeadNetwork(config, topology, head, _HEADS[head], trains_trunk=head != "transfer")
