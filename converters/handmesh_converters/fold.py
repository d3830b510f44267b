"""The export twin: from a trained network an equivalent one made for running.

What differs from the network that was trained:

- uint8 RGB crops in; normalisation and sigmoids inside; the outputs of the artifact contract;
- batch norm folded (in float64) into the convolution before it, in the trunk and on the graph;
- graph convolutions as constants, in the form that was asked for (see `forms`);
- the linear pose regressor as one affine map of the vertices, which also gives the wrist's depth
  that is subtracted from all others; one with max pooling stays a graph CNN of four convolutions;
- vertices in the template's order, without padding nodes or a permutation of them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from handmesh.errors import ExportError
from handmesh.nn import LightNetwork, PaperNetwork
from handmesh.nn.blocks import scores
from handmesh.nn.config import JOINT_COUNT
from handmesh.nn.graph_head import GraphHead, MaxPoseRegressor
from handmesh.nn.graph_layers import POOLING, ChebConv, NodeLevel

from .forms import ConvSpec, GraphForm, Recurrence

__all__ = ["INPUT", "OUTPUTS", "ExportTwin", "FoldedHead", "Network", "Twin", "fold", "fold_norms"]

INPUT = "image"
OUTPUTS = ("vertices", "joints", "confidence", "presence", "handedness")

Network = LightNetwork | PaperNetwork

_WRIST_DEPTH = 2  # row of coordinate d of joint 0 in the pose regressor's output
# Added to (u, v, d) where vertices are not anchored to joints: the crop's middle.
_MIDDLE = (0.5, 0.5, 0.0)


class FoldedHead(nn.Module):
    """`handmesh.nn.graph_head.GraphHead` for running, with the same signature.

    Args:
        head: trained; only read.
        form: of the graph convolutions.
        anchored: whether `forward` will be given joints, as the network's own head is.
    """

    row_of_vertex: Tensor
    blend: Tensor

    def __init__(self, head: GraphHead, form: GraphForm, anchored: bool) -> None:
        super().__init__()
        decoder = head.decoder
        self.nodes, self.features = decoder.coarse_count, decoder.coarse_features
        self.anchored = anchored
        self.expand = copy.deepcopy(decoder.expand)
        specs = [
            _spec(decoder.block1.conv, decoder.middle, decoder.block1.norm, unpool=True),
            _spec(decoder.block2.conv, decoder.middle, decoder.block2.norm),
            _spec(decoder.block3.conv, decoder.fine, decoder.block3.norm, unpool=True),
            _spec(decoder.out, decoder.fine, offset=None if anchored else _MIDDLE),
        ]
        self.convolutions = nn.ModuleList(form.convolution(spec) for spec in specs)
        self.register_buffer("row_of_vertex", decoder.row_of_vertex.clone(), persistent=False)
        self.register_buffer("blend", head.blend.clone(), persistent=False)
        regressor = head.pose_regressor
        self.joints: nn.Module = (
            _MaxPose(regressor, form)
            if isinstance(regressor, MaxPoseRegressor)
            else _centred(*copy.deepcopy(regressor).cpu().double().affine())
        )

    def forward(self, latent: Tensor, joints_uv: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latent (B, F) and joints (B, 21, 2) to vertices (B, V, 3) and joints (B, 21, 3)."""
        return self.pose(self.surface(latent, joints_uv))

    def surface(self, latent: Tensor, joints_uv: Tensor | None = None) -> Tensor:
        """The graph CNN alone: vertices (B, V, 3) whose depths are not from the wrist yet."""
        x = self.expand(latent).unflatten(1, (self.nodes, self.features))  # (B, 80, 64)
        *hidden, last = self.convolutions
        for convolution in hidden:
            x = F.relu(convolution(x))  # (B, 291, 64), (B, 291, 32), (B, 1036, 32)
        vertices: Tensor = last(x).index_select(1, self.row_of_vertex)  # (B, V, 3)
        if joints_uv is not None:
            vertices = vertices + self.blend @ F.pad(joints_uv, (0, 1))
        return vertices

    def pose(self, vertices: Tensor) -> tuple[Tensor, Tensor]:
        """The pose regressor alone, on what `surface` gives: as `forward`."""
        mapped = self.joints(vertices.flatten(1)).unflatten(1, (JOINT_COUNT + 1, 3))
        return vertices - mapped[:, JOINT_COUNT:], mapped[:, :JOINT_COUNT]


class _MaxPose(nn.Module):
    """`MaxPoseRegressor` for running: vertices (B, V * 3) to what `_centred` gives, (B, 66)."""

    children_of_middle: Tensor
    children_of_coarse: Tensor

    def __init__(self, regressor: MaxPoseRegressor, form: GraphForm) -> None:
        super().__init__()
        fine, middle = regressor.fine, regressor.middle
        # Taking the vertices in the nodes' order is what a convolution otherwise unpools by.
        order = regressor.vertex_of_row.cpu().numpy()
        specs = [
            _spec(regressor.conv1, fine, parents=order),
            _spec(regressor.conv2, fine),
            _spec(regressor.conv3, middle, parents=np.arange(middle.node_count)),
            _spec(regressor.conv4, middle),
        ]
        self.convolutions = nn.ModuleList(form.convolution(spec) for spec in specs)
        for name in ("children_of_middle", "children_of_coarse"):
            self.register_buffer(name, getattr(regressor, name).flatten(), persistent=False)
        fc1, fc2 = (copy.deepcopy(fc).cpu().double() for fc in (regressor.fc1, regressor.fc2))
        self.last = _centred(
            (fc2.weight @ fc1.weight).detach(), (fc2.weight @ fc1.bias + fc2.bias).detach()
        )

    def forward(self, vertices: Tensor) -> Tensor:
        conv1, conv2, conv3, conv4 = self.convolutions
        x = F.pad(vertices.unflatten(1, (-1, 3)), (0, 0, 0, 1))  # (B, V + 1, 3)
        x = _max_of_four(conv2(conv1(x)), self.children_of_middle)
        x = _max_of_four(conv4(conv3(x)), self.children_of_coarse)
        y: Tensor = self.last(x.flatten(1))
        return y


def _max_of_four(x: Tensor, children: Tensor) -> Tensor:
    """Node features (B, M, C), the children (P * 4,) of P nodes: (B, P, C)."""
    return x.index_select(1, children).unflatten(1, (-1, POOLING)).amax(dim=2)


class Twin(nn.Module):
    """A network in its running form: what formats export.

    Attributes:
        network: the folded network, which takes pictures (N, 3, S, S) in -0.5..0.5.
        image_size: S, in pixels.
        outputs: names of what is given.
    """

    outputs: Sequence[str]

    def __init__(self, network: nn.Module, image_size: int) -> None:
        super().__init__()
        self.network = network
        self.image_size = image_size

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """RGB pictures (N, S, S, 3) uint8 to what `outputs` names."""
        # Cast first: TensorRT takes bytes as input of a cast alone.
        return self.of_normalised(image.float().permute(0, 3, 1, 2) / 255.0 - 0.5)

    def of_normalised(self, x: Tensor) -> tuple[Tensor, ...]:
        """As `forward`, of pictures as the network takes them."""
        raise NotImplementedError


class ExportTwin(Twin):
    """A network of meshes in its running form. Made by `fold`.

    Its outputs are all float32: vertices (N, V, 3) and joints (N, 21, 3), (u, v, d); confidence
    (N, 21), presence (N,) and handedness (N,) in 0..1. Handedness is 1 where the network has no
    such head.

    Attributes:
        network: the folded network; its forward is the trained one's.
        form: of its graph convolutions.
    """

    network: Network
    outputs = OUTPUTS

    def __init__(self, network: Network, form: GraphForm) -> None:
        super().__init__(network, network.config.input_size)
        self.form = form

    @property
    def head(self) -> FoldedHead:
        """The folded graph head."""
        return cast(FoldedHead, self.network.head)

    def of_normalised(self, x: Tensor) -> tuple[Tensor, ...]:
        output = self.network(x)
        return output.vertices, output.joints, *scores(output)


@torch.inference_mode(False)  # the pose regressor's map is found by differentiating it
def fold(network: Network, form: GraphForm | None = None) -> ExportTwin:
    """The export twin of a network, which is left as it is.

    Args:
        network: trained, in any mode.
        form: of the graph convolutions; by default the recurrence.

    Raises:
        ExportError: not a network that this knows, or one with weights that are not finite.
    """
    if not isinstance(network, LightNetwork | PaperNetwork):
        raise ExportError(
            f"expected a LightNetwork or PaperNetwork, got {type(network).__name__}; build one "
            "with handmesh.nn.build"
        )
    for name, tensor in network.state_dict().items():
        if not tensor.isfinite().all():
            raise ExportError(f"weight {name!r} is not finite; export an earlier checkpoint")
    form = Recurrence() if form is None else form
    twin = copy.deepcopy(network).cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    anchored = isinstance(network, LightNetwork) and network.config.anchor_to_heatmaps
    head = FoldedHead(twin.head, form, anchored)
    twin.head = cast(GraphHead, head)  # the same signature
    fold_norms(twin)
    return ExportTwin(twin, form).eval().requires_grad_(False)


def fold_norms(network: nn.Module) -> None:
    """Fold each batch norm that directly follows a convolution into it, in float64."""
    for module in network.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for i in range(len(module) - 1):
            conv, norm = module[i], module[i + 1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                fused = fuse_conv_bn_eval(conv.double().eval(), norm.double().eval())
                module[i], module[i + 1] = fused.float(), nn.Identity()


def _spec(
    conv: ChebConv,
    level: NodeLevel,
    norm: nn.BatchNorm1d | None = None,
    unpool: bool = False,
    offset: tuple[float, ...] | None = None,
    parents: NDArray[np.int64] | None = None,
) -> ConvSpec:
    """A convolution's numbers, with the norm after it and a constant offset folded in.

    Each node's input is that of its parent with `unpool`, of any node by `parents`.
    """
    weight = conv.weight.detach().double().view(conv.channels_out, conv.order, conv.channels_in)
    theta = _array(weight.permute(1, 2, 0))  # (K, C_in, C_out)
    bias = np.zeros(conv.channels_out) if conv.bias is None else _array(conv.bias)
    if norm is not None:
        mean, variance = (
            _array(cast(Tensor, norm.running_mean)),
            _array(cast(Tensor, norm.running_var)),
        )
        scale = _array(norm.weight) / np.sqrt(variance + norm.eps)
        theta, bias = theta * scale, _array(norm.bias) + (bias - mean) * scale
    if offset is not None:
        bias = bias + np.array(offset)
    laplacian = _array(level.laplacian().to_dense())
    if unpool:
        parents = level.parents.cpu().numpy().astype(np.int64)
    return ConvSpec(laplacian, theta, bias, parents)


def _centred(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Of a map to joints, weight (63, N) and bias (63,), the one to joints with the wrist's depth
    at 0, and the vector to subtract from every point, (0, 0, wrist depth): (B, N) to (B, 66)."""
    joined = torch.cat([weight, bias[:, None]], dim=1)
    wrist = torch.zeros_like(joined[:3])
    wrist[2] = joined[_WRIST_DEPTH]
    centred = joined - wrist.repeat(JOINT_COUNT, 1)
    both = torch.cat([centred, wrist])  # (66, N + 1)
    linear = nn.Linear(both.shape[1] - 1, both.shape[0])
    linear.weight.data, linear.bias.data = both[:, :-1].float(), both[:, -1].float()
    return linear


def _array(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.detach().cpu().double().numpy()
