"""Every hyper-parameter of the networks, as frozen dataclasses that travel as JSON.

`LightConfig` describes the default network (a mobile backbone), `PaperConfig` the network of
Ge et al., CVPR 2019. Both share `DecoderConfig`, the graph CNN of the paper's Fig. 4.
`DetectorConfig` describes what finds hands for either.
"""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from handmesh.errors import InputError

JOINT_COUNT = 21
# Each halves the picture: 4 << 16 pixels are more than any has.
_DEEPEST = 16

Pooling = Literal["mean", "max"]
Block = Literal["fused", "separable"]
# Fields that are younger than files which name every other one: left out at these values, so that
# the networks of those files are still written as they were.
_YOUNGER = {"pose_pooling": "mean", "uv_from_heatmaps": False}


@dataclass(frozen=True)
class DecoderConfig:
    """Latent vector to mesh to joints: the graph CNN and the linear pose regressor.

    Attributes:
        coarse_features: features of each of the 80 coarsest nodes.
        middle_channels: output channels of the two graph convolutions on 320 nodes.
        fine_channels: output channels of the first graph convolution on 1280 nodes.
        order: number K of Chebyshev terms.
        pose_fine_channels: the regressor's two graph convolutions on 1280 nodes.
        pose_middle_channels: the regressor's two graph convolutions on 320 nodes.
        pose_hidden: width between the regressor's two fully-connected layers. The regressor is
            linear with 63 outputs, so any width of 63 or more describes the same functions.
        pose_template_prior: add the topology's own `joint_regressor` to the regressor's output,
            so that it starts from the template's joints and learns a correction. Still linear.
        pose_pooling: "mean", linear, as the paper says; or "max", as its authors' code has it,
            over padding nodes too.
    """

    coarse_features: int = 64
    middle_channels: tuple[int, int] = (64, 32)
    fine_channels: int = 32
    order: int = 3
    pose_fine_channels: tuple[int, int] = (32, 32)
    pose_middle_channels: tuple[int, int] = (64, 64)
    pose_hidden: int = 512
    pose_template_prior: bool = False
    pose_pooling: Pooling = "mean"

    def __post_init__(self) -> None:
        if self.pose_pooling not in get_args(Pooling):
            raise InputError(f"pose_pooling is mean or max, not {self.pose_pooling!r}")
        if self.pose_pooling == "max" and self.pose_template_prior:
            raise InputError("pose_template_prior is of a linear regressor: pool by mean, not max")


@dataclass(frozen=True)
class StageConfig:
    """One backbone stage: `depth` inverted residuals, the first one with stride 2.

    Attributes:
        block: "fused" expands with a dense convolution (fast at high resolution on a CPU),
            "separable" with a 1x1 convolution followed by a depthwise one.
        channels: output channels.
        depth: number of blocks.
        expansion: hidden channels over input channels.
        kernel: of the spatial convolution.
    """

    block: Block
    channels: int
    depth: int
    expansion: float = 4.0
    kernel: int = 3

    def __post_init__(self) -> None:
        if self.block not in get_args(Block):
            raise InputError(f"block is fused or separable, not {self.block!r}")


@dataclass(frozen=True)
class LightConfig:
    """The `light` network.

    Attributes:
        input_size: side of the square crop, pixels; a multiple of 32.
        stem_channels: of the first convolution, stride 2.
        stages: four stages, with outputs at strides 4, 8, 16 and 32.
        pyramid_channels: width of the decoder at strides 4, 8 and 16, finest first.
        pyramid_kernel: depthwise kernel of the decoder's convolutions.
        pyramid_depth: decoder blocks at each stride, finest first.
        beta: initial sharpness of the soft-argmax; learnt, always positive.
        joint_channels: features gathered at each joint.
        global_channels: channels of the stride-32 map that is flattened into the latent vector.
        latent: width of the hidden fully-connected layer.
        handedness_hidden: width of the hidden layer that tells left from right.
        anchor_to_heatmaps: add each vertex's blend of the heat-maps' joints to its (u, v).
        decoder: graph CNN and pose regressor.
    """

    input_size: int = 128
    stem_channels: int = 16
    stages: tuple[StageConfig, ...] = (
        StageConfig("fused", 24, 2, 2.0),
        StageConfig("fused", 48, 3, 2.0),
        StageConfig("separable", 96, 5, 3.0),
        StageConfig("separable", 160, 3, 4.0),
    )
    pyramid_channels: tuple[int, int, int] = (40, 64, 96)
    pyramid_kernel: int = 3
    pyramid_depth: tuple[int, int, int] = (2, 2, 1)
    beta: float = 20.0
    joint_channels: int = 32
    global_channels: int = 48
    latent: int = 256
    handedness_hidden: int = 64
    anchor_to_heatmaps: bool = True
    decoder: DecoderConfig = field(
        default_factory=lambda: DecoderConfig(pose_hidden=64, pose_template_prior=True)
    )

    name = "light"

    def __post_init__(self) -> None:
        if self.input_size < 32 or self.input_size % 32:
            raise InputError(f"input_size must be a multiple of 32, got {self.input_size}")
        if len(self.stages) != 4:
            raise InputError(f"expected four stages, got {self.stages}")

    @property
    def heatmap_size(self) -> int:
        """Side of the heat-maps: a quarter of the input's."""
        return self.input_size // 4


@dataclass(frozen=True)
class PaperConfig:
    """The `paper` network.

    Attributes:
        input_size: side of the square crop, pixels; a multiple of 64 with the default depths.
        features: width of the hourglasses.
        stacks: number of hourglasses.
        hourglass_depth: down-samplings inside an hourglass.
        residuals_per_position: residual modules at every position of hourglass and encoder.
        encoder_levels: (residuals, max-pool) groups of the residual encoder.
        latent: width of the hidden fully-connected layer.
        decoder: graph CNN and pose regressor.
        uv_from_heatmaps: take the joints' (u, v) from the highest points of the last heat-maps,
            as the authors' code does, and only their depths from the pose regressor.
    """

    input_size: int = 256
    features: int = 256
    stacks: int = 2
    hourglass_depth: int = 4
    residuals_per_position: int = 2
    encoder_levels: int = 4
    latent: int = 512
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    uv_from_heatmaps: bool = False

    name = "paper"

    def __post_init__(self) -> None:
        for name in ("hourglass_depth", "encoder_levels"):
            if getattr(self, name) not in range(_DEEPEST + 1):
                raise InputError(f"{name} must be in 0..{_DEEPEST}, got {getattr(self, name)!r}")
        step = 4 << max(self.hourglass_depth, self.encoder_levels)
        if self.input_size < step or self.input_size % step:
            raise InputError(f"input_size must be a multiple of {step}, got {self.input_size}")

    @property
    def heatmap_size(self) -> int:
        """Side of the heat-maps: a quarter of the input's."""
        return self.input_size // 4


@dataclass(frozen=True)
class DetectorConfig:
    """The `detector` network: where hands are in a photo, from the photo as a small square.

    Attributes:
        input_size: side of the square picture, pixels; a multiple of 32.
        stem_channels: of the first convolution, stride 2.
        stages: four stages, with outputs at strides 4, 8, 16 and 32.
        pyramid_channels: width of the decoder at strides 8 and 16, finest first.
        pyramid_kernel: depthwise kernel of the decoder's convolutions.
        pyramid_depth: decoder blocks at each stride, finest first.
        candidates: how many places the exported graph gives, the surest first.
    """

    input_size: int = 192
    stem_channels: int = 12
    stages: tuple[StageConfig, ...] = (
        StageConfig("fused", 16, 1, 1.5),
        StageConfig("separable", 32, 2, 3.0),
        StageConfig("separable", 64, 3, 3.0),
        StageConfig("separable", 104, 3, 3.0),
    )
    pyramid_channels: tuple[int, int] = (48, 72)
    pyramid_kernel: int = 5
    pyramid_depth: tuple[int, int] = (2, 1)
    candidates: int = 16

    name = "detector"

    def __post_init__(self) -> None:
        if self.input_size < 32 or self.input_size % 32:
            raise InputError(f"input_size must be a multiple of 32, got {self.input_size}")
        if len(self.stages) != 4:
            raise InputError(f"expected four stages, got {self.stages}")
        if not 1 <= self.candidates <= self.grid**2:
            raise InputError(
                f"candidates must be 1 to {self.grid**2}, the cells of the grid, "
                f"got {self.candidates}"
            )

    @property
    def grid(self) -> int:
        """Cells along a side of the output: one for every 8 pixels."""
        return self.input_size // 8


MeshConfig = LightConfig | PaperConfig
NetworkConfig = MeshConfig | DetectorConfig

_NETWORKS: dict[str, type[LightConfig] | type[PaperConfig] | type[DetectorConfig]] = {
    "light": LightConfig,
    "paper": PaperConfig,
    "detector": DetectorConfig,
}


def to_dict(config: NetworkConfig) -> dict[str, Any]:
    """Plain JSON-compatible dictionary with the network's name under `network`."""
    values = {"network": config.name, **asdict(config)}
    for place in (values, values.get("decoder", {})):
        for name, default in _YOUNGER.items():
            if place.get(name) == default:
                del place[name]
    return values


def from_dict(values: dict[str, Any]) -> NetworkConfig:
    """Inverse of `to_dict`; also takes what JSON made of it (lists for tuples).

    Raises:
        InputError: an unknown network, an unknown or a missing field, or a value that is none.
    """
    network = values.get("network") if isinstance(values, dict) else None
    if not isinstance(network, str) or network not in _NETWORKS:
        raise InputError(f"expected a network out of {sorted(_NETWORKS)}, got {network!r}")
    rest = {name: value for name, value in values.items() if name != "network"}
    config: NetworkConfig = _made(_NETWORKS[network], rest, network)
    return config


def _made(kind: type[Any], values: Any, name: str) -> Any:
    """One of the classes above, of what JSON made of it; `name` says where that stands."""
    if not isinstance(values, dict):
        raise InputError(f"{name} must be an object of hyper-parameters, got {values!r}")
    hints = get_type_hints(kind)
    known = sorted(f.name for f in fields(kind))
    unknown = sorted(str(key) for key in values if key not in known)
    if unknown:
        raise InputError(f"{name} has no hyper-parameter {unknown}; it has {known}")
    needed = {f.name for f in fields(kind) if f.default is f.default_factory is MISSING}
    missing = sorted(needed - set(values))
    if missing:
        raise InputError(f"{name} lacks the hyper-parameters {missing}")
    return kind(**{k: _fitting(v, hints[k], f"{name}.{k}") for k, v in values.items()})


def _fitting(value: Any, hint: Any, name: str) -> Any:
    """A value of the type that a field is declared with."""
    if isinstance(hint, type) and is_dataclass(hint):
        return _made(hint, value, name)
    inner = get_args(hint)
    if get_origin(hint) is Literal:
        return value  # the class itself refuses others
    if get_origin(hint) is tuple:
        any_number = inner[-1] is Ellipsis
        if not isinstance(value, (list, tuple)) or not (any_number or len(value) == len(inner)):
            count = "" if any_number else f" of {len(inner)}"
            raise InputError(f"{name} must be a list{count}, got {value!r}")
        kinds = inner[:1] * len(value) if any_number else inner
        parts = enumerate(zip(value, kinds, strict=True))
        return tuple(_fitting(part, each, f"{name}[{i}]") for i, (part, each) in parts)
    allowed = (int, float) if hint is float else hint
    # True is a whole number to Python.
    if not isinstance(value, allowed) or isinstance(value, bool) is not (hint is bool):
        raise InputError(f"{name} must be {hint.__name__}, got {value!r}")
    return value
