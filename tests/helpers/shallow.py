"""The `light` network with all of its parts, each of them once."""

from __future__ import annotations

import dataclasses

from handmesh.nn import LightConfig


def shallow_light() -> LightConfig:
    """As wide as the default and a fraction as deep.

    Exporters take their time by operators, and weights are as large as they are shipped.
    """
    default = LightConfig()
    return dataclasses.replace(
        default,
        input_size=64,
        stages=tuple(dataclasses.replace(stage, depth=1) for stage in default.stages),
        pyramid_depth=(1, 1, 1),
    )
